"""Power sensors and loads whose truth is known exactly, and a study of how often a bound holds it.

A load is piecewise constant, so that its energy and every average of it are exact; a sensor is what a register makes of
one. Nothing here measures: it is what the bound of `harness.sensor` is held against.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.quantity import Amount
from harness.sensor import PowerSensor, estimate


class Load:
    """Power that is constant between given moments.

    >>> Load([0.0, 1.0], [100.0, 300.0]).energy_j(0.5, 1.5)
    200.0

    Args:
        moments_s: when each level begins, in order; the first level holds before it too, the last for ever.
        watts: the levels, one a moment.
        period_s: time after which the load repeats; None if it does not.
    """

    def __init__(self, moments_s: Sequence[float], watts: Sequence[float], period_s: float | None = None) -> None:
        if not moments_s or len(moments_s) != len(watts):
            raise ValueError(f"a load has one level a moment, not {len(watts)} for {len(moments_s)}")
        self._moments, self._watts, self.period_s = list(moments_s), list(watts), period_s
        steps = ((t1 - t0) * level for (t0, t1), level in zip(itertools.pairwise(moments_s), watts, strict=False))
        self._joules = [0.0, *itertools.accumulate(steps)]

    def _until(self, time_s: float) -> float:
        index = max(0, bisect.bisect_right(self._moments, time_s) - 1)
        return self._joules[index] + self._watts[index] * (time_s - self._moments[index])

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Energy drawn between two moments, exact."""
        return self._until(end_s) - self._until(begin_s)

    def mean_w(self, begin_s: float, end_s: float) -> float:
        """Mean power between two moments; the power at the second where they are one."""
        if end_s > begin_s:
            return self.energy_j(begin_s, end_s) / (end_s - begin_s)
        return self._watts[max(0, bisect.bisect_right(self._moments, end_s) - 1)]


def constant(watts: float) -> Load:
    """The same power for ever."""
    return Load([0.0], [watts])


def step(at_s: float, before_w: float, after_w: float) -> Load:
    """One step."""
    return Load([at_s - 1.0, at_s], [before_w, after_w])


def square(
    period_s: float, idle_w: float, busy_w: float, begin_s: float, end_s: float, duty: float = 0.5, phase: float = 0.0
) -> Load:
    """A square wave from `begin_s` on, busy for `duty` of each period; `phase` is the share already gone."""
    count = math.ceil((end_s - begin_s) / period_s) + 2
    starts = [begin_s + (index - phase) * period_s for index in range(count)]
    moments = [moment for start in starts for moment in (start, start + duty * period_s)]
    return Load(moments, [busy_w, idle_w] * count, period_s)


def bursts(
    rng: random.Random, idle_w: float, busy_w: float, begin_s: float, end_s: float, burst_s: float, pause_s: float
) -> Load:
    """Bursts and pauses whose lengths are exponential, with the given means."""
    moments, watts, now_s = [begin_s], [idle_w], begin_s
    while now_s < end_s:
        now_s += rng.expovariate(1 / pause_s)
        moments.append(now_s)
        watts.append(busy_w)
        now_s += rng.expovariate(1 / burst_s)
        moments.append(now_s)
        watts.append(idle_w)
    return Load(moments, watts)


@dataclass(frozen=True, slots=True)
class Register:
    """What a sensor's register shows of a load.

    Attributes:
        sensor: its times; its errors and limits are not looked at.
        gain_error: a reading is (1 + gain_error) x the mean power + offset_error_w.
        offset_error_w: likewise.
        phase_s: time of one renewal.
        jitter_s: greatest deviation of a renewal from its turn.
        seed: of the jitter.
    """

    sensor: PowerSensor
    gain_error: float = 0.0
    offset_error_w: float = 0.0
    phase_s: float = 0.0
    jitter_s: float = 0.0
    seed: int = 0

    def read(self, load: Load, time_s: float) -> float:
        """What a poll sees: whole milliwatts, never below 0."""
        sensor = self.sensor
        turn = math.floor((time_s - self.phase_s) / sensor.update_s)
        moment_s = self._renewed(turn)
        if moment_s > time_s:
            moment_s = self._renewed(turn - 1)
        mean_w = self._mean_w(load, moment_s - sensor.lag_s)
        return max(0.0, round((1 + self.gain_error) * mean_w + self.offset_error_w, 3))

    def _renewed(self, turn: int) -> float:
        moment_s = self.phase_s + turn * self.sensor.update_s
        if self.jitter_s:
            moment_s += random.Random(self.seed * 1_000_003 + turn).uniform(0.0, self.jitter_s)  # noqa: S311
        return moment_s

    def _mean_w(self, load: Load, end_s: float) -> float:
        sensor = self.sensor
        if not sensor.moving or sensor.seen == 1:
            return load.mean_w(end_s - sensor.window_s, end_s)
        looks = round(sensor.window_s / sensor.update_s)
        look_s = sensor.seen * sensor.update_s
        ends = (end_s - index * sensor.update_s for index in range(looks))
        return statistics.fmean(load.mean_w(end - look_s, end) for end in ends)


@dataclass(frozen=True, slots=True)
class Case:
    """One window of a study.

    Attributes:
        load: what was drawn.
        register: what showed it.
        sensor: what is known of the register.
        limit_w: nominal limit of the device.
        idle_w: its least power.
    """

    load: Load
    register: Register
    sensor: PowerSensor
    limit_w: float
    idle_w: float


@dataclass(frozen=True, slots=True)
class Cell:
    """How often, and how narrowly, the bound held the truth.

    Attributes:
        kind: of sensor.
        load: kind of load.
        window_s: length of the window.
        windows: how many there were.
        inside: how many bounds held the truth; Unavailable is a miss.
        half_width: median half-width over the value.
        excess: greatest half-width over the value beyond the sensor's own error.
    """

    kind: str
    load: str
    window_s: float
    windows: int
    inside: int
    half_width: float
    excess: float

    @property
    def coverage(self) -> float:
        """Share of the windows whose bound held the truth."""
        return self.inside / self.windows


SENSORS: dict[str, PowerSensor] = {
    "25 of 100 ms": PowerSensor(0.1, 0.025, 0.10, 0.0),
    "10 of 20 ms": PowerSensor(0.02, 0.01, 0.10, 0.0),
    "average over 1 s": PowerSensor(0.1, 1.0, 0.10, 0.0),
    "average over 1 s of 25 in 100 ms": PowerSensor(0.1, 1.0, 0.10, 0.0, part_of_time=0.25),
    "late by 0.5 s": PowerSensor(0.1, 0.1, 0.10, 0.0, lag_s=0.5),
    "late by up to 0.5 s": PowerSensor(0.1, 0.1, 0.10, 0.0, lag_error_s=0.5),
    "instant at 10 Hz": PowerSensor(0.1, 0.1, 0.10, 0.0),
    "point at 10 Hz": PowerSensor(0.1, 0.0, 0.10, 0.0),
    "update 20 ms": PowerSensor(0.02, 0.02, 0.10, 0.0),
    "update 300 ms": PowerSensor(0.3, 0.3, 0.10, 0.0),
    "average over 1 s, update 300 ms": PowerSensor(0.3, 1.0, 0.10, 0.0),
}
"""Kinds of registers, with the error in proportion of the class; the offset, 5 % of the limit, comes with the limit."""

LOADS: tuple[str, ...] = ("constant", "step up", "step down", "square", "square in step", "bursts")

IN_STEP: tuple[float, ...] = (0.2, 0.25, 0.5, 2 / 3, 0.75, 1.0, 4 / 3, 1.5, 2.0, 3.0)
"""Periods that are small ratios of the update period, in update periods."""


def draw(rng: random.Random, kind: str, load: str, window_s: float) -> Case:
    """A case of random powers, phases and errors; the window begins at 0 s.

    The register errs by up to 13 % in proportion, or by up to 5 % of the limit.
    """
    limit_w = rng.choice([200.0, 300.0, 400.0, 700.0])
    idle_w = limit_w * rng.uniform(0.08, 0.25)
    busy_w = limit_w * rng.uniform(0.45, 1.0)
    known = replace(SENSORS[kind], offset_w=0.05 * limit_w, limit_w=limit_w)
    begin_s, end_s = -6.0, window_s + 6.0
    made: dict[str, Callable[[], Load]] = {
        "constant": lambda: constant(busy_w),
        "step up": lambda: step(rng.uniform(-1.0, window_s + 0.5), idle_w, busy_w),
        "step down": lambda: step(rng.uniform(-1.0, window_s + 0.5), busy_w, idle_w),
        "square": lambda: square(
            known.update_s * rng.uniform(0.2, 3.0), idle_w, busy_w, begin_s, end_s, rng.uniform(0.3, 0.7), rng.random()
        ),
        "square in step": lambda: square(
            known.update_s * rng.choice(IN_STEP), idle_w, busy_w, begin_s, end_s, 0.5, rng.random()
        ),
        "bursts": lambda: bursts(rng, idle_w, busy_w, begin_s, end_s, rng.uniform(0.02, 0.3), rng.uniform(0.05, 0.5)),
    }
    by_gain = rng.random() < 0.5
    timing = replace(known, lag_s=known.lag_s + rng.uniform(0.0, known.lag_error_s))
    register = Register(
        timing,
        gain_error=rng.uniform(-0.13, 0.13) if by_gain else 0.0,
        offset_error_w=0.0 if by_gain else rng.uniform(-0.05, 0.05) * limit_w,
        phase_s=rng.uniform(0.0, known.update_s),
        seed=rng.getrandbits(30),
    )
    return Case(made[load](), register, known, limit_w, idle_w)


def polls(rng: random.Random, begin_s: float, end_s: float, every_s: float) -> list[float]:
    """When a meter that aims at `every_s` polls: up to a tenth of it late, phase random."""
    first_s, count = begin_s + rng.uniform(0.0, every_s), math.floor((end_s - begin_s) / every_s)
    return [first_s + index * every_s + rng.uniform(0.0, 0.1 * every_s) for index in range(count)]


def study(
    windows: int,
    *,
    seed: int = 0,
    kinds: Iterable[str] = tuple(SENSORS),
    loads: Iterable[str] = LOADS,
    lengths_s: Iterable[float] = (0.5, 2.0, 30.0),
    period_known: bool = True,
    limits_known: bool = True,
    polled_after: bool = True,
) -> Iterator[Cell]:
    """Holds `harness.sensor.estimate` against the truth, cell by cell.

    Args:
        windows: how many a cell.
        seed: of all that is drawn.
        kinds: keys of `SENSORS`.
        loads: of `LOADS`.
        lengths_s: of the windows, in seconds.
        period_known: whether the period of a square wave is said.
        limits_known: whether the least power and the nominal limit are said.
        polled_after: whether polls go on after the window for what a reading averages and a renewal.
    """
    for kind, load, window_s in itertools.product(kinds, loads, lengths_s):
        rng = random.Random(f"{seed} {kind} {load} {window_s}")  # noqa: S311
        inside, widths, excess = 0, [], 0.0
        for _ in range(windows):
            case = draw(rng, kind, load, window_s)
            sensor = case.sensor
            late_s = sensor.lag_s + sensor.lag_error_s
            after_s = late_s + (sensor.window_s + 1.5 * sensor.update_s if polled_after else 0.0)
            times = polls(rng, -1.0, window_s + after_s, rng.choice([0.015, 0.1]))
            read = [case.register.read(case.load, time_s) for time_s in times]
            period_s = case.load.period_s if period_known else None
            bounds = (case.idle_w, case.limit_w) if limits_known else (None, None)
            found = estimate(
                sensor, times, read, 0.0, window_s, idle_w=bounds[0], max_w=bounds[1], period_s=period_s
            ).amount
            if not isinstance(found, Amount) or found.low is None or found.high is None:
                continue
            inside += found.low <= case.load.energy_j(0.0, window_s) <= found.high
            half_j, own_j = (found.high - found.low) / 2, sensor.error_w(found.value / window_s) * window_s
            widths.append(half_j / found.value if found.value else math.inf)
            excess = max(excess, (half_j - own_j) / found.value if found.value else math.inf)
        yield Cell(kind, load, window_s, windows, inside, statistics.median(widths or [math.inf]), excess)
