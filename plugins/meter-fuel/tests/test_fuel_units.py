"""Numbers with their units and ranges: the implausible is asked about, a range stands beside an unknown bound."""

import pytest
from harness_meter_fuel.meter import FuelMeter
from harness_meter_fuel.options import FuelOptions
from pydantic import ValidationError

from harness.impact import Costed
from harness.quantity import Amount, Method, Value


def test_a_range_of_the_grid_stands_where_the_energy_has_no_bound() -> None:
    options = FuelOptions.model_validate({"grid": {"g_per_kwh": 400, "low": 300, "high": 600}})
    energy: dict[str, Value] = {
        "n0/gpu:a": Amount.of(3.6e6, "J", Method.COUNTER),
        "n0/dram:0": Amount.exact(3.6e6, "J", Method.COUNTER),
    }
    impact = FuelMeter(options).apply(Costed(duration_s=1.0, start_utc_s=0.0, energy=energy, readings={}))
    value = impact.readings["carbon_operational_g"]
    assert isinstance(value, Amount)
    assert (value.value, value.low, value.high) == (pytest.approx(800), None, None)
    assert "carbon_operational_g by the range of the grid intensity alone: 600 to 1200 g" in impact.flags
    (factor,) = (each for each in impact.factors if each.name == "grid_intensity")
    assert (factor.low, factor.high) == (300, 600)
    bounded = {"n0/gpu:a": Amount.of(3.6e6, "J", Method.COUNTER, low=3.5e6, high=3.7e6)}
    known = FuelMeter(options).apply(Costed(duration_s=1.0, start_utc_s=0.0, energy=bounded, readings={}))
    assert not any("alone" in flag for flag in known.flags)


@pytest.mark.parametrize(
    ("written", "g_per_kwh"),
    [
        (518, 518),
        ("518", 518),
        ("518 g/kWh", 518),
        ("0.518 kg/kWh", 518),
        ("0.518kgCO2e/kWh", 518),
        ("518 gCO2eq/kWh", 518),
        ("518 kg/MWh", 518),
        ("1000 lb/MWh", 453.59237),
        ("0.5 g/kWh", 0.5),
        (0, 0),
    ],
)
def test_an_intensity_may_have_its_unit_and_survives_the_record(written: object, g_per_kwh: float) -> None:
    for options in ({"grid": written}, {"grid": {"g_per_kwh": written}}):
        read = FuelOptions.model_validate(options)
        assert read.grid is not None
        assert read.grid.g_per_kwh == pytest.approx(g_per_kwh, rel=1e-12)
        assert FuelOptions.model_validate(read.model_dump(mode="json", by_alias=True)) == read


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (0.518, r"less than any grid has.*'0.518 kg/kWh'"),
        ("0.518", r"less than any grid has.*'0.518 kg/kWh'"),
        (518_000, "more than there can be.*'518000 mg/kWh'"),
        ("518000 g/kWh", "more than there can be"),
        ("0,418", "not a carbon intensity"),
        ("518 kWh/g", "not a carbon intensity"),
        ("518 pounds", "not a carbon intensity"),
    ],
)
def test_an_intensity_that_no_grid_has_is_answered_with_a_question(written: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        FuelOptions.model_validate({"grid": written})
    with pytest.raises(ValidationError, match=says):
        FuelOptions.model_validate({"grid": {"g_per_kwh": written}})
