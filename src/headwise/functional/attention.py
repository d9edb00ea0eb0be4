"""Scaled dot-product attention.

Dimension letters: B batch, Hq query heads, Hkv key/value heads, Sq and Sk query and key lengths,
D head dimension of query and key, Dv of value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import numpy.typing as npt

from .. import _core
from ._arrays import Array, as_array, as_attention_floats, output, sum_dtype
from ._options import NO_WINDOW, DenseOptions, kernel_options
from ._shapes import as_4d, as_batch, check_dense
from .cache import KVCache

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import Window


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
        is copied if its last axis is not contiguous, or if it has several leading axes whose
        strides do not let them be one.
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
        ``slope * |i + query_offset - j|`` is taken from the score of query i and key j. The
        distances may be up to 2**24, in float64 any.
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
        If a dtype is not one of those above, or differs between the arrays, or an array is masked
        or cannot be read.
    ValueError
        If shapes do not fit each other, or an option is out of range: `scale`, `softcap`,
        `alibi_slopes` and `sinks` may be up to 1e30.

    Notes
    -----
    The formula is that of Vaswani et al., "Attention Is All You Need" (2017); it is computed by
    blocks with an online softmax (Dao et al., "FlashAttention", 2022). Sums and softmax are in
    float32 (float64 for float64). bfloat16 is multiplied as it is where the CPU can, with
    probabilities rounded to bfloat16, and else widened, as float16 is. ALiBi is by Press et al.
    (2022). bfloat16 values below 1.2e-38 may count as 0, as that instruction has it. Memory beyond
    the inputs, copies of them and the output is less than 2 MB a thread, whatever the lengths.
    Ctrl-C ends a call between two tiles.

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
        k, v = key._held() if isinstance(key, KVCache) and value is None else (key, value)
        plain = _core.plain_attention(query, k, v, is_causal)
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
    batch, shape = check_dense(q, k, v)
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
    mask = None if attn_mask is None else as_array("attn_mask", attn_mask)
    inputs = [q, k, v, mask, *options.vectors()]
    result = output(out, (*shape[:-1], v.shape[-1]), q.dtype, *inputs)
    lse = np.empty(shape[:-1], sum_dtype(q.dtype)) if return_lse else None
    _core.attention(
        _core.OUTPUT,
        as_batch(q, batch),
        as_batch(k, batch),
        as_batch(v, batch),
        target := as_4d(result),
        None if lse is None else as_4d(lse[..., None]),
        None,
        None,
        *options,
    )
    if not np.may_share_memory(target, result):  # an `out` whose leading axes do not merge
        result[...] = target.reshape(result.shape)
    return result if lse is None else (result, lse)
