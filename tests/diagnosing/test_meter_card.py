from __future__ import annotations

import bisect
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from harness import __version__
from harness.backend import Device as BackendDevice
from harness.builtin.simulated import SimulatedAccelerator, SimulatedMeter, attach, detach
from harness.diagnosing.card_test import run_card
from harness.diagnosing.load import CallableLoad, ProcessLoad
from harness.diagnosing.self_test import fraction_of
from harness.errors import MeasurementError
from harness.machine.meter_card import CardKey, MeterCard, stale
from harness.meter import Meter, MeterContext
from harness.quantity import Method, Unavailable
from harness.sample import Scope, Snapshot
from harness.testing import FakeClock, until

SCOPE = "n0/gpu:GPU-1"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.ns = 10**9

    def __call__(self) -> int:
        return self.ns

    def sleep(self, duration_s: float) -> None:
        assert duration_s >= 0
        self.ns += max(1, round(duration_s * 1e9))


class Device:
    """A device of known power, exact."""

    def __init__(self, clock: Clock, idle_w: float, busy_w: float) -> None:
        self.clock, self.idle_w, self.busy_w = clock, idle_w, busy_w
        self.times = [clock.ns]
        self.joules = [0.0]
        self.powers = [idle_w]

    def turn(self, power_w: float) -> None:
        self.joules.append(self.true_joules(self.clock.ns))
        self.times.append(self.clock.ns)
        self.powers.append(power_w)

    def true_joules(self, ns: int) -> float:
        at = max(0, bisect.bisect_right(self.times, ns) - 1)
        return self.joules[at] + self.powers[at] * (ns - self.times[at]) * 1e-9

    def load(self, *, known: bool = True, switch_s: float = 0.0) -> CallableLoad:
        return CallableLoad(
            lambda: self.turn(self.busy_w),
            lambda: self.turn(self.idle_w),
            (lambda: self.true_joules(self.clock.ns)) if known else None,
            switch_s,
        )


class Counter(Meter):
    """Renewed every tick by the mean power of the last `look_s` before it, times the gain."""

    sample_hz = 10.0

    def __init__(
        self,
        device: Device,
        tick_s: float = 0.1,
        look_s: float | None = None,
        gain: float = 1.0,
        cost_s: float = 0.0,
        quantum_j: float = 0.0,
    ) -> None:
        self.device, self.gain, self.cost_s, self.quantum_j = device, gain, cost_s, quantum_j
        self.tick_ns = round(tick_s * 1e9)
        self.look_ns = round((tick_s if look_s is None else look_s) * 1e9)
        self.start = device.clock.ns + 12_345_678
        self.ticks = 0
        self.shown = 0.0
        self.reads = 0
        self.failing: set[int] = set()
        self.frozen = False

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable]:
        return {SCOPE: Scope(method=Method.COUNTER)}

    def read(self) -> Snapshot:
        began = self.device.clock.ns
        if self.cost_s:
            self.device.clock.sleep(self.cost_s)
        self.reads += 1
        if self.reads in self.failing:
            return Snapshot(began, {SCOPE: Unavailable("driver busy")})
        while not self.frozen and self.start + (self.ticks + 1) * self.tick_ns <= began:
            self.ticks += 1
            tick = self.start + self.ticks * self.tick_ns
            seen = self.device.true_joules(tick) - self.device.true_joules(tick - self.look_ns)
            self.shown += self.gain * seen * self.tick_ns / self.look_ns
        shown = self.shown // self.quantum_j * self.quantum_j if self.quantum_j else self.shown
        return Snapshot(began, {SCOPE: shown})

    def close(self) -> None:
        pass


def card(
    *,
    expected_tick_s: float = 0.1,
    idle_w: float = 50.0,
    busy_w: float = 300.0,
    known: bool = True,
    switch_s: float = 0.0,
    failing: set[int] | None = None,
    tick_s: float = 0.1,
    look_s: float | None = None,
    gain: float = 1.0,
    cost_s: float = 0.0,
    quantum_j: float = 0.0,
) -> MeterCard:
    clock = Clock()
    device = Device(clock, idle_w, busy_w)
    meter = Counter(device, tick_s, look_s, gain, cost_s, quantum_j)
    meter.failing = failing or set()
    load = device.load(known=known, switch_s=switch_s)
    return run_card(meter, SCOPE, load, clock, clock.sleep, expected_tick_s, now=lambda: NOW)


def test_a_good_counter_is_recovered() -> None:
    found = card()
    assert found.update_period_s == pytest.approx(0.1, rel=0.05)
    assert found.jitter_s == pytest.approx(0.0, abs=0.005)
    assert found.idle_w == pytest.approx(50.0, rel=0.01)
    assert found.busy_w == pytest.approx(300.0, rel=0.01)
    assert found.gain == pytest.approx(0.0, abs=0.01)
    assert found.lag_s == pytest.approx(0.0, abs=0.02)
    assert found.rise_s == pytest.approx(0.0, abs=0.11)
    assert found.sampled_fraction is not None
    assert found.sampled_fraction > 0.9
    assert found.flags == ()
    assert [wave.period_s for wave in found.waves] == pytest.approx([0.1, 0.2, 0.5, 2.0, 0.1])
    assert max(abs(deviation) for wave in found.waves for deviation in wave.deviations) < 0.05


@pytest.mark.parametrize("tick_s", [0.03, 0.087, 0.1, 0.113, 0.25])
def test_the_tick_is_found_though_another_was_expected(tick_s: float) -> None:
    found = card(tick_s=tick_s)
    assert found.update_period_s == pytest.approx(tick_s, rel=0.05)
    assert found.flags == ()


@pytest.mark.parametrize("gain", [0.87, 0.95, 1.0, 1.13])
def test_the_gain_error_is_within_one_percent(gain: float) -> None:
    found = card(gain=gain)
    assert found.gain == pytest.approx(gain - 1, abs=0.01)


@pytest.mark.parametrize("look_s", [0.01, 0.025, 0.05, 0.07])
def test_a_sensor_that_looks_away_is_found(look_s: float) -> None:
    found = card(look_s=look_s)
    assert found.sampled_fraction == pytest.approx(look_s / 0.1, abs=0.1)
    assert found.flags == ("aliasing possible",)
    exact = found.waves[-1].deviations
    assert max(exact) > 0.2
    assert min(exact) < -0.2


def test_a_blind_spot_shows_in_step_with_the_sensor_only() -> None:
    found = card(look_s=0.025)
    slow = next(wave for wave in found.waves if wave.period_s == pytest.approx(2.0))
    assert max(map(abs, slow.deviations)) < 0.05


def test_the_width_of_a_smoothed_reading_is_found() -> None:
    found = card(look_s=0.6)
    assert found.averaging_width_s == pytest.approx(0.6, rel=0.05)
    assert found.lag_s == pytest.approx(0.25, abs=0.02)
    assert found.rise_s == pytest.approx(0.48, abs=0.11)
    assert found.flags == ()


@pytest.mark.parametrize(
    ("fraction", "variance"), [(0.25, 1 / 4 - 1 / 12), (0.5, 1 / 12), (0.8, 1 / 16 * (1 / 4 - 1 / 15)), (1.0, 0.0)]
)
def test_the_fraction_follows_from_the_variance(fraction: float, variance: float) -> None:
    assert fraction_of([variance**0.5, -(variance**0.5)]) == pytest.approx(fraction, abs=1e-6)


def test_reading_has_a_cost() -> None:
    found = card(cost_s=0.001)
    assert found.read_median_s == pytest.approx(0.001)
    assert found.read_p95_s == pytest.approx(0.001)
    assert found.sampling_share == pytest.approx(0.01)


def test_the_smallest_increment_is_the_quantum() -> None:
    found = card(quantum_j=0.5, tick_s=0.1, idle_w=2.0)
    assert found.smallest_increment_j == pytest.approx(0.5)


@pytest.mark.slow
def test_a_counter_without_ticks_has_no_period() -> None:
    found = card(tick_s=0.001)
    assert found.update_period_s is None
    assert found.jitter_s is None
    assert "every poll" in found.missing["update_period_s"]
    assert found.sampled_fraction is None
    assert "sampled_fraction" in found.missing
    assert found.busy_w == pytest.approx(300.0, rel=0.01)


def test_an_unknown_truth_gives_no_gain() -> None:
    found = card(known=False)
    assert found.gain is None
    assert "not known" in found.missing["gain"]


def test_a_device_without_idle_power_has_no_idle_reading() -> None:
    found = card(idle_w=0.0)
    assert found.idle_w is None
    assert "does not move without load" in found.missing["idle_w"]
    assert found.busy_w == pytest.approx(300.0, rel=0.01)


def test_a_load_that_does_nothing_shows_nothing() -> None:
    found = card(idle_w=299.0)
    assert found.sampled_fraction is None
    assert "changed the power" in found.missing["sampled_fraction"]
    assert found.waves == ()


def test_a_slow_load_makes_no_fast_waves() -> None:
    found = card(switch_s=0.015)
    assert [wave.period_s for wave in found.waves] == pytest.approx([0.2, 0.5, 2.0])
    assert "does not switch" in found.missing["sampled_fraction"]
    assert found.flags == ()


def test_failed_reads_are_gaps() -> None:
    found = card(failing=set(range(50, 3000, 37)))
    assert found.failed_reads > 50
    assert found.update_period_s == pytest.approx(0.1, rel=0.05)
    assert found.busy_w == pytest.approx(300.0, rel=0.01)


@pytest.mark.parametrize("fault", ["dead", "frozen", "other scope"])
def test_a_counter_that_does_not_answer_has_no_card(fault: str) -> None:
    clock = Clock()
    device = Device(clock, 50.0, 300.0)
    meter = Counter(device)
    meter.failing = set(range(10**5)) if fault == "dead" else set()
    meter.frozen = fault == "frozen"
    scope = "n0/other" if fault == "other scope" else SCOPE
    with pytest.raises(MeasurementError, match=scope) as caught:
        run_card(meter, scope, device.load(), clock, clock.sleep, 0.1)
    expected = {"dead": "driver busy", "frozen": "did not move", "other scope": "does not read"}[fault]
    assert expected in str(caught.value)
    assert device.powers[-1] == device.idle_w


def test_a_counter_that_goes_backwards_has_no_card() -> None:
    class Backwards(Counter):
        def read(self) -> Snapshot:
            taken = super().read()
            return Snapshot(taken.monotonic_ns, {SCOPE: 1000.0 - self.shown})

    clock = Clock()
    device = Device(clock, 50.0, 300.0)
    with pytest.raises(MeasurementError, match="backwards"):
        run_card(Backwards(device), SCOPE, device.load(), clock, clock.sleep, 0.1)


# The card


def test_a_card_survives_json() -> None:
    made = card()
    assert MeterCard.from_json(made.to_json()) == made
    assert json.loads(made.to_json())["id"] == made.id


def test_a_changed_card_is_refused() -> None:
    made = card()
    with pytest.raises(MeasurementError, match="was changed"):
        MeterCard.from_json(made.to_json().replace('"failed_reads": 0', '"failed_reads": 1'))
    for text in ("", "[]", "{}", '{"id": "x", "key": {}}'):
        with pytest.raises(MeasurementError, match="not a meter card"):
            MeterCard.from_json(text)


def test_another_result_has_another_id() -> None:
    assert card().id == card().id
    assert card().id != card(gain=1.01).id


def test_a_card_ages() -> None:
    made = card()
    assert stale(made, NOW + timedelta(days=29, hours=23)) == ""
    assert "30 days" in stale(made, NOW + timedelta(days=30))


@pytest.mark.parametrize(
    "changed",
    [{"device": "GPU-2"}, {"driver": "2"}, {"firmware": "2"}, {"power_limit_w": 300.0}, {"harness_version": "0"}],
)
def test_a_changed_key_makes_a_card_stale(changed: dict[str, object]) -> None:
    key = CardKey(device="GPU-1", driver="1", firmware="1", power_limit_w=400.0)
    made = replace(card(), key=key)
    assert stale(made, NOW, key) == ""
    assert next(iter(changed)) in stale(made, NOW, replace(key, **changed))  # type: ignore[arg-type]


def test_another_version_of_the_harness_makes_a_card_stale() -> None:
    made = replace(card(), key=CardKey(device="GPU-1", harness_version="0"))
    assert __version__ in stale(made, NOW)


# The simulated accelerator of the harness


@pytest.mark.parametrize(("tick_s", "gain_error"), [(0.1, 0.0), (0.02, -0.05), (0.1, 0.13)])
def test_the_simulated_accelerator_is_what_it_claims_to_be(tick_s: float, gain_error: float) -> None:
    clock = FakeClock()
    device = SimulatedAccelerator(50.0, 300.0, tick_s, gain_error, "SIM-card", clock, phase_s=0.3 * tick_s)
    attach(device)
    try:
        meter = SimulatedMeter()
        opened = meter.open(MeterContext(devices=(BackendDevice(kind="gpu", uuid="SIM-card", name="simulated"),)))
        assert not isinstance(opened, Unavailable)
        (scope,) = opened
        load = CallableLoad(device.busy, device.idle, lambda: device.true_joules(clock()))
        found = run_card(meter, scope, load, clock, clock.advance, tick_s)
    finally:
        detach("SIM-card")
    assert found.update_period_s == pytest.approx(tick_s, rel=0.05)
    assert found.gain == pytest.approx(gain_error, abs=0.01)
    assert found.idle_w == pytest.approx(50.0 * (1 + gain_error), rel=0.01)
    assert found.busy_w == pytest.approx(300.0 * (1 + gain_error), rel=0.01)
    assert found.flags == ()


# A load in a process of its own


def test_a_process_is_busy_when_told(tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    steps.touch()
    step = "os.write(steps, b'.')"
    with ProcessLoad(step=step, setup=f"steps = os.open({str(steps)!r}, os.O_WRONLY | os.O_APPEND)") as load:
        (child,) = load._children
        assert steps.stat().st_size == 0
        for _ in range(2):
            before = steps.stat().st_size
            load.busy()
            until(lambda before=before: steps.stat().st_size > before)
            load.idle()
            until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_SLEEPING)
        done = steps.stat().st_size
    assert steps.stat().st_size == done
    assert child.returncode == 0
    load.close()


def test_a_process_that_died_is_said_and_closed() -> None:
    load = ProcessLoad(step="raise SystemExit(7)")
    load.busy()
    load._children[0].wait(timeout=10)
    with pytest.raises(MeasurementError, match="exit code 7"):
        load.idle()
    load.close()


def test_a_setup_that_fails_is_said() -> None:
    with pytest.raises(MeasurementError, match="setup failed"):
        ProcessLoad(setup="import no_such_module_anywhere")
    with pytest.raises(MeasurementError, match="not ready"):
        ProcessLoad(setup="import time; time.sleep(2)", ready_s=0.01)
