"""A corpus as record batches: text lines, CSV, JSON lines, Parquet or Arrow, from file or stream.

Nothing holds more than a few hundred rows, and of Parquet some pages of each column.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from .chunks import ROWS
from .jsonlines import infer_schema, parse_lines, read_objects
from .lines import read_csv, read_text

Format = Literal["text", "csv", "tsv", "jsonl", "parquet", "arrow"]

_SUFFIXES: dict[str, Format] = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
}
_COMPRESSED = (".gz", ".bz2", ".zst")

# Rows of a JSON stream that tell its columns, as it cannot be read twice.
_LOOKED_AT = 8192


class Source:
    r"""Rows of a corpus, which can be taken once and in order.

    It is a context manager that closes the file.

    Attributes
    ----------
    name : str
        For messages.
    schema : pyarrow.Schema
    num_rows : int or None
        How many rows there are in all, where that is known beforehand.

    Examples
    --------
    >>> import io
    >>> from headwise.corpus import open_source
    >>> source = open_source(io.BytesIO(b"one text\nanother\na third"))
    >>> source.take(2).to_pylist()
    [{'text': 'one text'}, {'text': 'another'}]
    >>> source.take(2).num_rows, source.take(2).num_rows
    (1, 0)

    """

    def __init__(
        self,
        name: str,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        num_rows: int | None = None,
    ):
        self.name = name
        self.schema = pa.schema(map(_without_dictionary, schema), schema.metadata)
        self.num_rows = num_rows
        self.file: BinaryIO | None = None
        self._raw_schema = schema
        self._batches = self._small(batches)
        self._rest: pa.RecordBatch | None = None

    def take(self, max_rows: int, max_bytes: float = float("inf")) -> pa.Table:
        """Return the next rows: `max_rows`, or fewer if they reach `max_bytes`, or at the end."""
        batches, rows, size = [], 0, 0
        while rows < max_rows and size < max_bytes:
            batch = next(self._batches, None) if self._rest is None else self._rest
            self._rest = None
            if batch is None:
                break
            if batch.num_rows > max_rows - rows:
                self._rest = batch.slice(max_rows - rows)
                batch = batch.slice(0, max_rows - rows)
            batches.append(batch)
            rows += batch.num_rows
            size += batch.nbytes
        return pa.Table.from_batches(batches, self._raw_schema).cast(self.schema)

    def count(self) -> int:
        """Read to the end and return how many rows that were."""
        return sum(batch.num_rows for batch in self._batches)

    def _small(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                for first in range(0, batch.num_rows, ROWS):
                    yield batch.slice(first, ROWS)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.name} cannot be read: {error}") from error

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.file is not None:
            self.file.close()


def open_source(source: str | Path | BinaryIO, format: Format | None = None) -> Source:
    """Open a corpus.

    Parameters
    ----------
    source : str, Path or binary file
        A path, or a stream that need not be seekable. A file that ends in .gz, .bz2 or .zst is
        decompressed.
    format : {"text", "csv", "tsv", "jsonl", "parquet", "arrow"}, optional
        By default what the name of the file ends in, and lines of text for a stream.

        - text: a row for each line, in a column ``text``. An empty line is an empty text.
        - csv, tsv: the first line names the columns. All values are strings, as they stand there.
        - jsonl: an object a line; its keys are the columns, of the types that all rows have in
          common. A file is read twice for that; of a stream the first 8192 rows decide.
        - parquet: a file, or a stream that is seekable.
        - arrow: the file format or the stream format.

    Returns
    -------
    Source

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `source` is neither a path nor a file.
    ValueError
        If the format is unknown or the input is not of that format. Later errors, of `take`, name
        the line or the row.

    """
    if format is not None and format not in get_args(Format):
        raise ValueError(f"format is {format!r}: it must be one of {get_args(Format)}")
    if not isinstance(source, str | Path):
        if not hasattr(source, "read"):
            raise TypeError(
                f"source is a {type(source).__name__}: it must be a path or a binary file"
            )
        return _open(source, str(getattr(source, "name", "the input")), format or "text")
    path = Path(source)
    format = format or _format_of(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: it must be a file")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    schema = None
    if format == "jsonl" and path.is_file():
        with _open_file(path, format) as file:
            schema = infer_schema(parse_lines(file, str(path)), str(path))
    file = _open_file(path, format)
    try:
        opened = _open(file, str(path), format, schema)
    except BaseException:
        file.close()
        raise
    opened.file = file
    return opened


def _format_of(path: Path) -> Format:
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in _SUFFIXES:
        raise ValueError(
            f"{path}: its name does not tell its format by one of {', '.join(_SUFFIXES)}: "
            f"give the format, one of {', '.join(get_args(Format))}"
        )
    return _SUFFIXES[suffixes[-1]]


def _open_file(path: Path, format: Format) -> BinaryIO:
    if path.suffix.lower() in _COMPRESSED:
        # Buffered, as Arrow's own stream has no lines.
        return io.BufferedReader(pa.input_stream(str(path)))
    if format == "arrow" and path.is_file() and path.stat().st_size:
        return pa.memory_map(str(path))  # type: ignore[no-any-return]
    return pa.OSFile(str(path)) if format == "parquet" else path.open("rb")


def _open(
    stream: BinaryIO, name: str, format: Format, json_schema: tuple[pa.Schema, int] | None = None
) -> Source:
    if format == "text":
        return Source(name, pa.schema([("text", pa.string())]), read_text(stream, name))
    if format in ("csv", "tsv"):
        return Source(name, *read_csv(stream, name, "," if format == "csv" else "\t"))
    if format == "jsonl":
        return _open_jsonl(stream, name, json_schema)
    try:
        return _open_parquet(stream, name) if format == "parquet" else _open_arrow(stream, name)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} cannot be read as {format}: {error}") from error


def _open_jsonl(stream: BinaryIO, name: str, known: tuple[pa.Schema, int] | None) -> Source:
    objects = parse_lines(stream, name)
    if known is not None:
        schema, num_rows = known
        return Source(name, schema, read_objects(objects, name, schema), num_rows)
    head = list(islice(objects, _LOOKED_AT))
    schema, _ = infer_schema(head, name)
    return Source(name, schema, read_objects(chain(head, objects), name, schema))


def _open_parquet(stream: BinaryIO, name: str) -> Source:
    if not stream.seekable():
        raise ValueError(
            f"{name} is a pipe or compressed: Parquet can be read from a plain file alone"
        )
    # Page by page, so that the size of a row group does not matter.
    file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 16)
    batches = file.iter_batches(ROWS, use_threads=False)
    return Source(name, file.schema_arrow, batches, file.metadata.num_rows)


def _open_arrow(stream: BinaryIO, name: str) -> Source:
    start = stream.read(8)
    if start != b"ARROW1\0\0":  # the file format is the stream format between a head and a foot
        stream = io.BufferedReader(_Prepended(start, stream))
    reader = pa.ipc.open_stream(stream)
    return Source(name, reader.schema, reader)


class _Prepended(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, start: bytes, rest: BinaryIO):
        self._start, self._rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._start or self._rest.read(len(buffer))
        data, self._start = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _without_dictionary(field: pa.Field) -> pa.Field:
    """Return a field of plain values: an Arrow file has one dictionary, and each part its own."""
    while pa.types.is_dictionary(field.type):
        field = field.with_type(field.type.value_type)
    if _has_dictionary(field.type):
        raise ValueError(
            f"column {field.name!r} is {field.type}: dictionaries inside other types are not "
            "supported"
        )
    return field


def _has_dictionary(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or any(
        _has_dictionary(kind.field(i).type) for i in range(kind.num_fields)
    )
