"""What the C and C++ tests are built from: a fresh build tree of this source, or a new one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def is_newer(file: Path) -> bool:
    """Tell whether a build product is newer than all C and C++ sources and the build's recipe."""
    sources = [ROOT / "CMakeLists.txt", *(ROOT / "csrc").rglob("*.h")]
    sources += (ROOT / "csrc").rglob("*.cpp")
    return file.stat().st_mtime > max(source.stat().st_mtime for source in sources)


def newest(pattern: str) -> Path | None:
    """Return the newest file of the build trees that matches, if it is up to date."""
    found = max((ROOT / "build").rglob(pattern), key=os.path.getmtime, default=None)
    return found if found and is_newer(found) else None


def compiler(variable: str, *names: str) -> str:
    """Return the compiler that the environment names, or the first there is; skip without one."""
    for name in (os.environ.get(variable), *names):
        if name and shutil.which(name):
            return name
    pytest.skip(f"there is no compiler: none of {', '.join(names)}")


def cmake() -> str:
    """Return the cmake beside this Python, or the one in the path; skip without one."""
    scripts = sysconfig.get_path("scripts")
    for path in (shutil.which("cmake", path=scripts), shutil.which("cmake")):
        # A shim in the path may lead nowhere.
        if path and not subprocess.call(
            [path, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ):
            return path
    pytest.skip("there is no cmake, and no up to date build tree")


def run(*command: str | Path, timeout: int = 300) -> str:
    """Run a build command; what it printed is the message if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
