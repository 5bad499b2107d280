"""The stretches of a meter's self-test: how a counter follows a load whose pattern is known.

Square waves with a duty of 50 % at several periods and phases, a step, a loaded and an idle stretch. A counter that
sees only part of the time reads a wave in step with it too high or too low, depending on the phase (arXiv 2312.02741).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from harness.backend import Load
from harness.errors import MeasurementError
from harness.machine.meter_card import Wave
from harness.meter import Meter
from harness.quantity import Unavailable
from harness.sample import Cumulative
from harness.units import nanoseconds, seconds

POLLS_PER_TICK: Final = 20
"""Edges of the counter are found to within a twentieth of the expected tick."""
LOADED_TICKS: Final = 50
IDLE_TICKS: Final = 30
STEP_TICKS: Final = 20
SETTLE_TICKS: Final = 15
WAVE_TICKS: Final = 20
PATIENCE: Final = 20
"""A counter that has not moved for so many expected ticks under load is taken for dead."""
WAVES: Final = ((1, 4), (2, 4), (5, 3), (20, 2))
"""Multiples of the expected tick, and phases of each."""
EXACT_PHASES: Final = 8
"""Phases of the wave whose period is exactly the measured tick."""
SEES_ALL: Final = 0.9
"""Below this sampled fraction a reading of periodic work may be aliased."""
LEAST_SWING: Final = 0.05
"""A load that changes the power by less shows nothing about how the counter follows it."""
SWITCHES_PER_PERIOD: Final = 10
"""A wave whose period is shorter than so many switches of the load is no square wave."""


class Sample(NamedTuple):
    """One poll: time, joules of the meter, and power where it gives its power readings."""

    ns: int
    joules: float
    watts: float | None


class Bench:
    """Polls one scope of a meter while it switches the load by a plan."""

    def __init__(
        self, meter: Meter, scope: str, load: Load, clock: Callable[[], int], sleep: Callable[[float], object]
    ) -> None:
        self.meter, self.scope, self.load = meter, scope, load
        self.clock, self.sleep = clock, sleep
        self.costs: list[float] = []
        self.gaps: list[float] = []
        self.increments: list[float] = []
        self.failed = 0
        self.last_failure = ""
        self.switches: list[tuple[int, bool]] = []

    def switch(self, *, busy: bool) -> None:
        """Turns the load on or off, and remembers when."""
        self.switches.append((self.clock(), busy))
        (self.load.busy if busy else self.load.idle)()

    def read(self) -> Sample | None:
        """Reads the scope once; None, counted, for a read that failed."""
        before = self.clock()
        snapshot = self.meter.read()
        self.costs.append(seconds(self.clock() - before))
        value = snapshot.joules.get(self.scope, Unavailable(f"the meter does not read {self.scope}"))
        if isinstance(value, Unavailable):
            self.failed += 1
            self.last_failure = value.reason
            return None
        joules = value.joules if isinstance(value, Cumulative) else value
        return Sample(snapshot.monotonic_ns, joules, snapshot.watts.get(self.scope))

    def poll(self, duration_s: float, poll_s: float, plan: Sequence[tuple[float, bool]] = ()) -> list[Sample]:
        """Reads every `poll_s`; switches the load at the planned seconds from now."""
        start = self.clock()
        end = start + nanoseconds(duration_s)
        due = [(start + nanoseconds(offset), busy) for offset, busy in plan]
        found: list[Sample] = []
        following = start
        while (now := self.clock()) < end:
            if due and now >= due[0][0]:
                self.switch(busy=due.pop(0)[1])
            elif now >= following:
                following = max(following + nanoseconds(poll_s), now)
                self._keep(found, self.read())
            else:
                self.sleep(seconds(min(following, due[0][0] if due else end, end) - now))
        return found

    def _keep(self, found: list[Sample], sample: Sample | None) -> None:
        if sample is None:
            return
        if found:
            self.gaps.append(seconds(sample.ns - found[-1].ns))
            grown = sample.joules - found[-1].joules
            if grown < 0:
                raise MeasurementError(f"{self.scope}: cumulative joules went backwards during the self-test")
            if grown > 0:
                self.increments.append(grown)
        found.append(sample)

    def wait_update(self, poll_s: float, patience_s: float) -> Sample:
        """Polls until the counter changes; raises MeasurementError if it does not."""
        start = self.clock()
        last = self.read()
        while seconds(self.clock() - start) < patience_s:
            self.sleep(poll_s)
            sample = self.read()
            if sample is not None and last is not None and sample.joules != last.joules:
                return sample
            last = sample or last
        why = self.last_failure if last is None else "it did not move"
        raise MeasurementError(f"{self.scope}: no update of the counter in {patience_s:g} s: {why}")

    def busy_s(self, begin: int, end: int) -> float:
        """Seconds of load between two moments, by the switches made."""
        total, state, since = 0, False, begin
        for moment, busy in self.switches:
            if moment >= end:
                break
            if moment > since:
                total += (moment - since) * state
                since = moment
            state = busy
        return seconds(total + (end - since) * state)


def edges(samples: Sequence[Sample], least_s: float = 0.0) -> list[Sample]:
    """The samples at which the counter had just changed, at least `least_s` apart."""
    found: list[Sample] = []
    for before, sample in pairwise(samples):
        if sample.joules != before.joules and (not found or seconds(sample.ns - found[-1].ns) >= least_s):
            found.append(sample)
    return found


def watts(first: Sample, last: Sample) -> float:
    """Mean power between two samples."""
    return (last.joules - first.joules) / seconds(last.ns - first.ns)


def period_of(changes: Sequence[Sample]) -> tuple[float, float]:
    """Mean update period and its standard deviation; an interval of several periods (no increase seen) is divided."""
    gaps = [seconds(after.ns - before.ns) for before, after in pairwise(changes)]
    typical = statistics.median(gaps)
    counts = [max(1, round(gap / typical)) for gap in gaps]
    each = [gap / count for gap, count in zip(gaps, counts, strict=True)]
    return math.fsum(gaps) / sum(counts), statistics.pstdev(each)


def fraction_of(deviations: Sequence[float]) -> float:
    """The sampled fraction f from the deviations at evenly spaced phases of a wave in step with the counter.

    A sensor that averages the last f of each period turns the square wave (0 and 1, duty one half) into a trapezoid
    over the phase. Its variance is 1/4 - f/3 for f <= 1/2, and with g = 1 - f, (g/f)^2 (1/4 - g/3) above: it falls from
    1/4 to 0, so f follows by bisection.
    """

    def variance(f: float) -> float:
        return 0.25 - f / 3 if f <= 0.5 else ((1 - f) / f) ** 2 * (0.25 - (1 - f) / 3)

    seen = math.fsum(deviation**2 for deviation in deviations) / len(deviations)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if variance(middle) > seen else (low, middle)
    return (low + high) / 2


class SelfTest:
    """The stretches of the test, in order; each uses what those before it found."""

    def __init__(self, bench: Bench, expected_tick_s: float) -> None:
        self.bench = bench
        self.expected_s = expected_tick_s
        self.poll_s = expected_tick_s / POLLS_PER_TICK
        self.tick_s = expected_tick_s
        self.settle_s = SETTLE_TICKS * expected_tick_s
        self.found: dict[str, Any] = {}
        self.missing: dict[str, str] = {}
        self.idle_w = self.busy_w = 0.0

    def run(self) -> dict[str, Any]:
        """All stretches; returns fields of the card. The load is idle afterwards, whatever happens."""
        try:
            self._loaded()
            self._idle()
            if self.busy_w - self.idle_w < LEAST_SWING * self.busy_w:
                why = f"the load changed the power from {self.idle_w:.3g} W to {self.busy_w:.3g} W only"
                self.missing |= dict.fromkeys(("lag_s", "rise_s", "averaging_width_s", "sampled_fraction"), why)
            else:
                self._step()
                self._waves()
        finally:
            self.bench.switch(busy=False)
        return self.found

    def _updates(self, duration_s: float) -> list[Sample]:
        samples = self.bench.poll(duration_s, self.poll_s)
        changes = edges(samples)
        if len(changes) < 3:
            why = self.bench.last_failure if len(samples) < 3 else f"{len(changes)} updates in {duration_s:.3g} s"
            raise MeasurementError(f"{self.bench.scope}: the counter cannot be tested: {why}")
        self.dense = len(changes) > 0.8 * len(samples)
        return changes

    def _loaded(self) -> None:
        bench = self.bench
        bench.switch(busy=True)
        bench.poll(self.settle_s, self.poll_s)
        bench.wait_update(self.poll_s, PATIENCE * self.expected_s)
        changes = self._updates(LOADED_TICKS * self.expected_s)
        first, last = changes[0], changes[-1]
        self.busy_w = watts(first, last)
        period, jitter = period_of(changes)
        if self.dense:
            why = f"the counter is renewed at every poll, that is at least every {period:.3g} s"
            self.missing |= {"update_period_s": why, "jitter_s": why}
        else:
            self.tick_s = period
        self.found |= {
            "update_period_s": None if self.dense else period,
            "jitter_s": None if self.dense else jitter,
            "busy_w": self.busy_w,
        }

    def _idle(self) -> None:
        """Two reads at updates, with nothing between: polling can keep a device out of its low-power state."""
        bench = self.bench
        bench.switch(busy=False)
        bench.sleep(self.settle_s)
        try:
            first = bench.wait_update(self.poll_s, PATIENCE * self.tick_s)
            bench.sleep(IDLE_TICKS * self.tick_s)
            last = bench.wait_update(self.poll_s, PATIENCE * self.tick_s)
        except MeasurementError:
            if bench.read() is None:
                raise
            self.missing["idle_w"] = "the counter does not move without load: 0 W, or less than it resolves"
        else:
            self.idle_w = watts(first, last)
        self.found["idle_w"] = None if "idle_w" in self.missing else self.idle_w

    def _step(self) -> None:
        """The energy that a step lacks, over the step's power, is the mean delay; from idle, at an update."""
        bench = self.bench
        first = self._align()
        bench.switch(busy=True)
        changes = [first, *edges(bench.poll(STEP_TICKS * self.tick_s, self.poll_s), self.expected_s / 2)]
        bench.switch(busy=False)
        last = changes[-1]
        swing = self.busy_w - self.idle_w
        lag = max(0.0, (self.busy_w * seconds(last.ns - first.ns) - (last.joules - first.joules)) / swing)
        # A mean over the width a, renewed every tick, lags by (a - tick) / 2: an exact counter has a = tick.
        self.found |= {"lag_s": lag, "averaging_width_s": 2 * lag + (0.0 if self.dense else self.tick_s)}
        self.settle_s = max(SETTLE_TICKS * self.tick_s, 4 * lag)
        levels = [(after.ns, (watts(before, after) - self.idle_w) / swing) for before, after in pairwise(changes)]
        tenth = next((moment for moment, level in levels if level >= 0.1), None)
        ninety = next((moment for moment, level in levels if level >= 0.9), None)
        if tenth is None or ninety is None:
            self.missing["rise_s"] = f"the step was not over within {STEP_TICKS} updates"
        else:
            self.found["rise_s"] = seconds(ninety - tenth)

    def _align(self) -> Sample:
        """Waits until the load's past is forgotten, then for an update, if the counter moves while idle."""
        bench = self.bench
        bench.sleep(self.settle_s)
        if "idle_w" not in self.missing:
            return bench.wait_update(self.poll_s, PATIENCE * self.tick_s)
        sample = bench.read()
        if sample is None:
            raise MeasurementError(f"{bench.scope}: {bench.last_failure}")
        return sample

    def _waves(self) -> None:
        fastest_s = SWITCHES_PER_PERIOD * self.bench.load.switch_s
        waves = []
        for multiple, phases in WAVES:
            period_s = multiple * self.expected_s
            if period_s >= fastest_s:
                waves.append(self._wave(period_s, phases))
            else:
                self.missing[f"wave of {multiple} ticks"] = f"the load does not switch in {period_s / 2:.3g} s"
        if self.dense:
            self.missing["sampled_fraction"] = "the counter shows no update period to be in step with"
        elif self.tick_s < fastest_s:
            self.missing["sampled_fraction"] = f"the load does not switch in half an update, {self.tick_s / 2:.3g} s"
        else:
            exact = self._wave(self.tick_s, EXACT_PHASES)
            waves.append(exact)
            self.found["sampled_fraction"] = fraction_of(exact.deviations)
            if self.found["sampled_fraction"] < SEES_ALL:
                self.found["flags"] = ("aliasing possible",)
        self.found["waves"] = tuple(waves)

    def _wave(self, period_s: float, phases: int) -> Wave:
        return Wave(
            period_s=period_s, deviations=tuple(self._follow(period_s, phase / phases) for phase in range(phases))
        )

    def _follow(self, period_s: float, phase: float) -> float:
        """Measured minus true share of busy time, between updates, once the wave has settled."""
        bench = self.bench
        self._align()
        settle_s = max(5 * self.tick_s, 4 * self.found["lag_s"], period_s)
        length_s = settle_s + max(WAVE_TICKS * self.tick_s, 4 * period_s) + 2 * self.tick_s
        cycles = math.ceil(length_s / period_s)
        begun = [(phase + cycle) * period_s for cycle in range(cycles)]
        plan = [switch for moment in begun for switch in ((moment, True), (moment + period_s / 2, False))]
        start = bench.clock()
        samples = bench.poll(length_s, self.poll_s, plan)
        bench.switch(busy=False)
        changes = [edge for edge in edges(samples) if seconds(edge.ns - start) >= settle_s]
        if len(changes) < 2:
            raise MeasurementError(f"{bench.scope}: the counter stood still under a square wave")
        first, last = changes[0], changes[-1]
        measured = (watts(first, last) - self.idle_w) / (self.busy_w - self.idle_w)
        return measured - bench.busy_s(first.ns, last.ns) / seconds(last.ns - first.ns)
