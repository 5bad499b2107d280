"""A register's times are found from its readings under an irregular load, whatever its gain and offset."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from harness.backend import Device
from harness.builtin.simulated import SimulatedLoad, SimulatedMeter
from harness.builtin.simulated_accelerator import SimulatedAccelerator, attach, detach
from harness.builtin.simulated_sensor import SimulatedSensor
from harness.diagnosing.card_test import run_card
from harness.diagnosing.reference import Calibration, Level, MeterReference, calibration, reference_of
from harness.diagnosing.response import Fit, irregular, update_period
from harness.errors import MeasurementError
from harness.machine.meter_card import MeterCard
from harness.measuring.opening import by_card
from harness.meter import Meter, MeterContext
from harness.quantity import Method, Unavailable
from harness.sample import Scope, Snapshot
from harness.sensor import PowerSensor
from harness.testing import FakeClock

SCOPE = "n0/gpu:SIM-response"
CLASS = PowerSensor(0.1, 0.1, gain=0.1, offset_w=15.0, limit_w=300.0)


def card(
    tick_s: float,
    *,
    source: str = "power",
    gain_error: float = 0.05,
    known: bool = False,
    **sensor: float | None,
) -> MeterCard:
    clock = FakeClock()
    made = SimulatedSensor(source=source, **sensor)  # type: ignore[arg-type]
    device = SimulatedAccelerator(
        50.0, 300.0, tick_s, gain_error, "SIM-response", clock, phase_s=0.3 * tick_s, sensor=made
    )
    attach(device)

    class Switched(SimulatedLoad):
        def true_joules(self) -> float | None:  # type: ignore[override]
            return super().true_joules() if known else None

    method = Method.COUNTER if source == "counter" else Method.INTEGRATED
    what = Scope(method=method, tick_s=0.1 if source == "counter" else None, sensor=CLASS)
    try:
        meter = SimulatedMeter()
        meter.open(MeterContext(devices=(Device(kind="gpu", uuid="SIM-response", name="simulated"),)))
        return run_card(meter, SCOPE, Switched(device), clock, clock.advance, 0.1, what=what)
    finally:
        detach("SIM-response")


def test_the_update_period_is_that_of_a_grid_of_which_some_renewals_were_not_seen() -> None:
    rng = random.Random(1)
    seen = [0.104 * number + rng.uniform(-0.003, 0.003) for number in range(200) if rng.random() < 0.6]
    period_s, jitter_s = update_period(seen)
    assert period_s == pytest.approx(0.104, rel=1e-3)
    assert jitter_s < 0.004


@pytest.mark.parametrize(
    ("tick_s", "sensor", "window_s", "seen", "lag_s"),
    [
        (0.1, {"window_s": 0.025}, 0.025, 0.25, 0.0),
        (0.1, {}, 0.1, 1.0, 0.0),
        (0.1, {"window_s": 1.0}, 1.0, 1.0, 0.0),
        (0.1, {"window_s": 1.0, "part_of_time": 0.25}, 1.0, 0.25, 0.0),
        (0.1, {"lag_s": 0.5}, 0.1, 1.0, 0.5),
        (0.02, {}, 0.02, 1.0, 0.0),
        (0.3, {}, 0.3, 1.0, 0.0),
    ],
)
def test_a_power_register_is_what_it_was_made(
    tick_s: float, sensor: dict[str, float], window_s: float, seen: float, lag_s: float
) -> None:
    found = card(tick_s, offset_w=7.0, **sensor)
    assert found.update_period_s == pytest.approx(tick_s, rel=0.02)
    assert found.averaging_width_s == pytest.approx(window_s, rel=0.07, abs=0.004)
    assert found.sensor is not None
    assert seen - 0.1 <= found.sensor.seen <= seen + 0.01
    assert found.sensor.lag_s <= lag_s + 1e-9 <= found.sensor.lag_s + found.sensor.lag_error_s + 1e-6
    assert found.sensor.lag_error_s < 0.03
    assert found.flags == (("aliasing possible",) if seen < 0.9 else ())


def test_a_counter_shows_the_sensor_behind_it() -> None:
    found = card(0.1, source="counter", window_s=0.025)
    assert found.sensor is not None
    assert found.sensor.seen == pytest.approx(0.25, abs=0.1)
    assert found.sensor.seen <= 0.25
    late = card(0.1, source="counter", lag_s=0.5)
    assert late.sensor is not None
    assert late.sensor.seen == 1
    assert late.sensor.lag_s <= 0.5 <= late.sensor.lag_s + late.sensor.lag_error_s


def test_a_load_of_unknown_energy_leaves_gain_and_offset_to_the_class() -> None:
    found = card(0.1, window_s=0.025)
    assert (found.reference, found.gain, found.scale, found.shift_w) == ("", None, 1.0, 0.0)
    assert "--reference" in found.missing["gain"]
    scope = by_card(Scope(method=Method.INTEGRATED, sensor=CLASS), found)
    assert scope.sensor is not None
    assert (scope.sensor.gain, scope.sensor.offset_w, scope.sensor.limit_w) == (0.1, 15.0, 300.0)
    assert scope.sensor.seen < 0.3
    assert scope.card == found.id


@pytest.mark.parametrize("source", ["power", "counter"])
def test_a_known_energy_gives_gain_and_offset(source: str) -> None:
    found = card(0.1, source=source, gain_error=-0.12, offset_w=20.0, known=True)
    assert found.reference == "the load's own energy"
    assert found.scale == pytest.approx(1 / 0.88, rel=2e-3)
    assert found.shift_w == pytest.approx(-20.0 / 0.88, rel=0.02)
    assert found.sensor is not None
    assert found.sensor.gain < 0.01
    scope = by_card(Scope(method=Method.INTEGRATED, sensor=CLASS), found)
    assert (scope.scale, scope.shift_w, scope.sensor) == (found.scale, found.shift_w, found.sensor)


def test_readings_that_do_not_follow_the_load_have_no_response() -> None:
    rng = random.Random(2)
    readings = [(0.1 * number, rng.uniform(50.0, 300.0)) for number in range(200)]
    assert Fit(readings, irregular(rng, 0.1, 20.0, 0.0), 0.1, 0.005).best() is None
    assert Fit(readings[:10], irregular(rng, 0.1, 20.0, 0.0), 0.1, 0.005).best() is None


def test_a_load_that_cannot_switch_fast_is_not_asked_to() -> None:
    plan = irregular(random.Random(3), 0.02, 5.0, 0.05)
    assert min(after - before for (before, _), (after, _) in pairwise(plan)) >= 0.05 - 1e-9


# References


class Outlet(Meter):
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def open(self, context: MeterContext) -> dict[str, Scope | Unavailable]:
        return {"n0/host": Scope(method=Method.WALL, gain=0.01)}

    def read(self) -> Snapshot:
        return Snapshot(self.clock(), {"n0/host": 100.0 * self.clock.s})

    def close(self) -> None: ...


def test_a_meter_at_the_outlet_tells_the_gain_and_not_the_offset() -> None:
    meter = Outlet(FakeClock())
    found = reference_of("wall", meter, meter.open(MeterContext()), SCOPE)
    assert isinstance(found, MeterReference)
    assert (found.name, found.whole, found.gain) == ("wall on n0/host", True, pytest.approx(0.11))
    assert found.read() == (1.0, 100.0)
    right = calibration(Level(310.0, 0.0, 500.0), Level(60.0, 0.0, 250.0), found)
    assert isinstance(right, Calibration)
    assert (right.scale, right.shift_w, right.offset_w) == (1.0, 0.0, None)


def test_a_reference_must_contain_what_is_tested_and_state_its_error() -> None:
    meter = Outlet(FakeClock())
    other = reference_of("rapl", meter, {"n0/cpu-package:0": Scope(method=Method.COUNTER, gain=0.05)}, SCOPE)
    assert isinstance(other, Unavailable)
    assert "does not contain" in other.reason
    counter = reference_of("ipmi", meter, {"n0/host": Scope(method=Method.COUNTER, gain=0.05)}, SCOPE)
    assert isinstance(counter, Unavailable)
    assert "no external meter" in counter.reason
    with pytest.raises(MeasurementError, match="no error of its own"):
        reference_of("wall", meter, {SCOPE: Scope(method=Method.WALL)}, SCOPE)


def test_power_that_does_not_rise_calibrates_nothing() -> None:
    meter = Outlet(FakeClock())
    reference = MeterReference("m", meter, "n0/host", Scope(method=Method.WALL, gain=0.0), whole=False)
    assert isinstance(calibration(Level(50.0, 0.0, 60.0), Level(60.0, 0.0, 50.0), reference), Unavailable)
