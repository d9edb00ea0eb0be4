"""All plots, with what is said of each."""

from __future__ import annotations

from typing import NamedTuple

from . import bars, curves, roofline
from .run import Run
from .style import SETTINGS, pyplot, svg


class Plot(NamedTuple):
    title: str
    text: str
    svg: str


DRAWN = {
    "encoder": (
        bars.encoder,
        "Embedding texts",
        "all-MiniLM-L6-v2 from texts to vectors, tokenizing included: medians, and quartiles as a "
        "line at the end of a bar. More is better.",
    ),
    "length": (
        curves.length,
        "Attention over sequence length",
        "8 heads of 64, float32: medians, and quartiles as a band. Memory is what a first call "
        "adds to a process that holds the inputs, its output included.",
    ),
    "roofline": (
        roofline.roofline,
        "Roofline",
        "Every operation by what it has to compute and to read at least: the lines are what the "
        "machine could do at best, the grey band how its peak moved during the run. Points above "
        "the slope find their data in a cache.",
    ),
    "batch": (
        curves.batch,
        "Batch size",
        "all-MiniLM-L6-v2, so many short texts in one call.",
    ),
    "threads": (
        curves.threads,
        "Threads",
        "Every library with as many threads, in a process of its own.",
    ),
    "load": (
        bars.load,
        "From nothing to vectors",
        "A new process imports a library, loads all-MiniLM-L6-v2 and embeds one text: the three "
        "shades of a bar, from strong to faint. Memory is the peak after 512 more texts.",
    ),
    "sizes": (
        bars.sizes,
        "Size on disk",
        "What pip installs to embed texts, all requirements included; the largest are named.",
    ),
}


def plots(run: Run) -> dict[str, Plot]:
    """Draw what the run has the data for."""
    made = {}
    for name, (draw, title, text) in DRAWN.items():
        with pyplot().rc_context(SETTINGS):
            figure = draw(run)
            if figure is not None:
                made[name] = Plot(title, text, svg(figure, name, title))
    return made
