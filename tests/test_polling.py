"""Meters that a thread reads: the energy of a window lies inside its bound, and no edge waits for the source."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Mapping

import pytest

from harness.interpolation import UNIT, Polled, Sample, Shown, counted_between
from harness.meter import MeterContext
from harness.polling import PolledMeter
from harness.quantity import Amount, Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot
from harness.sensor import PowerSensor
from harness.testing import FakeClock, check_meter, until
from harness.testing.sensors import Load, bursts, constant, square, step
from harness.units import nanoseconds

NAME = "n0/pod:web"
LOADS = ("constant", "step up", "step down", "square", "bursts")
GAUGE = PowerSensor(update_s=1.0, window_s=1.0, gain=0.02, offset_w=0.5)


def load_of(rng: random.Random, kind: str, end_s: float) -> Load:
    low, high = rng.uniform(20, 80), rng.uniform(150, 400)
    made = {
        "constant": lambda: constant(high),
        "step up": lambda: step(rng.uniform(5, end_s - 5), low, high),
        "step down": lambda: step(rng.uniform(5, end_s - 5), high, low),
        "square": lambda: square(rng.uniform(0.3, 7.0), low, high, 0.0, end_s, rng.uniform(0.2, 0.8)),
        "bursts": lambda: bursts(rng, low, high, 0.0, end_s, rng.uniform(0.1, 2.0), rng.uniform(0.2, 3.0)),
    }
    return made[kind]()


class Source:
    """A counter that something scrapes every so often, and an answer that takes its time.

    Args:
        load: what it counts.
        scrape_s: period of the scrapes; 0 for one that is asked directly.
        scrape_takes_s: from the moment a scrape is true of until an answer can show it, at most.
    """

    def __init__(self, load: Load, rng: random.Random, scrape_s: float, scrape_takes_s: float) -> None:
        self.load, self.rng = load, rng
        self.scrape_s, self.takes_s = scrape_s, scrape_takes_s
        self.phase_s = rng.uniform(0, scrape_s)
        self.wrong_clock_s = rng.uniform(-1e6, 1e6)

    def shown(self, now_s: float) -> Shown:
        if not self.scrape_s:
            return Shown(5000.0 + self.load.energy_j(0.0, now_s))
        turn = (now_s - self.phase_s) // self.scrape_s
        moment_s = self.phase_s + turn * self.scrape_s
        if now_s < moment_s + self.takes_s * random.Random(turn).random():
            moment_s -= self.scrape_s
        return Shown(5000.0 + self.load.energy_j(0.0, moment_s), moment_s + self.wrong_clock_s)


class Simulated(PolledMeter):
    """Polls a source in simulated time; answers take up to 20 ms on the way."""

    def __init__(self, clock: FakeClock, rng: random.Random, source: Source, what: Polled, poll_s: float) -> None:
        super().__init__(poll_s, clock=clock, threaded=False)
        self.clock, self.rng, self.source, self.what = clock, rng, source, what
        self.faults: list[str] = []

    def find(self, context: MeterContext) -> Mapping[str, Polled | Unavailable]:
        return {NAME: self.what}

    def ask(self) -> Mapping[str, Shown | Unavailable]:
        self.clock.advance(self.rng.uniform(0.0, 0.01))
        if self.faults:
            raise ConnectionResetError(self.faults[0])
        shown = self.source.shown(self.clock.s)
        self.clock.advance(self.rng.uniform(0.0, 0.01))
        return {NAME: shown}

    def run(self, until_s: float) -> None:
        while self.clock.s < until_s:
            self.clock.advance(self.poll_s * self.rng.uniform(0.9, 1.1))
            self.poll()


def simulated(
    seed: str, kind: str, scrape_s: float, poll_s: float, gain: float = 0.0, max_w: float | None = None
) -> tuple[Simulated, Load]:
    rng = random.Random(seed)
    load = load_of(rng, kind, 60.0)
    source = Source(load, rng, scrape_s, 0.05)
    scope = Scope(method=Method.COUNTER, gain=gain, max_power_w=max_w)
    what = Polled(scope=scope, counts=True, update_s=scrape_s, late_s=0.05 if scrape_s else 0.0)
    return Simulated(FakeClock(), rng, source, what, poll_s), load


@pytest.mark.parametrize(("scrape_s", "poll_s"), [(1.0, 0.1), (5.0, 0.5), (0.0, 1.0)])
def test_200_windows_hold_their_truth_within_one_interval(scrape_s: float, poll_s: float) -> None:
    inside, windows = 0, 200
    for index in range(windows):
        kind = LOADS[index % len(LOADS)]
        meter, load = simulated(f"{scrape_s} {index}", kind, scrape_s, poll_s)
        meter.open(MeterContext())
        start_s = meter.clock.s + meter.rng.uniform(11.0, 13.0)
        opened, closed = start_s, start_s + meter.rng.uniform(12.0, 30.0)
        meter.run(closed + meter.settle_s)
        found = meter.between(nanoseconds(opened), nanoseconds(closed))[NAME].amount
        assert isinstance(found, Amount), found
        assert found.low is not None
        assert found.high is not None
        truth = load.energy_j(opened, closed)
        inside += found.low <= truth <= found.high
        greatest_j = max(load.energy_j(at / 10, at / 10 + 1) for at in range(600)) * (scrape_s or poll_s * 1.15)
        assert (found.high - found.low) / 2 <= greatest_j * 1.05, (index, kind)
    assert inside >= 0.95 * windows


def test_an_outage_costs_a_counter_nothing_but_its_edges() -> None:
    meter, load = simulated("outage", "bursts", 1.0, 0.1)
    meter.open(MeterContext())
    meter.run(20.0)
    meter.faults = ["connection reset"]
    meter.run(30.0)
    meter.faults = []
    meter.run(45.0)
    found = meter.between(nanoseconds(10.3), nanoseconds(40.2))[NAME]
    assert isinstance(found.amount, Amount)
    assert found.amount.low is not None
    assert found.amount.high is not None
    assert found.amount.low <= load.energy_j(10.3, 40.2) <= found.amount.high
    assert found.coverage == pytest.approx(1.0)


def test_a_source_that_disappears_is_unavailable_with_its_reason_and_comes_back() -> None:
    meter, _ = simulated("gone", "constant", 1.0, 0.1)
    meter.open(MeterContext())
    meter.run(15.0)
    meter.faults = ["connection refused"]
    meter.run(40.0)
    lost = meter.between(nanoseconds(10.0), nanoseconds(35.0))[NAME].amount
    assert isinstance(lost, Unavailable)
    assert "connection refused" in lost.reason
    now = meter.read().joules[NAME]
    assert isinstance(now, Unavailable)
    assert "connection refused" in now.reason
    meter.faults = []
    meter.run(45.0)
    assert isinstance(meter.read().joules[NAME], Cumulative)


def test_a_counter_that_starts_again_is_flagged_and_never_negative() -> None:
    scope = Scope(method=Method.COUNTER, gain=0.0, max_power_w=150.0)
    what = Polled(scope=scope, counts=True, update_s=1.0)
    meter = Simulated(FakeClock(), random.Random(1), Source(constant(100.0), random.Random(2), 0.0, 0.0), what, 1.0)
    meter.open(MeterContext())
    meter.run(20.0)
    offset_j = meter.source.load.energy_j(0.0, meter.clock.s)
    meter.source.shown = lambda now_s: Shown(100.0 * now_s - offset_j)  # type: ignore[method-assign]
    meter.run(45.0)
    found = meter.between(nanoseconds(10.0), nanoseconds(40.0))[NAME]
    assert isinstance(found.amount, Amount)
    assert "counter reset" in found.flags
    assert found.amount.low is not None
    assert found.amount.high is not None
    assert found.amount.low <= 3000.0 <= found.amount.high


@pytest.mark.parametrize("max_w", [None, 200.0])
@pytest.mark.parametrize("wrong", ["below 0", "no number", "fell", "rose", "began again"])
def test_a_wrong_reading_beside_an_edge_does_not_take_the_truth_out_of_the_bound(
    wrong: str, max_w: float | None
) -> None:
    """100 W counted every second, at 10 s wrongly: every window around it holds what was drawn."""
    if wrong == "rose" and max_w is None:
        pytest.skip("without a limit nothing tells a great reading from a true one")
    scope = Scope(method=Method.COUNTER, gain=0.0, max_power_w=max_w)
    clock = FakeClock(0)
    shown = {at: 1000.0 + 100.0 * at for at in range(31)}
    if wrong == "began again":
        shown |= {at: 100.0 * (at - 9.5) for at in range(10, 31)}
    else:
        shown[10] = {"below 0": -1.0, "no number": float("nan"), "fell": 3.0, "rose": 1e9}[wrong]

    class Wrong(PolledMeter):
        def find(self, context: MeterContext) -> Mapping[str, Polled]:
            return {NAME: Polled(scope=scope, counts=True, update_s=1.0)}

        def ask(self) -> Mapping[str, Shown]:
            return {NAME: Shown(shown[round(clock.s)])}

    meter = Wrong(1.0, clock=clock, threaded=False)
    meter.open(MeterContext())
    for _ in range(30):
        clock.advance(1.0)
        meter.poll()
    for opened_ms, closed_ms in itertools.product(range(2000, 13000, 250), range(8000, 27000, 250)):
        if closed_ms < opened_ms + 4000:
            continue
        found = meter.between(nanoseconds(opened_ms / 1000), nanoseconds(closed_ms / 1000))[NAME].amount
        if isinstance(found, Amount):
            assert found.low is not None
            assert found.high is not None
            truth_j = (closed_ms - opened_ms) / 10
            assert found.low - 1e-6 <= truth_j <= found.high + 1e-6, (opened_ms, closed_ms)
    assert isinstance(meter.between(nanoseconds(2.0), nanoseconds(26.0))[NAME].amount, Amount)


def test_a_counter_that_stands_still_is_not_0_j() -> None:
    samples = [Sample(at * 10**9, at * 10**9, Cumulative(5.0)) for at in range(20)]
    what = Polled(scope=Scope(method=Method.COUNTER, gain=0.01), counts=True, update_s=1.0)
    found = counted_between(what, samples, 5 * 10**9, 15 * 10**9).amount
    assert isinstance(found, Unavailable)
    assert "did not move" in found.reason


def gauge(clock: FakeClock, watts: float, limit_w: float | None) -> Simulated:
    scope = Scope(method=Method.WALL, gain=0.02, offset_w=0.5, sensor=GAUGE, max_power_w=limit_w)
    what = Polled(scope=scope, counts=False, update_s=1.0)
    rng = random.Random(3)
    meter = Simulated(clock, rng, Source(constant(0.0), rng, 0.0, 0.0), what, 0.5)
    meter.source.shown = lambda now_s: Shown(watts)  # type: ignore[method-assign]
    return meter


def test_watts_are_integrated_by_their_sensor() -> None:
    meter = gauge(FakeClock(), 120.0, 500.0)
    meter.open(MeterContext())
    meter.run(40.0)
    found = meter.between(nanoseconds(5.0), nanoseconds(35.0))[NAME].amount
    assert isinstance(found, Amount)
    assert found.composition == {Method.WALL: pytest.approx(3600.0)}
    assert found.low == pytest.approx(3600.0 * 0.98 - 15.0, rel=0.01)


def test_watts_that_are_shown_late_are_bounded_by_how_late_they_may_be() -> None:
    """50 W, 350 W from 20 s on, shown 3 s later: a window that closes between holds both."""
    scope = Scope(method=Method.WALL, gain=0.0, sensor=PowerSensor(update_s=1.0, window_s=0.0, gain=0.0, offset_w=0.0))
    rng, clock = random.Random(4), FakeClock()
    what = Polled(scope=scope, counts=False, update_s=1.0, late_s=3.0)
    meter = Simulated(clock, rng, Source(constant(0.0), rng, 0.0, 0.0), what, 0.5)
    meter.source.shown = lambda now_s: Shown(50.0 if now_s < 23.0 else 350.0)  # type: ignore[method-assign]
    meter.open(MeterContext())
    meter.run(40.0)
    found = meter.between(nanoseconds(10.0), nanoseconds(22.0))[NAME].amount
    assert isinstance(found, Amount)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 10 * 50.0 + 2 * 350.0 <= found.high


def test_milliwatts_taken_for_watts_are_refused_where_the_limit_is_known() -> None:
    opened = gauge(FakeClock(), 120_000.0, 500.0).open(MeterContext())
    assert isinstance(opened, Mapping)
    refused = opened[NAME]
    assert isinstance(refused, Unavailable)
    assert "unit" in refused.reason


def test_watts_taken_for_kilowatts_are_flagged_where_the_limit_is_known() -> None:
    meter = gauge(FakeClock(), 0.12, 500.0)
    meter.open(MeterContext())
    meter.run(40.0)
    assert UNIT in meter.between(nanoseconds(5.0), nanoseconds(35.0))[NAME].flags


def test_counters_in_the_wrong_unit_are_no_joules() -> None:
    meter, _ = simulated("unit", "constant", 0.0, 1.0, max_w=0.5)  # counts watts, its limit is in kilowatts
    meter.open(MeterContext())
    meter.run(40.0)
    found = meter.between(nanoseconds(5.0), nanoseconds(35.0))[NAME]
    assert isinstance(found.amount, Unavailable)
    assert "implausible readings" in found.flags


class Hanging(PolledMeter):
    """Its source answers once, and never again."""

    def __init__(self) -> None:
        super().__init__(0.01)
        self.asked = itertools.count()
        self.hangs = threading.Event()
        self.release = threading.Event()

    def find(self, context: MeterContext) -> Mapping[str, Polled | Unavailable]:
        return {NAME: Polled(scope=Scope(method=Method.COUNTER), counts=True, update_s=0.1)}

    def ask(self) -> Mapping[str, Shown | Unavailable]:
        if next(self.asked):
            self.hangs.set()
            self.release.wait(30.0)
        return {NAME: Shown(5.0)}


def test_an_edge_never_waits_for_a_source_that_hangs() -> None:
    meter = Hanging()
    meter.open(MeterContext())
    assert meter.hangs.wait(10.0)
    read: list[Snapshot] = []
    reader = threading.Thread(target=lambda: read.append(meter.read()))
    reader.start()
    reader.join(10.0)  # the source is let go only afterwards
    assert read
    assert read[0].joules[NAME] == Cumulative(0.0)
    meter.release.set()
    meter.close()


def test_a_polled_meter_keeps_the_contract() -> None:
    meter, _ = simulated("contract", "square", 1.0, 0.1, gain=0.01, max_w=500.0)
    check_meter(meter, MeterContext(), between=lambda: meter.run(meter.clock.s + 2.0))


def test_the_thread_polls_by_itself() -> None:
    meter, _ = simulated("thread", "constant", 0.0, 0.001)
    meter._threaded = True
    meter.open(MeterContext())
    until(lambda: meter.facts()["polls"] >= 5, what="five polls")  # type: ignore[operator]
    meter.close()
