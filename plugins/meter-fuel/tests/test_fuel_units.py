"""Units of intensities and volumes may be written, and figures that cannot be are questioned."""

import pytest
from harness_meter_fuel.meter import FuelMeter
from harness_meter_fuel.options import FuelOptions

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
