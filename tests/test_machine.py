"""What is said of a machine is so, and why it has that many threads."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
from checks import run_python

import headwise as hw
from headwise.machine import Case, Speeds, cases, measure, report, speed, threads
from headwise.machine.report import cgroup_quota
from headwise.models import load


def test_report():
    found = report(0.01)
    assert json.loads(json.dumps(found)) == found
    assert found["isa"]["active"] == hw.active_isa()
    assert found["isa"]["active"] in found["isa"]["available"]
    assert found["packages"]["pyarrow"] is not None
    assert found["packages"].keys() >= {"tokenizers", "safetensors", "huggingface_hub", "typer"}
    assert all(rate > 0 for rate in found["peak"].values())
    if found["features"]:
        assert ("avx2" in found["features"]) == ("avx2" in hw.available_isas())


# Threads


def threads_in_a_process(before="", **environment):
    """Return what a new process says, in which no variable is set but those given."""
    cleared = dict.fromkeys(("HEADWISE_NUM_THREADS", "OMP_NUM_THREADS"))
    code = f"import os\n{before}\nfrom headwise.machine import threads\nprint(threads())"
    return eval(run_python(code, **(cleared | environment)))


@pytest.mark.parametrize(
    ("environment", "count", "why"),
    [
        ({"HEADWISE_NUM_THREADS": "3"}, 3, "the environment variable HEADWISE_NUM_THREADS"),
        (
            {"HEADWISE_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"},
            3,
            "the environment variable HEADWISE_NUM_THREADS",
        ),
        ({"OMP_NUM_THREADS": "5,2"}, 5, "the environment variable OMP_NUM_THREADS"),
        ({"HEADWISE_NUM_THREADS": "many", "OMP_NUM_THREADS": "0"}, None, None),
        ({}, None, None),
    ],
)
def test_why_that_many_threads(environment, count, why):
    """By the same rule as the library's own, which the count itself comes from."""
    found = threads_in_a_process(**environment)
    if count is None:
        cpus, quota = found["cpus"], found["cgroup_quota"]
        limited = quota is not None and quota < cpus
        count = math.ceil(quota) if limited else cpus
        why = "the CPU quota of the cgroup" if limited else "the CPUs this process may run on"
    assert (found["count"], found["why"]) == (count, why)
    assert {name: found[name] for name in environment} == environment


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_the_affinity_mask_counts():
    found = threads_in_a_process("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})")
    assert (found["count"], found["cpus"]) == (1, 1)
    assert found["why"] == "the CPUs this process may run on"


def test_threads_that_the_program_set():
    before = hw.get_num_threads()
    hw.set_num_threads(97)
    try:
        assert (threads()["count"], threads()["why"]) == (97, "set by the program")
    finally:
        hw.set_num_threads(before)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n"}, None),
        ({}, None),
    ],
)
def test_cgroup_quota(tmp_path, files, quota):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cgroup_quota(tmp_path) == quota


# Speed


def test_measure(minilm, monkeypatch):
    """Everything is timed and correct, whatever the time given."""
    monkeypatch.setattr(speed, "_PEAK_SECONDS", 0.01)
    passed = []
    speeds = measure(0.01, minilm, passed.append)
    assert len(speeds.cases) == 4 + 3 + 6 + 3
    assert {case.precision for case in speeds.cases} == {"float32", "bfloat16", "int8"}
    assert all(len(case.seconds) == 1 and case.rate() > 0 for case in speeds.cases)
    assert [case.reads for case in speeds.cases].count(True) == 1
    texts = speeds.cases[-1]
    assert texts.texts == 214
    assert 3000 < texts.tokens < 4000
    # The linear layers cost 21.2 MFLOP a token.
    assert 21.2e6 < texts.work / texts.tokens < 23e6
    assert passed == sorted(passed)
    assert passed[-1] == 1
    with pytest.raises(ValueError, match="seconds is 0"):
        measure(0)


def test_wrong_results_are_no_speed(monkeypatch):
    attention = cases.attention
    monkeypatch.setattr(cases, "attention", lambda *x, **options: attention(*x, **options) * 1.01)
    with pytest.raises(ArithmeticError, match=r"attention 8 x 12 heads, .* differs from NumPy"):
        measure(0.01)


def test_flops_of_an_encoder(minilm):
    encoder = load(minilm)
    layer = 4 * 384 * 384 + 2 * 384 * 1536
    expected = 6 * (2 * layer * 30 + 4 * 384 * (10**2 + 20**2))
    assert cases.encoder_flops(encoder, np.array([10, 20])) == expected


def speeds_of(milliseconds, after=100.0):
    peaks = [hw.Peak(*[rate] * 5) for rate in (100.0, after)]
    timed = [
        Case(f"case {i}", lambda: None, "float32", 1e8, seconds=[2e-3, 1e-3 * ms, 3e-3])
        for i, ms in enumerate(milliseconds)
    ]
    decode = Case("decode", lambda: None, "float32", 1e6, reads=True, seconds=[1.0])
    return Speeds(*peaks, [*timed, decode])


def test_verdicts():
    fine = speeds_of([1.1, 1.25])
    assert [round(case.rate(), 6) for case in fine.cases[:2]] == [50, 50]  # of the medians
    assert fine.is_steady()
    assert fine.verdict().startswith("In float32 50% to 50% of the peak")
    slow = speeds_of([3.0, 1.0])
    assert slow.verdict().startswith("Only 33% of the peak in float32 (case 0): slower than")
    assert speeds_of([1.0], after=91).is_steady()
    memory = speeds_of([1.0])
    assert Speeds(memory.before, memory.after._replace(read=10), memory.cases).is_steady()
    unsteady = speeds_of([1.0], after=80)
    assert not unsteady.is_steady()
    assert unsteady.peak.float32 == 100
    assert unsteady.verdict().startswith("The peak changed by 20% meanwhile")
