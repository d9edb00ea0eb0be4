"""Measure headwise as it is at a commit and as it is here, in turn; exit with 1 if it got slower.

    python bench/against.py COMMIT [--rounds N] [--threshold PERCENT] [arguments of pytest]

Both are built, into environments that share all else with this one. The benchmarks are those of
this tree, of headwise alone, by default for a fifth of a second each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

import compare
import pytest
from reporting.run import Run

ROOT = Path(__file__).resolve().parents[1]
QUICK = ("--benchmark-max-time=0.2", "--benchmark-min-rounds=5", "--benchmark-quiet", "--quiet")


def check_out(commit: str, folder: Path) -> Path:
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "x"], cwd=folder, input=archive.stdout, check=True)
    return folder


def environment(source: Path, folder: Path) -> Path:
    """Return the Python of a new environment with headwise from `source`, built here.

    Its other packages are read from where this Python has them. What ``.pth`` files there do is not
    done: an editable installation would come first.
    """
    venv.create(folder, symlinks=True)
    names = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("platlib", "posix_prefix", names))
    (site / "shared.pth").write_text(sysconfig.get_path("platlib") + "\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, source], check=True)
    return folder / "bin" / "python"


def measure(python: Path, path: Path, arguments: list[str]) -> Run:
    """Run the suites; what an older headwise has not fails, and is in no comparison."""
    command = [python, "-m", "pytest", "bench", "--libraries=headwise", f"--benchmark-json={path}"]
    outside = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([*command, *QUICK, *arguments], cwd=ROOT, env=outside, check=False)
    if done.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(f"against.py: pytest ended with {done.returncode}")
    if not path.is_file() or not path.stat().st_size:
        sys.exit("against.py: nothing was timed: do the arguments select a benchmark?")
    return Run.read(path)


def alternate(commit: str, rounds: int, arguments: list[str]) -> tuple[list[Run], list[Run]]:
    """Return the runs of the commit, and of this tree."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        sources = {"old": check_out(commit, scratch / "tree"), "new": ROOT}
        pythons = {k: environment(source, scratch / k) for k, source in sources.items()}
        runs = {k: [] for k in pythons}
        for i in range(rounds):
            for k, python in pythons.items():
                print(f"== {k}, {i + 1} of {rounds}", flush=True)
                runs[k].append(measure(python, scratch / f"{k}-{i}.json", arguments))
    return runs["old"], runs["new"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threshold", type=float, default=compare.THRESHOLD, help="in percent")
    options, arguments = parser.parse_known_args()
    try:
        found = compare.changes(*alternate(options.commit, options.rounds, arguments))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"against.py: {error}")
    sys.exit(compare.report(found, options.threshold))


if __name__ == "__main__":
    main()
