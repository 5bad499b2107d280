"""The statistics of comparisons: paired differences, exact signed-rank bounds, families of hypotheses. Arithmetic only.

Differences are d_i = log(head_i) - log(base_i), oriented so that positive is worse. All bounds and p-values below rest
on one null: that the d_i are symmetric around the effect. A fair coin that is thrown for each pair by itself brings it
about: under "head is base times the effect", d_i less the effect is the second trial less the first with the coin's
sign, so all 2^n patterns of signs are equally likely, for any noise, drift or effect of the order, for an even and for
an odd number of pairs. A balanced order would leave fewer patterns than the exact law counts.

References: Hodges and Lehmann, Ann. Math. Statist. 34 (1963) 598; Holm, Scand. J. Statist. 6 (1979) 65; Wilson, J. Am.
Stat. Assoc. 22 (1927) 209; O'Brien and Fleming, Biometrics 35 (1979) 549; Hollander, Wolfe and Chicken, Nonparametric
Statistical Methods, 3rd ed., sections 3.1 to 3.3.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Final, TypeVar

K = TypeVar("K", bound=Hashable)

ALPHA: Final = 0.05
"""Error rate of one analysis, and of all interim analyses together."""
LOOK_ALPHAS: Final = (0.0007, 0.0157, 0.0336)
"""Shares of `ALPHA` for analyses at 1/3, 2/3 and 1 of the pairs: they add up to it, so they hold however dependent."""


def log_ratio(base: float, head: float, *, higher_is_better: bool = False) -> float | None:
    """log(head) - log(base), turned so that positive is worse; None where a value has no logarithm."""
    if not (0 < base < math.inf and 0 < head < math.inf):
        return None
    difference = math.log(head) - math.log(base)
    return -difference if higher_is_better else difference


def walsh_averages(differences: Sequence[float]) -> list[float]:
    """The n(n+1)/2 averages of all pairs, each value with itself included, in ascending order."""
    return sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(differences, 2))


@functools.cache
def signed_rank_tail(n: int) -> tuple[float, ...]:
    """P(W <= w) for w = 0 .. n(n+1)/2: the exact null law of the signed-rank statistic, without ties and zeros."""
    counts = [1]
    for rank in range(1, n + 1):  # each rank is counted or not: counts[w] subsets of 1..rank sum to w
        grown = counts + [0] * rank
        for w, count in enumerate(counts):
            grown[w + rank] += count
        counts = grown
    # integers up to the last step: 2^n outlives a float's 53 bits before n reaches 60
    return tuple(total / 2**n for total in itertools.accumulate(counts))


def fewest_pairs(alpha: float) -> int:
    """The least n for which a bound exists: 2^-n <= alpha."""
    n = 1
    while 2.0**-n > alpha:
        n += 1
    return n


def bound_rank(n: int, alpha: float) -> int:
    """The greatest k with P(W <= k - 1) <= alpha; 0 where n is too small for any bound."""
    return bisect.bisect_right(signed_rank_tail(n), alpha) if n else 0


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect that paired differences show, on their own (logarithmic) scale; positive is worse.

    Attributes:
        n: pairs.
        estimate: Hodges-Lehmann: the median of the Walsh averages.
        low: one-sided lower bound at `alpha`; -inf where n is too small.
        high: one-sided upper bound at `alpha`; inf where n is too small.
        alpha: error rate of each bound.
    """

    n: int
    estimate: float
    low: float
    high: float
    alpha: float

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Relative change of estimate, low and high: exp(d) - 1."""
        return (
            math.expm1(self.estimate),
            math.expm1(self.low),
            math.inf if self.high == math.inf else math.expm1(self.high),
        )


def effect(differences: Sequence[float], alpha: float = ALPHA) -> Effect:
    """Estimate and bounds of paired differences.

    Raises:
        ValueError: there is no difference, or one is not finite.
    """
    if not differences or not all(math.isfinite(difference) for difference in differences):
        raise ValueError("paired differences are finite, and at least one")
    averages = walsh_averages(differences)
    k = bound_rank(len(differences), alpha)
    low, high = (averages[k - 1], averages[-k]) if k else (-math.inf, math.inf)
    return Effect(len(differences), median(averages), low, high, alpha)


def p_worse(differences: Sequence[float], margin: float) -> float:
    """Exact p-value of "the pseudo-median is at most `margin`": small where it is surely above.

    It is at or under alpha exactly where the lower bound at alpha lies above the margin; ties and zeros count against
    that, so it never errs towards an alarm.
    """
    not_above = sum(average <= margin for average in walsh_averages(differences))
    return signed_rank_tail(len(differences))[not_above]


def holm(p_values: Mapping[K, float], alpha: float) -> set[K]:
    """Which hypotheses fall at family-wise error rate alpha, under any dependence.

    The order of equal p-values changes nothing: where the first of them falls, so do the others.
    """
    fallen: set[K] = set()
    for position, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        if p_value > alpha / (len(p_values) - position):
            break
        fallen.add(name)
    return fallen


def benjamini_hochberg(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values, ascending: they order a report and decide nothing."""
    ordered = sorted(p_values.items(), key=lambda pair: (pair[1], pair[0]))
    adjusted: dict[str, float] = {}
    least = 1.0
    for rank in range(len(ordered), 0, -1):
        name, p_value = ordered[rank - 1]
        least = min(least, p_value * len(ordered) / rank)
        adjusted[name] = least
    return dict(reversed(adjusted.items()))


def wilson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Wilson interval of a rate; (0, 1) where nothing was tried."""
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits in {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = hits / trials
    centre = rate + z * z / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def fisher_more_often(hits: int, trials: int, other_hits: int, other_trials: int) -> float:
    """One-sided p-value of Fisher's exact test that the first rate is not the greater one."""
    everything, all_hits = trials + other_trials, hits + other_hits
    most = min(all_hits, trials)
    ways = sum(math.comb(trials, k) * math.comb(other_trials, all_hits - k) for k in range(hits, most + 1))
    return ways / math.comb(everything, all_hits)


def look_sizes(pairs: int, alphas: Sequence[float] = LOOK_ALPHAS) -> list[tuple[int, float]]:
    """Numbers of pairs after which to analyse, with the error rate that each interim analysis may spend.

    Analyses at equal steps up to `pairs`; an early one too small to decide anything is left out and its share goes to
    the last.
    """
    steps = [(-(-pairs * (index + 1) // len(alphas)), alpha) for index, alpha in enumerate(alphas)]
    kept = [(n, alpha) for n, alpha in steps[:-1] if n >= fewest_pairs(alpha) and n < pairs]
    return [*kept, (pairs, math.fsum([*alphas, *(-alpha for _, alpha in kept)]))]
