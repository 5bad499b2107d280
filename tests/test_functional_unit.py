from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import MeasurementError, UsageError
from harness.functional_unit import FunctionalUnit, Where, check_rows, count, per_second, per_unit, quantile_of_column
from harness.quantity import Amount, Method, Unavailable, Undefined

# The boundary case of the functional-unit paper's definition: limits are inclusive and unrounded.
CASE = [
    {"item_id": "a", "ttft_s": 0.4, "tpot_s": 0.04, "quality": 12.0, "input_tokens": 900, "output_tokens": 200},
    {"item_id": "b", "ttft_s": 1.0, "tpot_s": 0.2, "quality": 10.0, "input_tokens": 800, "output_tokens": 150},
    {"item_id": "c", "ttft_s": 1.000001, "tpot_s": 0.05, "quality": 20.0, "input_tokens": 700, "output_tokens": 100},
    {"item_id": "d", "ttft_s": 0.5, "tpot_s": 0.2005, "quality": 20.0, "input_tokens": 600, "output_tokens": 120},
    {"item_id": "e", "ttft_s": 0.3, "tpot_s": 0.03, "quality": 9.999, "input_tokens": 500, "output_tokens": 180},
    {"item_id": "f", "ttft_s": 0.2, "tpot_s": 0.01, "quality": -3.0, "input_tokens": 1000, "output_tokens": 250},
]
FAILED = {"item_id": "g", "status": "failed", "ttft_s": 0.0, "tpot_s": 0.0, "quality": 12.0, "output_tokens": 0}


def good(alpha: float | None) -> FunctionalUnit:
    where = {"ttft_s": "<= 1.0", "tpot_s": "<= 0.2"}
    if alpha is not None:
        where["quality"] = f">= {alpha}"
    return FunctionalUnit.of("output_tokens", where)


@pytest.mark.parametrize(("alpha", "expected"), [(10, 350), (-5, 780), (15, 0)])
def test_inclusive_limits_on_the_boundary(alpha: float, expected: float) -> None:
    assert count(good(alpha), CASE).achieved == expected
    assert count(good(alpha), [*CASE, FAILED]).achieved == expected


def test_cost_per_unit_of_the_boundary_case() -> None:
    carbon = Amount.of(10.0, "g", Method.ESTIMATED)
    cost = per_unit(carbon, "token", count(good(10), CASE))
    assert isinstance(cost, Amount)
    assert cost.value * 1000 == pytest.approx(28.571428571, rel=1e-9)
    assert cost.unit == "g/token"


def test_no_unit_is_undefined_with_the_binding_condition_and_never_infinite() -> None:
    cost = per_unit(Amount.exact(10.0, "g"), "token", count(good(15), CASE))
    assert isinstance(cost, Undefined)
    assert "quality >= 15" in cost.reason
    assert per_second("token", count(good(15), CASE), Amount.exact(2.0, "s")) == Amount.exact(0.0, "token/s")


def test_a_failed_item_counts_in_the_denominator_only() -> None:
    counted = count(good(None), [*CASE, FAILED])
    assert (counted.items, counted.failed, counted.qualifying) == (7, 1, 4)


def test_a_column_that_was_never_filled_is_unavailable_not_zero() -> None:
    rows = [{"item_id": "a", "output_tokens": 3}]
    assert isinstance(count(good(10), rows).achieved, Unavailable)
    assert isinstance(count(FunctionalUnit.of("pixels"), rows).achieved, Unavailable)
    assert isinstance(per_unit(Amount.exact(1, "J"), "px", count(FunctionalUnit.of("pixels"), rows)), Unavailable)


@given(st.randoms(use_true_random=False), st.floats(-5, 20), st.floats(0, 10))
def test_order_never_matters_and_a_tighter_filter_never_counts_more(
    shuffle: random.Random, alpha: float, tighter: float
) -> None:
    rows = list(CASE)
    shuffle.shuffle(rows)
    loose = count(good(alpha), CASE)
    assert count(good(alpha), rows) == loose
    tight = count(good(alpha + tighter), CASE)
    assert isinstance(loose.achieved, float)
    assert isinstance(tight.achieved, float)
    assert tight.achieved <= loose.achieved


@pytest.mark.parametrize("text", ["", "1.0", "=< 3", "<= a", "<= 1.0 s", "!= 3"])
def test_a_malformed_condition_names_what_is_accepted(text: str) -> None:
    with pytest.raises(UsageError, match="accepted"):
        Where.parse("ttft_s", text)


def test_quantiles_interpolate_between_order_statistics() -> None:
    rows = [{"latency_s": float(v)} for v in (4, 1, 3, 2)]
    value = quantile_of_column("latency_s", rows, "s", 0.5)
    assert isinstance(value, Amount)
    assert value.value == pytest.approx(2.5)


def test_an_end_before_the_first_token_is_refused_unless_it_is_rounding() -> None:
    row = {"item_id": "a", "status": "ok", "ttft_s": 0.5, "latency_s": 0.5}
    check_rows([row, {**row, "latency_s": 0.5 - 1e-10}, {**row, "status": "failed", "latency_s": 0.1}])
    with pytest.raises(MeasurementError, match=r"latency_s 0\.4 is less than ttft_s 0\.5"):
        check_rows([{**row, "latency_s": 0.4}])


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("<= 0.3", 0.1 + 0.2, True),
        (">= 0.3", 0.3 - 1e-17, True),
        ("== 0.3", 0.1 + 0.2, True),
        ("< 0.3", 0.3 - 5e-17, False),
        ("> 0.3", 0.1 + 0.2, False),
        ("<= 0.3", 0.3 + 1e-6, False),
        ("< 0.3", 0.3 - 1e-6, True),
        ("<= 0", 1e-12, False),
    ],
)
def test_a_value_at_the_limit_is_at_it_however_it_is_rounded(condition: str, value: float, holds: bool) -> None:
    assert Where.parse("x", condition).holds({"x": value}) is holds
