"""The two-sample rank bound: against scipy, against every possible order, and its laws."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.statistics import unpaired
from harness.statistics.unpaired import bound_rank, least_p, p_above, p_different, rank_sum_tail, shift

SAMPLES = st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=9)


def all_orders(m: int, n: int) -> Counter[int]:
    """How many of the orders of m and n values have each U: counted one by one."""
    found: Counter[int] = Counter()
    for places in itertools.combinations(range(m + n), n):
        heads = set(places)
        found[sum(sum(1 for low in range(high) if low not in heads) for high in heads)] += 1
    return found


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 5), (2, 3), (3, 3), (4, 3), (5, 5), (6, 4), (7, 5)])
def test_null_law_is_that_of_every_order(m: int, n: int) -> None:
    counted = all_orders(m, n)
    total = sum(counted.values())
    expected = [sum(counted[v] for v in range(u + 1)) / total for u in range(m * n + 1)]
    assert list(rank_sum_tail(m, n)) == expected


def test_null_law_is_symmetric_and_ends_at_one() -> None:
    law = rank_sum_tail(30, 25)
    assert law[-1] == 1.0
    assert all(law[u] + law[30 * 25 - 1 - u] == pytest.approx(1.0) for u in range(30 * 25))


def test_normal_law_takes_over_where_counting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = [unpaired.tail(60, 50, u) for u in range(1200, 1800, 50)]
    monkeypatch.setattr(unpaired, "EXACT_PRODUCT", 1)
    assert [unpaired.tail(60, 50, u) for u in range(1200, 1800, 50)] == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize("seed", range(6))
def test_p_values_are_those_of_scipy(seed: int) -> None:
    mannwhitneyu = pytest.importorskip("scipy.stats").mannwhitneyu
    generator = random.Random(seed)
    base = [generator.gauss(0, 1) for _ in range(generator.randint(2, 9))]
    head = [generator.gauss(0.5, 1) for _ in range(generator.randint(2, 9))]
    for alternative, found in (("greater", p_above(base, head)), ("two-sided", p_different(base, head))):
        wanted = mannwhitneyu(head, base, alternative=alternative, method="exact").pvalue
        assert found == pytest.approx(wanted)


def test_three_and_three_just_suffice_at_five_per_cent() -> None:
    assert least_p(3, 3) == 1 / 20
    assert bound_rank(3, 3, 0.05) == 1
    assert bound_rank(3, 2, 0.05) == 0
    found = shift([1.0, 2.0, 3.0], [11.0, 12.0, 13.0])
    assert (found.low, found.estimate, found.high, found.n) == (8.0, 10.0, 12.0, 6)
    assert shift([1.0, 2.0], [11.0, 12.0]).low == -math.inf


@given(SAMPLES, SAMPLES, st.sampled_from([0.01, 0.05, 0.2]), st.floats(-3, 3))
@settings(max_examples=150, deadline=None)
def test_bound_and_p_value_agree(base: list[float], head: list[float], alpha: float, margin: float) -> None:
    assert (p_above(base, head, margin) <= alpha) == (shift(base, head, alpha).low > margin)


@given(SAMPLES, SAMPLES, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_values_and_swapped_sides(base: list[float], head: list[float], generator: random.Random) -> None:
    found = shift(base, head)
    other_base, other_head = list(base), list(head)
    generator.shuffle(other_base)
    generator.shuffle(other_head)
    assert shift(other_base, other_head) == found
    swapped = shift(head, base)
    assert (swapped.low, swapped.high, swapped.estimate) == (-found.high, -found.low, -found.estimate)
    assert found.low <= found.estimate <= found.high


def test_bound_errs_as_often_as_it_says() -> None:
    """Over every order of 4 and 4 values the lower bound lies above the truth at most 5 % of the time."""
    alarms = 0
    orders = list(itertools.combinations(range(8), 4))
    for places in orders:
        head = [float(place) for place in places]
        base = [float(place) for place in range(8) if place not in places]
        alarms += shift(base, head, 0.05).low > 0
    assert alarms / len(orders) == pytest.approx(rank_sum_tail(4, 4)[bound_rank(4, 4, 0.05) - 1])
    assert alarms / len(orders) <= 0.05


@pytest.mark.parametrize(("base", "head"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0]), ([1.0], [math.inf])])
def test_no_values_and_no_numbers_are_refused(base: list[float], head: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        shift(base, head)
