"""Scaled dot-product attention.

Dimension letters: B batch, Hq query heads, Hkv key/value heads, Sq and Sk query and key lengths,
D head dimension of query and key, Dv of value, T tokens of all sequences of a packed batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, overload

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
from ._options import (
    MAX_HEAD_DIM,
    NO_WINDOW,
    DenseOptions,
    KernelOptions,
    MaskOptions,
    kernel_options,
)
from .cache import KVCache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from ._options import Window


_FAR = 2**62  # so that no row of any array overflows a position


@overload
def attention(
    query: npt.ArrayLike,
    key: npt.ArrayLike | KVCache,
    value: npt.ArrayLike | None = ...,
    *,
    return_lse: Literal[False] = ...,
    out: Array | None = ...,
    **options: Unpack[DenseOptions],
) -> Array: ...
@overload
def attention(
    query: npt.ArrayLike,
    key: npt.ArrayLike | KVCache,
    value: npt.ArrayLike | None = ...,
    *,
    return_lse: Literal[True],
    out: Array | None = ...,
    **options: Unpack[DenseOptions],
) -> tuple[Array, Array]: ...
def attention(
    query: npt.ArrayLike,
    key: npt.ArrayLike | KVCache,
    value: npt.ArrayLike | None = None,
    *,
    attn_mask: npt.ArrayLike | None = None,
    is_causal: bool = False,
    query_offset: npt.ArrayLike | None = None,
    window: Window = NO_WINDOW,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: npt.ArrayLike | None = None,
    sinks: npt.ArrayLike | None = None,
    key_lengths: npt.ArrayLike | None = None,
    return_lse: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """Compute softmax(scale Q Kᵀ) V without ever holding the matrix Q Kᵀ.

    The bits of one (batch, head, query) row of the result do not depend on the batch it is in, on
    strides, on padding hidden by `key_lengths`, on how queries are cut into calls, or on the number
    of threads.

    Parameters
    ----------
    query : array, shape (..., Hq, Sq, D)
        float32, float64, float16, or bfloat16 of the package ml_dtypes; `key` and `value` must have
        the same dtype. Anything with ``__array__``, the buffer protocol or DLPack on the CPU is
        read without a copy. A 2-D (Sq, D) array is one head. D is 1 to 512. Any strides; an array
        whose last axis is not contiguous is copied.
    key : array, shape (..., Hkv, Sk, D), or KVCache
        Hq must be a multiple of Hkv: query head h reads key head ``h // (Hq // Hkv)``. The leading
        dimensions of the three arrays broadcast. A :class:`KVCache` holds the values too.
    value : array, shape (..., Hkv, Sk, Dv)
    attn_mask : array, broadcastable to (..., Hq, Sq, Sk), optional
        Boolean: True where a query attends a key. Or float, in the dtype of the query (float32 also
        with 16-bit queries): added to the scores, and -inf masks a key. It is read through its
        strides, never expanded; where a block of it is all masked, nothing is computed.
    is_causal : bool
        Query i attends keys ``j <= i + query_offset`` only.
    query_offset : int or array of int, optional
        The position of the first query on the key axis, for all or for each batch entry. It may be
        negative or past the end. By default the queries are the last ones: ``Sk - Sq``, or
        ``key_lengths - Sq``. 0 aligns the first query with the first key, as torch does.
    window : (int or None, int or None)
        Query i attends keys from ``i + query_offset - left`` to ``i + query_offset + right``, both
        included; None is no bound. The time is in proportion to the window.
    scale : float, optional
        ``1 / sqrt(D)`` by default.
    softcap : float, optional
        Scores become ``softcap * tanh(score / softcap)``, before masks and ALiBi.
    alibi_slopes : array, shape (Hq,) or (..., Hq), optional
        ``slope * |i + query_offset - j|`` is taken from the score of query i and key j.
    sinks : array, shape (Hq,), optional
        One further logit a head: its exponential joins the denominator, and `lse`.
    key_lengths : array of int, shape (...,), optional
        How many keys of each batch entry are real. The others are not read.
    return_lse : bool
        Also return the logarithm of the sum of exponentials.
    out : array, shape (..., Hq, Sq, Dv), optional
        Where to write the result; it must not overlap an input.

    Returns
    -------
    out : array, shape (..., Hq, Sq, Dv)
        In the dtype of the query. A query that attends no key gives 0.
    lse : array, shape (..., Hq, Sq)
        Only with `return_lse`: natural logarithm, float32 (float64 for float64); for a query that
        attends no key -inf, or its head's sink.

    Raises
    ------
    TypeError
        If a dtype is not one of those above, or differs between the arrays.
    ValueError
        If shapes do not fit each other, or an option is out of range.

    Notes
    -----
    The formula is that of Vaswani et al., "Attention Is All You Need" (2017); it is computed by
    blocks with an online softmax (Dao et al., "FlashAttention", 2022). Sums and softmax are in
    float32 (float64 for float64). bfloat16 is multiplied as it is where the CPU can, with
    probabilities rounded to bfloat16, and else widened, as float16 is. ALiBi is by Press et al.
    (2022). bfloat16 values below 1.2e-38 may count as 0, as that instruction has it. Memory beyond
    the inputs and the output is less than 2 MB a thread, whatever the lengths. Ctrl-C ends a call
    within a few hundredths of a second.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> e = np.array([[1, 2], [3, 1], [2, 3]], dtype=np.float32)
    >>> hw.attention(e, e, e, scale=1.0).round(3)
    array([[2.   , 2.864],
           [2.723, 1.54 ],
           [2.011, 2.958]], dtype=float32)
    """
    if (
        attn_mask is query_offset is scale is softcap is alibi_slopes is sinks is None
        and key_lengths is out is None
        and window is NO_WINDOW
        and not return_lse
    ):
        plain = _core.plain_attention(query, key, value, is_causal)
        if plain is not None:
            return plain
    if isinstance(key, KVCache):
        if value is not None or key_lengths is not None:
            name = "value" if value is not None else "key_lengths"
            raise ValueError(f"{name} must be None when key is a KVCache, which holds it")
        key_lengths = key.lengths
        arrays = {"query": query, "key": key.key, "value": key.value}
    elif value is None:
        raise TypeError("value is None: it may be missing only when key is a KVCache")
    else:
        arrays = {"query": query, "key": key, "value": value}
    q, k, v = as_attention_floats(**arrays)
    batch, shape = _check_dense(q, k, v)
    options = kernel_options(
        batch=batch,
        heads=shape[-3] if len(shape) > 2 else 1,
        queries=shape[-2],
        keys=k.shape[-2],
        head_dim=shape[-1],
        dtype=q.dtype,
        is_causal=is_causal,
        query_offset=query_offset,
        window=window,
        scale=scale,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        sinks=sinks,
        key_lengths=key_lengths,
        attn_mask=attn_mask,
    )
    inputs = (q, k, v) if attn_mask is None else (q, k, v, np.asarray(options.attn_mask))
    result = output(out, (*shape[:-1], v.shape[-1]), q.dtype, *inputs)
    lse = np.empty(shape[:-1], sum_dtype(q.dtype)) if return_lse else None
    _core.attention(
        _core.OUTPUT,
        _dense(q, batch),
        _dense(k, batch),
        _dense(v, batch),
        target := _as_4d(result),
        None if lse is None else _as_4d(lse[..., None]),
        None,
        None,
        *options,
    )
    if not np.may_share_memory(target, result):  # an `out` whose leading axes do not merge
        result[...] = target.reshape(result.shape)
    return result if lse is None else (result, lse)


def attention_weights(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    *,
    attn_mask: npt.ArrayLike | None = None,
    is_causal: bool = False,
    query_offset: npt.ArrayLike | None = None,
    window: Window = NO_WINDOW,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: npt.ArrayLike | None = None,
    sinks: npt.ArrayLike | None = None,
    key_lengths: npt.ArrayLike | None = None,
    heads: int | Sequence[int] | None = None,
    rows: int | slice | Sequence[int] | None = None,
    column_sums: bool = False,
) -> Array:
    """Compute the attention probabilities softmax(scale Q Kᵀ) themselves.

    Parameters
    ----------
    query : array, shape (..., Hq, Sq, D)
    key : array, shape (..., Hkv, Sk, D)
    attn_mask, is_causal, query_offset, window, scale, softcap, alibi_slopes, sinks, key_lengths
        As for :func:`attention`.
    heads : int or sequence of int, optional
        The query heads wanted, in this order; all by default.
    rows : int, slice or sequence of int, optional
        The queries wanted, in this order; all by default.
    column_sums : bool
        Return how much attention each key gets in all: the sum over the rows. The matrix is never
        held.

    Returns
    -------
    array, shape (..., Hq, Sq, Sk)
        Each row sums to 1 (less with `sinks`), or is 0 if its query attends no key. This matrix is
        what :func:`attention` never holds: it takes Hq Sq Sk elements, fewer with `heads` and
        `rows`. With `column_sums`, shape (..., Hq, Sk), float32 (float64 for float64).

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> e = np.array([[1, 2], [3, 1], [2, 3]], dtype=np.float32)
    >>> hw.attention_weights(e, e, scale=1.0, is_causal=True).round(3)
    array([[1.   , 0.   , 0.   ],
           [0.007, 0.993, 0.   ],
           [0.007, 0.018, 0.976]], dtype=float32)
    >>> hw.attention_weights(e, e, scale=1.0, is_causal=True, column_sums=True).round(3)
    array([1.013, 1.011, 0.976], dtype=float32)
    """
    q, k = as_attention_floats(query=query, key=key)
    batch, shape = _check_dense(q, k, None)
    options = kernel_options(
        batch=batch,
        heads=shape[-3] if len(shape) > 2 else 1,
        queries=shape[-2],
        keys=k.shape[-2],
        head_dim=shape[-1],
        dtype=q.dtype,
        is_causal=is_causal,
        query_offset=query_offset,
        window=window,
        scale=scale,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        sinks=sinks,
        key_lengths=key_lengths,
        attn_mask=attn_mask,
    )
    q4, k4 = _dense(q, batch), _dense(k, batch)
    chosen_heads = _chosen("heads", heads, q4.shape[1])
    chosen_rows = _chosen("rows", rows, q4.shape[2])
    keys = (k4.shape[2],)
    size = q4.shape[0], len(chosen_heads), len(chosen_rows)
    if column_sums:
        result = np.zeros((*size[:2], 1, *keys), sum_dtype(q.dtype))
    else:
        result = np.empty((*size, *keys), q.dtype)
    for out_heads, from_heads in _runs(chosen_heads):
        for out_rows, from_rows in _runs(chosen_rows):
            part = (
                np.empty_like(result[:, out_heads])
                if column_sums
                else result[:, out_heads, out_rows]
            )
            _weights_of(q4, k4, options, from_heads, from_rows, part, column_sums)
            if column_sums:
                result[:, out_heads] += part
    leading = shape[:-3] if len(shape) > 2 else ()
    one_head = len(shape) == 2 and heads is None
    final = leading + (() if one_head else size[1:2]) + (() if column_sums else size[2:]) + keys
    return result.reshape(final)


def _weights_of(
    q: Array,
    k: Array,
    options: KernelOptions,
    heads: slice,
    rows: slice,
    out: Array,
    column_sums: bool,
) -> None:
    """Fill out with the weights of adjacent heads and rows."""
    group = q.shape[1] // k.shape[1] if k.shape[1] else 1
    first, last = heads.start // group, (heads.stop - 1) // group
    if first != last and (heads.start % group or heads.stop % group):
        for head in range(heads.start, heads.stop):  # the run shares key heads unevenly
            at = slice(head - heads.start, head - heads.start + 1)
            _weights_of(q, k, options, slice(head, head + 1), rows, out[:, at], column_sums)
        return

    def of_heads(x: Array | None) -> Array | None:
        return None if x is None else np.ascontiguousarray(x[..., heads])

    mask = options.attn_mask
    offsets = options.query_offsets
    _core.attention(
        _core.COLUMN_SUMS if column_sums else _core.WEIGHTS,
        q[:, heads, rows],
        k[:, first : last + 1],
        None,
        out,
        None,
        None,
        None,
        *options._replace(
            query_offsets=None if offsets is None else np.clip(offsets, -_FAR, _FAR) + rows.start,
            attn_mask=None if mask is None else mask[:, heads, rows],
            alibi_slopes=of_heads(options.alibi_slopes),
            sinks=of_heads(options.sinks),
        ),
    )


def _chosen(name: str, given: Any, size: int) -> list[int]:
    """Return the indices meant, all in 0 .. size - 1."""
    if given is None:
        return list(range(size))
    if isinstance(given, slice):
        return list(range(size)[given])
    indices = np.atleast_1d(np.asarray(given))
    if indices.size and (indices.dtype.kind not in "iu" or indices.ndim != 1):
        raise TypeError(f"{name} is {given!r}: it must be an integer or a sequence of integers")
    for i in indices.tolist():
        if not -size <= i < size:
            raise ValueError(f"{name} holds {i}: it must be {-size} to {size - 1}")
    return [i % size for i in indices.tolist()]


def _runs(indices: list[int]) -> list[tuple[slice, slice]]:
    """Cut indices into runs of adjacent ones: where each goes, and where it comes from."""
    runs = []
    begin = 0
    for end in range(1, len(indices) + 1):
        if end == len(indices) or indices[end] != indices[end - 1] + 1:
            runs.append((slice(begin, end), slice(indices[begin], indices[end - 1] + 1)))
            begin = end
    return runs


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
    _check_heads(q.shape[1], k.shape[1], v.shape[1])
    _check_head_dims(q, k, v)
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
    result = output(out, (*q.shape[:2], v.shape[2]), q.dtype, q, k, v)
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


def _check_dense(q: Array, k: Array, v: Array | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the broadcast batch shape, and the query's shape with it."""
    named = {"query": q, "key": k} if v is None else {"query": q, "key": k, "value": v}
    for name, x in named.items():
        if x.ndim < 2:
            raise ValueError(
                f"{name} has shape {describe(x.shape)}: it must be (..., heads, length, head_dim)"
            )
    if v is not None and v.shape[-2] != k.shape[-2]:
        raise ValueError(f"value has length {v.shape[-2]} but key has length {k.shape[-2]}")
    _check_head_dims(q, k, v)
    heads = q.shape[:-2]
    if q.ndim == 4 and heads[1] and k.shape[:-2] == heads and (v is None or v.shape[:-2] == heads):
        return q.shape[:1], q.shape  # nothing to broadcast
    if any(x.ndim == 2 for x in named.values()) and any(x.ndim != 2 for x in named.values()):
        shapes = ", ".join(f"{name} {describe(x.shape)}" for name, x in named.items())
        raise ValueError(f"either all arrays are 2-D (one head) or none is; got {shapes}")
    if q.ndim > 2:
        _check_heads(q.shape[-3], k.shape[-3], k.shape[-3] if v is None else v.shape[-3])
    try:
        batch = np.broadcast_shapes(*(x.shape[:-3] for x in named.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {describe(x.shape)}" for name, x in named.items())
        raise ValueError(f"the leading dimensions do not broadcast: {shapes}") from None
    return batch, (*batch, *q.shape[-3:])


def _check_heads(query: int, key: int, value: int) -> None:
    if key != value:
        raise ValueError(f"value has {value} heads but key has {key}")
    if key == 0 or query % key:
        raise ValueError(
            f"key has {key} heads but query has {query}: the query heads must be a multiple of the "
            "key heads"
        )


def _check_head_dims(q: Array, k: Array, v: Array | None) -> None:
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(f"key has head_dim {k.shape[-1]} but query has head_dim {q.shape[-1]}")
    for name, x in (("query", q), ("value", v)):
        if x is not None and not 1 <= x.shape[-1] <= MAX_HEAD_DIM:
            raise ValueError(f"{name} has head_dim {x.shape[-1]}: it must be 1 to {MAX_HEAD_DIM}")


def _dense(x: Array, batch: tuple[int, ...]) -> Array:
    """View x as (B, heads, length, dim), copied where strides do not allow it."""
    if x.ndim == 4 and x.shape[:1] == batch:
        return rows_contiguous(x)
    return rows_contiguous(_as_4d(np.broadcast_to(x, (*batch, *x.shape[-3:]))))


def _as_4d(x: Array) -> Array:
    if x.ndim == 4:
        return x
    shape = (1, *x.shape) if x.ndim == 2 else (math.prod(x.shape[:-3]), *x.shape[-3:])
    return x.reshape((1,) * (4 - len(shape)) + shape)
