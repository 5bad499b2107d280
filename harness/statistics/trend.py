"""Whether values rise or fall with their order: Kendall's statistic with its exact null law, Theil and Sen's slope.

The null is that within each group every order of its values is as likely as any other. Then the number of pairs in
descending order (inversions) of n values, of which m1, m2, ... are equal, has the generating function of the Gaussian
multinomial coefficient [n]!/([m1]![m2]!...), ties included; that of several groups together is the product of theirs.
Beyond `EXACT` values the law is taken as normal, with its exact mean and variance.

References: Kendall, Biometrika 30 (1938) 81; Mann, Econometrica 13 (1945) 245; Sen, J. Am. Stat. Assoc. 63 (1968) 1379;
MacMahon, Amer. J. Math. 35 (1913) 281, for the law with ties; Hirsch and Slack, Water Resour. Res. 20 (1984) 727, for
the sum over groups.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Final

EXACT: Final = 40
"""So many values at most have their law computed exactly; with more, the normal law differs by less than 0.001."""


@dataclass(frozen=True, slots=True)
class Trend:
    """How values go with their order.

    Attributes:
        slope: median over all pairs of a group, and all groups, of the change from one value to the next.
        p_rise: probability, without a trend, of a statistic that rises at least as much.
        p_fall: likewise for one that falls.
        n: how many values.
    """

    slope: float
    p_rise: float
    p_fall: float
    n: int

    @property
    def p_value(self) -> float:
        """Two-sided: twice the smaller of both, at most 1."""
        return min(1.0, 2 * min(self.p_rise, self.p_fall))


def trend(groups: Sequence[Sequence[float]]) -> Trend | None:
    """The common trend of groups of finite values, each in its order; None where no group has two values."""
    slopes: list[float] = []
    descending = 0
    for values in groups:
        if not all(map(math.isfinite, values)):
            raise ValueError("a trend needs finite values")
        for (i, first), (j, second) in itertools.combinations(enumerate(values), 2):
            slopes.append((second - first) / (j - i))
            descending += first > second
    if not slopes:
        return None
    n = sum(map(len, groups))
    tails = _exact_tails if n <= EXACT else _normal_tails
    at_most, at_least = tails([tuple(Counter(values).values()) for values in groups], descending)
    return Trend(median(slopes), p_rise=at_most, p_fall=at_least, n=n)


def _exact_tails(groups: Sequence[Sequence[int]], descending: int) -> tuple[float, float]:
    """Probabilities of at most, and of at least, so many descending pairs; a group is given by its multiplicities."""
    law = [1]
    for multiplicities in groups:
        law = _times(law, inversions(multiplicities))
    whole = sum(law)
    return sum(law[: descending + 1]) / whole, sum(law[descending:]) / whole


def _normal_tails(groups: Sequence[Sequence[int]], descending: int) -> tuple[float, float]:
    """The same by the normal law, with a correction for continuity."""
    mean = variance = 0.0
    for multiplicities in groups:
        for sign, size in ((1, sum(multiplicities)), *((-1, each) for each in multiplicities)):
            mean += sign * size * (size - 1) / 4
            variance += sign * size * (size - 1) * (2 * size + 5) / 72
    if variance == 0:
        return 1.0, 1.0
    law = NormalDist(mean, math.sqrt(variance))
    return law.cdf(descending + 0.5), 1 - law.cdf(descending - 0.5)


def inversions(multiplicities: Sequence[int]) -> list[int]:
    """How many orders of a multiset have 0, 1, 2, ... pairs in descending order."""
    found = [1]
    for i in range(1, sum(multiplicities) + 1):
        found = _times_ones(found, i)
    for each in multiplicities:
        for i in range(2, each + 1):
            found = _over(found, i)
    return found


def _times(one: Sequence[int], other: Sequence[int]) -> list[int]:
    product = [0] * (len(one) + len(other) - 1)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            product[i + j] += a * b
    return product


def _times_ones(factor: Sequence[int], i: int) -> list[int]:
    """The product of a polynomial with 1 + q + ... + q^(i-1): each coefficient is a sum of `i` neighbours."""
    sums = [0, *itertools.accumulate(factor)]
    last = len(factor)
    return [sums[min(k + 1, last)] - sums[max(0, k + 1 - i)] for k in range(last + i - 1)]


def _over(dividend: Sequence[int], i: int) -> list[int]:
    """The exact quotient of a polynomial by 1 + q + ... + q^(i-1)."""
    quotient: list[int] = []
    for k in range(len(dividend) - i + 1):
        quotient.append(dividend[k] - sum(quotient[max(0, k - i + 1) : k]))
    return quotient
