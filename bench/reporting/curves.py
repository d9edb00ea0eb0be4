"""Time, memory and rates over sequence length, batch size and threads."""

from __future__ import annotations

from .run import Benchmark, Run
from .style import LOOKS, PRECISIONS, TEXT, WIDTH, key, label, ordered, pyplot

Points = list[tuple[float, Benchmark]]


def length(run: Run):
    """Attention from 64 to 16384 keys: time, rate and peak memory."""
    lines = by_library(run, "length", "length")
    if not lines:
        return None
    figure, (time, rate, memory) = panels(3)
    for library, points in lines.items():
        draw(time, library, points, lambda b, seconds: 1e3 * seconds)
        draw(rate, library, points, gflops)
        draw(memory, library, points, lambda b, seconds: b.info["MB"])
    peak = run.peak("float32")
    rate.axhline(peak, color=TEXT, linewidth=0.9, linestyle=(0, (4, 2)))
    rate.annotate(
        "peak of multiply-adds",
        (0.02, peak),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=7,
    )
    for axes, title in zip(
        (time, rate, memory), ("ms a call", "GFLOP/s", "MB at peak, beyond inputs"), strict=True
    ):
        axes.set_title(title)
        axes.set_xlabel("keys and queries")
    over_powers_of_two(time, rate, memory)
    for axes in (time, memory):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,g}")
    rate.set_ylim(0, 1.1 * max(peak, *(b.gflops for b in run.suite("length"))))
    key_of(figure, lines)
    return figure


def batch(run: Run):
    """Short texts by all-MiniLM-L6-v2, over the number of texts in a call."""
    if not run.suite("batch"):
        return None
    figure, axes = panels(len(PRECISIONS), sharey=True)
    drawn = {}
    for panel, precision in zip(axes, PRECISIONS, strict=True):
        lines = by_library(run, "batch", "count", precision)
        drawn |= lines
        for library, points in lines.items():
            draw(panel, library, points, texts)
        panel.set_title(precision)
        panel.set_xlabel("short texts a call")
    over_powers_of_two(*axes)
    axes[0].set(ylabel="texts/s", ylim=(0, None))
    key_of(figure, drawn)
    return figure


def threads(run: Run):
    """Rates over the number of threads."""
    attention = by_library(run, "attention_threads", "threads")
    encoder = by_library(run, "encoder_threads", "threads")
    if not attention or not encoder:
        return None
    figure, (left, right) = panels(2)
    for library, points in attention.items():
        draw(left, library, points, gflops)
    for library, points in encoder.items():
        draw(right, library, points, texts)
    left.set_title("attention over 2048 keys, GFLOP/s")
    right.set_title("all-MiniLM-L6-v2 on 256 short texts, texts/s")
    for panel in (left, right):
        panel.set_xlabel("threads")
        panel.set_ylim(bottom=0)
        panel.set_xticks(sorted({count for points in attention.values() for count, _ in points}))
    key_of(figure, attention | encoder)
    return figure


def by_library(run: Run, suite: str, parameter: str, precision: str = "float32"):
    """Return the points of each library, by a parameter of the benchmark."""
    lines: dict[str, Points] = {}
    found = [b for b in run.suite(suite) if b.precision == precision]
    for library in LOOKS:
        points = [(b.params[parameter], b) for b in found if b.library == library]
        if points:
            lines[library] = sorted(points, key=lambda point: point[0])
    return lines


def gflops(b: Benchmark, seconds: float) -> float:
    return 1e-9 * b.info["flops"] / seconds


def texts(b: Benchmark, seconds: float) -> float:
    return b.info["texts"] / seconds


def panels(count: int, **options):
    plt = pyplot()
    return plt.subplots(1, count, figsize=(WIDTH, 3.1), layout="constrained", **options)


def draw(axes, library: str, points: Points, value) -> None:
    """Draw the medians, and the quartiles as a band."""
    look, ours = LOOKS[library], library == "headwise"
    x = [at for at, _ in points]
    axes.plot(
        x,
        [value(b, b.median) for _, b in points],
        color=look.colour,
        marker=look.marker,
        markersize=5 if ours else 3.5,
        linewidth=2.2 if ours else 1.2,
    )
    low = [value(b, b.q1) for _, b in points]
    high = [value(b, b.q3) for _, b in points]
    axes.fill_between(x, low, high, color=look.colour, alpha=0.2, linewidth=0)


def over_powers_of_two(*panels) -> None:
    for axes in panels:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")


def key_of(figure, libraries) -> None:
    key(figure, [(label(library), *LOOKS[library]) for library in ordered(libraries)])
