"""Energy of a log of power samples: the trapezoid, and the lineage's mean times duration, which is not the same.

For logs that were taken outside the harness; its own meters integrate by themselves (`harness.counter`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

from harness.errors import MeasurementError

_CLOCK_S: Final = 1e-9


def _checked(times_s: Sequence[float], watts: Sequence[float]) -> None:
    if len(times_s) != len(watts) or len(times_s) < 2:
        raise MeasurementError(f"{len(times_s)} times and {len(watts)} powers", accepted="as many, at least two")
    for index, power in enumerate(watts):
        if not (math.isfinite(power) and power >= 0):
            raise MeasurementError(f"power sample {index} is {power} W", accepted="a finite number, at least 0")
    for index, (before, after) in enumerate(itertools.pairwise(times_s), start=1):
        if not (math.isfinite(before) and math.isfinite(after) and before < after):
            raise MeasurementError(f"time {index} is {after} s after {before} s", accepted="times that rise strictly")


def trapezoid_j(times_s: Sequence[float], watts: Sequence[float]) -> float:
    """Energy by the trapezoidal rule, in J; raises MeasurementError for a time that does not rise or a bad power."""
    _checked(times_s, watts)
    pairs = zip(itertools.pairwise(times_s), itertools.pairwise(watts), strict=True)
    return math.fsum((after - before) * (first + last) / 2 for (before, after), (first, last) in pairs)


def mean_power_j(times_s: Sequence[float], watts: Sequence[float], trim_s: float = 0.0) -> float:
    """Mean of the samples times the whole duration, in J, as profile `fuel-code` has it (with `trim_s` 1.0).

    Samples less than `trim_s` from either end are left out of the mean. Uneven samples bias it.

    Raises:
        MeasurementError: also where the trimming leaves no sample.
    """
    _checked(times_s, watts)
    first, last = times_s[0] + trim_s - _CLOCK_S, times_s[-1] - trim_s + _CLOCK_S
    kept = [power for time_s, power in zip(times_s, watts, strict=True) if first <= time_s <= last]
    if not kept:
        raise MeasurementError(f"trimming {trim_s:g} s at each side leaves no power sample of {len(watts)}")
    return math.fsum(kept) / len(kept) * (times_s[-1] - times_s[0])


def gaps(times_s: Sequence[float], interval_s: float) -> list[tuple[float, float]]:
    """Start and length, in s, of each pause longer than twice the sampling interval."""
    pairs = itertools.pairwise(times_s)
    return [(before, after - before) for before, after in pairs if after - before > 2 * interval_s + _CLOCK_S]
