"""Instruction sets, threads, and what this machine can do at best."""

from __future__ import annotations

import operator
from typing import NamedTuple

from . import _core


def get_num_threads() -> int:
    """Return how many threads a call may use.

    The default is the number of CPUs in the process's affinity mask, at most the CPU quota of its
    cgroup, unless the environment variable ``HEADWISE_NUM_THREADS`` or ``OMP_NUM_THREADS`` says
    otherwise. No result depends on it.
    """
    return _core.get_num_threads()


def set_num_threads(n: int) -> None:
    """Let a call use up to `n` threads, 1 to 4096, from now on and in the whole process.

    Examples
    --------
    >>> import headwise as hw
    >>> before = hw.get_num_threads()
    >>> hw.set_num_threads(1)
    >>> hw.get_num_threads()
    1
    >>> hw.set_num_threads(before)
    """
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"n is {n!r}: it must be an integer") from None
    if not 1 <= count <= 4096:
        raise ValueError(f"n is {n}: it must be 1 to 4096")
    _core.set_num_threads(count)


def active_isa() -> str:
    """Return the instruction set in use: "avx512_zen4", "avx512_bf16", "avx512_vnni", "avx512",
    "avx2" or "scalar".

    It is the best one of :func:`available_isas`, or the one the environment variable
    ``HEADWISE_ISA`` named when headwise was imported. "avx512_zen4" is "avx512_bf16" for CPUs whose
    adders work beside their multipliers, as those of AMD's Zen 4: there encoders take float32
    products in pairs.
    """
    return _core.active_isa()


def available_isas() -> tuple[str, ...]:
    """Return the instruction sets that this CPU and operating system support, best first."""
    return _core.available_isas()


def set_isa(name: str) -> None:
    """Use an instruction set of :func:`available_isas` from now on, in the whole process.

    Results differ in their last bits between instruction sets, and only there.
    """
    if name not in available_isas():
        raise ValueError(f"name is {name!r}: this CPU has {', '.join(available_isas())}")
    _core.set_isa(name)


def trim() -> None:
    """Return to the system the working memory that encoders keep for their next call.

    Its size is set by the longest text and the number of threads, not by how many texts there
    were: a few megabytes for most models. Up to 2 MB a thread stay, and all weights.

    Examples
    --------
    >>> import headwise as hw
    >>> hw.trim()
    """
    _core.trim()


class Peak(NamedTuple):
    """What the active instruction set and number of threads can reach.

    Attributes
    ----------
    float32, float64 : float
        Fused multiply-adds in registers, in GFLOP/s.
    bfloat16, int8 : float
        The same of bfloat16 products summed in float32 and of 8-bit integers summed in int32;
        `float32` where the instruction set has no instruction for them.
    read : float
        Reading memory, in GB/s.
    """

    float32: float
    float64: float
    bfloat16: float
    int8: float
    read: float


def peak(seconds: float = 0.2) -> Peak:
    """Measure the machine's peak, for about `seconds` each.

    Examples
    --------
    >>> import headwise as hw
    >>> hw.peak(0.01).float32 > 0
    True
    """
    if not 0 < seconds <= 60:
        raise ValueError(f"seconds is {seconds!r}: it must be above 0 and at most 60")
    return Peak(
        _core.peak_flops("float32", seconds),
        _core.peak_flops("float64", seconds),
        _core.peak_flops("bfloat16", seconds),
        _core.peak_flops("int8", seconds),
        _core.peak_bandwidth(seconds),
    )
