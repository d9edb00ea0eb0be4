"""``headwise explain``: a page to look into the attention of a text."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

_LARGE = 5_000_000  # bytes


def explain(
    text: Annotated[str, typer.Argument(help="The text; - reads it from standard input.")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            envvar="HEADWISE_MODEL",
            help="A model folder, or an id of the Hugging Face hub.",
        ),
    ],
    compare: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A second text: both are shown, and what they share."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The page to write; - is standard output.")
    ] = Path("attention.html"),
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16 or int8: what the model computes in.")
    ] = "float32",
    layers: Annotated[
        str, typer.Option(help="Layers to show, such as 0,3-5; all by default.")
    ] = "",
    heads: Annotated[str, typer.Option(help="Heads to show, in the same way.")] = "",
) -> None:
    """Write a page that shows where each token of a text looks, in every layer and head."""
    with _errors_in_one_line():
        page, tokens = _page(_read(text, compare), model, precision, layers, heads)
        if output == Path("-"):
            sys.stdout.write(page)
        else:
            output.write_text(page, encoding="ascii")
    _say(f"{output}: {tokens} tokens, {len(page) / 1e6:.2f} MB")
    if len(page) > _LARGE:
        _say("a browser takes its time over such a page: --layers and --heads make it smaller")


def _read(text: str, compare: str | None) -> list[str]:
    texts = [text] if compare is None else [text, compare]
    if texts.count("-") > 1:
        raise ValueError("both texts are -: standard input holds one")
    return [sys.stdin.read() if text == "-" else text for text in texts]


def _page(texts: list[str], model: str, precision: str, layers: str, heads: str) -> tuple[str, int]:
    """Return the page and how many tokens it shows; what Python would warn of is said."""
    from ..text import TextEncoder

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoder = TextEncoder.from_pretrained(model, precision)  # type: ignore[arg-type]
        shown_layers = _numbers("--layers", layers, encoder.encoder.num_layers)
        shown_heads = _numbers("--heads", heads, encoder.encoder.num_heads)
        traces = [encoder.explain(text) for text in texts]
        page = traces[0].to_html(*traces[1:], layers=shown_layers, heads=shown_heads)
    for warning in caught:
        _say(str(warning.message))
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


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except (ImportError, OSError, TypeError, ValueError) as error:
        _say(" ".join(str(error).split()))
        raise typer.Exit(1) from None


def _say(message: str) -> None:
    typer.echo(f"headwise: {message}", err=True)
