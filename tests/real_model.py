"""The one real model of the tests and of the pages under docs/."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

IN_CI = bool(os.environ.get("CI"))


def folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2, fetched once and verified; skip without it."""
    path = Path(__file__).parents[1] / "tools" / "fetch_minilm.py"
    spec = importlib.util.spec_from_file_location("fetch_minilm", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.fetch()
    except (OSError, subprocess.SubprocessError) as error:
        if IN_CI:
            raise
        pytest.skip(f"all-MiniLM-L6-v2 is not here and could not be fetched: {error}")
