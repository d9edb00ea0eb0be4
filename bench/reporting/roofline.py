"""Rates against what the machine could do at best: multiply-adds, and reading memory."""

from __future__ import annotations

from .run import Benchmark, Run
from .style import GRID, LOOKS, MUTED, PRECISIONS, TEXT, WIDTH, key, label, ordered, pyplot

SUITES = ("attention", "linear", "minilm", "bert_base")
MARKERS = {"attention": "o", "attention, one query": "v", "linear": "s", "encoder": "^"}


def kind(b: Benchmark) -> str:
    if b.suite == "attention":
        return "attention" if b.bandwidth is None else "attention, one query"
    return "linear" if b.suite == "linear" else "encoder"


def roofline(run: Run):
    """Draw GFLOP/s over operations a byte, a panel for each precision."""
    found = [b for b in run.suite(*SUITES) if b.intensity]
    if not found:
        return None
    plt = pyplot()
    figure, axes = plt.subplots(
        1, len(PRECISIONS), figsize=(WIDTH, 3.6), layout="constrained", sharey=True, sharex=True
    )
    x = [b.intensity for b in found]
    ends = min(x) / 2, max(x) * 2
    for panel, precision in zip(axes, PRECISIONS, strict=True):
        roof(panel, run, precision, ends)
        points(panel, [b for b in found if b.precision == precision])
        panel.set_title(precision)
        panel.set_xlabel("operations a byte")
    axes[0].set(xscale="log", yscale="log", xlim=ends, ylabel="GFLOP/s")
    axes[0].xaxis.set_major_formatter("{x:,g}")
    axes[0].yaxis.set_major_formatter("{x:,g}")
    drawn = {b.library for b in found}
    key(figure, [(label(x), LOOKS[x].colour, "o") for x in ordered(drawn)])
    key(axes[2], [(name, MUTED, marker) for name, marker in MARKERS.items()], "lower right", 1)
    return figure


def roof(axes, run: Run, precision: str, ends: tuple[float, float]) -> None:
    """Draw the limits: a slope of bandwidth, a ceiling of multiply-adds, and how it moved."""
    peak, read = run.peak(precision), run.read_bandwidth
    ridge = peak / read
    axes.axhspan(run.peak(precision, min), run.peak(precision, max), color=GRID, alpha=0.6)
    axes.plot([ends[0], ridge, ends[1]], [ends[0] * read, peak, peak], color=TEXT, linewidth=1.2)
    axes.annotate(
        f"{peak:,.0f} GFLOP/s",
        (ends[1], peak),
        xytext=(-2, 4),
        textcoords="offset points",
        ha="right",
        fontsize=7,
    )
    axes.annotate(
        f"{read:.0f} GB/s",
        (ends[0] * 2, ends[0] * 2 * read),
        xytext=(-4, 4),
        textcoords="offset points",
        rotation=45,
        rotation_mode="anchor",
        transform_rotates_text=True,
        fontsize=7,
    )


def points(axes, found: list[Benchmark]) -> None:
    for library, look in LOOKS.items():
        ours = library == "headwise"
        for name, marker in MARKERS.items():
            chosen = [b for b in found if (b.library, kind(b)) == (library, name)]
            axes.plot(
                [b.intensity for b in chosen],
                [b.gflops for b in chosen],
                marker,
                color=look.colour,
                markersize=5.5 if ours else 4,
                markeredgewidth=0,
                alpha=1 if ours else 0.75,
            )
