"""The measured energy lies within its own bound: 1,000 windows of random phase on an accelerator with a known truth."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from harness import energy
from harness.energy import Channel, Meters
from harness.meter import Meter, MeterContext
from harness.quantity import Amount, Method, Unavailable, Value
from harness.sample import Cumulative, Scope, Snapshot

SCOPE = "n0/gpu:sim"
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


class Truth:
    """Piecewise constant power, and a counter that shows it only once a tick."""

    def __init__(self, clock: Clock, phase_ns: int, gain_error: float) -> None:
        self.clock = clock
        self.phase_ns = phase_ns
        self.gain_error = gain_error
        self.steps: list[tuple[int, float]] = [(0, 80.0)]

    def power(self, watts: float) -> None:
        self.steps.append((self.clock.ns, watts))

    def joules(self, at_ns: int) -> float:
        ends = [*(start for start, _ in self.steps[1:]), at_ns]
        return sum(
            watts * max(0, min(end, at_ns) - start) * 1e-9
            for (start, watts), end in zip(self.steps, ends, strict=True)
            if start < at_ns
        )

    def counter(self, at_ns: int) -> float:
        tick_ns = round(TICK_S * 1e9)
        last_tick = (at_ns - self.phase_ns) // tick_ns * tick_ns + self.phase_ns
        return self.joules(last_tick) * (1 + self.gain_error)


class CounterMeter(Meter):
    def __init__(self, truth: Truth, gain: float) -> None:
        self.truth = truth
        self.gain = gain
        self.broken: str = ""
        self.frozen: float | None = None

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable]:
        return {SCOPE: Scope(method=Method.SIMULATED, tick_s=TICK_S, gain=self.gain, gain_class="sim")}

    def read(self) -> Snapshot:
        if self.broken == "raises":
            raise RuntimeError("driver gone")
        now = self.truth.clock.now_ns()
        joules: float | Unavailable = self.truth.counter(now) if self.frozen is None else self.frozen
        if self.broken == "unavailable":
            joules = Unavailable("no permission")
        return Snapshot(now, {SCOPE: joules}, 2_000)

    def close(self) -> None: ...


def bank(meter: CounterMeter) -> Meters:
    opened = meter.open(MeterContext())
    return Meters([Channel("counter", True, meter, {name: s for name, s in opened.items() if isinstance(s, Scope)})])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(energy, "now_ns", clock.now_ns)
    monkeypatch.setattr(energy.time, "sleep", clock.sleep)
    return clock


def window(
    clock: Clock, generator: random.Random, meter: CounterMeter, *, align: bool, square: bool = False
) -> tuple[Value, float, float]:
    """One window of 1 to 3 s; returns the reading, the truth in J and the length in s."""
    truth = meter.truth
    meters = bank(meter)
    for _ in range(3):  # samples before the window, as the sampling thread takes them
        clock.sleep(TICK_S)
        meters.channels[0].follow(meters._read(meters.channels[0]))
    opened = meters.opening(align=align)
    began = clock.ns
    end = began + round(generator.uniform(1.0, 3.0) * 1e9)
    while clock.ns < end:
        truth.power(generator.uniform(100, 400) if square else 300.0)
        clock.sleep(min(generator.uniform(0.05, 0.4) if square else 0.1, (end - clock.ns) * 1e-9))
        meters.channels[0].follow(meters._read(meters.channels[0]))
    closing_ns = clock.ns
    closed = meters.closing(align=align)
    expected = truth.joules(closing_ns) - truth.joules(began)
    ((_, _, value, _, _),) = meters.energies(opened, closed)
    return value, expected, (closing_ns - began) * 1e-9


@pytest.mark.parametrize("square", [False, True], ids=["constant", "varying"])
@pytest.mark.parametrize("align", [True, False], ids=["aligned", "not aligned"])
def test_the_truth_lies_within_the_bound_whose_width_is_small(clock: Clock, *, align: bool, square: bool) -> None:
    generator = random.Random(7)
    held = 0
    for _ in range(1000):
        meter = CounterMeter(Truth(clock, generator.randrange(10**8), 0.0), gain=0.0)
        value, expected, seconds = window(clock, generator, meter, align=align, square=square)
        assert isinstance(value, Amount)
        assert value.low is not None
        assert value.high is not None
        held += value.low <= expected <= value.high
        if not square:
            assert (value.high - value.low) / expected <= 2.2 * TICK_S / seconds
    assert held >= 950


@pytest.mark.parametrize("gain_error", [-0.05, 0.03, 0.05])
def test_with_a_known_gain_the_truth_lies_within_the_bound_that_includes_it(clock: Clock, gain_error: float) -> None:
    generator = random.Random(11)
    held = 0
    for _ in range(300):
        meter = CounterMeter(Truth(clock, generator.randrange(10**8), gain_error), gain=0.05)
        value, expected, _ = window(clock, generator, meter, align=True)
        assert isinstance(value, Amount)
        held += (value.low or 0) <= expected <= (value.high or 0)
    assert held >= 285


def test_alignment_makes_the_value_better_than_the_naive_difference(clock: Clock) -> None:
    generator = random.Random(3)

    def error(*, align: bool) -> float:
        errors = []
        for _ in range(200):
            meter = CounterMeter(Truth(clock, generator.randrange(10**8), 0.0), gain=0.0)
            value, expected, _ = window(clock, generator, meter, align=align)
            assert isinstance(value, Amount)
            errors.append(abs(value.value - expected) / expected)
        return sum(errors) / len(errors)

    assert error(align=True) < error(align=False) / 3


@pytest.mark.parametrize("fault", ["raises", "unavailable"])
@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_reading_that_fails_is_unavailable_and_never_zero(clock: Clock, fault: str, when: str) -> None:
    meter = CounterMeter(Truth(clock, 0, 0.0), gain=0.0)
    meters = bank(meter)
    meter.broken = fault if when == "before" else ""
    opened = meters.opening(align=True)
    meter.broken = fault
    clock.sleep(2.0)
    closed = meters.closing(align=True)
    ((_, _, value, _, _),) = meters.energies(opened, closed)
    assert isinstance(value, Unavailable)
    assert ("driver gone" if fault == "raises" else "no permission") in value.reason


def test_a_counter_that_never_ticks_is_unavailable(clock: Clock) -> None:
    meter = CounterMeter(Truth(clock, 0, 0.0), gain=0.0)
    meter.frozen = 42.0
    meters = bank(meter)
    opened = meters.opening(align=True)
    clock.sleep(1.0)
    ((_, _, value, _, flags),) = meters.energies(opened, meters.closing(align=True))
    assert isinstance(value, Unavailable)
    assert "did not move" in value.reason
    assert flags == ("no tick",)


def test_a_counter_that_goes_back_is_never_a_negative_energy(clock: Clock) -> None:
    meter = CounterMeter(Truth(clock, 0, 0.0), gain=0.0)
    meters = bank(meter)
    opened = meters.opening(align=True)
    clock.sleep(1.0)
    meter.frozen = 0.001
    ((_, _, value, _, _),) = meters.energies(opened, meters.closing(align=True))
    assert isinstance(value, Unavailable)
    assert "went back" in value.reason


def test_gaps_lower_the_coverage_until_there_is_no_reading() -> None:
    scope = Scope(method=Method.INTEGRATED, gain=0.0)

    def reading(gap_s: float) -> tuple[Value, float | None, tuple[str, ...]]:
        from harness.edges import Side, span_energy

        first = Side(0, 0, Cumulative(0.0), 100.0, None)
        last = Side(10**10, 10**10, Cumulative(1000.0, 30.0, 50.0, gap_s=gap_s), 100.0, None)
        return span_energy(scope, first, last)

    value, coverage, flags = reading(1.0)
    assert isinstance(value, Amount)
    assert coverage == pytest.approx(0.9)
    assert "low coverage" in flags
    assert (value.low, value.high) == (970.0, 1050.0)
    value, _, _ = reading(2.5)
    assert isinstance(value, Unavailable)
