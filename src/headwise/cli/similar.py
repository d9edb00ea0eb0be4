"""``headwise similar``: the texts of a corpus that are nearest to a text."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import FormatOption, Precision, ThreadsOption, examples, or_stdin, set_threads

if TYPE_CHECKING:
    from ..corpus import Neighbour

EXAMPLES = examples(
    "headwise similar 'how do plants eat' articles.parquet",
    "headwise similar 'how do plants eat' texts.txt -k 3 --model models/all-MiniLM-L6-v2",
    "headwise similar 'how do plants eat' articles.parquet --json",
)


def similar(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A text.")],
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="What 'headwise embed' wrote; or texts, as it reads them, which are embedded "
            "now. - is standard input.",
        ),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many texts to find.")] = 10,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A model folder, or an id of the Hugging Face hub. By default the one that "
            "embedded CORPUS; for texts the environment variable HEADWISE_MODEL.",
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            "--column", "-c", help="The column of the texts: 'text', or the one that was embedded."
        ),
    ] = None,
    format: FormatOption = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            "--precision", help="What the model computes in: float32, or that of the vectors."
        ),
    ] = None,
    threads: ThreadsOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="An object a line: rank, row, cosine, text.")
    ] = False,
) -> None:
    """Find the texts of a corpus that are most similar to a text.

    Prints rank, cosine and text, the nearest first; for .npy, which has no texts, the row.
    """
    from ..corpus import read_manifest, similar

    set_threads(threads)
    if model is None and (corpus == "-" or read_manifest(Path(corpus)) is None):
        model = os.environ.get("HEADWISE_MODEL")
    found = similar(
        query,
        or_stdin(corpus),
        k=k,
        model=model,
        column=column,
        format=format,
        precision=precision,
    )
    for rank, neighbour in enumerate(found, 1):
        if as_json:
            typer.echo(json.dumps({"rank": rank} | asdict(neighbour), ensure_ascii=False))
        else:
            typer.echo(_line(rank, neighbour))


def _line(rank: int, neighbour: Neighbour) -> str:
    text = f"row {neighbour.row}" if neighbour.text is None else " ".join(neighbour.text.split())
    line = f"{rank:3}  {neighbour.cosine:7.4f}  {text}"
    width = shutil.get_terminal_size().columns
    return f"{line[: width - 3]}..." if sys.stdout.isatty() and len(line) > width else line
