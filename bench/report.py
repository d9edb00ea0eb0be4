"""Make the performance report of a run from the JSON that pytest-benchmark wrote.

python bench/report.py bench/results/run.json             # run.html and run.md beside it
python bench/report.py bench/results/run.json --publish   # and the README, docs/performance*
python bench/report.py                                    # what was published, made again
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reporting import markdown, tables
from reporting.page import html
from reporting.plots import plots
from reporting.run import Run, dump, slim

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = Path("docs", "performance", "run.json")


def write(path: Path) -> list[Path]:
    """Write the page and the README's table of a run beside its JSON."""
    run = Run.read(path)
    texts = {"html": html(run), "md": markdown.markdown(tables.headlines(run)) + "\n"}
    return [_write(path.with_suffix(f".{kind}"), text) for kind, text in texts.items()]


def publish(path: Path, root: Path = ROOT) -> list[Path]:
    """Make a run the one that README.md and docs/performance.md under `root` show."""
    run = Run.read(path)
    target = root / PUBLISHED
    target.parent.mkdir(parents=True, exist_ok=True)
    written = [_write(target, dump(slim(run.data)))]
    run = Run.read(target)  # rounded: made again from the file, the pages are the same
    drawn = plots(run)
    written += [_write(target.with_name(f"{name}.svg"), plot.svg) for name, plot in drawn.items()]
    for old in set(target.parent.glob("*.svg")) - set(written):
        old.unlink()
    for name, section in (("README.md", markdown.readme), ("docs/performance.md", markdown.docs)):
        text = (root / name).read_text("utf-8")
        written.append(_write(root / name, markdown.filled(text, section(run, set(drawn)))))
    return written


def _write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="by default, the published one")
    parser.add_argument("--publish", action="store_true", help="show it in the README and the docs")
    options = parser.parse_args()
    try:
        written = write(options.run) if options.run else []
        if options.publish or not options.run:
            written += publish(options.run or ROOT / PUBLISHED)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"report.py: {error}")
    for path in written:
        print(path)


if __name__ == "__main__":
    main()
