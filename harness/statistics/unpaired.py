"""The statistics of comparisons without pairs: the shift between two samples, with exact rank bounds. Arithmetic only.

Weaker than pairs in one respect that no formula mends: whatever drifts between the two samples (temperature, clocks,
neighbours on a shared host) counts as a shift. The bounds rest on exchangeability: under "no shift" every order of all
values is equally likely. Ties count against an alarm.

References: Mann and Whitney, Ann. Math. Statist. 18 (1947) 50; Hodges and Lehmann, Ann. Math. Statist. 34 (1963) 598;
Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., sections 4.1 to 4.3.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist, median
from typing import Final

from harness.statistics.paired import ALPHA, Effect

EXACT_PRODUCT: Final = 40_000
"""Up to so many pairs of values (200 x 200) the null law is counted; beyond it is the normal approximation."""


@functools.lru_cache(maxsize=64)
def rank_sum_tail(m: int, n: int) -> tuple[float, ...]:
    """P(U <= u) for u = 0 .. m*n: the exact null law of the Mann-Whitney statistic, without ties.

    The number of orders with U = u is the coefficient of q^u in the Gaussian binomial coefficient, which is the product
    of (1 - q^(n+i)) / (1 - q^i) for i = 1 .. m.
    """
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for u in range(m * n, n + i - 1, -1):
            counts[u] -= counts[u - n - i]
        for u in range(i, m * n + 1):
            counts[u] += counts[u - i]
    orders = math.comb(m + n, m)
    return tuple(below / orders for below in itertools.accumulate(counts))


def tail(m: int, n: int, u: int) -> float:
    """P(U <= u) under the null: exact up to `EXACT_PRODUCT`, then normal with continuity correction."""
    if m * n <= EXACT_PRODUCT:
        return rank_sum_tail(m, n)[u]
    return NormalDist(m * n / 2, math.sqrt(m * n * (m + n + 1) / 12)).cdf(u + 0.5)


def bound_rank(m: int, n: int, alpha: float) -> int:
    """The greatest k with P(U <= k - 1) <= alpha; 0 where the samples are too small for any bound."""
    return bisect.bisect_right(range(m * n + 1), alpha, key=lambda u: tail(m, n, u))


def least_p(m: int, n: int) -> float:
    """The smallest p-value that m and n values can give: 1 over the number of orders."""
    return tail(m, n, 0)


def differences(base: Sequence[float], head: Sequence[float]) -> list[float]:
    """All head - base, in ascending order.

    Raises:
        ValueError: a sample is empty, or a value is not finite.
    """
    if not base or not head or not all(map(math.isfinite, (*base, *head))):
        raise ValueError("both samples hold finite values, and at least one each")
    return sorted(second - first for first in base for second in head)


def shift(base: Sequence[float], head: Sequence[float], alpha: float = ALPHA) -> Effect:
    """How far head lies above base: Hodges-Lehmann's median difference and one-sided bounds.

    Args:
        base: values on the scale of the effect: logarithms, where a ratio is wanted.
        head: likewise.
        alpha: error rate of each bound.

    Returns:
        The effect; its `n` counts the values of both samples.
    """
    found = differences(base, head)
    k = bound_rank(len(base), len(head), alpha)
    low, high = (found[k - 1], found[-k]) if k else (-math.inf, math.inf)
    return Effect(len(base) + len(head), median(found), low, high, alpha)


def p_above(base: Sequence[float], head: Sequence[float], margin: float = 0.0) -> float:
    """Exact p-value of "head lies at most `margin` above base": small where it surely lies higher.

    It is at or under alpha exactly where the lower bound of `shift` at alpha lies above the margin.
    """
    not_above = bisect.bisect_right(differences(base, head), margin)
    return tail(len(base), len(head), not_above)


def p_different(base: Sequence[float], head: Sequence[float]) -> float:
    """Two-sided p-value of "no shift": twice the smaller of both one-sided ones, at most 1."""
    return min(1.0, 2 * min(p_above(base, head), p_above(head, base)))
