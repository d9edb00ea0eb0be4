"""The sections of README.md and docs/performance.md that a run fills in."""

from __future__ import annotations

from . import tables
from .page import summary
from .plots import DRAWN
from .run import Run
from .tables import Table

BEGIN = "<!-- performance: made by `make report` from docs/performance/run.json -->"
END = "<!-- end of performance -->"
IN_README = ("encoder", "length")


def readme(run: Run, there: set[str]) -> str:
    """Return a table of a few, and those of two plots that are there."""
    parts = [summary(run), markdown(tables.headlines(run))]
    for name in IN_README:
        if name in there:
            parts += [image(name, "docs/performance"), DRAWN[name][2]]
    return "\n\n".join(parts)


def docs(run: Run, there: set[str]) -> str:
    """Return all plots that are there and all tables."""
    parts = [summary(run), markdown(tables.headlines(run))]
    for name in DRAWN:
        if name in there:
            _, title, text = DRAWN[name]
            parts += [f"## {title}", text, image(name, "performance")]
    parts.append("## All medians")
    for table in tables.suites(run):
        parts += [f"### {table.title}", *([table.note] if table.note else []), markdown(table)]
    parts += ["## The machine and the run", markdown(tables.machine(run))]
    return "\n\n".join(parts)


def image(name: str, folder: str) -> str:
    return f"![{DRAWN[name][1]}]({folder}/{name}.svg)"


def markdown(table: Table) -> str:
    """Return a table of Markdown: the first column to the left, numbers to the right."""
    prose = table.columns == ["", ""]
    rule = ["---", *("---" if prose else "--:" for _ in table.columns[1:])]
    lines = [table.columns, rule, *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in x)} |" for x in lines)


def filled(text: str, section: str) -> str:
    """Return `text` with what stands between the two marks replaced."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN!r} with {END!r} after it")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"
