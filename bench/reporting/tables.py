"""Tables of a run: titles, columns and rows of text, for Markdown and HTML alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from .run import Benchmark, Run
from .style import label, ordered

# What the README shows: one of each kind of work.
HEADLINES = {
    "attention 8x12x12x512x512x64, float32": "attention, 8 x 12 heads of 64, 512 keys",
    "attention 1x12x12x2048x2048x64, float32, causal": "causal, 12 heads of 64, 2048 keys",
    "attention 1x8x8x4096x4096x128, bfloat16, causal": "causal, 8 heads of 128, 4096, bfloat16",
    "attention 1x32x32x1x4096x128, float32": "one query, 32 heads of 128, 4096 keys",
    "linear float32, 2048 x 384 -> 1536": "linear, 2048 x 384 to 1536",
    "linear float32_pairs, 2048 x 384 -> 1536": "the same in pairs",
    "linear int8, 2048 x 384 -> 1536": "the same in int8",
    "MiniLM float32, one short": "all-MiniLM-L6-v2, one short text",
    "MiniLM float32, 512 mixed": "512 texts of 5 to 200 words",
    "MiniLM bfloat16, 512 mixed": "the same in bfloat16",
    "MiniLM int8, 512 mixed": "the same in int8",
}


@dataclass
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""


def headlines(run: Run) -> Table:
    """A few of all: headwise, naive NumPy, and the fastest of all others."""
    table = Table(
        "In short", ["", "headwise", "of peak", "naive NumPy", "fastest other", "speed-up"]
    )
    groups = run.groups("attention", "linear", "minilm")
    for group, text in HEADLINES.items():
        libraries = groups.get(group, {})
        if "headwise" in libraries:
            ours, other = libraries["headwise"], fastest_other(libraries)
            table.rows.append(
                [
                    text,
                    spread(ours),
                    of_peak(ours),
                    spread(libraries.get("numpy")),
                    f"{label(other.library)} {spread(other)}" if other else "",
                    ratio(other, ours),
                ]
            )
    return table


def suites(run: Run) -> list[Table]:
    """The medians of all libraries, a row for each case."""
    made = [
        compared(
            run,
            "Attention",
            "Shapes are batch x query heads x key heads x queries x keys x head_dim.",
            "attention",
        ),
        alone(
            run,
            "Attention: options, windows and dtypes, headwise alone",
            "options",
            "window",
            "dtypes",
        ),
        compared(run, "Linear layers", "Rows x inputs -> outputs.", "linear"),
        compared(run, "all-MiniLM-L6-v2", TEXTS, "minilm"),
        compared(run, "BERT-base, random weights", "", "bert_base"),
        compared(run, "Attention over sequence length", "", "length"),
        memory(run),
        compared(run, "all-MiniLM-L6-v2 over batch size", "", "batch"),
        compared(run, "Threads", "", "attention_threads", "encoder_threads"),
        start(run),
        sizes(run),
    ]
    return [table for table in made if table.rows]


TEXTS = "Peers run batches of 32 texts, sorted by length and padded to the longest of the batch."


def compared(run: Run, title: str, note: str, *names: str) -> Table:
    groups = run.groups(*names)
    others = ordered({x for found in groups.values() for x in found})[1:]
    columns = ["", "headwise", "of peak", "speed-up", *map(label, others)]
    table = Table(title, columns, note=note)
    for group, found in groups.items():
        ours = found.get("headwise")
        table.rows.append(
            [
                group,
                spread(ours),
                of_peak(ours),
                ratio(fastest_other(found), ours),
                *(spread(found.get(library)) for library in others),
            ]
        )
    return table


def alone(run: Run, title: str, *names: str) -> Table:
    table = Table(title, ["", "", "time", "GFLOP/s", "of peak"])
    for b in run.suite(*names):
        (value,) = b.params.values()
        table.rows.append([b.group, str(value), spread(b), f"{b.gflops:.0f}", of_peak(b)])
    return table


def memory(run: Run) -> Table:
    groups = run.groups("length")
    libraries = ordered({x for found in groups.values() for x in found})
    table = Table(
        "Attention: peak memory over sequence length, MB",
        ["", *map(label, libraries)],
        note="Of a first call in a process of its own, beyond the inputs, with the output.",
    )
    for group, found in groups.items():
        cells = (found[x].info.get("MB") if x in found else None for x in libraries)
        table.rows.append([group, *("" if mb is None else f"{mb:,.1f}" for mb in cells)])
    return table


def start(run: Run) -> Table:
    keys = ("ms to import", "ms to load", "ms to the first vector", "MB peak")
    table = Table(
        "From nothing to vectors, all-MiniLM-L6-v2",
        ["", "", *keys],
        note="Each in a new process, files in the page cache; the peak is after 512 more texts.",
    )
    for b in run.suite("load"):
        table.rows.append([b.precision, label(b.library), *(f"{b.info[key]:,.0f}" for key in keys)])
    return table


def sizes(run: Run) -> Table:
    table = Table("MB on disk, with all that is required", ["", "MB", "of which"])
    for name, parts in run.added["sizes"].items():
        largest = sorted(parts, key=parts.get, reverse=True)[:8]
        listed = ", ".join(f"{part} {parts[part]:.1f}" for part in largest)
        table.rows.append([label(name), f"{sum(parts.values()):,.0f}", listed])
    return table


def everything(run: Run) -> Table:
    table = Table(
        "Every benchmark",
        [
            "",
            "library",
            "median",
            "quartiles",
            "rounds",
            "GFLOP/s",
            "texts/s",
            "of peak",
            "lowest cosine",
        ],
    )
    for b in run.benchmarks:
        cosine = b.info.get("lowest cosine")
        table.rows.append(
            [
                b.name if b.library == "headwise" and "library" not in b.params else b.group,
                label(b.library),
                time(b.median),
                f"{time(b.q1)} to {time(b.q3)}",
                str(b.rounds),
                "" if b.gflops is None else f"{b.gflops:.1f}",
                "" if b.texts is None else f"{b.texts:,.0f}",
                of_peak(b),
                "" if cosine is None else f"{cosine:.5f}",
            ]
        )
    return table


def machine(run: Run) -> Table:
    """Where and how it was measured."""
    environment, peaks = run.environment, run.added["peaks"]
    table = Table("The machine and the run", ["", ""])
    rows = table.rows
    rows.append(["CPU", run.cpu])
    rows.append(["system", " ".join(run.data["machine_info"][k] for k in ("system", "release"))])
    rows.append(["instruction set", environment["isa"]])
    rows.append(["threads", f"{environment['threads']}, of every library"])
    rows.append(["CPUs the process may use", ", ".join(map(str, environment["affinity"]))])
    pinned = [f"{name}={value}" for name, value in environment["environment"].items()]
    rows.append(["pinning and other variables", " ".join(pinned) or "none: threads are not pinned"])
    for precision in ("float32", "bfloat16", "int8"):
        rows.append(
            [
                f"peak in {precision}",
                f"{run.peak(precision):,.0f} GFLOP/s, {run.peak(precision, min):,.0f} to "
                f"{run.peak(precision, max):,.0f} during the run",
            ]
        )
    ends = " before, ".join(f"{peaks[when]['read']:.0f}" for when in ("before", "after"))
    rows.append(["read bandwidth", f"{ends} after, GB/s"])
    rows.append(["load average before", f"{run.added['load']:.1f}"])
    rows.append(
        [
            "headwise",
            f"{environment['version']}, commit {run.commit}"
            + (" with changes" if run.dirty else ""),
        ]
    )
    rows.append(["Python", run.data["machine_info"]["python_version"]])
    rows.append(["BLAS of NumPy", environment["blas"]])
    rows += [[n, v] for n, v in environment["versions"].items() if v is not None]
    if run.missing:
        rows.append(["not installed, not measured", ", ".join(run.missing)])
    rows += [["left out", f"{why} ({len(n)})"] for why, n in run.added["skipped"].items()]
    rows.append(["date", run.date])
    return table


def fastest_other(libraries: dict[str, Benchmark]) -> Benchmark | None:
    others = [b for name, b in libraries.items() if name != "headwise"]
    return min(others, key=lambda b: b.median, default=None)


def ratio(other: Benchmark | None, ours: Benchmark | None) -> str:
    """Return how much faster headwise is, with ~ where the two met different clocks."""
    if other is None or ours is None:
        return ""
    alike = 0.87 < other.peak / ours.peak < 1.15 and other.steady and ours.steady
    return together(f"{'' if alike else '~'}{other.median / ours.median:.2f} x")


def spread(b: Benchmark | None) -> str:
    """Return the median, with half the distance of the quartiles in percent of it."""
    if b is None:
        return ""
    if b.rounds == 1:
        return time(b.median)
    return together(f"{time(b.median)} ± {50 * (b.q3 - b.q1) / b.median:.0f} %")


def time(seconds: float) -> str:
    """Return three digits in the unit that suits.

    >>> time(0.0123456), time(2.5e-6), time(12.0)
    ('12.3 ms', '2.50 us', '12.0 s')
    """
    factor, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "us")
    value = factor * seconds
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {unit}"


def of_peak(b: Benchmark | None) -> str:
    """Return the fraction in percent, with ~ where the peak moved meanwhile."""
    if b is None or b.fraction is None:
        return ""
    return together(f"{'' if b.steady else '~'}{100 * b.fraction:.0f} %")


def together(text: str) -> str:
    """Return it with spaces that no narrow column breaks at."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")
