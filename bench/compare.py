"""Tell where a run of the benchmarks is slower than an earlier one; exit with 1 if it is anywhere.

    python bench/compare.py OLD.json NEW.json [--threshold PERCENT]

A machine's clock drifts and its other programs come and go, so that a time is held against the peak
that was measured around it: the cost of a benchmark is its time multiplied by that peak, the
operations that the machine could have done meanwhile. At half the clock it takes twice the time,
and costs the same.

A benchmark has regressed if its median costs more than it did by the threshold, and three quarters
of the new rounds cost more than the old median.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from reporting.run import Benchmark, Run
from reporting.tables import of_peak, time

THRESHOLD = 10  # percent


@dataclass(frozen=True)
class Change:
    """A benchmark before and after."""

    old: Benchmark
    new: Benchmark

    @property
    def cost(self) -> float:
        return self.new.cost / self.old.cost

    def regressed(self, threshold: float) -> bool:
        apart = self.new.q1 * self.new.peak > self.old.cost
        return apart and self.cost > 1 + threshold / 100

    def improved(self, threshold: float) -> bool:
        return self.cost < 1 / (1 + threshold / 100)


def changes(old: list[Run], new: list[Run]) -> list[Change]:
    """Return what became of each benchmark that both have, in the best of their runs."""
    before, after = best(old), best(new)
    found = [Change(before[name], after[name]) for name in before if name in after]
    if not found:
        raise ValueError("the runs have no benchmark in common")
    return found


def best(runs: list[Run]) -> dict[str, Benchmark]:
    """Return of each benchmark the one of lowest cost: what disturbs it only makes it higher."""
    found: dict[str, Benchmark] = {}
    for b in (b for run in runs for b in run.benchmarks):
        found[b.name] = min(b, found.get(b.name, b), key=lambda b: b.cost)
    return found


def report(found: list[Change], threshold: float) -> bool:
    """Print a line for each, the worst last; return whether any has regressed."""
    width = max(len(change.old.name) for change in found)
    print(f"{'':{width}} {'old':>10} {'new':>10}  time   cost  of peak")
    for change in sorted(found, key=lambda change: change.cost):
        a, b = change.old, change.new
        word = (
            "  SLOWER"
            if change.regressed(threshold)
            else "  faster"
            if change.improved(threshold)
            else ""
        )
        print(
            f"{change.old.name:{width}} {time(a.median):>10} {time(b.median):>10} "
            f"{b.median / a.median:5.2f} {change.cost:6.2f}  "
            f"{of_peak(a):>5} -> {of_peak(b):>5}{word}"
        )
    slower = sum(change.regressed(threshold) for change in found)
    print(f"{len(found)} benchmarks, {slower} slower by more than {threshold:g} %")
    return slower > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="in percent")
    options = parser.parse_args()
    try:
        found = changes([Run.read(options.old)], [Run.read(options.new)])
    except (OSError, ValueError) as error:
        sys.exit(f"compare.py: {error}")
    sys.exit(report(found, options.threshold))


if __name__ == "__main__":
    main()
