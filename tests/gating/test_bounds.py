"""What a verdict rests on: exact ties, values in steps, asymmetry, trends, the order inside pairs."""

from __future__ import annotations

import math
import random

import pytest

from harness.gating.bounds import bounds
from harness.gating.verdict import Cell, CellKey, Verdict, judge, margin, order_effect, order_matters
from harness.statistics.paired import effect, log_ratio

KEY = CellKey("s", "a", "duration_s", "item")
BASES = (1e-9, 3e-7, 0.1, 0.7, 1.0, 3.0, 7.0, 100.0, 123.456, 200.0, 1e6, 9.87e12)
TOLERANCES = (0.0, 0.01, 0.03, 0.05, 0.1, 0.25, 1.0)


def of(base: float, head: float, tolerance: float, pairs: int = 5) -> Verdict:
    difference = log_ratio(base, head)
    assert difference is not None
    cell = Cell(key=KEY, differences=(difference,) * pairs, margin=margin(tolerance))
    return judge([cell], 0.05)[0].verdict


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_a_change_exactly_equal_to_the_tolerance_is_allowed(base: float, tolerance: float) -> None:
    assert of(base, base * (1 + tolerance), tolerance) in {Verdict.PASS, Verdict.IMPROVED}
    assert of(base, base + base * tolerance, tolerance) is Verdict.PASS
    assert of(base, base * (1 + tolerance + 1e-6), tolerance) is Verdict.REGRESSED
    assert of(base, base * (1 - 1e-6), 0.0) is Verdict.IMPROVED


def test_the_two_examples_at_five_percent() -> None:
    assert of(200.0, 210.0, 0.05) is of(100.0, 105.0, 0.05) is Verdict.PASS


def test_what_has_no_noise_needs_the_fewest_pairs_and_no_family() -> None:
    cells = [
        Cell(key=CellKey("s", str(index), "m"), differences=(0.2 if index == 0 else 0.0,) * 5, margin=margin(0.05))
        for index in range(40)
    ]
    judged = judge(cells, 0.05)
    assert judged[0].verdict is Verdict.REGRESSED
    assert {each.verdict for each in judged[1:]} == {Verdict.PASS}
    assert judged[0].assumptions is not None
    assert judged[0].assumptions.constant


@pytest.mark.parametrize(("value", "kept"), [(0.3, True), (0.1 + 0.2, True), (0.3 + 1e-6, False)])
def test_a_limit_is_kept_at_its_value_however_that_is_rounded(value: float, kept: bool) -> None:
    key = CellKey("s", "a", "quality", None, ("<=", 0.3))
    cell = Cell(key=key, differences=(value - 0.3,) * 5, limit=True)
    assert judge([cell], 0.05)[0].verdict is (Verdict.PASS if kept else Verdict.REGRESSED)


def noise(n: int, seed: int, spread: float = 0.02) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(0.0, spread) for _ in range(n)]


def test_clean_differences_are_judged_by_the_signed_rank_test_alone() -> None:
    values = noise(24, 3)
    found, _, assumed = bounds(values, margin(0.05), 0.05)
    plain = effect(values, 0.05)
    assert (found.low, found.high) == (plain.low, plain.high)
    assert assumed.failed == ()
    assert assumed.decided_by == ""


def test_a_slow_tail_needs_the_sign_test_too_and_is_told() -> None:
    generator = random.Random(19)
    values = [
        generator.gauss(0, 0.01) + (generator.expovariate(2.5) if generator.random() < 0.4 else 0.0) for _ in range(36)
    ]
    found, p_value, assumed = bounds(values, margin(0.05), 0.05)
    assert effect(values, 0.05).low > margin(0.05), "the signed-rank test alone calls it a regression"
    assert found.low <= margin(0.05)
    assert p_value > 0.05
    assert any("asymmetric" in text for text in assumed.failed)
    (judged,) = judge([Cell(key=KEY, differences=tuple(values), margin=margin(0.05))], 0.05)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "asymmetric" in judged.reason


def test_an_effect_that_shrinks_is_no_regression_of_the_whole_job_and_is_told() -> None:
    values = [d + 2 * margin(0.05) * (1 - index / 36) for index, d in enumerate(noise(12, 7, 0.005))]
    cell = Cell(key=KEY, differences=tuple(values), margin=margin(0.05))
    assert effect(values, 0.0007).low > margin(0.05)
    (early,) = judge([cell], 0.0007, planned=36)
    assert early.verdict is Verdict.INCONCLUSIVE
    assert "changed during the job" in early.reason


def test_a_regression_that_shrinks_and_stays_one_is_found() -> None:
    values = [d + 0.5 - 0.2 * index / 36 for index, d in enumerate(noise(36, 7, 0.01))]
    (judged,) = judge([Cell(key=KEY, differences=tuple(values), margin=margin(0.05))], 0.05)
    assert judged.verdict is Verdict.REGRESSED
    assert "both halves of the job" in judged.reason


def test_values_in_steps_widen_both_bounds() -> None:
    generator = random.Random(9)
    pairs = [(round(25 + generator.gauss(0, 0.3)), round(26.25 + generator.gauss(0, 0.3))) for _ in range(24)]
    differences = tuple(math.log(head / base) for base, head in pairs)
    levels = tuple(math.log(head * base) / 2 for base, head in pairs)
    (judged,) = judge([Cell(key=KEY, differences=differences, levels=levels, margin=margin(0.05))], 0.05)
    assert judged.assumptions is not None
    assert judged.assumptions.step == pytest.approx(0.04, rel=0.05)
    assert judged.assumptions.tied_share > 0.9
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "multiples" in judged.reason


# The order inside pairs


def ordered(shift: float, n: int = 24, worse: float = 0.0) -> Cell:
    generator = random.Random(11)
    second = [generator.random() < 0.5 for _ in range(n)]
    values = [d + worse + (shift if last else -shift) for d, last in zip(noise(n, 12, 0.01), second, strict=True)]
    return Cell(key=KEY, differences=tuple(values), head_second=tuple(second), margin=margin(0.05))


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.02, 0.1, -0.1])
def test_the_effect_of_the_order_is_estimated_whatever_the_change(shift: float) -> None:
    for worse in (0.0, 0.3):
        found = order_effect(ordered(shift, worse=worse))
        assert found is not None
        assert found.estimate == pytest.approx(math.expm1(shift), abs=0.01)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= math.expm1(shift) <= found.high


@pytest.mark.parametrize(("shift", "matters"), [(0.0, False), (0.03, False), (-0.03, False), (0.1, True), (-0.1, True)])
def test_an_order_that_matters_more_than_the_tolerance_makes_a_job_invalid(shift: float, matters: bool) -> None:
    reason = order_matters(judge([ordered(shift)], 0.05))
    assert bool(reason) is matters
    assert not matters or "second trial of a pair" in reason


def test_an_order_that_is_not_known_says_nothing() -> None:
    cell = Cell(key=KEY, differences=(0.1, 0.2), margin=margin(0.05))
    assert order_effect(cell) is None
    assert order_matters(judge([cell], 0.05)) == ""
    few = Cell(key=KEY, differences=(0.1, -0.9), head_second=(True, False), margin=margin(0.05))
    found = order_effect(few)
    assert found is not None
    assert (found.low, found.at_least) == (None, 0.0)
