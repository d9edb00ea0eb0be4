"""What reading a model folder needs: the optional packages and checked JSON files."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T", int, float, str, bool)

_KINDS = {int: "a positive integer", float: "a positive number", str: "a string", bool: "a boolean"}


def require(module: str) -> Any:
    """Import a package of the ``text`` extra, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'reading model folders needs {module}: pip install "headwise[text]"'
        ) from error


def read_json(path: Path) -> Any:
    """Parse a JSON file; `FileNotFoundError` or `ValueError` names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


class Config:
    """A JSON object whose values are checked as they are read, so that errors name file and key."""

    def __init__(self, path: Path, *, missing_ok: bool = False):
        self.path = path
        self.values = {} if missing_ok and not path.is_file() else read_json(path)
        if not isinstance(self.values, dict):
            raise ValueError(f"{path} holds {self.values!r:.80}: it must hold a JSON object")

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Return the value of `key`, or `default` where it is absent or null.

        Without a default the key is needed. Numbers must be positive and finite.
        """
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.error(key, f"is missing: it must be {_KINDS[kind]}")
        good = type(value) is kind or (kind is float and type(value) is int)
        if good and kind in (int, float):
            good = 0 < value <= sys.float_info.max
        if not good:
            raise self.error(key, f"is {value!r:.80}: it must be {_KINDS[kind]}")
        return kind(value)

    def error(self, key: str, problem: str) -> ValueError:
        """Return the error that says what is wrong with `key`."""
        return ValueError(f"{self.path}: {key} {problem}")
