"""What goes wrong, as one line on stderr and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import typer

_INTERRUPTED, _BROKEN_PIPE, _TERMINATED = (128 + number for number in (2, 13, 15))

# What typer raises about the arguments (BadParameter is a UsageError, a ClickException), and to
# leave: it knows what to do.
_OF_TYPER: Any = (typer.Exit, typer.Abort, typer.BadParameter.__mro__[2])

_EXPECTED = (OSError, ValueError, ImportError)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: as Ctrl-C, but for the exit code."""


@contextmanager
def reported() -> Iterator[None]:
    """Turn errors, warnings, Ctrl-C and SIGTERM into one line each.

    The environment variable ``HEADWISE_TRACEBACK`` lets errors through.
    """
    with _terminable(), _warnings_in_one_line():
        try:
            yield
            sys.stdout.flush()
        except _OF_TYPER:
            raise
        except KeyboardInterrupt as stop:
            terminated = isinstance(stop, Terminated)
            say(": ".join(["terminated" if terminated else "interrupted", *stop.args]))
            raise typer.Exit(_TERMINATED if terminated else _INTERRUPTED) from None
        except BrokenPipeError:
            _discard_stdout()
            raise typer.Exit(_BROKEN_PIPE) from None
        except Exception as error:
            if os.environ.get("HEADWISE_TRACEBACK"):
                raise
            say(_describe(error))
            raise typer.Exit(1) from None


def say(message: str) -> None:
    """Write a line to stderr."""
    typer.echo(f"headwise: {' '.join(message.split())}", err=True)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, _EXPECTED):
        return str(error)
    return f"{type(error).__name__}: {error} (HEADWISE_TRACEBACK=1 shows where)"


@contextmanager
def _terminable() -> Iterator[None]:
    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # others may not
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        yield


def _discard_stdout() -> None:
    """Python writes what is left when it ends, and would complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
