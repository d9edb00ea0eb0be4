"""The commands, one file each."""

from __future__ import annotations

import typer

from .explain import explain

app = typer.Typer(name="headwise", no_args_is_help=True)
app.command()(explain)


@app.callback()
def _headwise() -> None:
    """Attention and transformer-encoder inference for NumPy, on the CPU."""
