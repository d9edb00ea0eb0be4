"""What is a number for each library: texts a second, starting, size on disk."""

from __future__ import annotations

from .run import Benchmark, Run
from .style import GRID, LOOKS, MUTED, PRECISIONS, TEXT, WIDTH, label, ordered, pyplot

SETS = ("one short", "256 short", "512 mixed", "64 long")
PHASES = ("ms to import", "ms to load", "ms to the first vector")


def encoder(run: Run):
    """all-MiniLM-L6-v2: texts a second in every precision."""
    found = run.suite("minilm")
    if not found:
        return None
    rows = Rows(found)
    figure, axes = rows.panels(len(SETS))
    for panel, name in zip(axes, SETS, strict=True):
        chosen = [b for b in found if b.params["name"] == name]
        panel.set_title(f"{name}, texts/s")
        for b in chosen:
            rows.bar(panel, b, b.texts, errors=(b.info["texts"] / b.q3, b.info["texts"] / b.q1))
    return figure


def load(run: Run):
    """A new process: import, load all-MiniLM-L6-v2, embed one text; memory after 512 more."""
    found = run.suite("load")
    if not found:
        return None
    rows = Rows(found)
    figure, (time, memory) = rows.panels(2)
    for b in found:
        start = 0.0
        for phase, alpha in zip(PHASES, (1, 0.6, 0.3), strict=True):
            last = phase == PHASES[-1]
            total = start + b.info[phase]
            rows.bar(
                time, b, b.info[phase], start=start, alpha=alpha, text=last and f"{total:,.0f}"
            )
            start = total
        rows.bar(memory, b, b.info["MB peak"])
    time.set_title("ms to import, to load, to the first vector")
    memory.set_title("MB at peak, 512 texts later")
    return figure


class Rows:
    """A row for each precision and library, named once at the left of some panels."""

    def __init__(self, benchmarks: list[Benchmark]) -> None:
        there = {(b.precision, b.library) for b in benchmarks}
        self.at: dict[tuple[str, str], float] = {}
        self.heads: list[tuple[str, float]] = []
        y = 0.0
        for precision in PRECISIONS:
            libraries = ordered({x for p, x in there if p == precision})
            if libraries:
                self.heads.append((precision, y))
                for library in libraries:
                    y += 1
                    self.at[precision, library] = y
                y += 1.4
        self.height = y

    def panels(self, count: int):
        plt = pyplot()
        figure, axes = plt.subplots(
            1,
            count,
            figsize=(WIDTH, 0.5 + 0.185 * self.height),
            layout="constrained",
            sharey=True,
        )
        for panel in axes:
            panel.grid(visible=False)
            panel.spines[["left", "bottom"]].set_visible(False)
            panel.axvline(0, color=GRID, linewidth=1.2)
            panel.tick_params(length=0)
            panel.set_xticks([])
            panel.margins(x=0.28)
            panel.set_ylim(self.height - 1, -0.7)
        axes[0].set_yticks(
            [y for _, y in self.heads] + list(self.at.values()),
            [name for name, _ in self.heads] + [label(library) for _, library in self.at],
        )
        for tick, (_, library) in zip(
            axes[0].get_yticklabels()[len(self.heads) :], self.at, strict=True
        ):
            tick.set_color(LOOKS[library].colour)
            tick.set_fontweight("bold" if library == "headwise" else "normal")
        for tick in axes[0].get_yticklabels()[: len(self.heads)]:
            tick.set_color(TEXT)
            tick.set_fontweight("bold")
        return figure, axes

    def bar(self, axes, b: Benchmark, value, *, start=0.0, alpha=1.0, text=None, errors=None):
        """Draw a bar with its value, or with `text`, at its end."""
        y = self.at[b.precision, b.library]
        axes.barh(y, value, 0.72, left=start, color=LOOKS[b.library].colour, alpha=alpha)
        end = start + value
        if errors:
            axes.plot(errors, (y, y), color=TEXT, linewidth=0.8)
            end = max(end, *errors)
        if text is None:
            text = f"{value:,.0f}"
        if text:
            axes.annotate(
                text,
                (end, y),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=TEXT if b.library == "headwise" else MUTED,
                fontweight="bold" if b.library == "headwise" else "normal",
            )


def sizes(run: Run):
    """MB on disk of what pip installs, by its largest parts."""
    found = run.added["sizes"]
    if not found:
        return None
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(WIDTH, 0.4 + 0.32 * len(found)), layout="constrained")
    for y, (name, parts) in enumerate(found.items()):
        total = sum(parts.values())
        colour = LOOKS[name.partition(",")[0]].colour
        axes.barh(y, total, 0.6, color=colour)
        largest = sorted(parts, key=parts.get, reverse=True)[:4]
        listed = ", ".join(f"{part} {parts[part]:.0f}" for part in largest)
        rest = len(parts) - len(largest)
        axes.annotate(
            f"{total:,.0f} MB",
            (total, y),
            xytext=(4, 4),
            textcoords="offset points",
            va="center",
            fontweight="bold",
        )
        axes.annotate(
            listed + (f" and {rest} more" if rest > 0 else ""),
            (total, y),
            xytext=(4, -5),
            textcoords="offset points",
            va="center",
            fontsize=6.5,
            color=MUTED,
        )
    axes.set_yticks(range(len(found)), [label(name) for name in found])
    axes.set_ylim(len(found) - 0.5, -0.6)
    axes.set_xlim(right=1.6 * max(sum(parts.values()) for parts in found.values()))
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    return figure
