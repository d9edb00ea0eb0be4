"""What every benchmark shares: equal threads, the machine's peak, a table of fractions of it.

A benchmark checks its result before it is timed. Times are medians; GFLOP/s and GB/s come with the
fraction of what ``headwise.peak()`` measured in the same run, as no time means much by itself.
"""

from __future__ import annotations

from functools import cache

import pytest
from peers import Unavailable

import headwise as hw

threadpoolctl = pytest.importorskip("threadpoolctl")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call():
    try:
        return (yield)
    except Unavailable as reason:
        pytest.skip(str(reason))


@cache
def machine_peak():
    return hw.peak(0.5)


@pytest.fixture(scope="session")
def peak():
    return machine_peak()


@pytest.fixture(autouse=True, scope="session")
def equal_threads(request):
    """Give NumPy's BLAS (and any other library that threadpoolctl knows) headwise's threads.

    Untimed it gets one: on a busy machine its threads wait for each other in every small product.
    """
    untimed = request.config.getoption("benchmark_disable")
    with threadpoolctl.threadpool_limits(1 if untimed else hw.get_num_threads()):
        yield


@pytest.fixture
def measure(benchmark, peak):
    """Return a function that times a call and notes its GFLOP/s, GB/s or texts/s."""

    def run(function, *, flops=None, read_bytes=None, texts=None, dtype="float32"):
        benchmark.pedantic(
            function, rounds=1, warmup_rounds=1
        ) if benchmark.disabled else benchmark(function)
        if benchmark.disabled:
            return
        seconds = benchmark.stats.stats.median
        info = benchmark.extra_info
        if flops is not None:
            info["GFLOP/s"] = 1e-9 * flops / seconds
            # float16 is widened: its peak is float32's
            info["of peak"] = info["GFLOP/s"] / getattr(peak, dtype, peak.float32)
        if read_bytes is not None:
            info["GB/s"] = 1e-9 * read_bytes / seconds
            info["of read bandwidth"] = info["GB/s"] / peak.read
        if texts is not None:
            info["texts/s"] = texts / seconds

    return run


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["headwise"] = {
        "version": hw.__version__,
        "isa": hw.active_isa(),
        "threads": hw.get_num_threads(),
        "peak": machine_peak()._asdict(),
    }


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    runs = [b for b in session.benchmarks if b.extra_info] if session else []
    if not runs:
        return
    terminalreporter.section("rates")
    terminalreporter.write_line(
        f"{hw.active_isa()}, {hw.get_num_threads()} threads; peak {describe(machine_peak())}"
    )
    groups = {}  # library (or the test, where it is headwise's alone) to median, by group
    for run in runs:
        libraries = groups.setdefault(run.group, {})
        libraries[(run.params or {}).get("library", run.name)] = run.stats.median
    for run in runs:
        rates = [rate(name, value) for name, value in run.extra_info.items()]
        ours = groups[run.group].get("headwise")
        ratio = f"  headwise is {run.stats.median / ours:.2f} x" if ours else ""
        terminalreporter.write_line(
            f"{run.name:75} {run.stats.median * 1e6:12.1f} us  {', '.join(rates)}{ratio}"
        )
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


def rate(name, value):
    if name.startswith("of "):
        return f"{name} {value:.1%}"
    if name == "lowest cosine":
        return f"{name} {value:.5f}"
    return f"{value:.1f} {name}"
