"""What the signed-rank bounds of paired differences assume, tested; and the bounds that do without. Arithmetic only.

The signed-rank test compares the pseudo-median (the median of the Walsh averages) with the tolerance. It keeps its
error rate where the differences are symmetric around one effect that stays the same during the job. Here are tests of
both halves of that, the step of values that were rounded, and, for each assumption that fails, bounds that need it
not: the sign test asks for no symmetry, a line through the differences for no constant effect.

References: Randles, Fligner, Policello and Wolfe, J. Am. Stat. Assoc. 75 (1980) 168 (triples test); Kendall,
Biometrika 30 (1938) 81; Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4 (Student's t);
Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.4 to 3.9.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import Final

from harness.quantity import SLACK
from harness.statistics.paired import Effect

FEWEST_FOR_SYMMETRY: Final = 6
FEWEST_FOR_TREND: Final = 5
EXACT_TREND: Final = 60
"""Up to so many pairs the null law of Kendall's statistic is counted; beyond it is the normal approximation."""


def student_above(t: float, freedom: int) -> float:
    """P(T > t) for Student's t with a whole number of degrees of freedom, by its finite series."""
    if not math.isfinite(t):
        return 0.0 if t > 0 else 1.0
    angle = math.atan2(abs(t), math.sqrt(freedom))
    cosine = math.cos(angle)
    term = cosine if freedom % 2 else 1.0
    total = 0.0
    for k in range(1 if freedom % 2 else 0, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    inside = math.sin(angle) * total
    if freedom % 2:
        inside = 2 / math.pi * (angle + inside)
    tail = max(0.0, (1 - inside) / 2)
    return tail if t > 0 else 1 - tail


def student_quantile(above: float, freedom: int) -> float:
    """The t that Student's t exceeds with probability `above`, for `above` up to one half."""
    low, high = 0.0, 1.0
    while student_above(high, freedom) > above:
        low, high = high, 2 * high
    while high - low > SLACK * high:
        middle = (low + high) / 2
        low, high = (middle, high) if student_above(middle, freedom) > above else (low, middle)
    return high


def asymmetry(differences: Sequence[float]) -> tuple[float, float]:
    """To which side the differences lean (positive: a long tail above), and the two-sided p-value of "symmetric".

    The triples test, around whatever centre: a triple leans right where its mean exceeds its median. The statistic is
    approximately normal; Student's t with n/2 degrees of freedom keeps samples as small as these from rejecting too
    often, heavy tails of both sides apart, where it does so about twice as often as it says.
    """
    n = len(differences)
    if n < FEWEST_FOR_SYMMETRY:
        return 0.0, 1.0
    by_pair, total = _leanings(sorted(differences))
    triples = math.comb(n, 3)
    lean = total / triples
    each = [math.fsum(row) / 2 / math.comb(n - 1, 2) for row in by_pair]
    first = fmean((own - lean) ** 2 for own in each)
    second = fmean((by_pair[i][j] / (n - 2) - lean) ** 2 for i, j in itertools.combinations(range(n), 2))
    variance = (3 * math.comb(n - 3, 2) * first + 3 * (n - 3) * second + 1 / 9 - lean * lean) / triples
    if variance <= 0:
        return lean, 1.0
    return lean, min(1.0, 2 * student_above(abs(lean) / math.sqrt(variance), n // 2))


def _leanings(values: Sequence[float]) -> tuple[list[list[float]], float]:
    """Per pair of sorted values the sum over the third of how the triple leans (1/3, 0 or -1/3), and over triples.

    Of a triple a <= b <= c only whether a + c exceeds 2b is open: two of its three comparisons always cancel.
    """
    n = len(values)
    by_pair = [[0.0] * n for _ in range(n)]
    total = 0.0
    for i, k in itertools.combinations(range(n), 2):
        for j in range(i + 1, k):
            balance = values[i] + values[k] - 2 * values[j]
            lean = 0.0 if abs(balance) <= SLACK else math.copysign(1 / 3, balance)
            if lean:
                for a, b in ((i, j), (i, k), (j, k)):
                    by_pair[a][b] += lean
                    by_pair[b][a] += lean
                total += lean
    return by_pair, total


@functools.cache
def concordance_tail(n: int) -> tuple[float, ...]:
    """P(D <= d) for d = 0 .. n(n-1)/2: the exact null law of the number of discordant pairs, without ties."""
    counts = [1]
    for size in range(2, n + 1):  # the size-th value lands before 0 .. size - 1 of the earlier ones
        sums = [0, *itertools.accumulate(counts)]
        grown = len(counts) + size - 1
        counts = [sums[min(d + 1, len(counts))] - sums[max(0, d + 1 - size)] for d in range(grown)]
    orders = math.factorial(n)
    return tuple(below / orders for below in itertools.accumulate(counts))


def p_trend(differences: Sequence[float]) -> float:
    """Two-sided p-value of "no trend over the pairs", by Kendall's test; ties count for no trend."""
    n = len(differences)
    if n < FEWEST_FOR_TREND:
        return 1.0
    rising = falling = 0
    for earlier, later in itertools.combinations(differences, 2):
        rising += later > earlier + SLACK
        falling += later < earlier - SLACK
    if n > EXACT_TREND:
        spread = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
        return math.erfc(max(0, abs(rising - falling) - 1) / spread / math.sqrt(2))
    less = (n * (n - 1) // 2 - abs(rising - falling)) // 2  # tied pairs are shared out to both sides
    tied = (n * (n - 1) // 2 - abs(rising - falling)) % 2
    return min(1.0, 2 * concordance_tail(n)[less + tied])


def tied_share(values: Sequence[float]) -> float:
    """The share of values that equal another one, by the relative slack."""
    ordered = sorted(values)
    same = [math.isclose(a, b, rel_tol=SLACK) for a, b in itertools.pairwise(ordered)]
    tied = sum(left or right for left, right in zip([*same, False], [False, *same], strict=True))
    return tied / len(ordered) if ordered else 0.0


def step(values: Sequence[float]) -> float:
    """The largest step of which all values are multiples, relative to their median; 0 where there is none to speak of.

    Euclid's algorithm: a clock's tick, or 1 for a count. Values that were not rounded have none.
    """
    largest = max(map(abs, values), default=0.0)
    common = 0.0
    for value in map(abs, values):
        a, b = value, common
        while b > _NO_STEP * largest:
            rest = math.fmod(a, b)
            a, b = b, (0.0 if min(rest, b - rest) <= _NO_STEP * largest else rest)
        common = a
    centre = median(map(abs, values)) if values else 0.0
    return common / centre if centre > 0 and common > 100 * _NO_STEP * largest else 0.0


_NO_STEP: Final = 1e-7


@functools.cache
def sign_tail(n: int) -> tuple[float, ...]:
    """P(at most k of n fair signs are positive), for k = 0 .. n."""
    return tuple(below / 2**n for below in itertools.accumulate(math.comb(n, k) for k in range(n + 1)))


def signs(differences: Sequence[float], margin: float, alpha: float) -> tuple[Effect, float]:
    """Bounds of the median by the exact sign test, which asks for no symmetry, and the p-value of "at most margin"."""
    n = len(differences)
    ordered = sorted(differences)
    k = bisect.bisect_right(sign_tail(n), alpha)
    low, high = (ordered[k - 1], ordered[-k]) if k else (-math.inf, math.inf)
    not_above = bisect.bisect_right(ordered, margin)
    return Effect(n, median(ordered), low, high, alpha), sign_tail(n)[not_above]


def line(differences: Sequence[float], at: float, margin: float, alpha: float) -> tuple[Effect, float]:
    """Bounds of the effect at a pair (from 0, also beyond the last), and the p-value of "at most margin".

    A line through the differences by least squares, with Student's bounds. Fewer than three pairs bound nothing.
    """
    n = len(differences)
    if n < 3:
        return Effect(n, median(differences), -math.inf, math.inf, alpha), 1.0
    centred = [index - (n - 1) / 2 for index in range(n)]
    squares = math.fsum(x * x for x in centred)
    mean = fmean(differences)
    slope = math.fsum(x * d for x, d in zip(centred, differences, strict=True)) / squares
    away = at - (n - 1) / 2
    residual = math.fsum((d - mean - slope * x) ** 2 for x, d in zip(centred, differences, strict=True)) / (n - 2)
    error = math.sqrt(residual * (1 / n + away * away / squares))
    estimate = mean + slope * away
    half = student_quantile(alpha, n - 2) * error
    excess = estimate - margin
    p_value = (0.0 if excess > 0 else 1.0) if error <= 0 else student_above(excess / error, n - 2)
    return Effect(n, estimate, estimate - half, estimate + half, alpha), p_value
