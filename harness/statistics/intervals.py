"""How well the trials of a point know its mean, and how far two points lie apart: Student's intervals, 95 %.

They are taken of logarithms, as for the precision of a suite: the noise of times and energies is a share of them, and
no end can lie below 0. Where a value is 0 or less it is the values themselves. Trials are few, so that no test could
tell whether their noise is normal: a report that claims something by them says which interval it used.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import Final

from harness.statistics.assumptions import student_quantile

LEVEL: Final = 0.95
LEAST_TRIALS: Final = 3
"""Fewer have no interval: two trials would span 18 standard deviations of their noise."""
NAME: Final = "95 % interval of the mean (Student)"


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Where the mean of a point's trials lies; None for fewer than three of them.

    Examples:
        >>> low, high = mean_interval([10.0, 11.0, 12.0])
        >>> round(low, 1), round(high, 1)
        (8.7, 13.8)
    """
    if len(values) < LEAST_TRIALS or not all(map(math.isfinite, values)):
        return None
    logarithms = min(values) > 0
    scale = [math.log(value) for value in values] if logarithms else list(values)
    middle = statistics.fmean(scale)
    half = _quantile(len(values)) * statistics.stdev(scale) / math.sqrt(len(values))
    ends = (middle - half, middle + half)
    return (math.exp(ends[0]), math.exp(ends[1])) if logarithms else ends


def ratio_interval(base: Sequence[float], other: Sequence[float]) -> tuple[float, float, float] | None:
    """Estimate, low and high end of the mean of `other` over that of `base`; None where there is no such interval.

    Welch's, with the degrees of freedom of the smaller sample: their number is never more, so that it errs on the safe
    side.
    """
    if min(len(base), len(other)) < LEAST_TRIALS or not all(0 < value < math.inf for value in (*base, *other)):
        return None
    logs = [[math.log(value) for value in values] for values in (base, other)]
    apart = statistics.fmean(logs[1]) - statistics.fmean(logs[0])
    error = math.sqrt(sum(statistics.variance(each) / len(each) for each in logs))
    half = _quantile(min(map(len, logs))) * error
    return math.exp(apart), math.exp(apart - half), math.exp(apart + half)


@cache
def _quantile(count: int) -> float:
    return student_quantile((1 - LEVEL) / 2, count - 1)
