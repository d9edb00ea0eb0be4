"""Attention of packed sequences.

Dimension letters: B batch, Hq query heads, Hkv key/value heads, Sq and Sk query and key lengths,
D head dimension of query and key, Dv of value, T tokens of all sequences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import numpy.typing as npt

from .. import _core
from ._arrays import (
    Array,
    as_attention_floats,
    as_cu_seqlens,
    describe,
    output,
    rows_contiguous,
    sum_dtype,
)
from ._options import NO_WINDOW, MaskOptions, kernel_options
from ._shapes import check_head_dims, check_heads

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import Window


@overload
def attention_varlen(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    cu_seqlens_q: npt.ArrayLike,
    cu_seqlens_k: npt.ArrayLike | None = ...,
    *,
    return_lse: Literal[False] = ...,
    out: Array | None = ...,
    **options: Unpack[MaskOptions],
) -> Array: ...
@overload
def attention_varlen(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    cu_seqlens_q: npt.ArrayLike,
    cu_seqlens_k: npt.ArrayLike | None = ...,
    *,
    return_lse: Literal[True],
    out: Array | None = ...,
    **options: Unpack[MaskOptions],
) -> tuple[Array, Array]: ...
def attention_varlen(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    cu_seqlens_q: npt.ArrayLike,
    cu_seqlens_k: npt.ArrayLike | None = None,
    *,
    is_causal: bool = False,
    query_offset: npt.ArrayLike | None = None,
    window: Window = NO_WINDOW,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: npt.ArrayLike | None = None,
    sinks: npt.ArrayLike | None = None,
    return_lse: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """Attention of several sequences of different lengths, packed one after the other.

    Sequence b owns the tokens ``cu_seqlens_q[b]:cu_seqlens_q[b + 1]`` of the query and
    ``cu_seqlens_k[b]:cu_seqlens_k[b + 1]`` of key and value; nothing is padded. Sequences may be
    empty.

    Parameters
    ----------
    query : array, shape (Tq, Hq, D)
    key : array, shape (Tk, Hkv, D)
    value : array, shape (Tk, Hkv, Dv)
    cu_seqlens_q : array of int, shape (B + 1,)
        Cumulative lengths: 0 first, Tq last.
    cu_seqlens_k : array of int, shape (B + 1,), optional
        `cu_seqlens_q` by default.
    is_causal, query_offset, window, scale, softcap, alibi_slopes, sinks, return_lse
        As for :func:`attention`.
    out : array, shape (Tq, Hq, Dv), optional

    Returns
    -------
    out : array, shape (Tq, Hq, Dv)
    lse : array, shape (Hq, Tq)
        Only with `return_lse`.

    Raises
    ------
    TypeError
        If a dtype is not one that :func:`attention` takes, or differs between the arrays.
    ValueError
        If shapes do not fit each other, cumulative lengths do not fit the tokens, or an option is
        out of range.

    Notes
    -----
    The layout is that of flash-attn's ``flash_attn_varlen_func``. Each sequence has the same bits
    as it has alone in :func:`attention`.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> x = np.ones((5, 2, 4), dtype=np.float32)
    >>> hw.attention_varlen(x, x, x, [0, 3, 5]).shape
    (5, 2, 4)
    """
    q, k, v = as_attention_floats(query=query, key=key, value=value)
    for name, x, axes in (("query", q, "Tq, Hq"), ("key", k, "Tk, Hkv"), ("value", v, "Tk, Hkv")):
        if x.ndim != 3:
            last = "Dv" if name == "value" else "D"
            raise ValueError(f"{name} has shape {describe(x.shape)}: it must be ({axes}, {last})")
    check_heads(q.shape[1], k.shape[1], v.shape[1])
    check_head_dims(q, k, v)
    if v.shape[0] != k.shape[0]:
        raise ValueError(f"value has {v.shape[0]} tokens but key has {k.shape[0]}")
    starts_q = as_cu_seqlens("cu_seqlens_q", cu_seqlens_q, q.shape[0])
    if cu_seqlens_k is None:
        if k.shape[0] != q.shape[0]:
            raise ValueError(
                f"key has {k.shape[0]} tokens but query has {q.shape[0]}: "
                "cu_seqlens_k must be given"
            )
        starts_k = starts_q
    else:
        starts_k = as_cu_seqlens("cu_seqlens_k", cu_seqlens_k, k.shape[0])
    if len(starts_k) != len(starts_q):
        raise ValueError(
            f"cu_seqlens_k has {len(starts_k)} entries but cu_seqlens_q has {len(starts_q)}"
        )
    options = kernel_options(
        batch=(len(starts_q) - 1,),
        heads=q.shape[1],
        queries=np.diff(starts_q),
        keys=np.diff(starts_k),
        head_dim=q.shape[2],
        dtype=q.dtype,
        is_causal=is_causal,
        query_offset=query_offset,
        window=window,
        scale=scale,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        sinks=sinks,
    )
    inputs = [q, k, v, starts_q, starts_k, *options.vectors()]
    result = output(out, (*q.shape[:2], v.shape[2]), q.dtype, *inputs)
    lse = np.empty((q.shape[1], q.shape[0]), sum_dtype(q.dtype)) if return_lse else None
    _core.attention(
        _core.OUTPUT,
        rows_contiguous(q),
        rows_contiguous(k),
        rows_contiguous(v),
        result,
        None if lse is None else lse.T,
        starts_q,
        starts_k,
        *options,
    )
    return result if lse is None else (result, lse)
