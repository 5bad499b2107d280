"""The measured energy lies within its own bound: 1,000 windows of random phase on an accelerator with a known truth."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import pytest

from harness.backend import Device
from harness.builtin.simulated import SimulatedAccelerator, SimulatedMeter, attach, detach
from harness.measuring import alignment
from harness.measuring import meters as energy
from harness.measuring.channel import Channel
from harness.measuring.edges import EdgeReading, span_energy
from harness.measuring.meters import Meters
from harness.meter import Meter, MeterContext
from harness.quantity import Amount, Method, Unavailable, Value
from harness.sample import TOO_LITTLE, Cumulative, Scope, Snapshot

SCOPE = "n0/gpu:SIM-0"
TICK_S = 0.1


class Clock:
    """A clock that moves when somebody sleeps, and a little at each look."""

    def __init__(self) -> None:
        self.ns = 5_000_000_000

    def now_ns(self) -> int:
        self.ns += 2_000
        return self.ns

    def sleep(self, duration_s: float) -> None:
        self.ns += round(duration_s * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Takes the place of the clock and of sleeping in the module that reads meters, and nowhere else."""
    clock = Clock()
    monkeypatch.setattr(energy, "now_ns", clock.now_ns)
    monkeypatch.setattr(energy, "time", SimpleNamespace(sleep=clock.sleep, time=time.time))
    monkeypatch.setattr(alignment, "time", SimpleNamespace(sleep=clock.sleep))
    return clock


@pytest.fixture
def accelerator(clock: Clock) -> Iterator[SimulatedAccelerator]:
    made = SimulatedAccelerator(tick_s=TICK_S, clock=clock.now_ns)
    attach(made)
    yield made
    detach(made.uuid)


def bank(accelerator: SimulatedAccelerator) -> Meters:
    attach(accelerator)
    meter = SimulatedMeter()
    opened = meter.open(MeterContext(devices=(Device(kind="gpu", uuid=accelerator.uuid, name="simulated"),)))
    assert not isinstance(opened, Unavailable)
    return Meters([Channel("simulated", True, meter, {name: s for name, s in opened.items() if isinstance(s, Scope)})])


def window(
    clock: Clock, generator: random.Random, *, align: bool, varying: bool = False, gain_error: float = 0.0
) -> tuple[Value, float, float]:
    """One window of 1 to 3 s at a random phase; returns the reading, the truth in J and the length in s."""
    accelerator = SimulatedAccelerator(
        tick_s=TICK_S, gain_error=gain_error, clock=clock.now_ns, phase_s=generator.uniform(0.0, TICK_S)
    )
    meters = bank(accelerator)
    for _ in range(3):  # samples before the window, as the sampling thread takes them
        clock.sleep(TICK_S)
        meters.channels[0].follow(meters.channels[0].read())
    opened = meters.opening(align=align)
    began = clock.ns
    end = began + round(generator.uniform(1.0, 3.0) * 1e9)
    accelerator.busy()
    while clock.ns < end:
        if varying:
            generator.choice([accelerator.busy, accelerator.idle])()
        clock.sleep(min(generator.uniform(0.05, 0.4) if varying else TICK_S, (end - clock.ns) * 1e-9))
        meters.channels[0].follow(meters.channels[0].read())
    closing_ns = clock.ns
    closed = meters.closing(align=align)
    expected = accelerator.true_joules(closing_ns) - accelerator.true_joules(began)
    (reading,) = meters.energies(opened, closed)
    return reading.value, expected, (closing_ns - began) * 1e-9


@pytest.mark.parametrize("varying", [False, True], ids=["constant", "varying"])
@pytest.mark.parametrize("align", [True, False], ids=["aligned", "not aligned"])
def test_the_truth_lies_within_the_bound_whose_width_is_small(clock: Clock, *, align: bool, varying: bool) -> None:
    generator = random.Random(7)
    held = 0
    for _ in range(1000):
        value, expected, seconds = window(clock, generator, align=align, varying=varying)
        assert isinstance(value, Amount)
        assert value.low is not None
        assert value.high is not None
        held += value.low <= expected <= value.high
        if not varying:
            assert (value.high - value.low) / expected <= 2.2 * TICK_S / seconds
    assert held >= 950


@pytest.mark.parametrize("gain_error", [-0.05, 0.03, 0.05])
def test_with_a_known_gain_the_truth_lies_within_the_bound_that_includes_it(clock: Clock, gain_error: float) -> None:
    generator = random.Random(11)
    held = 0
    for _ in range(300):
        value, expected, _ = window(clock, generator, align=True, gain_error=gain_error)
        assert isinstance(value, Amount)
        held += (value.low or 0) <= expected <= (value.high or 0)
    assert held >= 285


def test_alignment_makes_the_value_better_than_the_naive_difference(clock: Clock) -> None:
    generator = random.Random(3)

    def error(*, align: bool) -> float:
        errors = []
        for _ in range(200):
            value, expected, _ = window(clock, generator, align=align)
            assert isinstance(value, Amount)
            errors.append(abs(value.value - expected) / expected)
        return sum(errors) / len(errors)

    assert error(align=True) < error(align=False) / 3


@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_device_that_goes_away_is_unavailable_and_never_zero(
    clock: Clock, accelerator: SimulatedAccelerator, when: str
) -> None:
    meters = bank(accelerator)
    if when == "before":
        accelerator.gone_at(clock.now_ns())
    opened = meters.opening(align=True)
    clock.sleep(1.0)
    accelerator.gone_at(clock.now_ns())
    clock.sleep(1.0)
    (value,) = (reading.value for reading in meters.energies(opened, meters.closing(align=True)))
    assert isinstance(value, Unavailable)
    assert "is gone" in value.reason


def test_a_meter_that_raises_is_unavailable_with_its_words(
    clock: Clock, accelerator: SimulatedAccelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    meters = bank(accelerator)
    opened = meters.opening(align=True)
    clock.sleep(2.0)
    monkeypatch.setattr(meters.channels[0].meter, "read", lambda: {}["no such field"])
    (value,) = (reading.value for reading in meters.energies(opened, meters.closing(align=True)))
    assert isinstance(value, Unavailable)
    assert "KeyError" in value.reason


class Register(Meter):
    """A register that shows what the test sets."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.joules = 42.0

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable]:
        return {SCOPE: Scope(method=Method.COUNTER, tick_s=TICK_S, gain=0.0)}

    def read(self) -> Snapshot:
        return Snapshot(self.clock.now_ns(), {SCOPE: self.joules}, 2_000)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("last", "reason", "flag"), [(42.0, "did not move", "no tick"), (41.0, "went back", "went backwards")]
)
def test_a_counter_that_stands_still_or_goes_back_is_never_an_energy(
    clock: Clock, last: float, reason: str, flag: str
) -> None:
    meter = Register(clock)
    meters = Meters([Channel("register", True, meter, {SCOPE: Scope(method=Method.COUNTER, tick_s=TICK_S, gain=0.0)})])
    opened = meters.opening(align=True)
    clock.sleep(1.0)
    meter.joules = last
    (reading,) = meters.energies(opened, meters.closing(align=True))
    assert isinstance(reading.value, Unavailable)
    assert reason in reading.value.reason
    assert reading.flags == (flag,)


def test_gaps_lower_the_coverage_until_there_is_no_reading() -> None:
    scope = Scope(method=Method.INTEGRATED, gain=0.0)

    def reading(gap_s: float) -> tuple[Value, float | None, tuple[str, ...]]:
        first = EdgeReading(0, 0, Cumulative(0.0), (100.0,), None)
        last = EdgeReading(10**10, 10**10, Cumulative(1000.0, 30.0, 50.0, gap_s=gap_s), (100.0,), None)
        return span_energy(scope, first, last)

    value, coverage, flags = reading(1.0)
    assert isinstance(value, Amount)
    assert coverage == pytest.approx(0.9)
    assert "low coverage" in flags
    assert (value.low, value.high) == (970.0, 1050.0)
    value, _, _ = reading(2.5)
    assert isinstance(value, Unavailable)


def test_joules_of_another_method_count_from_their_first_reading() -> None:
    scope = Scope(method=Method.COUNTER)
    first = EdgeReading(0, 0, Cumulative(0.0), (100.0,), None)
    last = EdgeReading(10**10, 10**10, Cumulative(1000.0, other_j={Method.ESTIMATED: 250.0}), (100.0,), None)
    value, _, _ = span_energy(scope, first, last)
    assert isinstance(value, Amount)
    assert value.composition == {Method.COUNTER: 750.0, Method.ESTIMATED: 250.0}


@pytest.mark.parametrize(
    ("method", "seconds", "small"),
    [(Method.COUNTER, 0.15, True), (Method.COUNTER, 60.0, False), (Method.ESTIMATED, 60.0, True)],
    ids=["short", "stuck", "a model of work that rested"],
)
def test_less_than_a_counter_shows_is_told_from_a_stuck_one(method: Method, seconds: float, small: bool) -> None:
    scope = Scope(method=method, tick_s=0.1, gain=0.0)
    closed_ns = round(seconds * 1e9)
    opened = EdgeReading(0, 0, Cumulative(5.0), (), None)
    value, _, _ = span_energy(scope, opened, EdgeReading(closed_ns, closed_ns, Cumulative(5.0), (), None))
    assert isinstance(value, Unavailable)
    assert (TOO_LITTLE in value.reason) is small
