"""The stretches of a meter's self-test that find what its sensor is: times, and gain and offset by a reference.

A power register is tested by them alone. A counter is taken for what its increments are: power, averaged by its sensor.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from harness.diagnosing.reference import Calibration, Level, Reference, calibration, mean_and_error
from harness.diagnosing.response import SEES_ALL, Fit, Response, irregular, update_period
from harness.diagnosing.self_test import LEAST_SWING, SWITCHES_PER_PERIOD, Bench, Sample, edges
from harness.errors import MeasurementError
from harness.quantity import Unavailable
from harness.sample import Scope
from harness.sensor import PowerSensor
from harness.units import seconds

IRREGULAR_TICKS: Final = 260
IRREGULAR_S: Final = 8.0
"""The irregular load lasts for so many updates, and at least so long: an average over a second is filled some times."""
LEVEL_TICKS: Final = 50
LEVEL_S: Final = 1.0
SETTLE_S: Final = 2.5
"""After so long a register shows nothing of what was before: an average over a second, half a second late, twice."""
FINEST_POLL_S: Final = 1e-3
ASKED: Final = "the true energy of the load is not known; an external meter would tell: `--reference METER`"
_SEED: Final = 20_231_204


@dataclass(frozen=True, slots=True)
class Times:
    """When a register is renewed and what it averages.

    Attributes:
        update_s: update period; the polling's where the register is renewed at every poll.
        jitter_s: of the update period.
        dense: whether the register is renewed at every poll.
        response: how readings follow the load.
    """

    update_s: float
    jitter_s: float
    dense: bool
    response: Response


def times_of(bench: Bench, expected_s: float, poll_s: float, *, counter: bool) -> Times | Unavailable:
    """Switches the load irregularly and finds what explains the readings.

    Args:
        bench: of the meter.
        expected_s: update period, within a factor of about four.
        poll_s: interval of the polling.
        counter: whether joules are followed, and not power readings.
    """
    shortest_s = SWITCHES_PER_PERIOD * bench.load.switch_s
    length_s = max(IRREGULAR_TICKS * expected_s, IRREGULAR_S)
    bench.poll(SETTLE_S, poll_s)
    since = len(bench.switches)
    plan = irregular(random.Random(_SEED), expected_s, length_s, shortest_s)  # noqa: S311 - a pattern, no secret
    samples = bench.poll(length_s, poll_s, plan)
    bench.switch(busy=False)
    changed = _increments(samples) if counter else _renewals(samples)
    if len(changed) < 4:
        return Unavailable(f"the register changed {len(changed)} times in {length_s:.3g} s")
    update_s, jitter_s = update_period([moment for moment, _ in changed])
    pace_s = statistics.median(seconds(after.ns - before.ns) for before, after in pairwise(samples))
    dense = update_s < 1.5 * pace_s
    readings = _as_power(changed, update_s) if counter else changed
    origin_s = seconds(samples[0].ns)
    switches = [(seconds(moment) - origin_s, busy) for moment, busy in bench.switches[since:]]
    moved = [(moment - origin_s, shown) for moment, shown in readings]
    found = Fit(moved, switches, update_s, pace_s + bench.load.switch_s).best() if moved else None
    if found is None:
        return Unavailable(f"{len(moved)} readings do not follow the switched load")
    return Times(update_s, jitter_s, dense, found)


def _renewals(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """When power readings changed, and to what: between two polls, taken as the middle."""
    known = [sample for sample in samples if sample.watts is not None]
    return [
        (seconds(before.ns + after.ns) / 2, float(after.watts))
        for before, after in pairwise(known)
        if after.watts is not None and after.watts != before.watts
    ]


def _increments(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """When a counter changed, and to what."""
    return [
        (seconds(before.ns + after.ns) / 2, after.joules)
        for before, after in pairwise(samples)
        if after.joules != before.joules
    ]


def _as_power(changed: Sequence[tuple[float, float]], update_s: float) -> list[tuple[float, float]]:
    """A counter's increments as readings of power, where they belong to one update."""
    return [
        (moment, (joules - before_j) / update_s)
        for (before_s, before_j), (moment, joules) in pairwise(changed)
        if 0.5 < (moment - before_s) / update_s < 1.5
    ]


def level(bench: Bench, reference: Reference, poll_s: float, tick_s: float, *, counter: bool) -> Level:
    """One level of the load, held for some time; call it when the load has been switched and has settled."""
    length_s = max(LEVEL_TICKS * tick_s, LEVEL_S, 10 * reference.settle_s)
    begun_s, begun_j = reference.read()
    samples = bench.poll(length_s, poll_s)
    ended_s, ended_j = reference.read()
    true_w = (ended_j - begun_j) / (ended_s - begun_s)
    if counter:
        found = edges(samples)
        if samples and not found:
            return Level(0.0, 0.0, true_w)
        if len(found) < 3:
            raise MeasurementError(f"{bench.scope}: the counter cannot be held against {reference.name}")
        each = [(b.joules - a.joules) / seconds(b.ns - a.ns) for a, b in pairwise(found)]
        shown_w = (found[-1].joules - found[0].joules) / seconds(found[-1].ns - found[0].ns)
        # Polls find an edge to within an interval, at the first and the last alone: the mean has nothing else.
        return Level(shown_w, min(mean_and_error(each)[1], shown_w * poll_s / length_s), true_w)
    shown = [sample.watts for sample in samples if sample.watts is not None]
    if not shown:
        raise MeasurementError(f"{bench.scope}: {bench.last_failure or 'no power readings'}")
    mean_w, error_w = mean_and_error(shown)
    return Level(mean_w, error_w * max(1.0, (tick_s / poll_s) ** 0.5), true_w)


def calibrated(
    bench: Bench, reference: Reference, poll_s: float, tick_s: float, *, counter: bool
) -> tuple[Calibration, float] | Unavailable:
    """Gain and offset by two levels of the load, and the error of a reading under load as it is shown."""
    levels = []
    for busy in (True, False):
        bench.switch(busy=busy)
        bench.poll(max(SETTLE_S, 4 * tick_s, reference.settle_s), poll_s)
        levels.append(level(bench, reference, poll_s, tick_s, counter=counter))
    busy_level, idle_level = levels
    if busy_level.true_w - idle_level.true_w < LEAST_SWING * busy_level.true_w:
        return Unavailable(f"the load changed the power from {idle_level.true_w:.3g} W to {busy_level.true_w:.3g} W")
    found = calibration(busy_level, idle_level, reference)
    if isinstance(found, Unavailable):
        return found
    error = 1 / found.scale if reference.whole else busy_level.shown_w / busy_level.true_w
    return found, error - 1


def sensor_of(times: Times, right: Calibration | None, what: Scope | None, *, counter: bool) -> PowerSensor:
    """What was found as a sensor; what no reference told is of the class, or nothing.

    A counter that adds up averages shows late what they blur: up to an averaging time later than its update.
    """
    response, known = times.response, what.sensor if what is not None else None
    window_s, late_s, part = response.window_s, response.lag_error_s, response.part_of_time
    if counter:
        late_s += max(0.0, window_s - times.update_s)
        window_s = part * times.update_s
    elif window_s <= 1.2 * times.update_s:
        window_s = part * times.update_s
    class_offset_w = known.offset_w if known is not None else 0.0
    class_gain = known.gain if known is not None else 0.0
    offset_w = class_offset_w if right is None or right.offset_w is None else right.offset_w / right.scale
    return PowerSensor(
        update_s=times.update_s,
        window_s=window_s,
        gain=min(class_gain if right is None else right.gain, 0.99),
        offset_w=offset_w,
        lag_s=response.lag_s,
        part_of_time=part if not counter and window_s > times.update_s else None,
        lag_error_s=late_s,
        limit_w=known.limit_w if known is not None else None,
        note="meter card",
    )


class PowerTest:
    """The self-test of a power register: levels, then an irregular load.

    Args:
        bench: of the meter.
        expected_tick_s: update period of the register, a guess within a factor of about four.
    """

    def __init__(self, bench: Bench, expected_tick_s: float) -> None:
        self.bench, self.expected_s = bench, expected_tick_s
        self.poll_s = expected_tick_s / 20
        self.missing: dict[str, str] = {}
        self.times: Times | None = None

    def run(self) -> dict[str, Any]:
        """All stretches; returns fields of the card. The load is idle afterwards, whatever happens."""
        bench = self.bench
        try:
            busy_w, idle_w = self._level(busy=True), self._level(busy=False)
            found: dict[str, Any] = {"busy_w": busy_w, "idle_w": idle_w, "update_period_s": None, "jitter_s": None}
            if busy_w - idle_w < LEAST_SWING * busy_w:
                why = f"the load changed the power from {idle_w:.3g} W to {busy_w:.3g} W only"
                self._lacks(why)
                return found
            times = times_of(bench, self.expected_s, self.poll_s, counter=False)
            if isinstance(times, Times) and not times.dense and times.update_s < 10 * self.poll_s:
                # Polled again as finely as the register asks for.
                self.poll_s = max(times.update_s / 20, FINEST_POLL_S)
                times = times_of(bench, times.update_s, self.poll_s, counter=False)
            if isinstance(times, Unavailable):
                self._lacks(times.reason)
                return found
        finally:
            bench.switch(busy=False)
        self.times = times
        return found | self._described(times)

    def _described(self, times: Times) -> dict[str, Any]:
        response = times.response
        if times.dense:
            why = f"the register is renewed at every poll, that is at least every {times.update_s:.3g} s"
            self.missing |= {"update_period_s": why, "jitter_s": why}
        self.missing["rise_s"] = "fitted instead: see the averaging width and the lag"
        return {
            "update_period_s": None if times.dense else times.update_s,
            "jitter_s": None if times.dense else times.jitter_s,
            "lag_s": response.lag_s,
            "averaging_width_s": response.window_s,
            "sampled_fraction": response.part_of_time,
            "flags": ("aliasing possible",) if response.part_of_time < SEES_ALL else (),
        }

    def _lacks(self, why: str) -> None:
        names = ("update_period_s", "jitter_s", "lag_s", "rise_s", "averaging_width_s", "sampled_fraction", "sensor")
        self.missing |= dict.fromkeys(names, why)

    def _level(self, *, busy: bool) -> float:
        bench = self.bench
        bench.switch(busy=busy)
        bench.poll(SETTLE_S, self.poll_s)
        samples = bench.poll(max(20 * self.expected_s, LEVEL_S), self.poll_s)
        shown = [sample.watts for sample in samples if sample.watts is not None]
        if not shown:
            raise MeasurementError(f"{bench.scope}: no power readings: {bench.last_failure or 'none given'}")
        return statistics.fmean(shown)
