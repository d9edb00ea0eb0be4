"""A run: what pytest-benchmark wrote, with what ``conftest.py`` adds to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Benchmark:
    """One call that was timed. `median` and the quartiles `q1` and `q3` are seconds."""

    suite: str
    name: str
    group: str
    params: dict
    info: dict
    median: float
    q1: float
    q3: float
    rounds: int

    @classmethod
    def from_json(cls, entry: dict) -> Benchmark:
        stats = {name: entry["stats"][name] for name in ("median", "q1", "q3", "rounds")}
        suite = entry["name"].partition("[")[0].removeprefix("bench_")
        params = entry["params"] or {}
        return cls(suite, entry["name"], entry["group"], params, entry["extra_info"], **stats)

    @property
    def library(self) -> str:
        return self.params.get("library", "headwise")

    @property
    def precision(self) -> str:
        return self.info.get("precision", "float32")

    @property
    def peak(self) -> float:
        """GFLOP/s of multiply-adds: just before or just after, whichever was more."""
        return max(self.info["peak"])

    @property
    def cost(self) -> float:
        """Operations the machine could have done meanwhile: no slower clock makes it more."""
        return self.median * self.peak

    @property
    def steady(self) -> bool:
        """Whether the peak stayed within a tenth: a fraction of it means little otherwise."""
        return max(self.info["peak"]) < 1.1 * min(self.info["peak"])

    @property
    def gflops(self) -> float | None:
        return 1e-9 * self.info["flops"] / self.median if "flops" in self.info else None

    @property
    def bandwidth(self) -> float | None:
        """GB/s, where memory is the limit."""
        return 1e-9 * self.info["bytes"] / self.median if "read" in self.info else None

    @property
    def texts(self) -> float | None:
        """Texts a second."""
        return self.info["texts"] / self.median if "texts" in self.info else None

    @property
    def fraction(self) -> float | None:
        """What it reaches of the peak of multiply-adds, or of bandwidth where that is the limit."""
        if self.bandwidth is not None:
            return self.bandwidth / max(self.info["read"])
        return None if self.gflops is None else self.gflops / self.peak

    @property
    def intensity(self) -> float | None:
        """Operations for each byte that has to be read or written at least once."""
        return self.info["flops"] / self.info["bytes"] if "bytes" in self.info else None


class Run:
    """All of a JSON file."""

    def __init__(self, data: dict) -> None:
        self.data = data
        self.benchmarks = [Benchmark.from_json(entry) for entry in data["benchmarks"]]
        self.environment = data["machine_info"]["headwise"]
        self.cpu = data["machine_info"]["cpu"].get("brand_raw", data["machine_info"]["processor"])
        self.commit = data["commit_info"]["id"][:12]
        self.dirty = data["commit_info"]["dirty"]
        self.date = data["datetime"][:10]
        self.added = data["headwise"]

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read a JSON file, refusing one that these suites did not write."""
        try:
            data = json.loads(path.read_text("utf-8"))
        except ValueError:
            raise ValueError(f"{path} is not JSON: was anything timed?") from None
        if "headwise" not in data:
            raise ValueError(f"{path} was not written by the benchmarks of bench/")
        return cls(data)

    def suite(self, *names: str) -> list[Benchmark]:
        return [b for b in self.benchmarks if b.suite in names]

    def groups(self, *suites: str) -> dict[str, dict[str, Benchmark]]:
        """Return the benchmarks by group and library."""
        groups: dict[str, dict[str, Benchmark]] = {}
        for b in self.suite(*suites):
            groups.setdefault(b.group, {})[b.library] = b
        return groups

    @property
    def missing(self) -> list[str]:
        """Peers that were not installed."""
        return [name for name, version in self.environment["versions"].items() if version is None]

    def peak(self, precision: str, pick: Callable = median) -> float:
        """Return the peak in a precision over the whole run: its median, or what `pick` says."""
        during = (b.peak for b in self.benchmarks if b.precision == precision)
        return pick([*self._ends(precision), *during])

    @property
    def read_bandwidth(self) -> float:
        """GB/s, the median over the whole run."""
        during = (max(b.info["read"]) for b in self.benchmarks if "read" in b.info)
        return median([*self._ends("read"), *during])

    def _ends(self, name: str) -> list[float]:
        return [self.added["peaks"][when][name] for when in ("before", "after")]


def slim(data: dict) -> dict:
    """Return what the report reads of a run: no samples, no names of the machine."""
    machine = data["machine_info"]
    fields = ("median", "q1", "q3", "rounds")
    return {
        "machine_info": {
            "cpu": {"brand_raw": machine["cpu"].get("brand_raw", machine["processor"])},
            **{k: machine[k] for k in ("processor", "system", "release", "python_version")},
            "headwise": machine["headwise"],
        },
        "commit_info": {k: data["commit_info"][k] for k in ("id", "dirty", "time")},
        "datetime": data["datetime"],
        "headwise": data["headwise"],
        "benchmarks": [
            {k: entry[k] for k in ("name", "group", "params", "extra_info")}
            | {"stats": {k: entry["stats"][k] for k in fields}}
            for entry in data["benchmarks"]
        ],
    }


def dump(data: dict) -> str:
    """Return JSON with a benchmark a line and five digits a number."""
    data = _rounded(data)
    rest = json.dumps({k: v for k, v in data.items() if k != "benchmarks"}, indent=1)
    lines = ",\n".join("  " + json.dumps(entry) for entry in data["benchmarks"])
    return rest.removesuffix("\n}") + f',\n "benchmarks": [\n{lines}\n ]\n}}\n'


def _rounded(value):
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
