"""The column of texts and the column of vectors."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from .reading import Source

EMBEDDING = "embedding"


def check_columns(rows: Source, column: str) -> None:
    """Raise a ValueError if there is no such column of texts, or one of vectors already."""
    names = rows.schema.names
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{rows.name} has more than one column {name!r}")
    if column not in names:
        raise ValueError(f"{rows.name} has no column {column!r}: it has {', '.join(names)}")
    kind = rows.schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(f"{rows.name}: column {column!r} is {kind}: it must be of strings")
    if EMBEDDING in names:
        raise ValueError(
            f"{rows.name} has a column {EMBEDDING!r} already, which is what the vectors are to be "
            "called"
        )


def texts_of(table: pa.Table, column: str, first_row: int) -> list[str]:
    """Return a column of strings; a ValueError names the first row that has none."""
    values = table[column]
    try:
        texts: list[str] = values.to_pylist()
    except UnicodeDecodeError:
        texts = [_decoded(value, row) for row, value in enumerate(values, first_row)]
    for row, text in enumerate(texts, first_row):
        if text is None:
            raise ValueError(f"row {row} has no text: its {column!r} is null")
    return texts


def _decoded(value: pa.Scalar, row: int) -> str:
    try:
        return value.as_py()  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        raise ValueError(f"row {row} is not UTF-8: {error}") from None


def embedding_field(dim: int) -> pa.Field:
    """Return the name and type of the column of vectors."""
    return pa.field(EMBEDDING, pa.list_(pa.float32(), dim))


def embedding_column(vectors: np.ndarray) -> pa.Array:
    """Return (n, dim) float32 vectors as lists of a fixed size, without a copy.

    Examples
    --------
    >>> import numpy as np
    >>> from headwise.corpus.columns import embedding_column
    >>> embedding_column(np.zeros((2, 384), np.float32)).type
    FixedSizeListType(fixed_size_list<item: float>[384])

    """
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def vectors_of(column: pa.ChunkedArray, dim: int) -> np.ndarray:
    """Return lists of `dim` floats as a (n, dim) float32 array.

    Raises
    ------
    ValueError
        If it is no column of lists of that length, or has nulls.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from headwise.corpus.columns import vectors_of
    >>> vectors_of(pa.chunked_array([[[1.0, 2.0], [3.0, 4.0]]]), 2)
    array([[1., 2.],
           [3., 4.]], dtype=float32)

    """
    try:
        lists = column.cast(pa.list_(pa.float32(), dim)).combine_chunks()
    except pa.ArrowException as error:
        raise ValueError(
            f"column {EMBEDDING!r} is {column.type}: it must hold vectors of {dim}: {error}"
        ) from error
    if column.null_count:
        raise ValueError(f"column {EMBEDDING!r} has {column.null_count} nulls")
    vectors: np.ndarray = lists.flatten().to_numpy(zero_copy_only=False)
    return vectors.reshape(-1, dim)
