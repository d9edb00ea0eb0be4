"""What every benchmark shares: equal threads, the machine's peak, a table of fractions of it.

A benchmark checks its result before it is timed. Times are medians; GFLOP/s and GB/s come with the
fraction of what ``headwise.peak()`` measured in the same run, as no time means much by itself.
"""

from __future__ import annotations

import pytest

import headwise as hw

threadpoolctl = pytest.importorskip("threadpoolctl")


@pytest.fixture(scope="session")
def peak():
    return hw.peak(0.5)


@pytest.fixture(autouse=True, scope="session")
def equal_threads():
    """Give NumPy's BLAS (and any other library that threadpoolctl knows) headwise's threads."""
    with threadpoolctl.threadpool_limits(hw.get_num_threads()):
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
        "peak": hw.peak()._asdict(),
    }


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    runs = [b for b in session.benchmarks if b.extra_info] if session else []
    if not runs:
        return
    machine = hw.peak()
    terminalreporter.section("rates")
    terminalreporter.write_line(
        f"{hw.active_isa()}, {hw.get_num_threads()} threads; peak {machine.float32:.0f} GFLOP/s "
        f"float32, {machine.bfloat16:.0f} bfloat16, {machine.read:.0f} GB/s read"
    )
    medians = {}  # of headwise, by group
    for run in runs:
        if run.params and run.params.get("library") == "headwise":
            medians[run.group] = run.stats.median
    for run in runs:
        rates = (
            f"{name} {value:.1%}" if name.startswith("of ") else f"{value:.1f} {name}"
            for name, value in run.extra_info.items()
        )
        ours = medians.get(run.group)
        ratio = f"  headwise is {run.stats.median / ours:.2f} x" if ours else ""
        terminalreporter.write_line(
            f"{run.name:75} {run.stats.median * 1e6:12.1f} us  {', '.join(rates)}{ratio}"
        )
