"""Exact tests of the statistics, against full enumeration, scipy and statsmodels."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.statistics.paired import (
    LOOK_ALPHAS,
    benjamini_hochberg,
    bound_rank,
    effect,
    fewest_pairs,
    fisher_more_often,
    holm,
    log_ratio,
    look_sizes,
    p_worse,
    signed_rank_tail,
    walsh_averages,
    wilson,
)

differences = st.lists(st.floats(-1.0, 1.0), min_size=5, max_size=12)


@pytest.mark.parametrize("n", range(1, 11))
def test_the_null_law_is_that_of_full_enumeration(n: int) -> None:
    sums = [sum(itertools.compress(range(1, n + 1), signs)) for signs in itertools.product([0, 1], repeat=n)]
    tail = signed_rank_tail(n)
    assert len(tail) == n * (n + 1) // 2 + 1
    for w, share in enumerate(tail):
        assert share == sum(total <= w for total in sums) / 2**n


def test_the_null_law_stays_exact_for_many_pairs() -> None:
    tail = signed_rank_tail(70)
    assert tail[-1] == 1.0
    assert tail[0] == 2.0**-70


@pytest.mark.parametrize("n", [5, 8, 10])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_bounds_hold_at_their_rate_under_all_sign_patterns(n: int, alpha: float) -> None:
    generator = random.Random(n)
    sizes = [generator.uniform(0.1, 1.0) for _ in range(n)]
    wrong = 0
    for signs in itertools.product([-1, 1], repeat=n):
        wrong += effect([sign * size for sign, size in zip(signs, sizes, strict=True)], alpha).low > 0
    assert wrong / 2**n <= alpha
    assert wrong / 2**n == pytest.approx(signed_rank_tail(n)[bound_rank(n, alpha) - 1] if bound_rank(n, alpha) else 0)


def test_p_values_agree_with_scipy() -> None:
    wilcoxon = pytest.importorskip("scipy.stats").wilcoxon
    generator = random.Random(2)
    for n in range(5, 20):
        values = [generator.gauss(0.1, 1.0) for _ in range(n)]
        margin = generator.gauss(0.0, 0.3)
        shifted = [value - margin for value in values]
        expected = wilcoxon(shifted, alternative="greater", method="exact").pvalue
        assert p_worse(values, margin) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(differences, st.floats(-0.5, 0.5), st.sampled_from([0.05, 0.0336, 0.01]))
def test_p_value_and_lower_bound_say_the_same(values: list[float], margin: float, alpha: float) -> None:
    assert (p_worse(values, margin) <= alpha) == (effect(values, alpha).low > margin)


@settings(max_examples=50, deadline=None)
@given(differences, st.randoms())
def test_order_of_pairs_changes_nothing(values: list[float], generator: random.Random) -> None:
    shuffled = list(values)
    generator.shuffle(shuffled)
    assert effect(shuffled) == effect(values)


@settings(max_examples=50, deadline=None)
@given(differences, st.floats(0.0, 1.0))
def test_a_shift_moves_estimate_and_bounds_along(values: list[float], shift: float) -> None:
    before, after = effect(values), effect([value + shift for value in values])
    for name in ("estimate", "low", "high"):
        assert getattr(after, name) == pytest.approx(getattr(before, name) + shift, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(differences)
def test_turning_the_sign_swaps_the_bounds(values: list[float]) -> None:
    here, there = effect(values), effect([-value for value in values])
    assert here.low == pytest.approx(-there.high, abs=1e-15)
    assert here.low <= here.estimate <= here.high


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9), st.floats(1e-3, 1e3))
def test_units_change_no_difference(base: float, head: float, scale: float) -> None:
    ours, scaled = log_ratio(base, head), log_ratio(base * scale, head * scale)
    assert ours is not None
    assert scaled == pytest.approx(ours, abs=1e-9)
    assert log_ratio(base, head, higher_is_better=True) == -ours


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_what_has_no_logarithm_has_no_difference(value: float) -> None:
    assert log_ratio(value, 1.0) is None
    assert log_ratio(1.0, value) is None


def test_too_few_pairs_have_no_bound() -> None:
    assert [fewest_pairs(alpha) for alpha in (0.05, 0.01, 0.005, 0.0025, 0.0005)] == [5, 7, 8, 9, 11]
    found = effect([0.1, 0.2, 0.3, 0.4])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.ratio[1:] == (-1.0, math.inf)
    assert effect([0.1, 0.2, 0.3, 0.4, 0.5]).low == 0.1


@pytest.mark.parametrize("wrong", [[], [0.1, math.nan], [math.inf]])
def test_nothing_and_non_finite_values_are_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        effect(wrong)


def test_walsh_averages_by_hand() -> None:
    assert walsh_averages([3.0, 1.0]) == [1.0, 2.0, 3.0]
    assert effect([1.0, 2.0, 10.0]).estimate == pytest.approx((2.0 + 5.5) / 2)  # 1 1.5 2 5.5 6 10


def test_holm_against_its_definition_and_statsmodels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.collect", lambda *_: 0)  # which statsmodels calls for every family
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}, 0.05) == {"a"}
    assert holm({"a": 0.01, "b": 0.02, "c": 0.03}, 0.05) == {"a", "b", "c"}
    assert holm({}, 0.05) == set()
    multiple = pytest.importorskip("statsmodels.stats.multitest")
    generator = random.Random(5)
    for _ in range(200):
        values = {str(index): generator.random() ** 3 for index in range(generator.randrange(1, 9))}
        expected = multiple.multipletests(list(values.values()), alpha=0.05, method="holm")[0]
        assert holm(values, 0.05) == {name for name, fell in zip(values, expected, strict=True) if fell}
        adjusted = multiple.multipletests(list(values.values()), method="fdr_bh")[1]
        assert benjamini_hochberg(values) == pytest.approx(dict(zip(values, adjusted, strict=True)))


def test_wilson_by_the_specified_rates() -> None:
    uppers = [round(100 * wilson(0, k)[1], 1) for k in (20, 50, 100, 400)]
    assert uppers == [16.1, 7.1, 3.7, 1.0]
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="hits"):
        wilson(3, 2)


def test_fisher_against_scipy() -> None:
    exact = pytest.importorskip("scipy.stats").fisher_exact
    for hits, trials, other, others in [(3, 10, 0, 10), (0, 5, 3, 9), (4, 4, 0, 4), (0, 3, 0, 3)]:
        expected = exact([[hits, trials - hits], [other, others - other]], alternative="greater").pvalue
        assert fisher_more_often(hits, trials, other, others) == pytest.approx(expected)


def test_looks_spend_the_whole_error_rate_and_no_more() -> None:
    assert [n for n, _ in look_sizes(36)] == [12, 24, 36]
    assert [alpha for _, alpha in look_sizes(36)] == pytest.approx(LOOK_ALPHAS)
    for pairs in range(5, 80):
        looks = look_sizes(pairs)
        assert sum(alpha for _, alpha in looks) == pytest.approx(0.05)
        assert looks[-1][0] == pairs
        assert [n for n, _ in looks] == sorted({n for n, _ in looks})
    assert look_sizes(10)[0][0] >= fewest_pairs(look_sizes(10)[0][1])


@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (3, 20), (10, 20), (999, 1000)])
def test_wilson_is_that_of_statsmodels(hits: int, trials: int) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    expected = proportion.proportion_confint(hits, trials, alpha=0.05, method="wilson")
    assert wilson(hits, trials) == pytest.approx(expected, abs=1e-12)
