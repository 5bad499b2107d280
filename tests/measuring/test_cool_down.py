"""The rest before the warm-up: until devices are cool, a limit, or a pause; temperatures at the edges of spans."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness.backend import Backend, Device
from harness.builtin.heat import HeatModel
from harness.builtin.simulated import SimulatedAccelerator, SimulatedMeter, attach, detach
from harness.commands.progress import Progress
from harness.discovery.registry import load_plugins
from harness.measuring import alignment, window
from harness.measuring import cool_down as cooling
from harness.measuring import meters as energy
from harness.measuring.channel import Channel
from harness.measuring.messenger import Messenger
from harness.measuring.meters import Meters
from harness.measuring.trial import Trial
from harness.measuring.window import Ledger, OpenWindow, measure, rest
from harness.meter import MeterContext
from harness.planning.planner import expand
from harness.planning.suite import loads
from harness.planning.trial_rules import CoolDown
from harness.records.files import adapter, write_json
from harness.records.record import Measurement, Rest, Span
from harness.running.order import Scheduled
from harness.running.run_folder import prepare
from harness.sample import Scope
from harness.testing import FakeClock

SCOPE = "n0/gpu:SIM-0"
HEAT = HeatModel(ambient_celsius=25.0, celsius_per_watt=0.2, time_constant_s=30.0, start_celsius=80.0)
"""Idling at 50 W it comes to 35 °C, at 300 W to 85 °C."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(energy, "now_ns", clock)
    monkeypatch.setattr(energy, "time", SimpleNamespace(sleep=clock.advance, time=lambda: 0.0))
    monkeypatch.setattr(alignment, "time", SimpleNamespace(sleep=clock.advance))
    monkeypatch.setattr(window, "now_ns", clock)
    monkeypatch.setattr(cooling, "now_ns", clock)
    return clock


@pytest.fixture
def accelerator(clock: FakeClock) -> Iterator[SimulatedAccelerator]:
    made = SimulatedAccelerator(50.0, 300.0, 0.1, clock=clock)
    made.heat = HEAT
    attach(made)
    yield made
    detach(made.uuid)


def bank(accelerator: SimulatedAccelerator, meter: SimulatedMeter | None = None) -> Meters:
    meter = meter or SimulatedMeter()
    opened = meter.open(MeterContext(devices=(Device(kind="gpu", uuid=accelerator.uuid, name="simulated"),)))
    assert isinstance(opened, Mapping)
    return Meters([Channel("simulated", True, meter, {name: s for name, s in opened.items() if isinstance(s, Scope)})])


def rested(rule: CoolDown, meters: Meters, clock: FakeClock) -> tuple[Rest, list[str]]:
    told: list[str] = []
    return cooling.cool_down(rule, meters, clock.sleep, lambda text, _done: told.append(text)), told


def test_it_waits_until_the_device_is_cool_and_tells_the_present_temperature(
    clock: FakeClock, accelerator: SimulatedAccelerator
) -> None:
    found, told = rested(CoolDown(to_celsius=45.0, at_most_s=300.0), bank(accelerator), clock)
    # 35 + 45 exp(-t/30) = 45 at t = 30 ln 4.5 = 45.1 s; it looks once a second
    assert found.waited_s == pytest.approx(46, abs=1)
    assert found.cooled is True
    assert 44 < found.celsius[SCOPE] <= 45
    assert told[0] == f"{SCOPE} at 80.0 °C, waits for 45 °C, 300 s at most"
    assert len(told) == round(found.waited_s), "a silent worker is taken for a dead one"
    assert cooling.conditions(found) == ()


def test_a_device_that_stays_warm_is_given_up_and_said(clock: FakeClock, accelerator: SimulatedAccelerator) -> None:
    found, _ = rested(CoolDown(to_celsius=30.0, at_most_s=60.0), bank(accelerator), clock)
    assert found.waited_s == pytest.approx(60, abs=1)
    assert found.cooled is False
    (seen,) = cooling.conditions(found)
    assert (seen.kind, seen.scope, seen.fails) == ("not_cooled", SCOPE, False)
    assert "41.1 °C after 60 s, where 30 °C were awaited" in seen.detail


def test_a_cool_device_is_not_waited_for(clock: FakeClock, accelerator: SimulatedAccelerator) -> None:
    found, told = rested(CoolDown(to_celsius=90.0), bank(accelerator), clock)
    assert (found.waited_s, found.cooled, told) == (0.0, True, [])


def test_without_a_thermometer_it_pauses_and_says_so(clock: FakeClock, accelerator: SimulatedAccelerator) -> None:
    accelerator.heat = None
    found, told = rested(CoolDown(to_celsius=45.0, pause_s=20.0), bank(accelerator), clock)
    assert (found.waited_s, found.cooled, found.celsius) == (20.0, None, {})
    assert told[0] == "no meter reads a temperature; a pause of 20 s, 20 s left"
    (seen,) = cooling.conditions(found)
    assert "no meter read a temperature; paused for 20 s" in seen.detail


def test_a_pause_is_a_pause_however_warm(clock: FakeClock, accelerator: SimulatedAccelerator) -> None:
    found, _ = rested(CoolDown(pause_s=7.5), bank(accelerator), clock)
    assert (found.waited_s, found.to_celsius, found.cooled) == (7.5, None, None)
    assert SCOPE in found.celsius
    assert cooling.conditions(found) == ()


def test_a_thermometer_that_raises_is_a_condition_and_ends_nothing(
    clock: FakeClock, accelerator: SimulatedAccelerator
) -> None:
    class Broken(SimulatedMeter):
        def temperatures(self) -> Mapping[str, float]:
            raise OSError("the sensor is gone")

    meters = bank(accelerator, Broken())
    assert meters.temperatures() == {}
    (seen,) = meters.conditions()
    assert (seen.kind, seen.detail, seen.fails) == ("temperature_unreadable", "OSError: the sensor is gone", False)


def test_temperatures_lie_around_the_edges_and_never_inside_the_window(
    clock: FakeClock, accelerator: SimulatedAccelerator
) -> None:
    looked: list[int] = []

    class Watched(SimulatedMeter):
        def temperatures(self) -> Mapping[str, float]:
            looked.append(clock())
            return super().temperatures()

    class Nothing(Backend):
        def open(self) -> list[Device]:
            return []

    meters, ledger = bank(accelerator, Watched()), Ledger(io.StringIO(), io.StringIO(), set())

    def work(opened: OpenWindow) -> None:
        while opened.wants_more():
            with accelerator.busy():
                clock.advance(10)

    measured = OpenWindow(0, meters, Nothing(), set(), min_seconds=0.0, min_iterations=1)
    span = measure(measured, work, meters, Nothing(), ledger)
    rest("idle", 30.0, meters, Nothing(), ledger, clock.sleep)
    assert len(looked) == 4
    for each, (before, after) in zip(ledger.spans, (looked[:2], looked[2:]), strict=True):
        assert before <= each.start_ns < each.end_ns <= after
        first, last = each.celsius[SCOPE]
        assert first == pytest.approx(accelerator.celsius(before))
        assert last == pytest.approx(accelerator.celsius(after))
    assert span.celsius[SCOPE][1] > span.celsius[SCOPE][0] - 1
    assert ledger.spans[1].celsius[SCOPE][1] < ledger.spans[1].celsius[SCOPE][0], "idling it cools down"


SUITE = """
suite: s
backend: {{name: simulated, tick: 5ms, celsius_per_watt: 0.2, start_celsius: {start}, thermal_time: 200ms}}
meters: [simulated]
idle_seconds: 0.1
cool_down: {{to_celsius: {to}, at_most: 1s}}
windows: {{count: 1, min_seconds: 0.05}}
warm_up: {{max_seconds: 0.05, max_iterations: 1}}
cases: [{{workload: spin, options: {{iterations: 1000}}}}]
"""


class Listening(Messenger):
    def __init__(self) -> None:
        super().__init__()
        self.phases: dict[str, None] = {}

    def send(self, message: str, /, **content: object) -> None:
        if message == "progress":
            self.phases[str(content["phase"])] = None


@pytest.mark.parametrize(("start", "to", "cooled"), [(80, 50, True), (80, 20, False)])
def test_a_trial_cools_down_after_loading_and_before_its_warm_up(
    tmp_path: Path, start: int, to: int, *, cooled: bool
) -> None:
    registry = load_plugins()
    (point,) = expand([loads(SUITE.format(start=start, to=to))], registry).points
    job = prepare(tmp_path / "run", Scheduled(point, 0))
    listening = Listening()
    before = time.monotonic()
    content: dict[str, Any] = json.loads((job.folder / "job.json").read_text(encoding="utf-8"))
    measured = Trial(job.folder, content, registry, listening).run()
    assert list(listening.phases) == ["open", "idle", "prepare", "cool-down", "loaded_idle", "warm-up", "window"]
    assert measured.rest is not None
    assert measured.rest.cooled is cooled
    assert 0 < measured.rest.waited_s <= time.monotonic() - before
    assert ("not_cooled" in {seen.kind for seen in measured.conditions}) is not cooled
    assert not measured.invalid
    assert {span.name for span in measured.spans if span.celsius} == {"idle", "loaded_idle", "window"}
    write_json(tmp_path / "again.json", json.loads(adapter(Measurement).dump_json(measured)))
    assert adapter(Measurement).validate_json((tmp_path / "again.json").read_bytes()) == measured


def test_a_span_of_before_has_no_temperature() -> None:
    old = {"name": "window", "window": 0, "start_ns": 0, "end_ns": 1, "start_utc_s": 0.0}
    assert adapter(Span).validate_python(old).celsius == {}


def test_the_wait_is_told_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with Progress(Console(file=stream, force_terminal=False)) as progress:
        for second in range(3):
            text = f"{SCOPE} at {80 - second}.0 °C, waits for 45 °C, {300 - second} s at most"
            progress.tell({"type": "progress", "phase": "cool-down", "text": text, "done": second / 300})
    assert stream.getvalue() == f"  cool-down {SCOPE} at 80.0 °C, waits for 45 °C, 300 s at most\n"
