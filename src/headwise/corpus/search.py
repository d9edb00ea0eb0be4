"""The texts that are nearest to a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from ..functional.linear import Precision
from ..text import TextEncoder
from .columns import EMBEDDING, check_columns, vectors_of
from .manifest import Manifest, model_settings, require_same
from .reading import Format, Source, open_source
from .run import PART_BYTES, Run
from .writing import read_manifest

_ROWS = 8192  # whose vectors are held at once


@dataclass(frozen=True)
class Neighbour:
    """A text of a corpus.

    Attributes
    ----------
    row : int
        Which, counted from 0.
    cosine : float
        Of the angle between its vector and that of the query.
    text : str or None
        None if the corpus has vectors alone.

    """

    row: int
    cosine: float
    text: str | None


def similar(
    query: str,
    corpus: str | Path | BinaryIO,
    *,
    k: int = 10,
    model: str | Path | None = None,
    column: str | None = None,
    format: Format | None = None,
    precision: Precision | None = None,
) -> list[Neighbour]:
    """Find the texts of a corpus whose vectors have the largest cosine with that of a text.

    All rows are compared, some thousand at a time, so that the size of the corpus does not matter.

    Parameters
    ----------
    query : str
    corpus : str, Path or binary file
        What :func:`embed_corpus` wrote: then the query is embedded with the model and precision
        that its manifest names. Or texts, as :func:`open_source` takes them, which are embedded on
        the way and not kept.
    k : int
        How many.
    model : str or Path, optional
        A model folder or hub id. Needed for texts, and for vectors that have no manifest. Where
        there is a manifest it must be the same model, wherever it lies.
    column : str, optional
        The column of the texts: "text", or what the manifest says.
    format : str, optional
        See :func:`open_source`.
    precision : {"float32", "bfloat16", "int8"}, optional
        "float32", or what the manifest says.

    Returns
    -------
    list of Neighbour
        The nearest first, `k` of them or as many as there are; of equals the first row first.

    Raises
    ------
    FileNotFoundError
        If the corpus or the model cannot be found.
    TypeError
        If `query` is not a str, or `k` not an integer.
    ValueError
        If `k` is less than 1, `model` is needed or another one than the manifest's, or the corpus
        is not as it should be.

    Examples
    --------
    >>> from headwise.corpus import similar
    >>> similar("a fruit", "vectors.parquet", k=1)  # doctest: +SKIP
    [Neighbour(row=17, cosine=0.6251, text='an apple')]

    """
    if not isinstance(query, str):
        raise TypeError(f"query is a {type(query).__name__}: it must be a str")
    if not isinstance(k, int | np.integer):
        raise TypeError(f"k is {k!r}: it must be an integer")
    if k < 1:
        raise ValueError(f"k is {k}: it must be at least 1")
    if isinstance(corpus, str | Path) and Path(corpus).suffix.lower() == ".npy":
        return _similar_in_npy(query, Path(corpus), k, model, precision)
    with open_source(corpus, format) as rows:
        if EMBEDDING in rows.schema.names:
            manifest = Manifest.from_metadata(rows.schema.metadata)
            encoder = _encoder(rows.name, manifest, model, precision)
            if column is None:
                column = manifest.settings["column"] if manifest else "text"
            if column not in rows.schema.names:
                raise ValueError(f"{rows.name} has no column {column!r} of texts")
            found = _nearest(encoder.encode(query), _embedded(rows, encoder.dim, column), k)
        else:
            column = column or "text"
            check_columns(rows, column)
            encoder = _encoder(rows.name, None, model, precision)
            run = Run(encoder, column, 16384, "warn")
            found = _nearest(encoder.encode(query), _embed(rows, run), k)
            run.warn()
    return found


def _encoder(
    name: str,
    manifest: Manifest | None,
    model: str | Path | None,
    precision: Precision | None,
) -> TextEncoder:
    """Load the model that a manifest names, or check that it is the one that is given."""
    if manifest is None:
        if model is None:
            raise ValueError(f"{name} does not say what model its vectors are of: model is needed")
        return TextEncoder.from_pretrained(model, precision or "float32")
    made_with = manifest.settings
    model = made_with["model"] if model is None else model
    encoder = TextEncoder.from_pretrained(model, precision or made_with["precision"])
    same = ("pooling", "max_length", "config", "tokenizer", "weights")
    settings = model_settings(encoder)
    require_same(name, made_with, {key: settings[key] for key in same})
    return encoder


def _embedded(rows: Source, dim: int, column: str) -> Iterator[tuple[np.ndarray, pa.ChunkedArray]]:
    while (table := rows.take(_ROWS, PART_BYTES)).num_rows:
        yield vectors_of(table[EMBEDDING], dim), table[column]


def _embed(rows: Source, run: Run) -> Iterator[tuple[np.ndarray, pa.ChunkedArray]]:
    while (table := rows.take(_ROWS, PART_BYTES)).num_rows:
        yield vectors_of(run.embed(table)[EMBEDDING], run.encoder.dim), table[run.column]


def _similar_in_npy(
    query: str, path: Path, k: int, model: str | Path | None, precision: Precision | None
) -> list[Neighbour]:
    encoder = _encoder(str(path), read_manifest(path), model, precision)
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    if vectors.ndim != 2 or vectors.shape[1] != encoder.dim:
        raise ValueError(
            f"{path} has shape {vectors.shape}: it must be (n, {encoder.dim}), as the model's "
            "vectors are"
        )
    chunks = (
        (np.asarray(vectors[first : first + _ROWS], np.float32), None)
        for first in range(0, len(vectors), _ROWS)
    )
    return _nearest(encoder.encode(query), chunks, k)


def _nearest(
    query: np.ndarray, chunks: Iterator[tuple[np.ndarray, pa.ChunkedArray | None]], k: int
) -> list[Neighbour]:
    """Return the `k` rows of the largest cosine; of all others nothing is kept."""
    best: list[Neighbour] = []
    first = 0
    query = query / (np.linalg.norm(query) or 1)
    for vectors, texts in chunks:
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        cosines = vectors @ query / np.where(lengths > 0, lengths, 1)
        for row in np.argsort(-cosines, kind="stable")[:k].tolist():
            text = None if texts is None else texts[row].as_py()
            best.append(Neighbour(first + row, float(cosines[row]), text))
        best.sort(key=lambda neighbour: -neighbour.cosine)
        del best[k:]
        first += len(vectors)
    return best
