"""The build tree whose library and objects the C and C++ tests look at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INCLUDE = ROOT / "csrc" / "include"


def find() -> Path | None:
    """Return the newest build tree of the repository if it is up to date with the sources."""
    libraries = (ROOT / "build").rglob("libheadwise_core.a")
    library = max(libraries, key=os.path.getmtime, default=None)
    sources = [ROOT / "CMakeLists.txt", *(ROOT / "csrc").rglob("*.h")]
    sources += (ROOT / "csrc").rglob("*.cpp")
    if library and library.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return library.parent
    return None


def build(folder: Path) -> Path:
    """Build the library there, which takes a minute; skip without the tools."""
    tool = cmake()
    compiler("CXX", "c++", "g++", "clang++")
    run(tool, "-S", ROOT, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", "-DHEADWISE_BUILD_C_TEST=ON")
    run(tool, "--build", folder, "--parallel", "2")
    return folder


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


def run(*command: str | Path, timeout: int = 600) -> str:
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
