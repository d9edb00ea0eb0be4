"""Rows to rows with vectors."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pyarrow as pa

from ..text import TextEncoder
from ..tokenization import OnTruncate
from .columns import embedding_column, embedding_field, texts_of
from .manifest import Manifest, Settings, TextDigest

# A part ends with the row that reaches this, however few there are: texts may be books.
PART_BYTES = 64 << 20


class Run:
    """Embeds the tables of one corpus, in order, and remembers what has to be known of them.

    Attributes
    ----------
    rows, num_cut : int
        How many texts there were, and how many of them had more tokens than the model takes.
    digest : TextDigest
        Of all texts so far.

    """

    def __init__(
        self, encoder: TextEncoder, column: str, batch_tokens: int, on_truncate: OnTruncate
    ):
        self.encoder = encoder
        self.column = column
        self.batch_tokens = batch_tokens
        self.on_truncate = on_truncate
        self.rows = self.num_cut = 0
        self.digest = TextDigest()

    def embed(self, table: pa.Table, progress: Callable[[int], object] | None = None) -> pa.Table:
        """Return the next rows with the column of their vectors."""
        texts = texts_of(table, self.column, self.rows)
        vectors = np.empty((len(texts), self.encoder.dim), np.float32)
        done = 0
        windows = self.encoder._encode_windows(
            texts, self.batch_tokens, None, self.on_truncate, progress
        )
        try:
            with closing(windows):
                for found, num_cut in windows:
                    vectors[done : done + len(found)] = found
                    done += len(found)
                    self.num_cut += num_cut
        except ValueError as error:
            raise ValueError(self._by_row(str(error))) from error
        self.rows += len(texts)
        self.digest.update(texts)
        field, column = embedding_field(self.encoder.dim), embedding_column(vectors)
        return table.combine_chunks().append_column(field, column)

    def _by_row(self, message: str) -> str:
        return re.sub(r"texts\[(\d+)\]", lambda found: f"row {self.rows + int(found[1])}", message)

    def manifest(self, settings: Settings) -> Manifest:
        """Return what the rows so far were embedded with, and which they were."""
        return Manifest(settings, self.rows, self.digest.hexdigest(), self.num_cut)

    def warn(self) -> None:
        """Tell the caller's caller about texts that were cut, if it wants to know."""
        if self.num_cut and self.on_truncate == "warn":
            warnings.warn(
                f"{self.num_cut} of {self.rows} texts had more than {self.encoder.max_length} "
                "tokens and were cut",
                stacklevel=3,
            )
