"""Change points of a series by E-divisive means: where the law of the values changed. Arithmetic only.

Reference: Matteson and James, A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data, J. Am.
Stat. Assoc. 109 (2014) 334, with alpha = 1 and one dimension. Two things are done as in Daly, Brown, Ingo, O'Leary and
Bradford, The Use of Change Point Detection to Identify Software Performance Regressions in a Continuous Integration
System, ICPE 2020: the part after a candidate extends to the end of its segment (Matteson and James also search for the
end of that part), and the permutations are seeded, so that equal series give equal answers.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

PERMUTATIONS: Final = 999
P_VALUE: Final = 0.001
"""With 999 permutations: none of them may split as clearly as the series itself."""
MIN_SIZE: Final = 5
"""Values on either side of a change point."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A place where the values changed.

    Attributes:
        index: of the first value after the change.
        p_value: share of permutations that split as clearly, the series itself counted.
        before: median of the segment before.
        after: median of the segment after.
    """

    index: int
    p_value: float
    before: float
    after: float


def _within(values: Sequence[float]) -> list[float]:
    """Sum of |x_i - x_j| over the pairs among the first k values, for k = 0 .. n."""
    ordered: list[float] = []
    sums = [0.0]
    total = 0.0
    for size, value in enumerate(values):
        place = bisect.bisect_right(ordered, value)
        # the smaller half is summed; the other follows from the total
        below = sum(ordered[:place]) if 2 * place <= size else total - sum(ordered[place:])
        sums.append(sums[-1] + value * (2 * place - size) + total - 2 * below)
        ordered.insert(place, value)
        total += value
    return sums


def clearest_split(values: Sequence[float], min_size: int = MIN_SIZE) -> tuple[int, float]:
    """Index and statistic Q of the split of a segment whose parts differ most; (0, 0) where it is too short.

    Q = nm/(n+m) E with E = 2/(nm) sum |x-y| - mean |x-x'| - mean |y-y'|, means over the pairs within each part.
    """
    n = len(values)
    if n < 2 * min_size:
        return 0, 0.0
    first, last = _within(values), _within(values[::-1])
    found = (0, 0.0)
    for k in range(min_size, n - min_size + 1):
        m = n - k
        between = first[n] - first[k] - last[m]
        energy = 2 * between / (k * m) - first[k] / _pairs(k) - last[m] / _pairs(m)
        statistic = energy * k * m / n
        if statistic > found[1]:
            found = k, statistic
    return found


def _pairs(size: int) -> float:
    return size * (size - 1) / 2 or 1.0


def change_points(
    values: Sequence[float],
    *,
    min_size: int = MIN_SIZE,
    permutations: int = PERMUTATIONS,
    p_value: float = P_VALUE,
    seed: int = 0,
) -> list[ChangePoint]:
    """Change points of a series in time order.

    The clearest split of all segments is kept if at most a share `p_value` of permutations (of the values inside each
    segment) splits as clearly; then the search goes on in the new segments.

    Args:
        values: in time order, finite.
        min_size: values on either side of a change point, at least 2.
        permutations: how many are drawn; fewer where it is clear earlier that the split is not kept.
        p_value: how rarely chance may do as well; below 1 / (permutations + 1) nothing is ever found.
        seed: of the permutations.
    """
    if min_size < 2:
        raise ValueError(f"a segment has at least 2 values, not {min_size}")
    generator = random.Random(seed)  # noqa: S311 - permutations, not secrets
    centre = median(values) if values else 0.0
    centred = [value - centre for value in values]  # differences of large sums lose digits
    edges = [0, len(values)]
    p_values: dict[int, float] = {}
    while True:
        segments = [centred[start:end] for start, end in itertools.pairwise(edges)]
        splits = [clearest_split(segment, min_size) for segment in segments]
        best = max(range(len(splits)), key=lambda number: splits[number][1])
        place, statistic = splits[best]
        found = _p_value(segments, statistic, min_size, permutations, p_value, generator) if place else 1.0
        if found > p_value:
            break
        index = edges[best] + place
        p_values[index] = found
        bisect.insort(edges, index)
    return [
        ChangePoint(
            index, p_values[index], median(values[edges[at - 1] : index]), median(values[index : edges[at + 1]])
        )
        for at, index in enumerate(edges[1:-1], start=1)
    ]


def _p_value(
    segments: Sequence[Sequence[float]],
    statistic: float,
    min_size: int,
    permutations: int,
    wanted: float,
    generator: random.Random,
) -> float:
    """Share of permutations whose clearest split is as clear; 1 as soon as it must exceed what is wanted."""
    as_clear = 1  # the series itself
    for _ in range(permutations):
        shuffled = [generator.sample(segment, len(segment)) for segment in segments]
        # sums in another order differ in their last digits
        if max(clearest_split(segment, min_size)[1] for segment in shuffled) >= statistic * (1 - 1e-12):
            as_clear += 1
            if as_clear > wanted * (permutations + 1) * (1 + 1e-12):
                return 1.0
    return as_clear / (permutations + 1)
