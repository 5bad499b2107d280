"""Where the order of two sites flips: the discount rates at which their long-term stress is equal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Final, TypeAlias

from harness.errors import UsageError
from harness_meter_scarf.stress.ratio import BASELINE_YEAR

Terms: TypeAlias = tuple[tuple[int, float], ...]
"""Exponents, rising, with their coefficients: a polynomial with few terms."""

_HALVINGS: Final = 200
"""Bisections of an interval of floats; they end earlier, when no float lies between the ends."""


def equal_gammas(
    stress_a: Mapping[int, float],
    stress_b: Mapping[int, float],
    *,
    t0: int = BASELINE_YEAR,
    low: float = 0.0,
    high: float = 1.0,
) -> tuple[float, ...]:
    """Every gamma of a range at which the long-term stress of two sites is equal, rising; empty if there is none.

    With `x = 1 / (1 + gamma)` the difference is a polynomial in x, whose roots are isolated exactly. Times one volume,
    these are the gammas at which the adjusted water impacts are equal.

    Args:
        stress_a: ratio per year, from t0 on.
        stress_b: the same years.
        t0: the present of the weighting.
        low: least gamma, above -1.
        high: greatest gamma.

    Raises:
        UsageError: different years, an empty range, or two sites that are equal at every gamma.
    """
    if stress_a.keys() != stress_b.keys() or not stress_a:
        raise UsageError("the two sites have stress for different years", accepted="the same years, at least one")
    if min(stress_a) < t0:
        raise UsageError(f"year {min(stress_a)} lies before t0 {t0}", accepted="years from t0 on")
    if not -1 < low < high < math.inf:
        raise UsageError(f"the range of gamma is {low}..{high}", accepted="-1 < low < high")
    gaps = ((year - t0, stress_a[year] - stress_b[year]) for year in sorted(stress_a))
    terms = tuple((exponent, gap) for exponent, gap in gaps if gap)
    if not terms:
        raise UsageError("the two sites have the same stress in every year: they are equal at every gamma")
    found = _roots(terms, 1 / (1 + high), 1 / (1 + low))
    return tuple(sorted(1 / x - 1 for x in found))


def _value(terms: Terms, x: float) -> float:
    return math.fsum(coefficient * x**exponent for exponent, coefficient in terms)


def _roots(terms: Terms, low: float, high: float) -> list[float]:
    """Roots in low..high, where 0 < low: between the roots of its derivative a function is monotonic."""
    if len(terms) < 2:
        return []
    least = terms[0][0]
    shifted = tuple((exponent - least, coefficient) for exponent, coefficient in terms)  # same roots above 0
    slope = tuple((exponent - 1, exponent * coefficient) for exponent, coefficient in shifted[1:])
    edges = [low, *_roots(slope, low, high), high]
    found: list[float] = []
    for start, end in itertools.pairwise(edges):
        root = _root_between(shifted, start, end)
        if root is not None and (not found or root > found[-1]):
            found.append(root)
    return found


def _root_between(terms: Terms, start: float, end: float) -> float | None:
    at_start, at_end = _value(terms, start), _value(terms, end)
    if at_start == 0:
        return start
    if at_end == 0:
        return end
    if (at_start > 0) == (at_end > 0):
        return None
    for _ in range(_HALVINGS):
        middle = (start + end) / 2
        if middle in (start, end):
            break
        if (_value(terms, middle) > 0) == (at_start > 0):
            start = middle
        else:
            end = middle
    return (start + end) / 2
