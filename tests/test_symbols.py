"""No code compiled for one instruction set can end up in the path of another.

Each object compiled with an instruction set's flags may define one global symbol, its kernel table.
A weak symbol (an inline function, a template of the standard library) would be merged by the linker
with its namesakes of other objects, and the copy that is kept may not run on an older CPU.
"""

from __future__ import annotations

import re
import shutil

import pytest
from build_tree import ROOT, compiler, newest, run
from checks import BUILT_ISAS, X86

FLAGS = ("-std=c++20", "-fPIC", "-O3", "-ffp-contract=off", "-fvisibility=hidden")


@pytest.fixture(scope="module")
def nm():
    tool = shutil.which("nm")
    if tool is None:
        pytest.skip("there is no nm")
    return tool


@pytest.fixture(scope="module")
def fresh_avx2(tmp_path_factory):
    """Compiled here: takes half a minute, and is only asked for without a build tree."""
    objects = []

    def compile_once():
        if not objects:
            target = tmp_path_factory.mktemp("symbols") / "kernels.o"
            cxx = compiler("CXX", "g++", "c++", "clang++")
            defines = "-DHEADWISE_ISA_AVX2", "-DHEADWISE_ISA_TABLE=kernels_avx2"
            source = ROOT / "csrc" / "kernels.cpp"
            run(cxx, *FLAGS, "-mavx2", "-mfma", *defines, "-c", source, "-o", target)
            objects.append(target)
        return objects[0]

    return compile_once


@pytest.mark.parametrize("name", BUILT_ISAS)
def test_only_the_table_leaves_an_object(nm, fresh_avx2, name):
    found = newest(f"kernels_{name}.dir/csrc/kernels.cpp.o")
    if found is None:
        if name != "avx2" or not X86:
            pytest.skip(f"there is no up to date build tree with kernels_{name}")
        found = fresh_avx2()
    symbols = [line.split()[-2:] for line in run(nm, found).splitlines() if line]
    outside = {symbol: kind for kind, symbol in symbols if kind.isupper() and kind != "U"}
    assert len(outside) == 1, f"more than the table: {outside}"
    table, kind = outside.popitem()
    assert re.fullmatch(rf"_ZN8headwise\d+kernels_{name}E", table)
    assert kind in "DR"
    assert not [s for s in symbols if s[0] in "uvVwW"], "weak or unique symbols"


@pytest.mark.parametrize("name", BUILT_ISAS)
def test_what_an_object_calls(nm, name):
    """Plain C, and what parallel.h declares: nothing of the C++ library."""
    found = newest(f"kernels_{name}.dir/csrc/kernels.cpp.o")
    if found is None:
        pytest.skip(f"there is no up to date build tree with kernels_{name}")
    called = {line.split()[-1] for line in run(nm, "--undefined-only", found).splitlines() if line}
    ours = {"num_threads", "run_on_threads", "thread_workspace"}
    for symbol in called:
        match = re.match(r"_ZN8headwise\d+([a-z_]+)E", symbol)
        assert not symbol.startswith("_Z") or (match and match[1] in ours), symbol
