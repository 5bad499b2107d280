"""Closed-form cases V1, V2, V5, V8, V9 (uniform energy), V10 and the laws of the two formulas."""

import math

import pytest
from harness_meter_fuel import carbon
from harness_meter_fuel.profiles import PROFILES
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import MeasurementError, UsageError
from harness.functional_unit import FunctionalUnit, count, per_unit, share
from harness.quantity import Amount, Method, Undefined, total

LIFETIME_S = 220_752_000.0
TIGHT = 1e-9


def joules(value: float, method: Method = Method.COUNTER) -> Amount:
    return Amount.exact(value, "J", method)


def test_lifetime_of_the_fuel_profiles_is_seven_years_of_365_days() -> None:
    assert 7 * carbon.SECONDS_PER_YEAR == LIFETIME_S


def test_v1_baseline() -> None:
    operational = carbon.operational_g(joules(350 * 600), 518)
    embodied = carbon.embodied_g(29_920, duration_s=600, lifetime_s=LIFETIME_S)
    whole = total([operational, embodied])
    assert operational.value == pytest.approx(30.216666667, rel=TIGHT)
    assert embodied.value == pytest.approx(0.081322027, rel=1e-8)  # nine decimals are printed
    assert whole.value == pytest.approx(30.297988693, rel=TIGHT)
    rows = [{"output_tokens": 12_000}]
    unit = count(FunctionalUnit.of("output_tokens"), rows)
    costs = [per_unit(amount, "token", unit) for amount in (whole, operational, embodied)]
    expected = (2.524832391e-3, 2.518055556e-3, 6.776835544e-6)
    assert [cost.value for cost in costs if isinstance(cost, Amount)] == pytest.approx(expected, rel=TIGHT)
    # SCI (ISO/IEC 21031): E*I + TE * time share * resource share
    assert whole.value == pytest.approx(210_000 / 3.6e6 * 518 + 29_920 * (600 / LIFETIME_S) * 1, rel=TIGHT)


def test_no_part_of_the_sum_is_better_than_the_factor_on_it() -> None:
    whole = total(
        [
            carbon.operational_g(joules(1000), 400),
            carbon.operational_g(joules(500, Method.INTEGRATED), 400),
            carbon.embodied_g(1000, duration_s=10, lifetime_s=1e6),
        ]
    )
    assert set(whole.composition) == {Method.ESTIMATED}
    assert carbon.operational_g(joules(1000, Method.SIMULATED), 400).label is Method.SIMULATED
    assert whole.high is None  # a modelled figure has no bound of its own


def test_v8_pue_multiplies_operational_carbon_only() -> None:
    assert carbon.operational_g(joules(210_000), 518, pue=1.2).value == pytest.approx(36.26, rel=TIGHT)


def test_a_range_of_the_grid_multiplies_the_bound_of_the_energy() -> None:
    energy = Amount.of(3.6e6, "J", Method.COUNTER, low=3.24e6, high=3.96e6)
    found = carbon.operational_g(energy, 400, grid_low_g_per_kwh=300, grid_high_g_per_kwh=500)
    assert (found.low, found.value, found.high) == pytest.approx((270, 400, 550))


V5 = [
    # item, ttft_s, tpot_s, quality, in, out
    ("a", 0.4, 0.04, 12.0, 900, 200),
    ("b", 1.0, 0.2, 10.0, 800, 150),
    ("c", 1.000001, 0.05, 20.0, 700, 100),
    ("d", 0.5, 0.2005, 20.0, 600, 120),
    ("e", 0.3, 0.03, 9.999, 500, 180),
    ("f", 0.2, 0.01, -3.0, 1000, 250),
]


def v5_rows() -> list[dict[str, object]]:
    return [
        {
            "item_id": name,
            "status": "ok",
            "ttft_s": ttft,
            "tpot_s": tpot,
            "quality": quality,
            "output_tokens": out,
            "total_tokens": given + out,
        }
        for name, ttft, tpot, quality, given, out in V5
    ]


@pytest.mark.parametrize(
    ("profile", "bar", "tokens", "mg"),
    [
        ("fuel-paper", 10.0, 350, 28.571428571),
        ("fuel-code", None, 2050, 4.878048780),
        ("fuel-paper", -5.0, 780, 12.820512821),
        ("fuel-code", -5.0, 3980, 2.512562814),
    ],
)
def test_v5_units_of_the_profiles(profile: str, bar: float | None, tokens: int, mg: float) -> None:
    counted = count(PROFILES[profile].functional_unit(bar), v5_rows())
    assert counted.achieved == tokens
    cost = per_unit(Amount.of(10.0, "g", Method.ESTIMATED), "token", counted)
    assert isinstance(cost, Amount)
    assert cost.value * 1000 == pytest.approx(mg, rel=TIGHT)


def test_v5_no_token_at_a_bar_too_high_is_undefined() -> None:
    counted = count(PROFILES["fuel-paper"].functional_unit(15), v5_rows())
    cost = per_unit(Amount.of(10.0, "g", Method.ESTIMATED), "token", counted)
    assert isinstance(cost, Undefined)
    assert "quality >= 15" in cost.reason


def test_v5_failed_request_counts_in_no_unit_but_in_the_shares() -> None:
    failed = {"item_id": "g", "status": "failed", "ttft_s": 0.0, "tpot_s": 0.0, "quality": 12.0, "output_tokens": 0}
    rows = [*v5_rows(), {**failed, "total_tokens": 300}]
    assert count(PROFILES["fuel-code"].functional_unit(), rows).achieved == 2050
    limits = count(FunctionalUnit.of("items", {"ttft_s": "<= 1.0", "tpot_s": "<= 0.2"}), rows)
    attained = share(limits.qualifying, limits.items, "request")
    assert isinstance(attained, Amount)
    assert attained.value == pytest.approx(4 / 7)


def test_the_paper_profile_has_no_default_quality_bar() -> None:
    with pytest.raises(ValueError, match="quality bar"):
        PROFILES["fuel-paper"].functional_unit()


POSITIVE = st.floats(1e-3, 1e9)


@settings(max_examples=50, deadline=None)
@given(POSITIVE, st.floats(0, 2000), st.floats(1, 3), st.floats(0, 1), st.floats(0.01, 100))
def test_operational_carbon_is_linear(energy: float, grid: float, pue: float, part: float, k: float) -> None:
    one = carbon.operational_g(joules(energy), grid, pue=pue, share=part).value
    assert carbon.operational_g(joules(k * energy), grid, pue=pue, share=part).value == pytest.approx(k * one)
    assert carbon.operational_g(joules(energy), k * grid, pue=pue, share=part).value == pytest.approx(k * one)
    assert one == pytest.approx(pue * part * energy / 3.6e6 * grid)


@settings(max_examples=50, deadline=None)
@given(POSITIVE, POSITIVE, POSITIVE, st.floats(0, 1), st.floats(0, 1))
def test_splitting_a_window_or_a_device_conserves_embodied_carbon(
    mass: float, duration: float, lifetime: float, at: float, part: float
) -> None:
    def grams(duration_s: float, share: float = 1.0) -> float:
        if duration_s <= 0:
            return 0.0
        return carbon.embodied_g(mass, duration_s=duration_s, lifetime_s=lifetime, share=share).value

    assert grams(duration * at) + grams(duration - duration * at) == pytest.approx(grams(duration))
    assert grams(duration, part) + grams(duration, 1 - part) == pytest.approx(grams(duration))


BAD = (math.nan, math.inf, -1.0)


@pytest.mark.parametrize("value", BAD)
def test_guards_refuse_what_is_not_finite_or_negative(value: float) -> None:
    with pytest.raises(UsageError, match="grid intensity"):
        carbon.operational_g(joules(1), value)
    with pytest.raises(UsageError, match="embodied mass"):
        carbon.embodied_g(value, duration_s=1, lifetime_s=1)
    with pytest.raises(UsageError, match="lifetime"):
        carbon.embodied_g(1, duration_s=1, lifetime_s=value)
    with pytest.raises(MeasurementError, match="duration"):
        carbon.embodied_g(1, duration_s=value, lifetime_s=1)
    with pytest.raises(UsageError, match="share"):
        carbon.embodied_g(1, duration_s=1, lifetime_s=1, share=value)


@pytest.mark.parametrize("value", [*BAD, 0.99, 120.0])
def test_pue_is_a_ratio_of_at_least_one(value: float) -> None:
    with pytest.raises(UsageError, match="ratio from 1"):
        carbon.operational_g(joules(1), 1, pue=value)


@pytest.mark.parametrize(("duration", "lifetime"), [(0.0, 1.0), (1.0, 0.0)])
def test_zero_time_is_refused(duration: float, lifetime: float) -> None:
    with pytest.raises((UsageError, MeasurementError), match="above 0"):
        carbon.embodied_g(1, duration_s=duration, lifetime_s=lifetime)


def test_share_over_one_negative_energy_and_a_wrong_unit_are_refused() -> None:
    with pytest.raises(UsageError, match="0 to 1"):
        carbon.operational_g(joules(1), 1, share=1.01)
    with pytest.raises(MeasurementError, match="at least 0"):
        carbon.operational_g(joules(-1), 1)
    with pytest.raises(MeasurementError, match="Wh"):
        carbon.operational_g(Amount.exact(1, "Wh"), 1)
    with pytest.raises(UsageError, match="own range"):
        carbon.operational_g(joules(1), 400, grid_low_g_per_kwh=401)
