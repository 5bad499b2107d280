"""The table of a run: energy by role, both accountings, savings with their interval and sign."""

from __future__ import annotations

import math
from typing import Any

import pytest
from harness_disaggregated_serving.choosing.comparison import (
    Saving,
    TrialCost,
    as_text,
    busy_embodied,
    role_energy,
    saving,
)

from harness.impact import DeviceUse, Factor
from harness.quantity import Amount, Method, Unavailable, Undefined, Value

YEAR_S = 365 * 86400.0


def joules(value: float, method: Method = Method.SIMULATED) -> Amount:
    return Amount.of(value, "J", method)


def use(role: str, device: str, busy_s: float = 1.0, stands_for: str = "") -> DeviceUse:
    return DeviceUse(role=role, device=device, busy_s=busy_s, reserved_s=10.0, stands_for=stands_for)


def figure(device: str, kg: float, lifetime_s: float | None) -> Factor:
    return Factor(
        name=f"embodied:gpu:{device}", value=kg, unit="kg", source="a test", id="declared", lifetime_s=lifetime_s
    )


def grams(value: float) -> Amount:
    return Amount.of(value, "g", Method.SIMULATED)


def cost(configuration: str, trial: int, carbon_g: Value, **given: Any) -> TrialCost:
    values: dict[str, Any] = {
        "label": configuration, "configuration": configuration, "family": "f", "trial": trial, "arrived": 4,
        "finished": 4, "meeting": 3.0, "energy": {"new": Amount.of(5, "J", Method.SIMULATED)},
        "operational": carbon_g, "embodied": grams(0.0), "embodied_busy": grams(0.0),
    }  # fmt: skip
    return TrialCost(**{**values, **given})


def test_a_roles_energy_is_its_declared_devices_or_its_processs() -> None:
    totals = {"energy_j:n0/declared:new:T4": joules(3.0), "energy_j:n0/process:old": joules(2.0, Method.ESTIMATED)}
    found = role_energy(totals, [use("new", "new:T4"), use("old", "old:cpu")])
    assert found["new"] == Amount.of(3.0, "J", Method.SIMULATED)
    assert found["old"] == Amount.of(2.0, "J", Method.ESTIMATED)


def test_a_shared_gpu_gives_no_role_its_energy() -> None:
    totals = {
        "energy_j:n0/gpu:GPU-1": joules(9.0, Method.MEASURED),
        "energy_j:n0/process:old": joules(2.0, Method.ESTIMATED),
    }
    found = role_energy(totals, [use("new", "GPU-1"), use("old", "GPU-1")])
    assert all(isinstance(value, Unavailable) and "shares GPU-1" in value.reason for value in found.values())


def test_a_gpus_energy_is_never_that_of_its_roles_process() -> None:
    found = role_energy({"energy_j:n0/process:new": joules(2.0)}, [use("new", "GPU-1")])
    assert isinstance(found["new"], Unavailable)


def test_busy_accounting_charges_busy_time() -> None:
    grid = Factor(name="grid_intensity", value=261.0, unit="g/kWh", source="a test")
    factors = [figure("A", 31.536, 5 * YEAR_S), figure("B", 7.884, 5 * YEAR_S), grid]
    found = busy_embodied(factors, [use("new", "new:A", 3600.0, "A"), use("old", "old:B", 1800.0, "B")])
    assert isinstance(found, Amount)
    assert found.value == pytest.approx(0.0002 * 3600 + 0.00005 * 1800)
    assert isinstance(busy_embodied(factors, [use("new", "GPU-1")]), Unavailable)


def test_a_figure_without_a_lifetime_is_written_off_over_none() -> None:
    found = busy_embodied([figure("A", 31.536, None)], [use("new", "new:A", 3600.0, "A")])
    assert found == Unavailable("the record does not say over which lifetime 'A' is written off")


def test_savings_are_paired_and_keep_their_sign() -> None:
    standalone = [cost("standalone", trial, grams(value)) for trial, value in enumerate((10.0, 20.0, 40.0))]
    dearer = [cost("dpd", trial, grams(value)) for trial, value in enumerate((11.0, 24.0, 44.0))]
    found = saving(dearer, standalone)
    assert isinstance(found, Saving)
    assert found.mean == pytest.approx(-(0.1 + 0.2 + 0.1) / 3)
    deviation = math.sqrt(((0.1 - 0.4 / 3) ** 2 * 2 + (0.2 - 0.4 / 3) ** 2) / 2)
    assert found.half_width == pytest.approx(4.303 * deviation / math.sqrt(3))
    assert "-13.3% ± " in as_text([*standalone, *dearer])


def test_carbon_is_per_finished_request() -> None:
    half = saving([cost("dpd", 0, grams(5.0), finished=2)], [cost("standalone", 0, grams(10.0))])
    assert half == Saving(0.0, None, 1, Method.SIMULATED)
    none = saving([cost("dpd", 0, grams(5.0), finished=0)], [cost("standalone", 0, grams(10.0))])
    assert isinstance(none, Undefined)


def test_missing_numbers_keep_their_reason() -> None:
    lost = Unavailable("process 7 is gone")
    text = as_text([cost("standalone", 0, grams(1.0)), cost("dsd", 0, lost, energy={"new": lost})])
    assert text.count("process 7 is gone") >= 3
    assert isinstance(saving([cost("dpd", 1, grams(1.0))], [cost("standalone", 0, grams(1.0))]), Unavailable)


def test_other_requests_are_no_baseline() -> None:
    text = as_text([cost("standalone", 0, grams(1.0)), cost("dpd", 0, grams(1.0), family="other load")])
    assert "no standalone trial of the same requests" in text
