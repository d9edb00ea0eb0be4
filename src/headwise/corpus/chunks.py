"""Some rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

# So few that long texts are no burden, so many that what is done once a batch costs nothing.
ROWS = 256


def chunks(rows: Iterable[T], size: int = ROWS) -> Iterator[tuple[int, list[T]]]:
    """Yield `size` rows at a time, after the number of the first of them.

    Examples
    --------
    >>> from headwise.corpus.chunks import chunks
    >>> list(chunks("abcde", 2))
    [(0, ['a', 'b']), (2, ['c', 'd']), (4, ['e'])]

    """
    iterator, first = iter(rows), 0
    while chunk := list(islice(iterator, size)):
        yield first, chunk
        first += len(chunk)
