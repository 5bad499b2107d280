"""The law of a trend is exact, also with ties and over several groups; it cries wolf no more often than it says."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import pytest

from harness.statistics import trend as trends
from harness.statistics.trend import inversions, trend


def descents(values: tuple[float, ...]) -> int:
    return sum(a > b for a, b in itertools.combinations(values, 2))


@pytest.mark.parametrize("values", [(1, 2), (1, 1), (1, 2, 3, 4, 5), (1, 1, 2, 3), (1, 1, 2, 2, 2, 3), (4,) * 5])
def test_the_law_is_that_of_all_orders(values: tuple[float, ...]) -> None:
    counted = Counter(descents(order) for order in set(itertools.permutations(values)))
    assert inversions(tuple(Counter(values).values())) == [counted[k] for k in range(max(counted) + 1)]


def test_p_values_in_closed_form() -> None:
    rising = trend([[1, 2, 3, 4, 5]])
    assert rising is not None
    assert (rising.p_rise, rising.p_fall, rising.slope, rising.n) == (1 / 120, 1, 1, 5)
    assert rising.p_value == 2 / 120
    two = trend([[1, 2, 3], [20, 30, 40]])
    assert two is not None
    assert two.p_rise == pytest.approx(1 / 36)
    assert trend([[1], [], [2]]) is None
    same = trend([[7, 7, 7]])
    assert same is not None
    assert (same.p_rise, same.p_fall, same.p_value) == (1, 1, 1)


@pytest.mark.parametrize("groups", [[(1,) * 41], [(1,) * 5] * 9, [(3, 2, 1, 1)] * 6 + [(5,)]])
def test_the_normal_law_is_close_where_it_takes_over(groups: list[tuple[int, ...]]) -> None:
    pairs = [math.comb(sum(group), 2) - sum(math.comb(each, 2) for each in group) for group in groups]
    most = sum(pairs)
    for descending in range(most // 4, most, most // 10):
        exact, normal = trends._exact_tails(groups, descending), trends._normal_tails(groups, descending)
        assert normal == pytest.approx(exact, abs=0.002)


@pytest.mark.parametrize("sizes", [[5], [8], [3, 3, 3, 3], [60]])
def test_without_a_trend_it_is_found_no_more_often_than_in_one_of_twenty(sizes: list[int]) -> None:
    generator = random.Random(5)
    found = 0
    for _ in range(600):
        seen = trend([[round(generator.gauss(0, 2)) for _ in range(size)] for size in sizes])
        assert seen is not None
        found += seen.p_value <= 0.05
    assert found <= 45  # 600 x 0.05 and 2.8 standard deviations


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        trend([[1.0, float("nan")]])
