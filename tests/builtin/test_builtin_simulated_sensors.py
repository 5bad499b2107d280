"""Each option of the simulated sensors does what its meaning says, and the truth stays exact."""

from __future__ import annotations

import pytest

from harness.builtin.simulated import SimulatedBackend, SimulatedMeter, SimulatedOptions
from harness.builtin.simulated_accelerator import SimulatedAccelerator, attach, detach
from harness.builtin.simulated_sensor import SimulatedSensor
from harness.measuring.channel import Channel
from harness.measuring.sampled import sampled_energy
from harness.meter import MeterContext
from harness.quantity import Amount, Method, Unavailable
from harness.testing import FakeClock, check_meter

S = 1_000_000_000
SCOPE = "n0/gpu:SIM-0"


def accelerator(*, tick_s=0.1, gain_error=0.0, **sensor) -> SimulatedAccelerator:
    made = SimulatedAccelerator(100, 300, tick_s, gain_error, clock=FakeClock(), sensor=SimulatedSensor(**sensor))
    made.busy(made.start_ns + 2 * S)
    return made


def test_a_power_register_shows_the_mean_of_its_tick():
    made = accelerator(source="power")
    t0 = made.start_ns
    assert made.power_reading_w(t0 + S) == 100
    assert made.power_reading_w(t0 + 2 * S) == 100
    assert made.power_reading_w(t0 + 2 * S + S // 10) == 300
    made.idle(t0 + 3 * S + S // 20)
    assert made.power_reading_w(t0 + 3 * S + S // 10) == 200
    assert made.true_joules(t0 + 4 * S) == pytest.approx(200 + 300 * 1.05 + 100 * 0.95)


@pytest.mark.parametrize(
    ("sensor", "after_s", "shown"),
    [
        ({"window_s": 0.025}, 0.1, 300),
        ({"window_s": 1.0}, 0.5, 200),
        ({"window_s": 1.0, "part_of_time": 0.25}, 0.5, 200),
        ({"lag_s": 0.5}, 0.5, 100),
        ({"lag_s": 0.5}, 0.6, 300),
        ({"offset_w": 20.0}, 1.0, 320),
        ({"offset_w": -400.0}, 1.0, 0),
    ],
)
def test_what_a_sensor_makes_of_a_step(sensor, after_s, shown):
    made = accelerator(source="power", **sensor)
    assert made.power_reading_w(made.start_ns + 2 * S + round(after_s * S)) == pytest.approx(shown)


def test_gain_comes_before_offset_and_noise_is_the_same_whenever_it_is_read():
    assert accelerator(source="power", offset_w=5.0, gain_error=0.1).power_reading_w(4 * S) == pytest.approx(335)
    noisy = accelerator(source="power", noise_w=3.0)
    shown = [noisy.power_reading_w(noisy.start_ns + number * S // 10) for number in range(40, 60)]
    assert len(set(shown)) == 20
    assert shown == [noisy.power_reading_w(noisy.start_ns + number * S // 10) for number in range(40, 60)]
    assert 285 < sum(shown) / 20 < 315


def test_a_counter_adds_up_what_its_sensor_sees():
    blind = accelerator(window_s=0.025)
    t0 = blind.start_ns
    blind.idle(t0 + 3 * S + S // 20)  # in the middle of a tick, and 25 ms before its end
    assert blind.counter_joules(t0 + 4 * S) == pytest.approx(200 + 300 + 100)
    late = accelerator(lag_s=0.5)
    assert late.counter_joules(late.start_ns + 3 * S) == pytest.approx(250 + 150)
    off = accelerator(offset_w=10.0)
    assert off.counter_joules(off.start_ns + 2 * S) == pytest.approx(220)


def test_a_reset_a_glitch_and_a_stuck_register():
    made = accelerator(window_s=0.05)
    t0 = made.start_ns
    made.reset_at(t0 + S)
    assert made.counter_joules(t0 + S) == 0
    assert made.counter_joules(t0 + 2 * S) == pytest.approx(100)
    made = accelerator(source="power")
    made.glitch_at(t0 + S + S // 20)
    assert made.power_reading_w(made.start_ns + S + S // 20) == 65_535
    assert made.power_reading_w(made.start_ns + S + S // 10) == 100
    made.freeze_at(t0 + S)
    made.busy(t0 + 5 * S)
    assert made.power_reading_w(t0 + 9 * S) == 65_535
    counter = accelerator()
    counter.glitch_at(counter.start_ns + S + S // 20)
    before, after = (counter.counter_joules(counter.start_ns + S + number * S // 10) for number in (0, 1))
    assert after - before in (pytest.approx(6553.5), pytest.approx(10.0))
    assert counter.counter_joules(counter.start_ns + 2 * S) == pytest.approx(190 + 6553.5)


def test_the_options_reach_the_sensor_and_the_meter_declares_it():
    options = SimulatedOptions(
        source="power", tick="50ms", window="1s", part_of_time=0.5, lag="200ms", gain_error=-0.1, offset_w=-9, noise_w=1
    )
    backend = SimulatedBackend(options)
    (device,) = backend.open()
    try:
        meter = SimulatedMeter()
        scope = meter.open(MeterContext(devices=(device,)))[SCOPE]
        assert (scope.method, scope.tick_s, scope.gain, scope.sampled) == (Method.SIMULATED, None, None, True)
        sensor = scope.sensor
        assert (sensor.update_s, sensor.window_s, sensor.seen, sensor.lag_s) == (0.05, 1.0, 0.5, 0.2)
        assert sensor.gain == pytest.approx(0.1 / 0.9)
        assert sensor.offset_w == pytest.approx(11 / 0.9)
        assert meter.read().watts.keys() == {SCOPE}
        check_meter(SimulatedMeter(), MeterContext(devices=(device,)))
    finally:
        backend.close()


def test_a_plain_counter_is_described_by_its_gain_as_ever():
    backend = SimulatedBackend(SimulatedOptions())
    (device,) = backend.open()
    try:
        meter = SimulatedMeter()
        scope = meter.open(MeterContext(devices=(device,)))[SCOPE]
        assert (scope.sensor, scope.gain, scope.sampled) == (None, 0.0, False)
        assert meter.read().watts == {}
    finally:
        backend.close()


def test_a_power_register_that_fails_is_unavailable_and_its_energy_is_simulated():
    made = accelerator(source="power")
    attach(made)
    try:
        meter = SimulatedMeter()
        device = type("D", (), {"uuid": "SIM-0"})()
        scope = meter.open(MeterContext(devices=(device,)))[SCOPE]
        channel = Channel("simulated", True, meter, {SCOPE: scope})
        for _ in range(80):
            made.clock.advance(0.1)
            channel.read()
        begin = made.start_ns + 3 * S
        value, coverage, _ = sampled_energy(SCOPE, scope, channel.polls, begin, begin + 2 * S, None)
        assert isinstance(value, Amount)
        assert value.label is Method.SIMULATED
        assert value.value == pytest.approx(600)
        assert coverage == 1
        made.fail_reads(1)
        snapshot = meter.read()
        assert isinstance(snapshot.joules[SCOPE], Unavailable)
        assert snapshot.watts[SCOPE] is None
    finally:
        detach("SIM-0")


def test_the_load_of_the_backend_knows_its_energy():
    backend = SimulatedBackend(SimulatedOptions())
    backend.open()
    with backend.load() as load:
        load.busy()
        assert backend.accelerator.power_w(backend.accelerator.clock()) == 300
        load.idle()
        assert load.true_joules() >= 0
    backend.close()


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"part_of_time": 0}, {"lag": -1}, {"noise_w": -1}, {"source": "wall"}]
)
def test_sensors_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulatedOptions(**wrong)
