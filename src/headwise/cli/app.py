"""The commands, one file each: a new one is a file and a line below."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from . import bench, embed, explain, info, similar
from .errors import reported


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with reported():
            return super().invoke(ctx)


app = typer.Typer(
    name="headwise",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headwise {__version__}")
        raise typer.Exit


@app.callback(
    epilog="\b\nExit codes: 0 done, 1 it failed (one line on stderr says why), 2 wrong usage,\n"
    "130 interrupted, 141 nobody reads the output, 143 terminated."
)
def headwise(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Text embeddings on the CPU: embed corpora, search them, look inside, check this machine."""


app.command(epilog=embed.EXAMPLES)(embed.embed)
app.command(epilog=similar.EXAMPLES)(similar.similar)
app.command(epilog=explain.EXAMPLES)(explain.explain)
app.command(epilog=info.EXAMPLES)(info.info)
app.command(epilog=bench.EXAMPLES)(bench.bench)
