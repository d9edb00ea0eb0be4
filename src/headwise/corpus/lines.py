"""Lines of text, and CSV (RFC 4180), in UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from .chunks import chunks


def _read_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Yield the lines of UTF-8, with their ends but without a byte order mark."""
    for number, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number} is not UTF-8: {error}") from None


def read_text(stream: BinaryIO, name: str) -> Iterator[pa.RecordBatch]:
    """Yield a row for each line, in a column ``text``."""
    for _, lines in chunks(_read_lines(stream, name)):
        texts = [line.removesuffix("\n").removesuffix("\r") for line in lines]
        yield pa.record_batch([pa.array(texts, pa.string())], ["text"])


def read_csv(
    stream: BinaryIO, name: str, delimiter: str
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the columns that the first line names, all of strings, and the rows after it.

    Raises
    ------
    ValueError
        If there is no first line, a quote is not closed or stands where none may, or, later, a row
        has more or fewer fields than the first line.

    """
    # A field may be as long as any text, and the limit is one of the module.
    csv.field_size_limit(max(csv.field_size_limit(), 1 << 30))
    reader = csv.reader(_read_lines(stream, name), delimiter=delimiter, strict=True)

    def rows() -> Iterator[list[str]]:
        try:
            yield from filter(None, reader)
        except csv.Error as error:
            raise ValueError(f"{name}, line {reader.line_num} is not CSV: {error}") from None

    all_rows = rows()
    header = next(all_rows, None)
    if header is None:
        raise ValueError(f"{name} is empty: it must begin with the names of its columns")
    schema = pa.schema([(column, pa.string()) for column in header])

    def batches() -> Iterator[pa.RecordBatch]:
        for first, chunk in chunks(all_rows):
            for number, row in enumerate(chunk, first):
                if len(row) != len(header):
                    raise ValueError(
                        f"{name}, row {number} has {len(row)} fields: it must have "
                        f"{len(header)}, as the first line has"
                    )
            columns = [pa.array(values, pa.string()) for values in zip(*chunk, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return schema, batches()
