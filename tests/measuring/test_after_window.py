"""What a workload measures after its window: spans with energy of their own, none of it in the window."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from harness.backend import Backend, Device
from harness.builtin.simulated import SimulatedAccelerator, SimulatedMeter, attach, detach
from harness.errors import PluginError
from harness.measuring import alignment, window
from harness.measuring import meters as energy
from harness.measuring.channel import Channel
from harness.measuring.meters import Meters
from harness.measuring.window import Ledger, OpenWindow, measure
from harness.meter import MeterContext
from harness.quantity import Amount, Method, Unavailable
from harness.sample import Scope
from harness.testing import FakeClock

IDLE_W, BUSY_W, TICK_S = 50.0, 300.0, 0.1


class Nothing(Backend):
    def open(self) -> list[Device]:
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    sleeping = SimpleNamespace(sleep=clock.advance, time=lambda: 0.0)
    monkeypatch.setattr(energy, "now_ns", clock)
    monkeypatch.setattr(energy, "time", sleeping)
    monkeypatch.setattr(alignment, "time", sleeping)
    monkeypatch.setattr(window, "now_ns", clock)
    return clock


@pytest.fixture
def accelerator(clock: FakeClock) -> Iterator[SimulatedAccelerator]:
    made = SimulatedAccelerator(IDLE_W, BUSY_W, TICK_S, clock=clock)
    attach(made)
    yield made
    detach(made.uuid)


def test_energy_of_role_spans_after_the_window_is_not_the_windows(
    clock: FakeClock, accelerator: SimulatedAccelerator
) -> None:
    meter = SimulatedMeter()
    opened = meter.open(MeterContext(devices=(Device(kind="gpu", uuid=accelerator.uuid, name="simulated"),)))
    assert not isinstance(opened, Unavailable)
    scopes = {name: scope for name, scope in opened.items() if isinstance(scope, Scope)}
    meters = Meters([Channel("simulated", True, meter, scopes)])
    ledger = Ledger(io.StringIO(), io.StringIO(), set())
    backend = Nothing()
    measured = OpenWindow(0, meters, backend, set(), min_seconds=0.0, min_iterations=1)

    def work(open_window: OpenWindow) -> None:
        while open_window.wants_more():
            clock.advance(10)  # idle power

    def after(open_window: OpenWindow) -> None:
        with open_window.mark("role:target"), accelerator.busy():
            clock.advance(4)
        with open_window.mark("role:draft"), accelerator.busy():
            clock.advance(2)

    span = measure(measured, work, meters, backend, ledger, after=after)
    joules = {reading.span: reading.value for reading in ledger.readings}
    assert [each.name for each in ledger.spans] == ["window", "role:target", "role:draft"]
    seconds_ = {each.name: (each.end_ns - each.start_ns) * 1e-9 for each in ledger.spans}
    assert seconds_["window"] == pytest.approx(10, abs=2 * TICK_S)
    assert span.end_ns <= ledger.spans[1].start_ns
    for name, truth in (("window", 10 * IDLE_W), ("role:target", 4 * BUSY_W), ("role:draft", 2 * BUSY_W)):
        value = joules[name]
        assert isinstance(value, Amount), value
        assert value.value == pytest.approx(truth, abs=2 * TICK_S * BUSY_W), name
        assert value.low is not None
        assert value.high is not None
        assert value.low <= truth <= value.high


def test_modelled_work_is_as_long_as_it_says_and_never_short(clock: FakeClock) -> None:
    meters, backend = Meters([]), Nothing()
    ledger = Ledger(io.StringIO(), io.StringIO(), set())
    opened = OpenWindow(0, meters, backend, set(), min_seconds=0.0, min_iterations=3)

    def work(open_window: OpenWindow) -> None:
        while open_window.wants_more():
            clock.advance(0.001)
            open_window.simulated_duration(250.0)
            open_window.device("board", busy_s=100.0, reserved_s=250.0)

    span = measure(opened, work, meters, backend, ledger)
    assert (span.modelled, span.simulated_s, span.flags) == (True, 750.0, ())
    assert span.work == Amount.of(750.0, "s", Method.SIMULATED)
    assert span.duration_s == pytest.approx(0.003)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 1e-300])
def test_a_simulated_duration_is_a_time(clock: FakeClock, seconds: float) -> None:
    opened = OpenWindow(0, Meters([]), Nothing(), set(), min_seconds=0.0, min_iterations=1)
    with pytest.raises(PluginError, match="simulated duration"):
        opened.simulated_duration(seconds)


def test_a_device_is_not_held_for_longer_than_the_modelled_work(clock: FakeClock) -> None:
    meters, backend = Meters([]), Nothing()
    ledger = Ledger(io.StringIO(), io.StringIO(), set())
    opened = OpenWindow(0, meters, backend, set(), min_seconds=0.0, min_iterations=1)

    def work(open_window: OpenWindow) -> None:
        open_window.simulated_duration(5.0)
        open_window.device("board", busy_s=6.0, reserved_s=10.0)

    with pytest.raises(PluginError, match="reserved for"):
        measure(opened, work, meters, backend, ledger)


def test_phases_of_a_device_sum_to_its_busy_time(clock: FakeClock) -> None:
    opened = OpenWindow(0, Meters([]), Nothing(), set(), min_seconds=0.0, min_iterations=1)
    opened.device("board", busy_s=3.0, reserved_s=5.0, phases={"prefill": 1.0, "decode@1": 2.0})
    assert opened.uses[0].phases == {"prefill": 1.0, "decode@1": 2.0}
    with pytest.raises(PluginError, match="do not sum"):
        opened.device("board", busy_s=3.0, reserved_s=5.0, phases={"prefill": 1.0})
