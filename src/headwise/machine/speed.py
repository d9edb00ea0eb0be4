"""How fast headwise is here, as fractions of what the machine can reach."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ..runtime import Peak, peak

_PEAK_SECONDS = 0.3  # for each of its five numbers
_SAMPLE_SECONDS = 0.05  # calls that take less are timed several at a time

# Of the peak in float32. What is bound by computing reaches 55 to 85 % on a machine that is left
# alone; a wrong choice of threads or of the instruction set costs half of that or more.
_AS_IT_SHOULD = 0.4
_STEADY = 0.1  # how much the peak may change meanwhile


@dataclass
class Case:
    """Something to time.

    Attributes
    ----------
    name : str
    run : callable
    precision : str
        Of its products: whose peak it is held against.
    work : float
        What one call does: floating-point operations, or bytes read.
    reads : bool
        Whether it is bound by reading memory, so that `work` is bytes.
    texts, tokens : int
        In one call, where it has any.
    seconds : list of float
        What a call took, once for each round.

    """

    name: str
    run: Callable[[], object] = field(repr=False)
    precision: str
    work: float
    reads: bool = False
    texts: int = 0
    tokens: int = 0
    seconds: list[float] = field(default_factory=list)

    def rate(self) -> float:
        """Return GFLOP/s, or GB/s, at the median time."""
        return 1e-9 * self.work / median(self.seconds)

    def fraction(self, peak: Peak) -> float:
        """Return the rate as a fraction of what the machine can reach."""
        return self.rate() / float(getattr(peak, "read" if self.reads else self.precision))


@dataclass(frozen=True)
class Speeds:
    """What was measured.

    Attributes
    ----------
    before, after : Peak
        The machine's, before and after everything else.
    cases : list of Case

    """

    before: Peak
    after: Peak
    cases: list[Case]

    @property
    def peak(self) -> Peak:
        """What the machine has been seen to reach, before or after."""
        return Peak(*map(max, self.before, self.after))

    @property
    def drift(self) -> float:
        """By what fraction the peaks of computing differ, at most.

        Not that of reading memory, which on a rented machine is shared with the neighbours.
        """
        pairs = zip(self.before[:-1], self.after[:-1], strict=True)
        return max(abs(a - b) / max(a, b) for a, b in pairs)

    def is_steady(self) -> bool:
        """Return whether the machine was the same all along."""
        return self.drift <= _STEADY

    def verdict(self) -> str:
        """Return what to make of it, in a sentence or two."""
        if not self.is_steady():
            return (
                f"The peak changed by {self.drift:.0%} meanwhile: something else is running, or "
                "the clock changes. These figures mean little; run it again on a quiet machine."
            )
        reached = {
            case.name: case.fraction(self.peak)
            for case in self.cases
            if case.precision == "float32" and not case.reads
        }
        slowest = min(reached, key=reached.__getitem__)
        if reached[slowest] < _AS_IT_SHOULD:
            return (
                f"Only {reached[slowest]:.0%} of the peak in float32 ({slowest}): slower than it "
                "should be. 'headwise info' tells the threads and instruction set in use."
            )
        return (
            f"In float32 {reached[slowest]:.0%} to {max(reached.values()):.0%} of the peak: this "
            "machine does what it can."
        )


def measure(
    seconds: float = 120,
    model: str | Path | None = None,
    progress: Callable[[float], object] | None = None,
) -> Speeds:
    """Time attention, linear layers and an encoder, each in turn, again and again.

    Parameters
    ----------
    seconds : float
        About how long: what has begun is finished, and everything is timed at least once.
    model : str or Path, optional
        A model folder or hub id, of which texts are then encoded too.
    progress : callable, optional
        Is told now and then what fraction of the time has passed.

    Returns
    -------
    Speeds

    Raises
    ------
    ValueError
        If `seconds` is not above 0.
    ArithmeticError
        If a result is wrong.

    Examples
    --------
    >>> from headwise.machine import measure
    >>> speeds = measure()  # doctest: +SKIP
    >>> print(speeds.verdict())  # doctest: +SKIP
    In float32 71% to 94% of the peak: this machine does what it can.

    """
    from .cases import all_cases

    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}: it must be above 0")
    start = time.perf_counter()
    before = peak(_PEAK_SECONDS)
    cases = all_cases(model)
    end = start + seconds - 5 * _PEAK_SECONDS
    calls = [1 for _ in cases]
    while not cases[-1].seconds or time.perf_counter() < end:
        for i, case in enumerate(cases):
            case.seconds.append(_time(case, calls[i]))
            calls[i] = max(1, round(_SAMPLE_SECONDS / case.seconds[-1]))
            if progress is not None:
                progress(min(1, (time.perf_counter() - start) / seconds))
    return Speeds(before, peak(_PEAK_SECONDS), cases)


def _time(case: Case, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        case.run()
    return (time.perf_counter() - start) / calls
