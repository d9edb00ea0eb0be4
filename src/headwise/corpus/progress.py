"""A progress bar of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .reading import Format, Source, open_source


@contextmanager
def progress_bar(
    source: str | Path | BinaryIO, format: Format | None, rows: Source, done: int = 0
) -> Iterator[Callable[[int], object]]:
    """Show a bar, of which `done` texts are done, and give what tells it of more."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
    with tqdm(total=_count(source, format, rows), initial=done, unit=" texts") as bar:
        yield bar.update


def _count(source: str | Path | BinaryIO, format: Format | None, rows: Source) -> int | None:
    """Return how many rows there are, if that can be known without using them up."""
    if rows.num_rows is not None:
        return rows.num_rows
    if isinstance(source, str | Path) and Path(source).is_file():
        with open_source(source, format) as again:
            return again.count()
    return None
