"""The two ends of an encoder: rows of tables in, one vector a sequence out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from .. import _core
from ._arrays import Array, as_cu_seqlens, as_integers, contiguous, describe

Pooling = Literal["mean", "cls", "max"]

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MAX_TABLES = 4


def embed(tables: Sequence[npt.ArrayLike], indices: Sequence[npt.ArrayLike]) -> Array:
    """Sum one row of each table for every token.

    Parameters
    ----------
    tables : sequence of 1 to 4 arrays, shape (V, E) each
        float32, contiguous: say token, position and token-type embeddings.
    indices : as many arrays of int, shape (T,) each
        The row of each table for each token.

    Returns
    -------
    array, shape (T, E)

    Raises
    ------
    ValueError
        If an index is outside its table, naming the table.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> token = np.array([[1, 0], [0, 1]], np.float32)
    >>> position = np.array([[0.1, 0.1], [0.2, 0.2]], np.float32)
    >>> hw.functional.embed([token, position], [[1, 1], [0, 1]])
    array([[0.1, 1.1],
           [0.2, 1.2]], dtype=float32)
    """
    if not 1 <= len(tables) <= MAX_TABLES or len(indices) != len(tables):
        raise ValueError(
            f"there are {len(tables)} tables and {len(indices)} index arrays: "
            f"there must be as many of each, 1 to {MAX_TABLES}"
        )
    rows = [np.asarray(table) for table in tables]
    columns = rows[0].shape[-1] if rows[0].ndim == 2 else 0
    for i, table in enumerate(rows):
        if table.dtype != np.float32:
            raise TypeError(f"tables[{i}] has dtype {table.dtype}: it must be float32")
        if table.ndim != 2 or table.shape[1] != columns or columns == 0:
            raise ValueError(
                f"tables[{i}] has shape {describe(table.shape)}: all must be (rows, E), with one E"
            )
    picks = [as_integers(f"indices[{i}]", index) for i, index in enumerate(indices)]
    for i, index in enumerate(picks):
        if index.ndim != 1 or len(index) != len(picks[0]):
            raise ValueError(
                f"indices[{i}] has shape {describe(index.shape)}: all must be (T,), with one T"
            )
    out = np.empty((len(picks[0]), columns), np.float32)
    try:
        laid = [contiguous(table) for table in rows]
        _core.embed(laid, list(picks), None, out)
    except IndexError:
        for i, (table, index) in enumerate(zip(rows, picks, strict=True)):
            if index.min() < 0 or index.max() >= len(table):
                raise ValueError(
                    f"indices[{i}] goes from {index.min()} to {index.max()}: "
                    f"tables[{i}] has rows 0 to {len(table) - 1}"
                ) from None
        raise
    return out


def pool(
    hidden: npt.ArrayLike,
    cu_seqlens: npt.ArrayLike,
    mode: Pooling = "mean",
    *,
    normalize: bool = False,
) -> Array:
    """Reduce each sequence of a packed batch to one vector.

    Parameters
    ----------
    hidden : array, shape (T, E)
        float32 hidden states of all tokens.
    cu_seqlens : array of int, shape (B + 1,)
        Sequence b owns the rows ``cu_seqlens[b]:cu_seqlens[b + 1]``.
    mode : {"mean", "cls", "max"}
        The mean of the rows, the first row, or the largest of each column.
    normalize : bool
        Divide each vector by its Euclidean norm.

    Returns
    -------
    array, shape (B, E)
        An empty sequence gives zeros.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> hw.functional.pool(np.array([[1, 2], [3, 4], [5, 6]], np.float32), [0, 2, 3])
    array([[2., 3.],
           [5., 6.]], dtype=float32)
    """
    x = contiguous(np.asarray(hidden))
    if x.dtype != np.float32:
        raise TypeError(f"hidden has dtype {x.dtype}: it must be float32")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"hidden has shape {describe(x.shape)}: it must be (T, E)")
    return pool_packed(x, as_cu_seqlens("cu_seqlens", cu_seqlens, len(x)), mode, normalize)


def pool_packed(x: Array, starts: npt.NDArray[np.int64], mode: Pooling, normalize: bool) -> Array:
    """Return :func:`pool` of arrays as the kernel takes them, which an encoder has made."""
    if mode not in POOLINGS:
        raise ValueError(f"mode is {mode!r}: it must be one of {POOLINGS}")
    out = np.empty((len(starts) - 1, x.shape[1]), np.float32)
    _core.pool(x, starts, out, POOLINGS.index(mode), normalize)
    return out
