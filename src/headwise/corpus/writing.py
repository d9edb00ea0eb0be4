"""Rows with their vectors as Parquet, Arrow or .npy."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .columns import EMBEDDING, vectors_of
from .manifest import Manifest
from .parts import replacing

OutputFormat = Literal["parquet", "arrow", "npy"]

_SUFFIXES: dict[str, OutputFormat] = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".npy": "npy",
}


def output_format(path: Path, format: OutputFormat | None = None) -> OutputFormat:
    """Return `format`, or what the name of the file ends in.

    Examples
    --------
    >>> from pathlib import Path
    >>> from headwise.corpus.writing import output_format
    >>> output_format(Path("vectors.npy"))
    'npy'

    """
    if format is not None:
        if format not in get_args(OutputFormat):
            raise ValueError(f"to is {format!r}: it must be one of {get_args(OutputFormat)}")
        return format
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(
            f"{path}: its name must end in one of {', '.join(_SUFFIXES)}, or the format be given, "
            f"one of {', '.join(get_args(OutputFormat))}"
        )
    return _SUFFIXES[path.suffix.lower()]


def write_file(
    path: Path,
    folder: Path,
    format: OutputFormat,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    manifest: Manifest,
) -> None:
    """Write tables, one in memory at a time, into a file that is there at once or not at all.

    Parameters
    ----------
    path : Path
    folder : Path
        Where it is written before it is moved: on the same file system.
    format : {"parquet", "arrow", "npy"}
        Of .npy, which can hold nothing else, the manifest is put beside it, in ``path.json``.
    schema : pyarrow.Schema
    tables : iterable of pyarrow.Table
        Each becomes a row group.
    manifest : Manifest

    """
    if format == "npy":
        with replacing(path.with_name(path.name + ".json"), folder) as sidecar:
            sidecar.write_text(json.dumps(asdict(manifest), indent=2) + "\n", "utf-8")
    with replacing(path, folder) as temporary, temporary.open("wb") as file:
        if format == "npy":
            _write_npy(file, schema.field(EMBEDDING).type.list_size, tables, manifest.rows)
            return
        metadata = {**(schema.metadata or {}), **manifest.to_metadata()}
        new = _parquet_writer if format == "parquet" else pa.ipc.new_file
        with new(file, schema.with_metadata(metadata)) as writer:
            for table in tables:
                writer.write_table(table)


@contextmanager
def write_stream(
    stream: BinaryIO, format: OutputFormat, schema: pa.Schema
) -> Iterator[pq.ParquetWriter | pa.RecordBatchStreamWriter]:
    """Give a writer of tables to a stream that cannot go back: Arrow's stream format or Parquet.

    What ends with an error has no end mark, so that no reader takes it for the whole.
    """
    if format == "npy":
        raise ValueError(
            "npy cannot be written to a stream, as it begins with the number of rows: "
            "write arrow or parquet, or give a file"
        )
    sink = _Sink(stream)
    new = _parquet_writer if format == "parquet" else pa.ipc.new_stream
    writer = new(sink, schema)
    try:
        yield writer
    except BaseException:
        sink.open = False
        raise
    finally:
        writer.close()


class _Sink(io.RawIOBase):
    """Writes to a stream until it is told not to."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.open = True

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.open:
            self.stream.write(data)
        return memoryview(data).nbytes


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest of a file that `write_file` wrote; None for any other.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    with path.open("rb") as file:
        start = file.read(6)
    try:
        if start.startswith(b"PAR1"):
            return Manifest.from_metadata(pq.read_schema(path).metadata)
        if start == b"ARROW1":
            with pa.memory_map(str(path)) as mapped:
                return Manifest.from_metadata(pa.ipc.open_file(mapped).schema.metadata)
        sidecar = path.with_name(path.name + ".json")
        if start == b"\x93NUMPY" and sidecar.is_file():
            return Manifest(**json.loads(sidecar.read_text("utf-8")))
    except (pa.ArrowException, OSError, ValueError, TypeError):
        pass  # damaged, or of somebody else
    return None


def _parquet_writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        # No two vectors share numbers: a dictionary of them only takes time. Their bytes apart,
        # the exponents pack well: 0.84 of the size, in the same time.
        use_dictionary=[field.name for field in schema if not pa.types.is_nested(field.type)],
        use_byte_stream_split=[f"{EMBEDDING}.list.element"],
    )


def _write_npy(file: BinaryIO, dim: int, tables: Iterable[pa.Table], rows: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(file, header)
    for table in tables:
        file.write(vectors_of(table[EMBEDDING], dim).data)
