"""Memory, as /proc tells it: getrusage's maximum begins with that of the parent."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path


def now() -> float:
    """Return the resident memory of this process in MB."""
    return _field("VmRSS")


def peak() -> float:
    """Return the most there was in MB, since the start or the last `forget_peak`."""
    return _field("VmHWM")


def forget_peak() -> None:
    with suppress(OSError):  # where it is forbidden, the peak is that since the start
        Path("/proc/self/clear_refs").write_text("5")


def available() -> float:
    """Return how much the machine could give now, in MB."""
    return _field("MemAvailable", "/proc/meminfo")


def _field(name: str, path: str = "/proc/self/status") -> float:
    kilobytes = re.search(rf"{name}:\s+(\d+) kB", Path(path).read_text())[1]
    return int(kilobytes) / 1024
