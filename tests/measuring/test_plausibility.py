"""What no device can have drawn, shown by a meter that knows nothing of limits: it is bounded, flagged, and fails."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from harness.measuring import meters as energy
from harness.measuring.channel import Channel
from harness.measuring.edges import AT_LEAST, EdgeReading, span_energy
from harness.measuring.meters import Meters
from harness.measuring.plausibility import ABOVE_LIMIT, IMPLAUSIBLE, conditions, judged
from harness.meter import Meter
from harness.quantity import Amount, Method, Unavailable
from harness.records.record import Reading, Span
from harness.sample import Cumulative, Scope, Snapshot
from harness.testing import FakeClock

NAME = "n0/gpu:X"
LIMIT_W, BUSY_W = 500.0, 400.0
SCOPE = Scope(method=Method.COUNTER, tick_s=0.1, gain=0.05, max_power_w=LIMIT_W)


class Stranger(Meter):
    """Plain cumulative floats of a counter of 10 Hz, as `shown(truth, tick)` changes them."""

    def __init__(self, clock, watts=lambda _t: BUSY_W):
        self.clock, self.watts = clock, watts
        self.ticks, self.truth_j = 0, 0.0
        self.shown = lambda truth_j, _tick: truth_j

    def advance(self):
        """One update period."""
        self.truth_j += self.watts(self.ticks) * 0.1
        self.ticks += 1
        self.clock.advance(0.1)

    def open(self, context):
        return {NAME: SCOPE}

    def read(self):
        return Snapshot(self.clock(), {NAME: self.shown(self.truth_j, self.ticks)}, 0)

    def close(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(energy, "now_ns", clock)
    return clock


def window(meter, seconds=30, *, scope=SCOPE, sampled=True):
    """A window between two ticks, sampled once a tick, after two seconds of samples."""
    channel = Channel("stranger", True, meter, {NAME: scope})
    meters = Meters([channel])

    def go(ticks):
        for _ in range(ticks):
            meter.advance()
            if sampled:
                channel.follow(channel.read())

    go(20)
    opened, begun_j = meters.opening(align=False), meter.truth_j
    go(round(seconds * 10))
    (reading,) = meters.energies(opened, meters.closing(align=False))
    return reading, meter.truth_j - begun_j


FAULTS = {
    "falls and returns": lambda j, i: 100.0 if i == 150 else j,
    "one sample of 65,535 J": lambda j, i: 65_535.0 if i == 150 else j,
    "zero for a second": lambda j, i: 0.0 if 150 <= i < 160 else j,
    "jumps by 8,114 J": lambda j, i: j + 8114.0 * (i >= 150),
    "jumps by a million": lambda j, i: j + 1e6 * (i >= 150),
    "jumps at the opening edge": lambda j, i: j + 1e5 * (i >= 20),
    "jumps after the opening edge": lambda j, i: j + 1e5 * (i > 20),
    "jumps at the closing edge": lambda j, i: j + 1e5 * (i >= 320),
    "was reset": lambda j, i: j - 3000 * (i >= 150) if j > 4000 else j,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_strangers_fault_is_flagged_and_the_truth_lies_in_the_bound(clock, fault):
    meter = Stranger(clock)
    meter.shown = FAULTS[fault]
    reading, true_j = window(meter)
    assert isinstance(reading.value, Amount)
    assert reading.value.low <= true_j <= reading.value.high
    assert reading.value.value == pytest.approx(true_j, rel=0.01)
    assert (IMPLAUSIBLE in reading.flags) is (fault != "jumps at the opening edge")


def test_a_bad_sample_at_an_edge_does_not_become_energy(clock):
    for bad_tick in (20, 320):
        meter = Stranger(clock)
        meter.shown = lambda j, i, bad=bad_tick: 1_012_000.0 if i == bad else j
        reading, true_j = window(meter)
        if isinstance(reading.value, Amount):
            assert reading.value.low <= true_j <= reading.value.high
        else:
            assert "went backwards" in reading.flags


def test_a_jump_between_two_edges_that_nothing_sampled_is_no_reading(clock):
    meter = Stranger(clock)
    meter.shown = lambda j, i: j + 1e6 * (i >= 150)
    reading, _ = window(meter, sampled=False)
    assert isinstance(reading.value, Unavailable)
    assert {IMPLAUSIBLE, ABOVE_LIMIT} <= set(reading.flags)


@pytest.mark.parametrize("seconds", [0.5, 1, 30])
def test_within_the_limit_nothing_is_flagged(clock, seconds):
    generator = random.Random(5)
    for _ in range(100):
        meter = Stranger(clock, lambda _t: generator.uniform(0, LIMIT_W))
        reading, true_j = window(meter, seconds)
        assert reading.flags == ("not aligned",)
        assert reading.value.value == pytest.approx(true_j)


def test_a_second_beyond_the_limit_is_power_and_a_window_beyond_it_is_not(clock):
    burst = Stranger(clock, lambda t: 1.26 * LIMIT_W if 150 <= t < 160 else BUSY_W)
    reading, true_j = window(burst)
    assert reading.value.value == pytest.approx(true_j)
    assert reading.flags == ("not aligned",)
    reading, _ = window(Stranger(clock, lambda _t: 1.26 * LIMIT_W))
    assert ABOVE_LIMIT in reading.flags


@pytest.mark.parametrize(
    ("gain", "offset_w", "mean_w", "flagged"),
    [(0.05, 0, 520, False), (0.05, 0, 530, True), (0.05, 25, 530, False), (None, 0, 495, False), (None, 0, 505, True)],
)
def test_the_limit_of_a_mean_has_the_sensors_gain_and_offset(gain, offset_w, mean_w, flagged):
    scope = Scope(method=Method.INTEGRATED, gain=gain, max_power_w=LIMIT_W, offset_w=offset_w)
    first = EdgeReading(0, 0, Cumulative(0.0), (), None)
    last = EdgeReading(30 * 10**9, 30 * 10**9, Cumulative(30.0 * mean_w, gap_s=0.1), (), None)
    assert (ABOVE_LIMIT in span_energy(scope, first, last)[2]) is flagged


def test_a_meter_that_has_judged_its_readings_is_not_judged_again(clock):
    meter = Stranger(clock)
    meter.shown = lambda j, i: Cumulative(j + 1000 * (i >= 150), over_j=1000.0 * (i >= 150), dropped=1)
    reading, true_j = window(meter)
    assert reading.value.value == pytest.approx(true_j + 1000)
    assert IMPLAUSIBLE not in reading.flags


@pytest.mark.parametrize("when", ["closes", "opens"])
def test_a_counter_stuck_at_an_edge_widens_the_bound_by_what_it_hides(clock, when):
    meter = Stranger(clock)
    stuck = range(305, 321) if when == "closes" else range(5, 21)
    meter.shown = lambda j, i: j if i not in stuck else stuck.start * BUSY_W / 10
    reading, true_j = window(meter)
    assert reading.value.low <= true_j <= reading.value.high


def reading_of(window=0, *, primary=True, flags=(ABOVE_LIMIT,), span="window"):
    value = Amount.of(1.0, "J", Method.COUNTER)
    return Reading(span=span, window=window, meter="m", scope=NAME, primary=primary, value=value, flags=flags)


def test_a_window_above_the_limit_fails_the_trial_where_its_meter_counts():
    spans = [Span(name="window", window=i, start_ns=10 * i, end_ns=10 * i + 5, start_utc_s=0) for i in range(3)]
    scopes = {("m", NAME): SCOPE}
    (seen,) = conditions([reading_of(1), reading_of(2), reading_of(0, flags=())], spans, scopes)
    assert (seen.kind, seen.scope, seen.fails, seen.count, seen.first_ns) == ("power_above_limit", NAME, True, 2, 10)
    assert "500 W" in seen.detail
    (seen,) = conditions([reading_of(primary=False)], spans, scopes)
    assert not seen.fails
    assert conditions([reading_of(span="steady"), reading_of(flags=("not aligned",))], spans, scopes) == []


@pytest.mark.parametrize("rate_w", [500.0, 50.0])
def test_a_reset_loses_neither_what_was_before_it_nor_what_comes_after(clock, rate_w):
    meter = Stranger(clock, lambda _t: rate_w)
    meter.shown = lambda j, i: j if i < 140 else (i - 139) * rate_w / 10  # 10 s after the opening edge it begins again
    reading, true_j = window(meter, 15, scope=replace(SCOPE, max_power_w=None))
    assert isinstance(reading.value, Amount)
    assert "counter reset" in reading.flags
    assert reading.value.value == pytest.approx(true_j, rel=0.02)
    assert reading.value.value >= 14.9 * rate_w


def test_five_thousand_joules_before_and_half_of_it_after_are_at_least_their_sum():
    def read(joules, at_s, track=None):
        return EdgeReading(at_s * 10**9, at_s * 10**9, Cumulative(joules), (100.0,), None, track=track)

    for scope in (Scope(method=Method.COUNTER, gain=0.0), Scope(method=Method.COUNTER, gain=0.0, max_power_w=700.0)):
        before = judged(None, scope, 0, Cumulative(0.0))
        opening = read(0.0, 0, before)
        sampled = judged(before, scope, 10 * 10**9, Cumulative(5000.0))
        value, coverage, flags = span_energy(scope, opening, read(2500.0, 20, sampled))
        assert isinstance(value, Amount)
        assert (value.value, value.low, value.high) == (7500.0, 7500.0, None)
        assert coverage == pytest.approx(0.5)
        assert {"counter reset", AT_LEAST} <= set(flags)
