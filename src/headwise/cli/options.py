"""Options that several commands have."""

from __future__ import annotations

import sys
from typing import Annotated, BinaryIO, Literal

import typer

# As headwise.corpus has it, which needs pyarrow.
Format = Literal["text", "csv", "tsv", "jsonl", "parquet", "arrow"]
OutputFormat = Literal["parquet", "arrow", "npy"]
Precision = Literal["float32", "bfloat16", "int8"]
OnTruncate = Literal["warn", "error", "ignore"]

FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format", help="What the input is, if its name does not tell; lines of text for a pipe."
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="HEADWISE_MODEL",
        help="A model folder, or an id of the Hugging Face hub.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, max=4096, help="How many to use. By default what 'headwise info' says."
    ),
]


def examples(*lines: str) -> str:
    """Return what ``--help`` ends with."""
    return "\b\nExamples:\n" + "\n".join(f"  $ {line}" for line in lines)


def set_threads(threads: int | None) -> None:
    """Use this many threads, if it is said how many."""
    from ..runtime import set_num_threads

    if threads is not None:
        set_num_threads(threads)


def or_stdin(name: str) -> str | BinaryIO:
    """Return standard input for ``-``."""
    return sys.stdin.buffer if name == "-" else name
