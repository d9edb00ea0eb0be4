"""What a bug report has to say: versions, CPU, instruction sets, threads and why that many."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..runtime import active_isa, available_isas, get_num_threads, peak

_PACKAGES = (
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "ml_dtypes",
    "pyarrow",
    "typer",
    "tqdm",
    "matplotlib",
)

# What the instruction sets of headwise, and those that it may once have, are detected by.
_FEATURES = re.compile(
    r"avx2|fma|f16c|avx_vnni|avx512(f|bw|dq|vl|_bf16|_fp16|_vnni)|amx_\w+"  # x86-64
    r"|asimd|asimddp|asimdhp|bf16|i8mm|sve2?"  # AArch64
)


def report(peak_seconds: float | None = 0.2) -> dict[str, Any]:
    """Return what decides how headwise computes here, and how fast.

    Parameters
    ----------
    peak_seconds : float, optional
        How long each peak is measured; None leaves them out.

    Returns
    -------
    dict
        Of strings, numbers, lists and dicts, as JSON takes them.

    Examples
    --------
    >>> from headwise.machine import report
    >>> list(report(None))
    ['headwise', 'python', 'numpy', 'packages', 'system', 'cpu', 'features', 'isa', 'threads']

    """
    model, flags = _cpu()
    found: dict[str, Any] = {
        "headwise": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "numpy": np.__version__,
        "packages": {name: _version(name) for name in _PACKAGES},
        "system": f"{platform.platform()}, {platform.machine()}",
        "cpu": model,
        "features": [flag for flag in flags if _FEATURES.fullmatch(flag)],
        "isa": {
            "active": active_isa(),
            "available": list(available_isas()),
            "HEADWISE_ISA": os.environ.get("HEADWISE_ISA"),
        },
        "threads": threads(),
    }
    if peak_seconds is not None:
        found["peak"] = peak(peak_seconds)._asdict()
    return found


def threads() -> dict[str, Any]:
    """Return how many threads a call may use, and what that number is due to.

    The rule is that of :func:`headwise.get_num_threads`. A count that it does not explain was set
    by :func:`headwise.set_num_threads`.

    Examples
    --------
    >>> import headwise as hw
    >>> from headwise.machine import threads
    >>> threads()["count"] == hw.get_num_threads()
    True

    """
    variables = {name: os.environ.get(name) for name in ("HEADWISE_NUM_THREADS", "OMP_NUM_THREADS")}
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = cgroup_quota()
    expected, why = cpus, "the CPUs this process may run on" if has_affinity else "the CPUs"
    if quota is not None and quota < cpus:
        expected, why = math.ceil(quota), "the CPU quota of the cgroup"
    for name, value in reversed(variables.items()):
        number = re.match(r"\s*\+?(\d+)", value or "")
        if number and int(number[1]) > 0:
            expected, why = min(int(number[1]), 4096), f"the environment variable {name}"
    count = get_num_threads()
    return {
        "count": count,
        "why": why if count == expected else "set by the program",
        "cpus": cpus,
        "cgroup_quota": quota,
        **variables,
    }


def cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return how many CPUs the cgroup (version 2, else 1) may use; None if it sets no limit."""
    files = [root / "cpu.max"]
    if not files[0].exists():
        files = [root / "cpu" / "cpu.cfs_quota_us", root / "cpu" / "cpu.cfs_period_us"]
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # not there, or "max"
        return None


def _cpu() -> tuple[str, list[str]]:
    """Return the name of the CPU and the features that the system lists."""
    model, flags = platform.processor() or platform.machine(), ""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return model, []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = value
    return model, sorted(flags.split())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
