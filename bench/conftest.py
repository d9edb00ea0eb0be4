"""What every benchmark shares: equal threads, the machine's peak, a table of fractions of it.

A benchmark checks its result before it is timed. Times are medians; GFLOP/s and GB/s come with the
fraction of the peak that was measured just before and just after, as no time means much by itself.
"""

from __future__ import annotations

import os
import time
from functools import cache

import machine
import pytest
from peers import Unavailable
from reporting.run import Benchmark

import headwise as hw
from headwise import _core

threadpoolctl = pytest.importorskip("threadpoolctl")

PROBE = 0.1  # s: CPUs that were idle may take some 30 ms to get going
PATIENCE = 10  # s: with a machine that is slower than it was
SKIPPED = pytest.StashKey[dict]()  # why, to the names of the benchmarks
BEFORE = pytest.StashKey[dict]()  # the peak, and how busy the machine was


def pytest_addoption(parser):
    parser.addoption(
        "--libraries", help="measure these alone, parted by commas; headwise is one of them"
    )


def pytest_configure(config):
    config.stash[SKIPPED] = {}


def pytest_collection_modifyitems(config, items):
    if wanted := config.getoption("libraries"):
        wanted, everything = wanted.split(","), list(items)
        items[:] = [item for item in items if library(item) in wanted]
        config.hook.pytest_deselected(items=[x for x in everything if x not in items])


def library(item):
    """Return whose time it is: headwise's where no library is named."""
    return item.callspec.params.get("library", "headwise") if hasattr(item, "callspec") else None


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    try:
        return (yield)
    except Unavailable as reason:
        pyfuncitem.config.stash[SKIPPED].setdefault(str(reason), []).append(pyfuncitem.name)
        pytest.skip(str(reason))


@cache
def machine_peak():
    return hw.peak()


@pytest.fixture(autouse=True, scope="session")
def equal_threads(request):
    """Give NumPy's BLAS (and any other library that threadpoolctl knows) headwise's threads.

    Untimed it gets one: on a busy machine its threads wait for each other in every small product.
    """
    untimed = request.config.getoption("benchmark_disable")
    if not untimed:
        load = os.getloadavg()[0]
        request.config.stash[BEFORE] = {"load": load, "peak": machine_peak()._asdict()}
    with threadpoolctl.threadpool_limits(1 if untimed else hw.get_num_threads()):
        yield


best_peaks = {}  # by what is probed and the number of threads


def settled_peak(probe):
    """Return the peak once it is near the best seen: libraries are to meet the same clock.

    Clocks of shared machines halve for seconds at a time. One that stays low is the new normal.
    """
    key = probe, hw.get_num_threads()
    end, seen = time.monotonic() + PATIENCE, [_core.peak_flops(probe, PROBE)]
    while seen[-1] < 0.9 * best_peaks.get(key, 0):
        if time.monotonic() > end:
            best_peaks[key] = max(seen)
            break
        time.sleep(0.2)
        seen.append(_core.peak_flops(probe, PROBE))
    best_peaks[key] = max(seen[-1], best_peaks.get(key, 0))
    return seen[-1]


@pytest.fixture
def measure(benchmark):
    """Return a function that times a call, and notes what it computed and the peak meanwhile.

    `flops` and `nbytes` are what cannot be avoided: no padding, and everything read once.
    """

    def run(
        function,
        *,
        flops=None,
        nbytes=None,
        texts=None,
        precision="float32",
        memory_bound=False,
        rounds=None,
    ):
        if benchmark.disabled:
            benchmark.pedantic(function)
            return
        # float16 is widened: its peak is float32's
        probe = "float32" if precision == "float16" else precision
        peak, read = [settled_peak(probe)], []
        if memory_bound:
            read.append(_core.peak_bandwidth(0.2))
        if rounds:
            benchmark.pedantic(function, rounds=rounds)
        else:
            benchmark(function)
        peak.append(_core.peak_flops(probe, PROBE))
        if memory_bound:
            read.append(_core.peak_bandwidth(0.2))
        known = {"flops": flops, "bytes": nbytes, "texts": texts, "peak": peak, "read": read}
        benchmark.extra_info["precision"] = precision
        benchmark.extra_info |= {name: value for name, value in known.items() if value}

    return run


def pytest_benchmark_update_machine_info(machine_info):
    machine_info["headwise"] = machine.record()


@cache
def sizes():
    return machine.sizes()


@cache
def peak_after():
    return hw.peak()


def pytest_benchmark_update_json(config, output_json):
    """Add what differs from run to run: in machine_info it would hinder --benchmark-compare."""
    before = config.stash[BEFORE]
    output_json["headwise"] = {
        "peaks": {"before": before["peak"], "after": peak_after()._asdict()},
        "load": before["load"],
        "sizes": sizes(),
        "skipped": config.stash[SKIPPED],
    }


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    timed = [b for b in session.benchmarks if b.extra_info] if session else []
    if not timed or session.disabled:
        return
    runs = [Benchmark.from_json(b.as_dict(include_data=False)) for b in timed]
    terminalreporter.section("rates")
    terminalreporter.write_line(
        f"{hw.active_isa()}, {hw.get_num_threads()} threads; peak {describe(machine_peak())}"
    )
    groups = {}  # of each group the median by library
    for run in runs:
        groups.setdefault(run.group, {})[run.library] = run.median
    for run in runs:
        ours = groups[run.group].get("headwise")
        ratio = f"  headwise is {run.median / ours:.2f} x" if ours else ""
        terminalreporter.write_line(
            f"{run.name:75} {run.median * 1e6:12.1f} us  {', '.join(rates(run))}{ratio}"
        )
    if any(len(medians) > 1 for medians in groups.values()):
        terminalreporter.section("headwise and the fastest peer")
    for group, medians in groups.items():
        ours = medians.pop("headwise", None)
        if ours and medians:
            peer = min(medians, key=medians.get)
            terminalreporter.write_line(f"{group:60} {medians[peer] / ours:5.2f} x {peer}")


def describe(peak):
    """Return the peak, a number for each precision that this version measures."""
    *rates, (_, read) = peak._asdict().items()
    return ", ".join(f"{name} {value:.0f} G/s" for name, value in rates) + f", read {read:.0f} GB/s"


def rates(run):
    """Yield what there is to say of a benchmark beside its time."""
    for value, unit in (
        (run.gflops, "GFLOP/s"),
        (run.bandwidth, "GB/s"),
        (run.texts, "texts/s"),
    ):
        if value is not None:
            yield f"{value:.1f} {unit}"
    if run.fraction is not None:
        limit = "read bandwidth" if run.bandwidth is not None else "peak"
        yield f"{run.fraction:.1%} of {limit}"
    for name, value in run.info.items():
        if name.startswith(("ms ", "MB")):
            yield f"{value:.1f} {name}"
        elif name == "lowest cosine":
            yield f"{name} {value:.5f}"
