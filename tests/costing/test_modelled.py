"""Modelled work has a clock of its own, and nothing that comes of it is called measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.builtin.declared_power import METER as DECLARED
from harness.costing.impacts import Applied, CostedWindows
from harness.functional_unit import UnitCount, per_second
from harness.impact import Costed, DeviceUse, EnergyTrace, Factor, Impact, ImpactMeter, ImpactMeterSpec
from harness.options import Options
from harness.quantity import Amount, Method, Unavailable, Value
from harness.records.files import OLD_CLOCK, load_record, recorded_trials, write_measurement, write_record
from harness.records.record import Measurement, Record, WindowUse

StoredRun = Callable[..., Path]


class Charge(ImpactMeter):
    """A third party's meter: calls what it makes a counter's, whatever it is made of."""

    def apply(self, costed: Costed) -> Impact:
        energy = costed.readings["energy_j"]
        by_time = Amount.of(2.0 * costed.duration_s, "g", Method.COUNTER)
        by_energy = energy.times(0.5, "L", method=Method.COUNTER) if isinstance(energy, Amount) else energy
        guess = Factor(name="guess", value=0.5, unit="L/J", source="a test")
        return Impact(readings={"soot_g": by_time, "steam_l": by_energy}, factors=(guess,))


CHARGE = ImpactMeterSpec(
    name="charge",
    summary="",
    factory=lambda _options: Charge(),
    needs=("energy_j",),
    yields={"soot_g": "g", "steam_l": "L"},
)


def applied(watts: float = 400.0) -> list[Applied]:
    options: Options = DECLARED.options.model_validate({"watts": {"busy": watts, "idle": 60}})
    return [Applied(DECLARED, {}, DECLARED.factory(options)), Applied(CHARGE, {}, Charge())]


def modelled(measurement: Measurement, simulated_s: float | None, busy_s: float = 300.0) -> Measurement:
    (span,) = measurement.spans
    use = DeviceUse(device="board", busy_s=busy_s, reserved_s=simulated_s or 800.0)
    return replace(
        measurement,
        spans=(replace(span, modelled=True, simulated_s=simulated_s, end_ns=3_000_000),),
        uses=(WindowUse(window=0, use=use),),
    )


@pytest.fixture
def record(stored_run: StoredRun) -> Record:
    """Of a trial whose meter counted 100 J."""
    (folder,) = recorded_trials(stored_run("r1", {"a": [100.0]}))
    return load_record(folder)


@pytest.fixture
def measurement(record: Record) -> Measurement:
    """Of that trial."""
    return record.measurement


def totals(measurement: Measurement) -> dict[str, Value]:
    return CostedWindows(measurement, EnergyTrace()).cost(applied()).totals


def test_time_power_and_impacts_are_on_the_clock_of_the_work(measurement: Measurement) -> None:
    found = totals(modelled(measurement, 800.0))
    assert found["duration_s"] == Amount.of(800.0, "s", Method.SIMULATED)
    power, energy = found["power_w"], found["energy_j"]
    assert isinstance(power, Amount)
    assert isinstance(energy, Amount)
    assert energy.value == 400 * 300 + 60 * 500
    assert energy.value <= 400 * 800
    assert power.value == pytest.approx(energy.value / 800)
    assert power.value <= 400
    assert {name: value.label for name, value in found.items() if isinstance(value, Amount)} == {
        **dict.fromkeys(("duration_s", "energy_j", "energy_j:n0/declared:board", "power_w"), Method.SIMULATED),
        **dict.fromkeys(("soot_g", "steam_l"), Method.SIMULATED),
        "simulator_s": Method.MEASURED,
        "simulator_energy_j:n0/host": Method.COUNTER,
    }


def test_rate_times_duration_is_what_was_achieved(measurement: Measurement) -> None:
    counted = UnitCount(achieved=5000.0, items=4, qualifying=4, failed=0, method=Method.SIMULATED)
    rate = per_second("token", counted, totals(modelled(measurement, 800.0))["duration_s"])
    assert rate == Amount.of(5000.0 / 800.0, "token/s", Method.SIMULATED)


def test_without_a_simulated_duration_nothing_is_divided_or_multiplied_by_time(measurement: Measurement) -> None:
    found = totals(modelled(measurement, None))
    for name in ("duration_s", "power_w", "soot_g", "steam_l"):
        value = found[name]
        assert isinstance(value, Unavailable)
        assert "simulated duration" in value.reason
    assert found["energy_j"] == Amount.of(400 * 300 + 60 * 500, "J", Method.SIMULATED)
    assert found["simulator_s"] == Amount.exact(0.003, "s")


def test_what_the_simulation_took_here_is_charged_to_no_unit(measurement: Measurement) -> None:
    costs = CostedWindows(modelled(measurement, 800.0), EnergyTrace()).cost(applied())
    per = costs.per_unit("token", UnitCount(achieved=10.0, items=1, qualifying=1, failed=0, method=Method.SIMULATED))
    assert not [name for name in per if name.startswith("simulator")]
    assert {value.label for value in per.values() if isinstance(value, Amount)} == {Method.SIMULATED}


def test_a_plugin_that_calls_a_guess_counted_is_corrected(measurement: Measurement) -> None:
    """Measured work: the meter's own claim is held against the factor that it lists."""
    found = CostedWindows(measurement, EnergyTrace()).cost(applied()[1:]).totals
    assert [found[name].label for name in ("soot_g", "steam_l")] == [Method.ESTIMATED] * 2  # type: ignore[union-attr]
    assert found["energy_j"].label is Method.COUNTER  # type: ignore[union-attr]


def test_an_old_record_of_modelled_work_says_that_its_clock_was_the_simulators(record: Record, tmp_path: Path) -> None:
    old = replace(record, columns={"ttft_s": {"mean": Amount.of(0.1, "s", Method.SIMULATED)}})
    write_measurement(tmp_path, old.measurement)
    write_record(tmp_path, old)
    read = load_record(tmp_path)
    for value in (read.units["token"].rate, read.units["token"].costs["duration_s"], read.totals["duration_s"]):
        assert isinstance(value, Unavailable)
        assert "simulated duration" in value.reason
    assert read.totals["simulator_s"] == Amount.exact(40.0, "s")
    assert read.totals["energy_j"].label is Method.SIMULATED  # type: ignore[union-attr]
    assert OLD_CLOCK in read.flags
    again = replace(old, columns={"ttft_s": {"mean": Amount.of(0.1, "s", Method.MEASURED)}})
    write_record(tmp_path, again)
    assert load_record(tmp_path) == again
