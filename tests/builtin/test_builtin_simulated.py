"""The simulated accelerator is exact, and its meter says what its counter hides."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.builtin.heat import HeatModel
from harness.builtin.simulated import (
    SimulatedAccelerator,
    SimulatedBackend,
    SimulatedMeter,
    SimulatedOptions,
    attach,
    attached,
    detach,
)
from harness.errors import MeasurementError
from harness.meter import MeterContext
from harness.quantity import Method, Unavailable
from harness.testing import FakeClock, check_meter

S = 1_000_000_000
SCOPE = "n0/gpu:SIM-0"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def accelerator(clock):
    made = SimulatedAccelerator(50, 300, 0.1, clock=clock)
    attach(made)
    yield made
    detach(made.uuid)


@pytest.fixture
def opened(accelerator):
    backend = SimulatedBackend(SimulatedOptions())
    devices = tuple(backend.open())
    attach(accelerator)  # the one with the fake clock, in place of the backend's
    meter = SimulatedMeter()
    return meter, meter.open(MeterContext(devices=devices))


def test_constant_step_and_square_loads_have_closed_forms(accelerator):
    t0 = accelerator.start_ns
    assert accelerator.true_joules(t0 + 2 * S) == 100
    accelerator.busy(t0 + 2 * S)
    assert accelerator.true_joules(t0 + 5 * S) == 100 + 900
    accelerator.idle(t0 + 5 * S)
    for period in range(3, 8):
        accelerator.busy(t0 + 2 * period * S)
        accelerator.idle(t0 + (2 * period + 1) * S)
    assert accelerator.true_joules(t0 + 16 * S) == 100 + 900 + 50 + 5 * 350
    assert accelerator.true_joules(t0 - S) == 0


def test_busy_is_a_context_and_keeps_the_clock(accelerator, clock):
    clock.advance(1)
    with accelerator.busy():
        clock.advance(2)
        assert accelerator.power_w(clock()) == 300
    clock.advance(1)
    assert accelerator.true_joules(clock()) == pytest.approx(50 + 600 + 50)
    with pytest.raises(ValueError, match="order of time"):
        accelerator.busy(clock() - 10 * S)


def test_counter_shows_the_last_tick_times_its_gain(clock):
    made = SimulatedAccelerator(100, 100, 0.1, gain_error=0.05, clock=clock, phase_s=0.03)
    t0 = made.start_ns
    assert made.counter_joules(t0 + S // 50) == 0
    assert made.counter_joules(t0 + S // 2) == pytest.approx(43 * 1.05)
    assert made.counter_joules(t0 + 529_999_999) == pytest.approx(43 * 1.05)
    assert made.counter_joules(t0 + 530_000_000) == pytest.approx(53 * 1.05)


def test_faults_of_the_counter(accelerator, clock):
    t0 = accelerator.start_ns
    accelerator.reset_at(t0 + S)
    assert accelerator.read(t0 + S - 1) == pytest.approx(45)
    assert accelerator.read(t0 + S) == 0
    assert accelerator.read(t0 + 2 * S) == pytest.approx(50)
    accelerator.fail_reads(1)
    with pytest.raises(MeasurementError, match="failed"):
        accelerator.read(t0 + 2 * S)
    assert accelerator.read(t0 + 2 * S) == pytest.approx(50)
    accelerator.freeze_at(t0 + 3 * S)
    assert accelerator.read(t0 + 9 * S) == pytest.approx(100)
    accelerator.gone_at(t0 + 10 * S)
    with pytest.raises(MeasurementError, match="gone"):
        accelerator.read(t0 + 10 * S)


def test_backend_and_meter_find_the_same_accelerator():
    backend = SimulatedBackend(SimulatedOptions(uuid="SIM-7", memory="8GB", tick="20ms", gain_error=-0.1))
    (device,) = backend.open()
    try:
        assert (device.kind, device.uuid, device.memory_bytes) == ("gpu", "SIM-7", 8 * 10**9)
        assert attached("SIM-7") is backend.accelerator
        scope = SimulatedMeter().open(MeterContext(devices=(device,)))["n0/gpu:SIM-7"]
        assert scope.method is Method.SIMULATED
        assert (scope.tick_s, scope.gain, scope.device) == (0.02, 0.1, "SIM-7")
    finally:
        backend.close()
        backend.close()
    assert attached("SIM-7") is None


def test_options_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="below idle_w"):
        SimulatedOptions(idle_w=100, busy_w=50)
    with pytest.raises(ValueError, match="tick"):
        SimulatedOptions(tick=0)


def test_meter_counts_what_the_counter_shows(opened, accelerator, clock):
    meter, scopes = opened
    assert scopes[SCOPE].max_power_w == 300
    accelerator.busy()
    clock.advance(1.05)
    assert meter.read().joules[SCOPE].joules == pytest.approx(300)


def test_two_accelerators_are_counted_twice(clock):
    made = [SimulatedAccelerator(100, 100, 0.1, uuid=uuid, clock=clock) for uuid in ("A", "B")]
    for one in made:
        attach(one)
    devices = tuple(SimulatedBackend(SimulatedOptions(uuid=one.uuid)).open()[0] for one in made)
    for one in made:
        attach(one)
    meter = SimulatedMeter()
    assert set(meter.open(MeterContext(devices=devices[::-1]))) == {"n0/gpu:A", "n0/gpu:B"}
    clock.advance(1)
    assert [value.joules for value in meter.read().joules.values()] == pytest.approx([100, 100])
    for one in made:
        detach(one.uuid)


def test_reset_keeps_the_truth_inside_the_bound(opened, accelerator, clock):
    meter, _ = opened
    accelerator.busy()
    accelerator.reset_at(clock() + 2 * S + 37_000_000)
    before = accelerator.true_joules(clock())
    for _ in range(50):
        clock.advance(0.1)
        state = meter.read().joules[SCOPE]
    true = accelerator.true_joules(clock()) - before
    assert state.resets == 1
    assert state.gap_s == pytest.approx(0.1)
    assert state.joules - state.over_j <= true <= state.joules + state.under_j
    assert state.under_j <= 300 * 0.2 + 1e-6
    assert state.other_j == {}


def test_frozen_counter_is_unavailable_after_ten_ticks(opened, accelerator, clock):
    meter, _ = opened
    accelerator.freeze_at(clock())
    clock.advance(0.9)
    assert meter.read().joules[SCOPE].joules == 0  # may still be late
    clock.advance(0.2)
    lost = meter.read().joules[SCOPE]
    assert isinstance(lost, Unavailable)
    assert "not moved" in lost.reason


def test_contract(accelerator, clock):
    (device,) = SimulatedBackend(SimulatedOptions()).open()
    attach(accelerator)
    context = MeterContext(devices=(device,))
    check_meter(SimulatedMeter(), context, reads=5, between=lambda: clock.advance(0.25))


def test_no_simulated_device_is_unavailable():
    opened = SimulatedMeter().open(MeterContext())
    assert isinstance(opened, Unavailable)
    assert "simulated" in opened.reason


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.001, 2), min_size=1, max_size=12), st.floats(0, 0.2), st.lists(st.floats(0, 1), max_size=8))
def test_splitting_never_changes_the_sum(lengths, phase, cuts):
    clock = FakeClock()
    made = SimulatedAccelerator(50, 300, 0.1, clock=clock, phase_s=phase)
    for index, length in enumerate(lengths):
        made.busy() if index % 2 else made.idle()
        clock.advance(length)
    end = clock()
    edges = sorted({made.start_ns, end, *(made.start_ns + round(cut * (end - made.start_ns)) for cut in cuts)})
    for joules in (made.true_joules, made.counter_joules):
        parts = sum(joules(b) - joules(a) for a, b in pairwise(edges))
        assert parts == pytest.approx(joules(end) - joules(made.start_ns), abs=1e-6)
    last = made.last_tick_ns(end)
    assert end - 100_000_000 < last <= end or end < made.start_ns + round(phase * S)
    assert made.counter_joules(end) <= made.true_joules(end) + 1e-9
    assert made.true_joules(end) - made.counter_joules(end) <= 300 * max(0.1, phase) + 1e-6


# Heat


def test_temperature_has_a_closed_form(accelerator, clock):
    accelerator.heat = HeatModel(ambient_celsius=25.0, celsius_per_watt=0.2, time_constant_s=30.0, start_celsius=25.0)
    idle, busy = 25 + 0.2 * accelerator.idle_w, 25 + 0.2 * accelerator.busy_w
    after_idle = idle + (25 - idle) * math.exp(-10 / 30)
    clock.advance(10)
    assert accelerator.celsius(clock()) == pytest.approx(after_idle)
    with accelerator.busy():
        clock.advance(20)
    warm = busy + (after_idle - busy) * math.exp(-20 / 30)
    assert accelerator.celsius(clock()) == pytest.approx(warm)
    clock.advance(3000)
    assert accelerator.celsius(clock()) == pytest.approx(idle)


def test_meter_reads_the_thermometer_of_those_that_have_one(opened, accelerator, clock):
    meter, _ = opened
    assert meter.temperatures() == {}
    accelerator.heat = HeatModel(ambient_celsius=20.0, celsius_per_watt=0.1, time_constant_s=1.0, start_celsius=60.0)
    assert meter.temperatures() == {f"n0/gpu:{accelerator.uuid}": pytest.approx(60.0)}


@pytest.mark.parametrize(("options", "celsius"), [({}, None), ({"celsius_per_watt": 0.2}, 35.0),
                                                  ({"celsius_per_watt": 0.2, "start_celsius": 70}, 70.0)])  # fmt: skip
def test_the_backend_gives_a_thermometer_where_it_is_told_how_warm_a_watt_makes_it(options, celsius):
    backend = SimulatedBackend(SimulatedOptions(idle_w=50, **options))
    backend.open()
    found = backend.accelerator.celsius(backend.accelerator.start_ns)
    backend.close()
    assert found == (None if celsius is None else pytest.approx(celsius))
