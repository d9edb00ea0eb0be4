"""Rows in, rows with their vectors out: to a stream, or to a file in parts that outlive a crash."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from ..functional.linear import Precision
from ..text import TextEncoder, check_on_truncate
from ..tokenization import OnTruncate
from .columns import check_columns, embedding_field
from .manifest import model_settings
from .parts import PartsFolder
from .progress import progress_bar
from .reading import Format, open_source
from .resuming import begin, check_finished, skip_parts
from .run import PART_BYTES, Run
from .writing import OutputFormat, output_format, write_file, write_stream


@dataclass(frozen=True)
class Embedded:
    """What `embed_corpus` did.

    Attributes
    ----------
    rows : int
        How many there are in the output.
    new_rows : int
        How many of them this call embedded; the others were there.
    num_cut : int
        How many texts had more tokens than the model takes.

    """

    rows: int
    new_rows: int
    num_cut: int


def embed_corpus(
    source: str | Path | BinaryIO,
    output: str | Path,
    model: str | Path,
    *,
    column: str = "text",
    format: Format | None = None,
    to: OutputFormat | None = None,
    precision: Precision = "float32",
    on_truncate: OnTruncate = "warn",
    batch_tokens: int = 16384,
    part_rows: int = 8192,
    overwrite: bool = False,
    progress: bool = False,
) -> Embedded:
    """Embed a column of texts into a file; a run that was killed goes on where it stopped.

    The vectors have the bits that `TextEncoder.encode` gives. Until all are there they are in
    parts in the folder ``OUTPUT.parts``, with a manifest of the settings; then the parts are joined
    into a file that gets its name at once, and the folder goes. The next call with the same
    arguments reads the rows of finished parts and embeds the others; it refuses to if a setting,
    the model's files or one of those texts has changed. The disk must have room for the output
    twice.

    In memory are the model, one part (`part_rows` rows, fewer where they reach 64 MB) with its
    vectors, and what `TextEncoder.encode` needs, whatever the number of rows.

    Parameters
    ----------
    source, format
        See :func:`open_source`.
    output : str or Path
        Parquet or Arrow, which keep the other columns of the input and have the vectors in a column
        ``embedding``, a fixed-size list of float32; or .npy, which has the vectors alone, (n, dim)
        float32.
    model : str or Path
        A model folder or hub id, as `TextEncoder.from_pretrained` takes it.
    column : str
        The column of the texts.
    to : {"parquet", "arrow", "npy"}, optional
        By default what the name of the output ends in.
    precision : {"float32", "bfloat16", "int8"}
    on_truncate : {"warn", "error", "ignore"}
        What to do about texts of more tokens than the model takes, which are cut.
    batch_tokens : int
        See `TextEncoder.encode`.
    part_rows : int
        How often the work is saved.
    overwrite : bool
        Start again, where otherwise it would be refused, and replace the output.
    progress : bool
        Show a progress bar, of texts; needs tqdm. It knows the time that is left if the rows can be
        counted, for which a file of text, CSV or JSON is read once more.

    Returns
    -------
    Embedded
        If the output was there already, made of the same texts by the same settings, `new_rows` is
        0 and nothing was done.

    Raises
    ------
    FileNotFoundError
        If the input, the model or the folder of the output cannot be found.
    FileExistsError
        If `output` exists and is something else.
    BlockingIOError
        If another process is at work on the same output.
    ValueError
        If a setting or the input has changed, or the input is not as it should be: the message
        names the setting, or the row, counted from 0.

    Examples
    --------
    >>> from headwise.corpus import embed_corpus
    >>> embed_corpus("texts.csv", "vectors.parquet", "models/all-MiniLM-L6-v2")  # doctest: +SKIP
    Embedded(rows=20000, new_rows=20000, num_cut=0)

    """
    path = Path(output)
    to = output_format(path, to)
    _check_options(part_rows, batch_tokens, on_truncate)
    with open_source(source, format) as rows, PartsFolder(path) as folder:
        check_columns(rows, column)
        encoder = TextEncoder.from_pretrained(model, precision)
        schema = _output_schema(rows.schema, encoder.dim, to)
        settings = model_settings(encoder) | {
            "on_truncate": on_truncate,
            "column": column,
            "columns": ", ".join(f"{field.name}: {field.type}" for field in schema),
            "format": to,
        }
        if folder.settings is None and path.exists() and not overwrite:
            finished = check_finished(path, rows, column, settings)
            return Embedded(finished.rows, 0, finished.num_cut)
        begin(folder, settings, overwrite)
        run = Run(encoder, column, batch_tokens, on_truncate)
        changed = skip_parts(folder, rows, run, overwrite)
        skipped = run.rows
        table = rows.take(part_rows, PART_BYTES) if changed is None else changed
        with progress_bar(source, format, rows, skipped) if progress else nullcontext() as update:
            while table.num_rows:
                embedded = run.embed(table, update)
                folder.write(embedded.select(schema.names), run.manifest(settings))
                table = rows.take(part_rows, PART_BYTES)
        write_file(path, folder.path, to, schema, folder.tables(), run.manifest(settings))
        folder.clear()
    run.warn()
    return Embedded(run.rows, run.rows - skipped, run.num_cut)


def embed_to_stream(
    source: str | Path | BinaryIO,
    stream: BinaryIO,
    model: str | Path,
    *,
    column: str = "text",
    format: Format | None = None,
    to: OutputFormat = "arrow",
    precision: Precision = "float32",
    on_truncate: OnTruncate = "warn",
    batch_tokens: int = 16384,
    part_rows: int = 8192,
    progress: bool = False,
) -> Embedded:
    """Embed a column of texts into a stream, such as a pipe: Arrow's stream format, or Parquet.

    Every `part_rows` rows are written as soon as they are embedded. The parameters are those of
    :func:`embed_corpus`.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`embed_corpus`.

    Examples
    --------
    >>> import sys
    >>> from headwise.corpus import embed_to_stream
    >>> model = "models/all-MiniLM-L6-v2"
    >>> embed_to_stream(sys.stdin.buffer, sys.stdout.buffer, model)  # doctest: +SKIP

    """
    _check_options(part_rows, batch_tokens, on_truncate)
    with open_source(source, format) as rows:
        check_columns(rows, column)
        encoder = TextEncoder.from_pretrained(model, precision)
        schema = _output_schema(rows.schema, encoder.dim, to)
        run = Run(encoder, column, batch_tokens, on_truncate)
        with (
            progress_bar(source, format, rows) if progress else nullcontext() as update,
            write_stream(stream, to, schema) as writer,
        ):
            while (table := rows.take(part_rows, PART_BYTES)).num_rows:
                writer.write_table(run.embed(table, update))
                stream.flush()
    run.warn()
    return Embedded(run.rows, run.rows, run.num_cut)


def _output_schema(schema: pa.Schema, dim: int, to: OutputFormat) -> pa.Schema:
    field = embedding_field(dim)
    return pa.schema([field]) if to == "npy" else schema.append(field)


def _check_options(part_rows: int, batch_tokens: int, on_truncate: OnTruncate) -> None:
    """Before anything is recorded that would refuse a better value."""
    for name, value in (("part_rows", part_rows), ("batch_tokens", batch_tokens)):
        if value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1")
    check_on_truncate(on_truncate)
