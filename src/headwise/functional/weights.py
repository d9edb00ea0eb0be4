"""The attention probabilities themselves.

Dimension letters: B batch, Hq query heads, Hkv key/value heads, Sq and Sk query and key lengths,
D head dimension of query and key, Dv of value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .. import _core
from ._arrays import Array, as_attention_floats, chosen_indices, sum_dtype
from ._options import NO_WINDOW, KernelOptions, kernel_options
from ._shapes import as_batch, check_dense

if TYPE_CHECKING:
    from ._options import Window


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

    Raises
    ------
    TypeError
        If a dtype is not one that :func:`attention` takes, or differs between the arrays.
    ValueError
        If shapes do not fit each other, or an option, head or row is out of range.

    Notes
    -----
    The formula is that of Vaswani et al. (2017). Scores are computed twice: for the sums, and for
    the weights.

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
    batch, shape = check_dense(q, k, None)
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
    q4, k4 = as_batch(q, batch), as_batch(k, batch)
    chosen_heads = chosen_indices("heads", heads, q4.shape[1])
    chosen_rows = chosen_indices("rows", rows, q4.shape[2])
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
    most = np.iinfo(np.int64).max - rows.start
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
            query_offsets=None if offsets is None else np.minimum(offsets, most) + rows.start,
            attn_mask=None if mask is None else mask[:, heads, rows],
            alibi_slopes=of_heads(options.alibi_slopes),
            sinks=of_heads(options.sinks),
        ),
    )


def _runs(indices: list[int]) -> list[tuple[slice, slice]]:
    """Cut indices into runs of adjacent ones: where each goes, and where it comes from."""
    runs = []
    begin = 0
    for end in range(1, len(indices) + 1):
        if end == len(indices) or indices[end] != indices[end - 1] + 1:
            runs.append((slice(begin, end), slice(indices[begin], indices[end - 1] + 1)))
            begin = end
    return runs
