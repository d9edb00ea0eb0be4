"""The figures of attention.md, drawn from the numbers that stand on that page.

The page's own outputs are read, not computed anew: the tests hold them to be right, so the figures
show what the text says, and building the site needs no model.
"""

from __future__ import annotations

from doctest import DocTestParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Text and lines, then two colours that stand out from each other on either background.
THEMES = {"light": ("#2f3337", "#0b6bcb", "#c2410c"), "dark": ("#cfd3d7", "#6cb6ff", "#ff9d5c")}
SIZE = (7.2, 3.1)  # inches: the width of the text


class Page:
    """What the statements of a page print."""

    def __init__(self, path: Path):
        examples = DocTestParser().get_examples(path.read_text("utf-8"))
        self.outputs = {example.source.strip(): example.want for example in examples}

    def array(self, statement: str) -> np.ndarray:
        """Return the array that a statement prints."""
        names = {"array": np.array, "float32": np.float32, "__builtins__": {}}
        return np.asarray(eval(self.outputs[statement], names))

    def table(self, statement: str) -> list[tuple[str, float]]:
        """Return the name and the number in each line that a statement prints."""
        rows = (line.split() for line in self.outputs[statement].splitlines())
        return [(name, float(number)) for name, number in rows]


def words(page: Page, axes: list[Axes], colours: tuple[str, ...]) -> None:
    """Where "apple" goes in each of two sentences."""
    (ax,) = axes
    sentences = {"about_phones": "apple phone screen", "about_fruit": "apple orange juice"}
    for (text, sentence), colour in zip(sentences.items(), colours[1:], strict=True):
        before = page.array(text)
        after = page.array(f"hw.attention({text}, {text}, {text}, scale=1.0).round(2)")
        ax.scatter(*before.T, s=18, color=colours[0])
        for name, at in zip(sentence.split(), before, strict=True):
            ax.annotate(name, at, (-7, 0), textcoords="offset points", ha="right", va="center")
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.8, "shrinkA": 3, "shrinkB": 0}
        ax.annotate("", after[0], before[0], arrowprops=arrow)
        ax.annotate(f'in "{sentence}"', after[0], (7, 3), textcoords="offset points", color=colour)
    ax.set(xlim=(-0.5, 4.5), ylim=(0, 3.4), xlabel="to do with eating", ylabel="with machines")


def masks(page: Page, axes: list[Axes], colours: tuple[str, ...]) -> None:
    """The weights of five words, all and causal."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    shades = LinearSegmentedColormap.from_list("", [to_rgba(colours[1], a) for a in (0, 0.6)])
    names = ["orange", "juice", "apple", "phone", "screen"]
    for ax, option, title in zip(axes, ("", ", is_causal=True"), ("full", "causal"), strict=True):
        weights = page.array(f"hw.attention_weights(words, words{option}).round(2)")
        ax.pcolormesh(weights, cmap=shades, vmin=0, vmax=1, edgecolors=colours[0], linewidth=0.4)
        for (i, j), weight in np.ndenumerate(weights):
            shown = f"{weight:.2f}" if weight else "0"
            ax.text(j + 0.5, i + 0.5, shown, ha="center", va="center", size=8)
        ax.set(title=title, aspect="equal", xlabel="key", ylabel="query")
        ax.set_xticks(np.arange(5) + 0.5, names, size=8)
        ax.set_yticks(np.arange(5) + 0.5, names, size=8)
        ax.tick_params(length=0)
        ax.invert_yaxis()


def layers(page: Page, axes: list[Axes], colours: tuple[str, ...]) -> None:
    """How alike "apple" is to two other words, layer by layer."""
    titles = {"fruit": "I love apple juice", "company": "I love Apple phones"}
    for ax, (sentence, title) in zip(axes, titles.items(), strict=True):
        for other, colour in zip(("nokia", "grape"), colours[1:], strict=True):
            cosines = page.array(f"({sentence} * {other}).sum(-1).round(2)")
            ax.plot(cosines, "o-", color=colour, markersize=4, label=f"apple and {other}")
        ax.set(title=title, ylim=(0, 0.7), xlabel="after layer", ylabel="cosine")
    axes[0].legend(frameon=False, loc="lower left")


def it(page: Page, axes: list[Axes], colours: tuple[str, ...]) -> None:
    """Where "it" looks."""
    loop = 'for token, weight in zip(tokens, row):\n    print(f"{token:8} {weight:.2f}")'
    tokens, weights = zip(*page.table(loop), strict=True)
    axes[0].bar(range(len(tokens)), weights, color=colours[1])
    axes[0].set_xticks(range(len(tokens)), tokens, rotation=30)
    axes[0].set(ylabel='weight for "it"', ylim=(0, 1))


FIGURES = {words: 1, masks: 2, layers: 2, it: 1}  # and how many plots each has


def draw(folder: Path) -> None:
    """Write every figure into a folder, for a light and for a dark page."""
    import matplotlib
    from matplotlib import pyplot

    folder.mkdir(exist_ok=True)
    page = Page(Path(__file__).with_name("attention.md"))
    for theme, colours in THEMES.items():
        style: dict[str, Any] = {
            **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), colours[0]),
            **dict.fromkeys(("xtick.color", "ytick.color"), colours[0]),
            **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
            "svg.fonttype": "none",  # letters stay letters, in the font of the reader's machine
            "svg.hashsalt": "headwise",
            "font.size": 9,
        }
        with matplotlib.rc_context(style):
            for figure, count in FIGURES.items():
                drawing, axes = pyplot.subplots(1, count, figsize=SIZE, layout="constrained")
                figure(page, np.atleast_1d(axes).tolist(), colours)
                path = folder / f"{figure.__name__}-{theme}.svg"
                drawing.savefig(path, transparent=True, metadata={"Date": None})
                pyplot.close(drawing)
