from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.quantity import Amount, Method, total

joules = st.floats(0, 1e9)


def amounts() -> st.SearchStrategy[Amount]:
    @st.composite
    def build(draw: st.DrawFn) -> Amount:
        parts = draw(st.dictionaries(st.sampled_from(list(Method)), joules, min_size=1))
        value = math.fsum(parts.values())
        low = value * draw(st.floats(0, 1))
        high = value * draw(st.floats(1, 2))
        return Amount(value, "J", parts, low, high)

    return build()


@given(amounts(), st.floats(0, 1e6))
def test_scaling_is_linear_and_keeps_the_composition(amount: Amount, factor: float) -> None:
    scaled = amount.times(factor, "g", method=Method.MEASURED)
    assert scaled.value == pytest.approx(amount.value * factor, rel=1e-12)
    assert scaled.low == pytest.approx((amount.low or 0) * factor)
    for method, part in amount.composition.items():
        assert scaled.composition[method] == pytest.approx(part * factor)


@given(st.lists(amounts(), min_size=1, max_size=5))
def test_totals_add_parts_and_bounds_linearly(listed: list[Amount]) -> None:
    summed = total(listed)
    assert summed.value == pytest.approx(math.fsum(a.value for a in listed))
    assert summed.low == pytest.approx(math.fsum(a.low or 0 for a in listed))
    assert summed.high == pytest.approx(math.fsum(a.high or 0 for a in listed))
    assert summed.label.weakness == max(a.label.weakness for a in listed)


@given(amounts(), st.floats(0.1, 10), st.floats(0, 1), st.floats(1, 2))
def test_a_factor_with_a_range_widens_the_bound_and_holds_the_value(
    amount: Amount, factor: float, below: float, above: float
) -> None:
    narrow = amount.times(factor, "g", method=Method.MEASURED)
    wide = amount.times(factor, "g", method=Method.MEASURED, low=factor * below, high=factor * above)
    assert wide.low is not None
    assert wide.high is not None
    assert wide.low <= (narrow.low or 0) * (1 + 1e-12)
    assert wide.high >= (narrow.high or 0) * (1 - 1e-12)


@given(amounts(), amounts(), st.floats(0.1, 10), st.sampled_from(list(Method)))
def test_no_result_is_stronger_than_its_parts(first: Amount, second: Amount, factor: float, method: Method) -> None:
    parts = [first.label.weakness, second.label.weakness]
    assert total([first, second]).label.weakness == max(parts)
    assert first.times(factor, "g", method=method).label.weakness == max(parts[0], method.weakness)
    assert first.times(factor, "g").label.weakness >= Method.ESTIMATED.weakness
    assert first.as_weak_as(method).label.weakness == max(parts[0], method.weakness)
    assert first.as_weak_as(method).value == first.value
    if second.value > 1e-6:
        quotient = first.over(second, "1")
        assert quotient.label.weakness == max(parts)
        assert quotient.value == pytest.approx(first.value / second.value, rel=1e-9)


def test_a_quotient_holds_what_both_bounds_hold() -> None:
    power = Amount.of(100.0, "J", Method.COUNTER, low=90.0, high=110.0).over(
        Amount.of(10.0, "s", Method.MEASURED, low=8.0, high=12.5), "W"
    )
    assert (power.value, power.low, power.high) == pytest.approx((10.0, 7.2, 13.75))
    assert Amount.exact(1, "J").over(Amount.of(2.0, "s", Method.SIMULATED), "W").high is None
    with pytest.raises(ValueError, match="above 0"):
        Amount.exact(1, "J").over(Amount.exact(0, "s"), "W")


def test_a_part_of_zero_still_counts_for_the_label() -> None:
    assert total([Amount.exact(5, "J", Method.COUNTER), Amount.of(0, "J", Method.SIMULATED)]).label is Method.SIMULATED


def test_one_unknown_bound_makes_the_total_unknown() -> None:
    summed = total([Amount.exact(1, "J"), Amount.of(2, "J", Method.ESTIMATED)])
    assert (summed.low, summed.high) == (None, None)
    assert summed.label is Method.ESTIMATED
    assert summed.shares() == pytest.approx({Method.MEASURED: 1 / 3, Method.ESTIMATED: 2 / 3})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_amount_is_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Amount.exact(value, "J")


def test_units_are_never_mixed_and_compositions_never_lie() -> None:
    with pytest.raises(ValueError, match="one unit"):
        total([Amount.exact(1, "J"), Amount.exact(1, "g")])
    with pytest.raises(ValueError, match="composition"):
        Amount(2.0, "J", {Method.COUNTER: 1.0})
    with pytest.raises(ValueError, match="lower bound"):
        Amount.of(1.0, "J", Method.COUNTER, low=2.0)
    with pytest.raises(ValueError, match="factor"):
        Amount.exact(1, "J").times(-1, "g")


def test_readings_of_an_instrument_are_equally_strong_and_all_else_is_weaker() -> None:
    instruments = {Method.COUNTER, Method.WALL, Method.MEASURED}
    assert {method for method in Method if method.weakness == 0} == instruments
    assert Method.INTEGRATED.weakness < Method.ESTIMATED.weakness < Method.SIMULATED.weakness


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=40), st.sampled_from([Method.WALL, Method.MEASURED]))
def test_what_is_divided_by_a_total_of_exact_amounts_has_a_value_within_its_bound(
    seconds: list[float], method: Method
) -> None:
    clock = total([Amount.of(each, "s", method, low=each, high=each) for each in seconds])
    assert clock.low is not None
    assert clock.high is not None
    assert clock.low <= clock.value <= clock.high
    power = Amount.of(1.0, "J", Method.ESTIMATED, low=0.5, high=2.0).over(clock, "W")
    assert power.value == pytest.approx(1 / math.fsum(seconds))


def test_an_end_that_rounding_takes_past_the_value_is_the_value() -> None:
    """Below 1e-308 digits are lost, and the sum of two parts is not what the whole becomes."""
    parts = {Method.COUNTER: 2.225073858507e-311, Method.WALL: 2.225073858507e-311}
    scaled = Amount(4.450147717014e-311, "J", parts, 0.0, 4.450147717014e-311).times(0.015625, "g")
    assert scaled.high == scaled.value
