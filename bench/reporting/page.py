"""The report as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from html import escape

from . import tables
from .plots import plots
from .run import Run
from .tables import Table

CSS = """
:root { color-scheme: light dark; --back: #fff; --text: #1f2328; --muted: #59636e; --line: #d8dee4;
  --ours: #b34f00; }
@media (prefers-color-scheme: dark) {
  :root { --back: #0d1117; --text: #f0f6fc; --muted: #9198a1; --line: #30363d; --ours: #ff8f40; }
}
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, sans-serif; }
p, figcaption, summary { color: var(--muted); }
figure { margin: 2.5rem 0; max-width: 60rem; }
figure svg { display: block; width: 100%; height: auto; margin: 0.5rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { color: var(--muted); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
table.prose td { text-align: left; white-space: normal; vertical-align: top; }
.ours { color: var(--ours); font-weight: 600; }
"""


def html(run: Run) -> str:
    """Return the page."""
    title = f"headwise {run.environment['version']}: performance"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(summary(run))}</p>",
        section(tables.headlines(run)),
        *(figure(plot) for plot in plots(run).values()),
        *(section(table) for table in tables.suites(run)),
        "<details><summary>Every benchmark</summary>",
        section(tables.everything(run)),
        "</details>",
        section(tables.machine(run), "prose"),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def summary(run: Run) -> str:
    """Say in two sentences what was measured, where and how."""
    environment = run.environment
    return (
        f"Measured on {run.date} at commit {run.commit} on {environment['threads']} threads of "
        f"{run.cpu} ({environment['isa']}), every library with as many. Medians ± half the "
        "distance of the quartiles; the peak is that of multiply-adds in registers, or of reading "
        "memory where that is the limit, measured just before and after each benchmark; ~ where it "
        "moved, so that a fraction or a ratio says less."
        + (f" Not installed, not measured: {', '.join(run.missing)}." if run.missing else "")
    )


def figure(plot) -> str:
    return (
        f"<figure>\n<h2>{escape(plot.title)}</h2>\n{plot.svg}"
        f"<figcaption>{escape(plot.text)}</figcaption>\n</figure>"
    )


def section(table: Table, kind: str = "") -> str:
    note = f"<p>{escape(table.note)}</p>\n" if table.note else ""
    ours = table.columns.index("headwise") if "headwise" in table.columns else None
    head = row("th", table.columns)
    body = "\n".join(row("td", cells, ours) for cells in table.rows)
    return (
        f'<h2>{escape(table.title)}</h2>\n{note}<div class="wide"><table class="{kind}">\n'
        f"<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def row(tag: str, cells: list[str], ours: int | None = None) -> str:
    marks = (' class="ours"' if i == ours else "" for i in range(len(cells)))
    made = (f"<{tag}{m}>{escape(c)}</{tag}>" for m, c in zip(marks, cells, strict=True))
    return f"<tr>{''.join(made)}</tr>"
