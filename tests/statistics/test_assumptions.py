"""Tests of what the signed-rank bounds assume, against scipy and enumeration."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from harness.statistics.assumptions import (
    asymmetry,
    concordance_tail,
    line,
    p_trend,
    sign_tail,
    signs,
    step,
    student_above,
    student_quantile,
    tied_share,
)


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """SciPy is imported when the first of these tests runs: who collects tests does not wait for it."""
    global scipy_stats
    scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("freedom", [1, 2, 3, 6, 11, 34])
@pytest.mark.parametrize("t", [-3.0, -0.1, 0.0, 0.5, 2.0, 9.0])
def test_students_law_is_scipys(freedom: int, t: float) -> None:
    assert student_above(t, freedom) == pytest.approx(scipy_stats.t.sf(t, freedom), rel=1e-6, abs=1e-14)
    assert student_above(math.inf, freedom) == 0
    assert student_above(-math.inf, freedom) == 1


@pytest.mark.parametrize("above", [0.5, 0.05, 0.005, 0.0014])
def test_students_quantile_is_scipys(above: float) -> None:
    for freedom in (1, 2, 5, 30):
        assert student_quantile(above, freedom) == pytest.approx(scipy_stats.t.isf(above, freedom), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("n", range(2, 8))
def test_the_law_of_discordant_pairs_is_that_of_full_enumeration(n: int) -> None:
    found = [sum(b < a for a, b in itertools.combinations(order, 2)) for order in itertools.permutations(range(n))]
    for d, share in enumerate(concordance_tail(n)):
        assert share == pytest.approx(sum(each <= d for each in found) / len(found))


@pytest.mark.parametrize("n", [5, 9, 20, 70])
def test_the_trend_is_kendalls(n: int) -> None:
    generator = random.Random(n)
    for slope in (0.0, 0.05, -0.1):
        values = [generator.gauss(slope * index, 1.0) for index in range(n)]
        method = "exact" if n <= 60 else "asymptotic"
        expected = scipy_stats.kendalltau(range(n), values, method=method).pvalue
        assert p_trend(values) == pytest.approx(expected, rel=1e-9 if n <= 60 else 0.1)


def test_ties_count_for_no_trend() -> None:
    assert p_trend([0.1] * 12) == 1.0
    assert p_trend([0.1] * 11 + [0.2]) > 0.3
    assert p_trend([0.1, 0.2]) == 1.0


@pytest.mark.parametrize("n", [5, 12, 36])
def test_the_sign_test_is_the_exact_binomial_test(n: int) -> None:
    generator = random.Random(n)
    values = [generator.gauss(0.3, 1.0) for _ in range(n)]
    effect, p_value = signs(values, 0.0, 0.05)
    above = sum(value > 0 for value in values)
    assert p_value == pytest.approx(scipy_stats.binomtest(above, n, alternative="greater").pvalue)
    assert (p_value <= 0.05) == (effect.low > 0)
    assert sign_tail(n)[-1] == 1.0


def test_the_line_is_that_of_least_squares() -> None:
    generator = random.Random(3)
    values = [0.1 * index + generator.gauss(0, 0.2) for index in range(12)]
    fit = scipy_stats.linregress(range(12), values)
    found, p_value = line(values, 17.5, 1.0, 0.05)
    assert found.estimate == pytest.approx(fit.intercept + 17.5 * fit.slope)
    assert (p_value <= 0.05) == (found.low > 1.0)
    assert line(values, 5.5, 1.0, 0.05)[0].estimate == pytest.approx(sum(values) / 12)
    assert line([0.2] * 6, 9.0, 0.1, 0.05)[1] == 0.0
    assert line([0.1, 0.2], 1.0, 0.0, 0.05)[0].low == -math.inf


def test_a_lean_has_a_side_and_a_tail_shows() -> None:
    generator = random.Random(1)
    tail = [generator.gauss(0, 0.01) + (generator.expovariate(2) if generator.random() < 0.3 else 0) for _ in range(36)]
    lean, p_value = asymmetry(tail)
    assert lean > 0
    assert p_value < 0.01
    mirrored = asymmetry([-value for value in tail])
    assert mirrored == (pytest.approx(-lean), pytest.approx(p_value))
    assert asymmetry([0.0] * 12) == (0.0, 1.0)
    assert asymmetry([0.1, 0.2, 0.9]) == (0.0, 1.0)


def test_symmetric_noise_is_rarely_called_asymmetric() -> None:
    generator = random.Random(4)
    found = [asymmetry([generator.gauss(0, 1) for _ in range(12)])[1] <= 0.05 for _ in range(300)]
    assert sum(found) / len(found) < 0.08


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.10, 0.11, 0.12, 0.11], 0.01 / 0.11),
        ([3.0, 4.0, 3.0, 5.0], 1 / 3.5),
        ([100.0, 250.0, 100.0], 0.5),
        ([math.pi, math.e, 1.2345], 0.0),
        ([], 0.0),
    ],
)
def test_the_step_is_what_all_values_are_multiples_of(values: list[float], expected: float) -> None:
    assert step(values) == pytest.approx(expected, rel=1e-6)


def test_the_share_of_ties() -> None:
    assert tied_share([1.0, 1.0 + 1e-12, 2.0, 3.0]) == 0.5
    assert tied_share([1.0, 2.0]) == 0.0
    assert tied_share([]) == 0.0
