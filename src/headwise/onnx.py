"""The ONNX operator Attention, computed by :func:`headwise.attention`.

Dimension letters: B batch, Hq query heads, Hkv key/value heads, Sq queries, S keys given, P keys
of the past, Sk = P + S keys in all, D head size of query and key, Dv of value.
"""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import functional
from .functional._arrays import (
    Array,
    as_array,
    as_attention_floats,
    as_finite,
    as_integers,
    describe,
)

_FLOAT_TYPES = {1: "FLOAT", 10: "FLOAT16", 11: "DOUBLE", 16: "BFLOAT16"}  # of TensorProto.DataType
_AFTER_SOFTCAP, _AFTER_MASK, _AFTER_SOFTMAX = 1, 2, 3  # of qk_matmul_output_mode; 0 is the product


class AttentionOutputs(NamedTuple):
    """The outputs of the operator, in its order. None is an output that was not asked for.

    Attributes
    ----------
    Y : array, shape (B, Hq, Sq, Dv), or (B, Sq, Hq * Dv) where the inputs are 3-D
    present_key : array, shape (B, Hkv, Sk, D), or None
    present_value : array, shape (B, Hkv, Sk, Dv), or None
    qk_matmul_output : array, shape (B, Hq, Sq, Sk), or None
    """

    Y: Array
    present_key: Array | None = None
    present_value: Array | None = None
    qk_matmul_output: Array | None = None


def attention(
    Q: npt.ArrayLike,
    K: npt.ArrayLike,
    V: npt.ArrayLike,
    attn_mask: npt.ArrayLike | None = None,
    past_key: npt.ArrayLike | None = None,
    past_value: npt.ArrayLike | None = None,
    nonpad_kv_seqlen: npt.ArrayLike | None = None,
    *,
    is_causal: int = 0,
    q_num_heads: int | None = None,
    kv_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    left_window_size: int = -1,
    right_window_size: int = -1,
    return_present: bool = False,
    return_qk_matmul_output: bool = False,
) -> AttentionOutputs:
    """Compute the ONNX operator Attention of opsets 23, 24 and 25.

    The positional arguments are the operator's inputs, None where the node leaves one out; the
    keyword arguments are its attributes, and which optional outputs to compute. The arrays, the
    mask, the offsets and the lengths go to :func:`headwise.attention` as they are: what its
    documentation promises of bits and memory holds here too.

    Parameters
    ----------
    Q : array, shape (B, Hq, Sq, D) or (B, Sq, Hq * D)
        Of a dtype that :func:`headwise.attention` takes. Q, K and V are all 4-D or all 3-D.
    K : array, shape (B, Hkv, S, D) or (B, S, Hkv * D)
        In the dtype of Q. Hq must be a multiple of Hkv.
    V : array, shape (B, Hkv, S, Dv) or (B, S, Hkv * Dv)
        In another dtype than Q, it is rounded to that of Q for Y; `present_value` keeps its own.
    attn_mask : array, broadcastable to (B, Hq, Sq, Sk), optional
        bool, True where a query attends a key, or float, added to the scores. If its last axis is
        shorter than Sk, be it 1, no query attends the other keys (opset 23 left this open).
    past_key, past_value : arrays, shape (B, Hkv, P, D) and (B, Hkv, P, Dv), optional
        Keys and values that precede K and V; both or neither, in the dtypes of K and V.
    nonpad_kv_seqlen : array of int, shape (B,), optional
        How many keys of each batch entry are real. Not with `past_key`.
    is_causal : int
        1: query i attends keys ``j <= i + offset`` only. The offset is P with a past,
        ``nonpad_kv_seqlen - Sq`` with those lengths, and otherwise 0: the first query is at the
        first key, unlike in :func:`headwise.attention`.
    q_num_heads, kv_num_heads : int, optional
        Hq and Hkv. 3-D inputs need them; with 4-D ones they may only repeat what the shapes say.
    qk_matmul_output_mode : int
        What `qk_matmul_output` is: the scaled scores (0), those after `softcap` (1), those after
        the masks too, -inf where a query does not attend a key (2), or the probabilities (3).
    scale : float, optional
        ``1 / sqrt(D)`` by default.
    softcap : float
        If positive, scores s become ``softcap * tanh(s / softcap)`` before any mask.
    softmax_precision : int, optional
        1, 10, 11 or 16, a floating-point ``TensorProto.DataType``, or None. It changes nothing: the
        softmax is in float64 for float64 inputs and in float32 for all others, so in at least the
        precision asked for unless that is DOUBLE (11) for inputs of another dtype.
    left_window_size, right_window_size : int
        Query i attends keys ``i + offset - left <= j <= i + offset + right`` only, with the offset
        of `is_causal`. -1 leaves a side unbounded.
    return_present : bool
        Also return `present_key` and `present_value`. Not with `nonpad_kv_seqlen`, whose cache is
        K and V themselves.
    return_qk_matmul_output : bool
        Also return `qk_matmul_output`, the Hq Sq Sk elements that are otherwise never held.

    Returns
    -------
    AttentionOutputs
        Y, present_key, present_value and qk_matmul_output. Y and qk_matmul_output have the dtype of
        Q. A query that attends no key has zeros in Y and in the probabilities. Without a past,
        present_key and present_value are views of K and V.

    Raises
    ------
    TypeError
        If a dtype is not one that :func:`headwise.attention` takes, or a number is of another kind.
    ValueError
        If shapes do not fit each other, inputs exclude each other, or a number is out of range.

    Notes
    -----
    The operator is specified at https://onnx.ai/onnx/operators/onnx__Attention.html. Scores of the
    modes 0 to 2 are computed by NumPy in float32 (float64 for float64): they are for looking at.

    Examples
    --------
    Three tokens at once, then the last one after a cache of two:

    >>> import numpy as np
    >>> from headwise.onnx import attention
    >>> e = np.array([[[[1, 2], [3, 1], [2, 3]]]], dtype=np.float32)
    >>> attention(e, e, e, is_causal=1, scale=1.0).Y.round(3)
    array([[[[1.   , 2.   ],
             [2.987, 1.007],
             [2.011, 2.958]]]], dtype=float32)
    >>> past, new = e[:, :, :2], e[:, :, 2:]
    >>> y, present_key, *_ = attention(
    ...     new, new, new, None, past, past, is_causal=1, scale=1.0, return_present=True
    ... )
    >>> y.round(3), present_key.shape
    (array([[[[2.011, 2.958]]]], dtype=float32), (1, 1, 3, 2))
    """
    mode = _integer("qk_matmul_output_mode", qk_matmul_output_mode, 0, 3)
    _check_softmax_precision(softmax_precision)
    if (cap := as_finite("softcap", softcap)) < 0:
        raise ValueError(f"softcap is {softcap}: it must be positive, or 0 for none")
    if (past_key is None) != (past_value is None):
        missing = "past_key" if past_key is None else "past_value"
        raise ValueError(f"{missing} is None: past_key and past_value must be given together")
    for name, excluded in (("past_key", past_key is not None), ("return_present", return_present)):
        if nonpad_kv_seqlen is not None and excluded:
            raise ValueError(f"nonpad_kv_seqlen is given with {name}: they exclude each other")

    q, k = as_attention_floats(Q=Q, K=K)
    (v,) = as_attention_floats(V=V)
    query = _split_heads("Q", q, q.ndim, "q_num_heads", q_num_heads)
    key = _split_heads("K", k, q.ndim, "kv_num_heads", kv_num_heads)
    value = _split_heads("V", v, q.ndim, "kv_num_heads", kv_num_heads)
    _check_shapes(query, key, value)
    batch, heads, queries, _ = query.shape
    value_size = value.shape[3]

    offset: int | npt.NDArray[np.int64] = 0
    if past_key is not None and past_value is not None:
        offset, key, value = _append(past_key, past_value, key, value)
    mask = None if attn_mask is None else as_array("attn_mask", attn_mask)
    keys = key.shape[2]
    if mask is not None and mask.ndim and mask.shape[-1] < keys:
        keys = mask.shape[-1]  # no query attends those behind: they are left out, by a view
    lengths = None
    if nonpad_kv_seqlen is not None:
        lengths = _lengths(nonpad_kv_seqlen, batch, key.shape[2])
        offset = lengths - queries
        lengths = np.minimum(lengths, keys)
    options: dict[str, Any] = {
        "attn_mask": mask,
        "is_causal": _integer("is_causal", is_causal, 0, 1) == 1,
        "query_offset": offset,
        "window": (
            _window("left_window_size", left_window_size),
            _window("right_window_size", right_window_size),
        ),
        "scale": scale,
        "softcap": cap or None,
        "key_lengths": lengths,
    }

    if q.ndim == 4:
        y = out = np.empty((batch, heads, queries, value_size), query.dtype)
    else:
        y = np.empty((batch, queries, heads * value_size), query.dtype)
        out = y.reshape(batch, queries, heads, value_size).swapaxes(1, 2)
    attended = key[:, :, :keys]
    functional.attention(
        query, attended, value[:, :, :keys].astype(query.dtype, copy=False), out=out, **options
    )
    scores = None
    if return_qk_matmul_output and mode == _AFTER_SOFTMAX:
        scores = np.zeros((*query.shape[:3], key.shape[2]), query.dtype)
        scores[..., :keys] = functional.attention_weights(query, attended, **options)
    elif return_qk_matmul_output:
        scores = _scores(query, key, keys, mode, **options)
    return AttentionOutputs(
        y,
        key if return_present else None,
        value if return_present else None,
        scores,
    )


def _check_softmax_precision(given: int | None) -> None:
    if given is not None and _integer("softmax_precision", given, 0) not in _FLOAT_TYPES:
        known = ", ".join(f"{number} ({name})" for number, name in _FLOAT_TYPES.items())
        raise ValueError(f"softmax_precision is {given}: it must be None, {known}")


def _integer(name: str, given: Any, least: int, most: int | None = None) -> int:
    try:
        number = operator.index(given)
    except TypeError:
        raise TypeError(f"{name} is {given!r}: it must be an integer") from None
    if number < least or (most is not None and number > most):
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueError(f"{name} is {number}: it must be {limit}")
    return number


def _window(name: str, given: int) -> int | None:
    size = _integer(name, given, -1)
    return None if size == -1 else size


def _split_heads(name: str, x: Array, ndim: int, attribute: str, given: int | None) -> Array:
    """View x as (B, heads, length, head size)."""
    heads = None if given is None else _integer(attribute, given, 1)
    if x.ndim != ndim or ndim not in (3, 4):
        raise ValueError(
            f"{name} has shape {describe(x.shape)}: Q, K and V must all be (batch, heads, length, "
            "head_size) or all (batch, length, heads * head_size)"
        )
    if x.ndim == 4:
        if heads not in (None, x.shape[1]):
            raise ValueError(f"{attribute} is {heads} but {name} has {x.shape[1]} heads")
        return x
    if heads is None:
        raise ValueError(f"{attribute} is None but {name} is 3-D: it must be the number of heads")
    if x.shape[2] % heads:
        raise ValueError(
            f"{name} has hidden size {x.shape[2]}: it must be a multiple of {attribute}, {heads}"
        )
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).swapaxes(1, 2)


def _check_shapes(query: Array, key: Array, value: Array) -> None:
    batch, heads, _, head_size = query.shape
    _, kv_heads, keys, _ = key.shape
    _check_shape("K", key, (batch, None, None, head_size))
    _check_shape("V", value, (batch, kv_heads, keys, None))
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(
            f"K has {kv_heads} heads but Q has {heads}: the heads of Q must be a multiple of those "
            "of K"
        )


def _check_shape(name: str, x: Array, shape: tuple[int | None, ...]) -> None:
    """Raise unless x has this shape, where None is any size."""
    fits = x.ndim == len(shape) and all(
        n is None or n == m for n, m in zip(shape, x.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(
            f"{name} has (batch, heads, length, head_size) {describe(x.shape)}: it must be "
            f"({wanted})"
        )


def _append(
    past_key: npt.ArrayLike, past_value: npt.ArrayLike, key: Array, value: Array
) -> tuple[int, Array, Array]:
    """Return P, and key and value after those of the past."""
    _, old_key = as_attention_floats(K=key, past_key=past_key)
    _, old_value = as_attention_floats(V=value, past_value=past_value)
    batch, kv_heads = key.shape[:2]
    _check_shape("past_key", old_key, (batch, kv_heads, None, key.shape[3]))
    past = old_key.shape[2]
    _check_shape("past_value", old_value, (batch, kv_heads, past, value.shape[3]))
    return past, np.concatenate((old_key, key), 2), np.concatenate((old_value, value), 2)


def _lengths(nonpad_kv_seqlen: npt.ArrayLike, batch: int, keys: int) -> npt.NDArray[np.int64]:
    lengths = as_integers("nonpad_kv_seqlen", nonpad_kv_seqlen)
    if lengths.shape != (batch,):
        raise ValueError(
            f"nonpad_kv_seqlen has shape {describe(lengths.shape)}: it must be ({batch},), one "
            "length for each batch entry"
        )
    if batch and not 0 <= lengths.min() <= lengths.max() <= keys:
        raise ValueError(
            f"nonpad_kv_seqlen goes from {lengths.min()} to {lengths.max()}: it must be 0 to "
            f"{keys}, the keys that K has"
        )
    return lengths


def _scores(
    query: Array,
    key: Array,
    keys: int,
    mode: int,
    *,
    attn_mask: Array | None,
    is_causal: bool,
    query_offset: int | npt.NDArray[np.int64],
    window: tuple[int | None, int | None],
    scale: float | None,
    softcap: float | None,
    key_lengths: npt.NDArray[np.int64] | None,
) -> Array:
    """Return the scores (B, Hq, Sq, Sk), of which the mask has the first ``keys`` columns."""
    dtype = np.result_type(query.dtype, np.float32)
    batch, heads, queries, head_size = query.shape
    kv_heads = key.shape[1]
    grouped = query.astype(dtype).reshape(batch, kv_heads, heads // kv_heads, queries, head_size)
    factor = 1 / math.sqrt(head_size) if scale is None else float(scale)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite scores are there to be seen
        scores: Array = factor * (grouped @ key.astype(dtype)[:, :, None].swapaxes(-1, -2))
        scores = scores.reshape(batch, heads, queries, key.shape[2])
        if mode >= _AFTER_SOFTCAP and softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        if mode < _AFTER_MASK:
            return scores.astype(query.dtype)
        if attn_mask is not None:
            shown = scores[..., :keys]
            if attn_mask.dtype != np.bool_:
                shown += attn_mask.astype(dtype)
                attn_mask = ~np.isneginf(attn_mask.astype(dtype))  # whatever the key's score was
            np.copyto(shown, -np.inf, where=~attn_mask)
        j = np.arange(key.shape[2])
        at = np.reshape(query_offset, (-1, 1, 1, 1)) + np.arange(queries)[:, None]
        masked = j >= np.reshape(keys if key_lengths is None else key_lengths, (-1, 1, 1, 1))
        left, right = window
        if is_causal:
            masked = masked | (j > at)
        if left is not None:
            masked = masked | (at - j > left)
        if right is not None:
            masked = masked | (j - at > right)
        np.copyto(scores, -np.inf, where=masked)
        return scores.astype(query.dtype)
