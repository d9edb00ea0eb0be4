"""No code compiled for one instruction set can end up in the path of another.

Each object compiled with an instruction set's flags may define one global symbol, its kernel table.
A weak symbol (an inline function, a template of the standard library) would be merged by the linker
with its namesakes of other objects, and the copy that is kept may not run on an older CPU.
"""

from __future__ import annotations

import re
import shutil

import pytest
from build_tree import run
from checks import BUILT_ISAS


@pytest.fixture(params=BUILT_ISAS)
def symbols(request, build_tree):
    """(instruction set, [(kind, name), ...]) of its object, as nm lists them."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("there is no nm")
    folder = build_tree / f"CMakeFiles/kernels_{request.param}.dir"
    (object_file,) = folder.rglob("*.o")
    return request.param, [tuple(line.split()[-2:]) for line in run(nm, object_file).splitlines()]


def test_only_the_table_leaves_an_object(symbols):
    isa, found = symbols
    outside = [(kind, name) for kind, name in found if kind.isupper() and kind != "U"]
    assert len(outside) == 1
    kind, table = outside[0]
    assert re.fullmatch(rf"_ZN8headwise\d+kernels_{isa}E", table)
    assert kind in "DR"


def test_nothing_is_weak_or_unique(symbols):
    _, found = symbols
    assert [name for kind, name in found if kind in "uvVwW"] == []


def test_what_an_object_calls(symbols):
    """Plain C, and what parallel.h declares: nothing of the C++ library."""
    _, found = symbols
    called = {name for kind, name in found if kind == "U"}
    assert called
    ours = {
        "interrupt_requested",
        "membership",
        "num_threads",
        "run_on_threads",
        "this_thread",
        "thread_workspace",
        "wait_for",
    }
    for name in called:
        match = re.match(r"_ZN8headwise\d+([a-z_]+)E", name)
        assert not name.startswith("_Z") or (match and match[1] in ours), name
