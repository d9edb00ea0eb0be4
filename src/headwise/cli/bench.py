"""``headwise bench``: this machine against its peak."""

from __future__ import annotations

import json
import sys
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import ThreadsOption, examples, set_threads

if TYPE_CHECKING:
    from ..machine import Case, Speeds

EXAMPLES = examples(
    "headwise bench",
    "headwise bench --model models/all-MiniLM-L6-v2 --seconds 30",
    "headwise bench --threads 1 --json > bench.json",
)


def bench(
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="About how long to measure.")
    ] = 120,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            envvar="HEADWISE_MODEL",
            help="Also encode texts with it. Without it weights are random, of the sizes of "
            "all-MiniLM-L6-v2.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
) -> None:
    """Check how much of this machine's peak attention, linear layers and an encoder reach.

    Each is checked, then timed again and again in turn: what is shown are medians, and fractions of
    the peak of the same precision (of reading memory, for decoding), which is measured before and
    after.
    """
    from ..machine import measure

    set_threads(threads)
    if sys.stderr.isatty():
        with typer.progressbar(length=1000, label="measuring", file=sys.stderr) as bar:
            speeds = measure(seconds, model, lambda part: bar.update(int(1000 * part) - bar.pos))
    else:
        speeds = measure(seconds, model)
    typer.echo(json.dumps(_as_json(speeds), indent=2) if as_json else "\n".join(_table(speeds)))


def _table(speeds: Speeds) -> list[str]:
    from ..runtime import active_isa, get_num_threads

    width = max(len(case.name) for case in speeds.cases)
    lines = [
        f"{active_isa()}, {get_num_threads()} threads",
        "",
        f"{'':{width}}{'precision':>11}{'ms':>10}{'rate':>15}{'of peak':>9}{'texts/s':>10}",
    ]
    for case in speeds.cases:
        rate = f"{case.rate():.1f} {_unit(case)}"
        texts = f"{case.texts / median(case.seconds):.0f}" if case.texts else ""
        lines.append(
            f"{case.name:{width}}{case.precision:>11}{1000 * median(case.seconds):10.2f}{rate:>15}"
            f"{case.fraction(speeds.peak):9.0%}{texts:>10}"
        )
    lines += ["", "peak      before    after"]
    for name, before, after in zip(speeds.peak._fields, speeds.before, speeds.after, strict=True):
        unit = "GB/s" if name == "read" else "GFLOP/s"
        lines.append(f"{name:8}{before:8.0f}{after:9.0f}  {unit}")
    return [*lines, "", speeds.verdict()]


def _unit(case: Case) -> str:
    return "GB/s" if case.reads else "GFLOP/s"


def _as_json(speeds: Speeds) -> dict[str, Any]:
    from ..machine import report

    return {
        "machine": report(None),
        "peak": {"before": speeds.before._asdict(), "after": speeds.after._asdict()},
        "cases": [
            {
                "name": case.name,
                "precision": case.precision,
                "seconds": median(case.seconds),
                "rounds": len(case.seconds),
                "rate": case.rate(),
                "unit": _unit(case),
                "fraction_of_peak": case.fraction(speeds.peak),
                "texts": case.texts,
                "tokens": case.tokens,
            }
            for case in speeds.cases
        ],
        "steady": speeds.is_steady(),
        "verdict": speeds.verdict(),
    }
