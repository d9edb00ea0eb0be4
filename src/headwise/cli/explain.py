"""``headwise explain``: a page to look into the attention of a text."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from .errors import say
from .options import ModelOption, Precision, examples

EXAMPLES = examples(
    "headwise explain 'The cat sat on the mat because it was tired' -m models/all-MiniLM-L6-v2",
    "headwise explain 'I love Apple phones' --compare 'I love apple juice' -o apple.html",
    "headwise explain - --layers 0,3-5 --heads 2 -o page.html < text.txt",
)

_LARGE = 5_000_000  # bytes


def explain(
    text: Annotated[str, typer.Argument(help="The text; - reads it from standard input.")],
    model: ModelOption,
    compare: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A second text: both are shown, and what they share."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The page to write; - is standard output.")
    ] = Path("attention.html"),
    precision: Annotated[
        Precision, typer.Option("--precision", help="What the model computes in.")
    ] = "float32",
    layers: Annotated[
        str, typer.Option(help="Layers to show, such as 0,3-5; all by default.")
    ] = "",
    heads: Annotated[str, typer.Option(help="Heads to show, in the same way.")] = "",
) -> None:
    """Write a page that shows where each token of a text looks, in every layer and head."""
    page, tokens = _page(_read(text, compare), model, precision, layers, heads)
    if output == Path("-"):
        sys.stdout.write(page)
    else:
        output.write_text(page, encoding="ascii")
    say(f"{output}: {tokens} tokens, {len(page) / 1e6:.2f} MB")
    if len(page) > _LARGE:
        say("a browser takes its time over such a page: --layers and --heads make it smaller")


def _read(text: str, compare: str | None) -> list[str]:
    texts = [text] if compare is None else [text, compare]
    if texts.count("-") > 1:
        raise ValueError("both texts are -: standard input holds one")
    return [sys.stdin.read() if text == "-" else text for text in texts]


def _page(
    texts: list[str], model: str, precision: Precision, layers: str, heads: str
) -> tuple[str, int]:
    """Return the page, and how many tokens it shows."""
    from ..text import TextEncoder

    encoder = TextEncoder.from_pretrained(model, precision)
    shown_layers = _numbers("--layers", layers, encoder.encoder.num_layers)
    shown_heads = _numbers("--heads", heads, encoder.encoder.num_heads)
    traces = [encoder.explain(text) for text in texts]
    page = traces[0].to_html(*traces[1:], layers=shown_layers, heads=shown_heads)
    return page, sum(len(trace.input_ids) for trace in traces)


def _numbers(option: str, given: str, count: int) -> list[int] | None:
    """Read numbers below `count` and ranges of them; None if nothing is given."""
    if not given:
        return None
    numbers: list[int] = []
    for part in given.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < count:
            raise ValueError(
                f"{option} is {given!r}: it must be numbers from 0 to {count - 1} and ranges of "
                "them, such as 0,3-5"
            )
        numbers += range(first, last + 1)
    return numbers
