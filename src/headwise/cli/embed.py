"""``headwise embed``: a corpus of texts to a file of vectors."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from .errors import say
from .options import (
    FormatOption,
    ModelOption,
    OnTruncate,
    OutputFormat,
    Precision,
    ThreadsOption,
    examples,
    or_stdin,
    set_threads,
)

EXAMPLES = examples(
    "headwise embed texts.txt -o vectors.npy --model models/all-MiniLM-L6-v2",
    "headwise embed articles.csv -o articles.parquet --column body --precision int8",
    "zcat texts.gz | headwise embed - -o - | my-program",
)


def embed(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help=".txt (a text each line), .csv, .tsv, .jsonl, .parquet or .arrow, and .gz, .bz2 "
            "or .zst of the first four. - is standard input.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help=".parquet or .arrow, which keep the other columns, or .npy, which has the vectors "
            "alone. - is standard output.",
        ),
    ],
    model: ModelOption,
    column: Annotated[
        str, typer.Option("--column", "-c", help="The column of the texts.")
    ] = "text",
    format: FormatOption = None,
    to: Annotated[
        OutputFormat | None,
        typer.Option("--to", help="What to write, if OUT does not tell; arrow for a pipe."),
    ] = None,
    precision: Annotated[
        Precision, typer.Option("--precision", help="What the model computes in.")
    ] = "float32",
    on_truncate: Annotated[
        OnTruncate,
        typer.Option("--on-truncate", help="What to do about texts the model has to cut."),
    ] = "warn",
    threads: ThreadsOption = None,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", min=1, help="Tokens that are computed at once.")
    ] = 16384,
    part_rows: Annotated[
        int, typer.Option("--part-rows", min=1, help="Save the work after this many rows.")
    ] = 8192,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace an OUT of another input, model or other settings."
        ),
    ] = False,
) -> None:
    """Embed the texts of a file into vectors, the column 'embedding'.

    Work is saved in OUT.parts until all of it is done: if it is killed, the same command goes on
    where it stopped, and a changed setting or input is refused. Memory does not grow with the
    input. A text's vector is the same to the last bit whatever else is in the file.
    """
    from .. import corpus

    set_threads(threads)
    options: dict[str, Any] = {
        "column": column,
        "format": format,
        "precision": precision,
        "on_truncate": on_truncate,
        "batch_tokens": batch_tokens,
        "part_rows": part_rows,
        "progress": sys.stderr.isatty(),
    }
    if output == "-":
        if sys.stdout.isatty():
            raise typer.BadParameter("standard output is a terminal: redirect it, or give a file")
        corpus.embed_to_stream(
            or_stdin(source), sys.stdout.buffer, model, to=to or "arrow", **options
        )
        return
    try:
        done = corpus.embed_corpus(
            or_stdin(source), output, model, to=to, overwrite=overwrite, **options
        )
    except KeyboardInterrupt as stop:
        stop.args = ("the same command goes on where it stopped",)
        raise
    if done.new_rows == 0 < done.rows:
        say(f"{output} is already complete, with {done.rows:,} texts")
    elif sys.stderr.isatty():
        before = done.rows - done.new_rows
        say(f"{output} has {done.rows:,} texts" + (f", {before:,} from before" * (before > 0)))
