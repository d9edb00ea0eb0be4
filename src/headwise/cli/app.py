"""The commands, one file each."""

from __future__ import annotations

import typer

app = typer.Typer(name="headwise", no_args_is_help=True)
