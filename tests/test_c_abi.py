"""The C face: tests/c/test_c_abi.c is compiled as C11, linked to the library, and run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from build_tree import INCLUDE, compiler, run

SOURCE = Path(__file__).parent / "c" / "test_c_abi.c"
CASES = re.findall(r'\{"(\w+)", \w+\}', SOURCE.read_text())
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")


@pytest.fixture(scope="module")
def program(tmp_path_factory, build_tree):
    folder = tmp_path_factory.mktemp("c")
    library = build_tree / "libheadwise_core.a"
    cc, cxx = compiler("CC", "cc", "gcc", "clang"), compiler("CXX", "c++", "g++", "clang++")
    run(cc, "-std=c11", *STRICT, "-O1", f"-I{INCLUDE}", "-c", SOURCE, "-o", folder / "test.o")
    run(cxx, folder / "test.o", library, "-pthread", "-lm", "-o", folder / "test")
    return folder / "test"


def test_cases_are_found():
    assert len(CASES) >= 10


@pytest.mark.parametrize("case", CASES)
def test_case(program, case):
    done = subprocess.run([program, case], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr or f"ended by signal {-done.returncode}"


@pytest.mark.parametrize(
    ("name", "standard", "compilers"),
    [("c", "c11", ("cc", "gcc", "clang")), ("c++", "c++11", ("c++", "g++", "clang++"))],
)
def test_header_stands_alone(tmp_path, name, standard, compilers):
    """Included first, in C and in C++, without a warning."""
    source = tmp_path / "alone.c"
    source.write_text('#include "headwise.h"\n#include "headwise.h"\nint unused_symbol;\n')
    command = [compiler("", *compilers), "-x", name, f"-std={standard}", *STRICT]
    run(*command, f"-I{INCLUDE}", "-fsyntax-only", source)
