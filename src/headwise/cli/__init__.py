"""The command line: ``headwise --help``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name."""
    try:
        try:
            from .app import app
        except ImportError as error:
            sys.exit(f"headwise: {error}: pip install 'headwise[cli]'")
        app(prog_name="headwise")
    except KeyboardInterrupt:  # before a command has begun
        sys.exit(130)
