"""Scaled dot-product attention.

Dimension letters: B batch, Hq query heads, Hkv key/value heads, Sq and Sk query and key lengths,
D head dimension of query and key, Dv of value, T tokens of all sequences of a packed batch.
"""

from __future__ import annotations

import math
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from .. import _core
from ._arrays import (
    Array,
    as_cu_seqlens,
    as_finite,
    as_floats,
    as_integers,
    describe,
    output,
    rows_contiguous,
)

MAX_HEAD_DIM = 512


@overload
def attention(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    *,
    is_causal: bool = ...,
    query_offset: npt.ArrayLike | None = ...,
    scale: float | None = ...,
    key_lengths: npt.ArrayLike | None = ...,
    return_lse: Literal[False] = ...,
    out: Array | None = ...,
) -> Array: ...
@overload
def attention(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    *,
    is_causal: bool = ...,
    query_offset: npt.ArrayLike | None = ...,
    scale: float | None = ...,
    key_lengths: npt.ArrayLike | None = ...,
    return_lse: Literal[True],
    out: Array | None = ...,
) -> tuple[Array, Array]: ...
def attention(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    *,
    is_causal: bool = False,
    query_offset: npt.ArrayLike | None = None,
    scale: float | None = None,
    key_lengths: npt.ArrayLike | None = None,
    return_lse: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """Compute softmax(scale Q Kᵀ) V without ever holding the matrix Q Kᵀ.

    The bits of one (batch, head, query) row of the result do not depend on the batch it is in, on
    strides, on padding hidden by `key_lengths`, or on the number of threads.

    Parameters
    ----------
    query : array, shape (..., Hq, Sq, D)
        float32 or float64; `key` and `value` must have the same dtype. A 2-D (Sq, D) array is one
        head. D is 1 to 512. Any strides; an array whose last axis is not contiguous is copied.
    key : array, shape (..., Hkv, Sk, D)
        Hq must be a multiple of Hkv: query head h reads key head ``h // (Hq // Hkv)``. The leading
        dimensions of the three arrays broadcast.
    value : array, shape (..., Hkv, Sk, Dv)
    is_causal : bool
        Query i attends keys ``j <= i + query_offset`` only.
    query_offset : int or array of int, optional
        The position of the first query on the key axis, for all or for each batch entry. By
        default the queries are the last ones: ``Sk - Sq``, or ``key_lengths - Sq``. 0 aligns the
        first query with the first key, as torch does.
    scale : float, optional
        ``1 / sqrt(D)`` by default.
    key_lengths : array of int, shape (...,), optional
        How many keys of each batch entry are real. The others are not read.
    return_lse : bool
        Also return the logarithm of the sum of exponentials.
    out : array, shape (..., Hq, Sq, Dv), optional
        Where to write the result; it must not overlap an input.

    Returns
    -------
    out : array, shape (..., Hq, Sq, Dv)
        A query that attends no key gives 0.
    lse : array, shape (..., Hq, Sq)
        Only with `return_lse`: natural logarithm, in the dtype of the inputs; -inf for a query that
        attends no key.

    Raises
    ------
    TypeError
        If a dtype is not float32 or float64, or differs between the arrays.
    ValueError
        If shapes do not fit each other, or a length or `scale` is out of range.

    Notes
    -----
    The formula is that of Vaswani et al., "Attention Is All You Need" (2017); it is computed by
    blocks with an online softmax (Dao et al., "FlashAttention", 2022). Memory beyond the inputs and
    the output is less than 1 MB a thread, whatever the lengths.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> e = np.array([[1, 2], [3, 1], [2, 3]], dtype=np.float32)
    >>> hw.attention(e, e, e, scale=1.0).round(3)
    array([[2.   , 2.864],
           [2.723, 1.54 ],
           [2.011, 2.958]], dtype=float32)
    """
    q, k, v = as_floats(query=query, key=key, value=value)
    batch, shape = _check_dense(q, k, v)
    value_dim = v.shape[-1]
    result = output(out, (*shape[:-1], value_dim), q.dtype, q, k, v)
    lse = np.empty(shape[:-1], q.dtype) if return_lse else None
    keys = k.shape[-2]
    lengths = None if key_lengths is None else _key_lengths(key_lengths, batch, keys)
    offsets = _query_offsets(query_offset, batch, is_causal, lengths, keys, shape[-2])
    _core.attention(
        _dense(q, batch),
        _dense(k, batch),
        _dense(v, batch),
        target := _as_4d(result),
        None if lse is None else _as_4d(lse[..., None]),
        None,
        None,
        lengths,
        offsets,
        _scale(scale, shape[-1]),
        is_causal,
    )
    if not np.may_share_memory(target, result):  # an `out` whose leading axes do not merge
        result[...] = target.reshape(result.shape)
    return result if lse is None else (result, lse)


def attention_weights(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    *,
    is_causal: bool = False,
    query_offset: npt.ArrayLike | None = None,
    scale: float | None = None,
    key_lengths: npt.ArrayLike | None = None,
) -> Array:
    """Compute the attention probabilities softmax(scale Q Kᵀ) themselves.

    Parameters
    ----------
    query : array, shape (..., Hq, Sq, D)
    key : array, shape (..., Hkv, Sk, D)
    is_causal, query_offset, scale, key_lengths
        As for :func:`attention`.

    Returns
    -------
    array, shape (..., Hq, Sq, Sk)
        Each row sums to 1, or is 0 if its query attends no key. This matrix is what
        :func:`attention` never holds: it takes Hq Sq Sk elements.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> e = np.array([[1, 2], [3, 1], [2, 3]], dtype=np.float32)
    >>> hw.attention_weights(e, e, scale=1.0, is_causal=True).round(3)
    array([[1.   , 0.   , 0.   ],
           [0.007, 0.993, 0.   ],
           [0.007, 0.018, 0.976]], dtype=float32)
    """
    q, k = as_floats(query=query, key=key)
    batch, shape = _check_dense(q, k, None)
    keys = k.shape[-2]
    lengths = None if key_lengths is None else _key_lengths(key_lengths, batch, keys)
    offsets = _query_offsets(query_offset, batch, is_causal, lengths, keys, shape[-2])
    result = np.empty((*shape[:-1], keys), q.dtype)
    _core.attention(
        _dense(q, batch),
        _dense(k, batch),
        None,
        _as_4d(result),
        None,
        None,
        None,
        lengths,
        offsets,
        _scale(scale, shape[-1]),
        is_causal,
    )
    return result


@overload
def attention_varlen(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    cu_seqlens_q: npt.ArrayLike,
    cu_seqlens_k: npt.ArrayLike | None = ...,
    *,
    is_causal: bool = ...,
    query_offset: npt.ArrayLike | None = ...,
    scale: float | None = ...,
    return_lse: Literal[False] = ...,
    out: Array | None = ...,
) -> Array: ...
@overload
def attention_varlen(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    cu_seqlens_q: npt.ArrayLike,
    cu_seqlens_k: npt.ArrayLike | None = ...,
    *,
    is_causal: bool = ...,
    query_offset: npt.ArrayLike | None = ...,
    scale: float | None = ...,
    return_lse: Literal[True],
    out: Array | None = ...,
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
    scale: float | None = None,
    return_lse: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """Attention of several sequences of different lengths, packed one after the other.

    Sequence b owns the tokens ``cu_seqlens_q[b]:cu_seqlens_q[b + 1]`` of the query and
    ``cu_seqlens_k[b]:cu_seqlens_k[b + 1]`` of key and value; nothing is padded.

    Parameters
    ----------
    query : array, shape (Tq, Hq, D)
    key : array, shape (Tk, Hkv, D)
    value : array, shape (Tk, Hkv, Dv)
    cu_seqlens_q : array of int, shape (B + 1,)
        Cumulative lengths: 0 first, Tq last.
    cu_seqlens_k : array of int, shape (B + 1,), optional
        `cu_seqlens_q` by default.
    is_causal, query_offset, scale, return_lse
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
    q, k, v = as_floats(query=query, key=key, value=value)
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
    result = output(out, (*q.shape[:2], v.shape[2]), q.dtype, q, k, v)
    lse = np.empty((q.shape[1], q.shape[0]), q.dtype) if return_lse else None
    offsets = None
    if query_offset is not None:
        offsets = _per_batch("query_offset", query_offset, (len(starts_q) - 1,))
    elif is_causal:
        offsets = np.diff(starts_k) - np.diff(starts_q)
    _core.attention(
        rows_contiguous(q),
        rows_contiguous(k),
        rows_contiguous(v),
        result,
        None if lse is None else lse.T,
        starts_q,
        starts_k,
        None,
        offsets,
        _scale(scale, q.shape[2]),
        is_causal,
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


def _scale(scale: float | None, head_dim: int) -> float:
    return 1 / math.sqrt(head_dim) if scale is None else as_finite("scale", scale)


def _per_batch(name: str, given: npt.ArrayLike, batch: tuple[int, ...]) -> npt.NDArray[np.int64]:
    x = as_integers(name, given)
    if x.ndim and x.shape != batch:
        raise ValueError(
            f"{name} has shape {describe(x.shape)}: it must be an integer or have the batch shape "
            f"{describe(batch)}"
        )
    return np.ascontiguousarray(np.broadcast_to(x, batch)).reshape(-1)


def _key_lengths(given: npt.ArrayLike, batch: tuple[int, ...], keys: int) -> npt.NDArray[np.int64]:
    lengths = _per_batch("key_lengths", given, batch)
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= keys:
        raise ValueError(
            f"key_lengths goes from {lengths.min()} to {lengths.max()}: it must be 0 to the key's "
            f"length {keys}"
        )
    return lengths


def _query_offsets(
    given: npt.ArrayLike | None,
    batch: tuple[int, ...],
    is_causal: Any,
    lengths: npt.NDArray[np.int64] | None,
    keys: int,
    queries: int,
) -> npt.NDArray[np.int64] | None:
    if given is not None:
        return _per_batch("query_offset", given, batch)
    if not is_causal:
        return None
    if lengths is not None:
        return lengths - queries
    return np.full(math.prod(batch), keys - queries, np.int64)
