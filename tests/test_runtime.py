"""Instruction sets and threads: what is chosen at import, and what the environment may say."""

from __future__ import annotations

import os
import platform
import sysconfig

import numpy as np
import pytest
from checks import BUILT_ISAS, ISAS_OF_ATTENTION, run_python

import headwise as hw

CLEAN = {"HEADWISE_ISA": None, "HEADWISE_NUM_THREADS": None, "OMP_NUM_THREADS": None}
PRINT_ISA = "import headwise as hw; print(hw.active_isa())"
PRINT_THREADS = "import headwise as hw; print(hw.get_num_threads())"
# Prints how many threads the process has gained by one small and one large call.
COUNT_THREADS = """
import os
import numpy as np, headwise as hw
count = lambda: len(os.listdir("/proc/self/task"))
x = np.ones((1, 8, 300, 64), np.float32)
before = count()
hw.attention(x[:, :1, :4], x[:, :1, :4], x[:, :1, :4])
small = count() - before
hw.attention(x, x, x)
print(small, count() - before)
"""
needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks"
)
needs_proc = pytest.mark.skipif(
    not os.path.isdir("/proc/self/task"), reason="this system does not list threads in /proc"
)


def test_available_isas():
    """Best first, no repetitions, and the last runs anywhere."""
    available = hw.available_isas()
    assert sorted(available) == sorted(isa for isa in BUILT_ISAS if isa in available)
    without_pairs = [isa for isa in available if isa != "avx512_zen4"]
    assert without_pairs == [isa for isa in ISAS_OF_ATTENTION if isa in available]
    assert available[-1] == "scalar"


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="this system has no /proc/cpuinfo")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are flags of x86")
def test_available_isas_are_those_of_the_cpu():
    with open("/proc/cpuinfo") as file:
        lines = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines())
    cpu = {name.strip(): value.strip() for name, value in lines.items()}
    flags = cpu["flags"].split()
    avx2 = {"avx2", "fma", "f16c"}
    avx512 = avx2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
    vnni = avx512 | {"avx512_vnni"}
    needed = {
        "avx512_zen4": vnni | {"avx512_bf16"},
        "avx512_bf16": vnni | {"avx512_bf16"},
        "avx512_vnni": vnni,
        "avx512": avx512,
        "avx2": avx2,
        "scalar": set(),
    }
    assert set(hw.available_isas()) == {isa for isa in BUILT_ISAS if needed[isa] <= set(flags)}
    if "avx512_zen4" in hw.available_isas():
        adds_beside_fma = cpu["vendor_id"] == "AuthenticAMD" and int(cpu["cpu family"]) == 0x19
        assert (hw.available_isas()[0] == "avx512_zen4") == adds_beside_fma


def test_default_isa_is_the_best():
    assert run_python(PRINT_ISA, **CLEAN) == hw.available_isas()[0]
    assert run_python(PRINT_ISA, **(CLEAN | {"HEADWISE_ISA": ""})) == hw.available_isas()[0]


@pytest.mark.parametrize("name", BUILT_ISAS)
def test_environment_forces_isa(name):
    environment = CLEAN | {"HEADWISE_ISA": name}
    if name in hw.available_isas():
        assert run_python(PRINT_ISA, **environment) == name
    else:
        code, _, errors = run_python(PRINT_ISA, check=False, **environment)
        assert code == 1
        assert "ImportError" in errors


@pytest.mark.parametrize("name", ["sse9", "AVX2", "avx2 ", "avx", "scalar,avx2"])
def test_environment_names_an_unknown_isa(name):
    """An error that says what there is; never another instruction set than the one asked for."""
    code, out, errors = run_python(PRINT_ISA, check=False, **(CLEAN | {"HEADWISE_ISA": name}))
    assert (code, out) == (1, "")
    last = errors.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    for word in ("HEADWISE_ISA", repr(name), *hw.available_isas()):
        assert word in last


def test_isas_agree_but_for_the_last_bits(rng):
    """And do differ: it is another code that runs."""
    q, k, v = (rng.standard_normal((2, 70, 33)).astype(np.float32) for _ in range(3))
    before = hw.active_isa()
    results = {}
    for name in hw.available_isas():
        hw.set_isa(name)
        results[name] = hw.attention(q, k, v)
    hw.set_isa(before)
    for result in results.values():
        np.testing.assert_allclose(result, results["scalar"], rtol=1e-5, atol=1e-6)
    if "avx2" in results:  # scalar code has no fused multiply-add
        assert not np.array_equal(results["avx2"], results["scalar"])


def test_set_num_threads():
    before = hw.get_num_threads()
    for n in 1, 2, np.int64(3), 4096:
        hw.set_num_threads(n)
        assert hw.get_num_threads() == n
    hw.set_num_threads(before)


@pytest.mark.parametrize(
    ("headwise", "omp", "expected"),
    [("3", None, 3), (None, "5", 5), ("3", "5", 3), ("1", None, 1), ("", "5", 5), (" 7 ", None, 7)],
)
def test_environment_sets_threads(headwise, omp, expected):
    environment = {"HEADWISE_NUM_THREADS": headwise, "OMP_NUM_THREADS": omp}
    assert run_python(PRINT_THREADS, **environment) == str(expected)


@pytest.mark.parametrize("value", ["0", "-3", "many", "1000000", "99999999999", "9" * 40])
def test_environment_with_a_number_out_of_range(value):
    """Never more than set_num_threads takes: asking for a million threads would end the process."""
    got = int(run_python(PRINT_THREADS, **(CLEAN | {"HEADWISE_NUM_THREADS": value})))
    assert 1 <= got <= 4096


@needs_affinity
def test_affinity_mask_is_respected():
    cpus = sorted(os.sched_getaffinity(0))
    default = int(run_python(PRINT_THREADS, **CLEAN))
    assert 1 <= default <= len(cpus)
    one = f"import os; os.sched_setaffinity(0, {{{cpus[-1]}}})\n"
    assert run_python(one + PRINT_THREADS, **CLEAN) == "1"
    half = set(cpus[: (len(cpus) + 1) // 2])
    got = int(run_python(f"import os; os.sched_setaffinity(0, {half})\n" + PRINT_THREADS, **CLEAN))
    assert got <= len(half)


@needs_proc
def test_large_work_is_shared_and_small_work_is_not():
    assert run_python(COUNT_THREADS, HEADWISE_NUM_THREADS="3") == "0 2"
    assert run_python(COUNT_THREADS, HEADWISE_NUM_THREADS="1") == "0 0"


@needs_proc
@needs_affinity
def test_workers_keep_off_the_callers_cpu():
    """And so move when it does, but not if they are many, or the caller has but one CPU."""
    code = """
import ctypes, os
import numpy as np, headwise as hw
here = ctypes.CDLL(None).sched_getcpu
x = np.ones((1, 8, 300, 64), np.float32)
before = set(os.listdir("/proc/self/task"))
def others_during_call():
    for _ in range(1000):
        cpu = here()
        hw.attention(x, x, x)
        if here() == cpu:
            workers = set(os.listdir("/proc/self/task")) - before
            return cpu, {frozenset(os.sched_getaffinity(int(w))) for w in workers}
    raise AssertionError("moved with every call")
allowed = os.sched_getaffinity(0)
others_during_call()
for target in sorted(allowed)[:2] * 2:
    os.sched_setaffinity(0, {target})
    hw.attention(x, x, x)
    os.sched_setaffinity(0, allowed)  # the caller stays, for now
    cpu, masks = others_during_call()
    assert masks == {frozenset(allowed - {cpu} or allowed)}, (cpu, masks)
hw.set_num_threads(12)
cpu, masks = others_during_call()
assert masks == {frozenset(allowed)}, (cpu, masks)
"""
    run_python(code, HEADWISE_NUM_THREADS="3")


@needs_proc
def test_fewer_threads_than_asked_for():
    """With no address space left for their stacks the calling thread does the work alone."""
    code = """
import os, resource
import numpy as np, headwise as hw
x = np.ones((1, 8, 300, 64), np.float32)
hw.set_num_threads(1)
expected = hw.attention(x, x, x, is_causal=True)
hw.set_num_threads(64)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
before = len(os.listdir("/proc/self/task"))
resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 20),) * 2)
got = hw.attention(x, x, x, is_causal=True)
assert (got == expected).all()
assert len(os.listdir("/proc/self/task")) - before < 63
"""
    run_python(code, **CLEAN)


def test_peak(isa, threads):
    """Positive numbers; float64 vectors hold half as many."""
    peak = hw.peak(0.02)
    assert min(peak) > 0
    if isa != "scalar":
        assert peak.float64 < peak.float32


def test_import_leaves_the_rest_for_later():
    """Importing headwise imports neither a tokenizer nor a file format."""
    code = (
        "import sys, headwise\n"
        "print([m for m in ('tokenizers', 'safetensors', 'huggingface_hub', 'headwise.text')"
        " if m in sys.modules])"
    )
    assert run_python(code) == "[]"


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python is not free-threaded"
)
def test_the_gil_stays_off():
    assert run_python("import sys, headwise; print(sys._is_gil_enabled())") == "False"
