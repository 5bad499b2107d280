"""Power sensors as they are, and the energy of a window that their readings allow one to claim.

Two ideas carry it. A moving average is undone: with E the cumulative energy and a the averaging time,
a x r(t) = E(t) - E(t - a), so averages that do not overlap sum to the exact energy, and what is left of the window is
bounded by the averages that contain it. And what a sensor does not see is bounded by what it may have been.
"""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from harness.quantity import Amount, Method, Unavailable

LOW_COVERAGE: Final = 0.95
NO_COVERAGE: Final = 0.80
"""Where readings cover less of the window there is no estimate; below `LOW_COVERAGE` it is flagged."""
ALIASING: Final = "aliasing possible"
"""Flag: the load's period is within reach of a small ratio of the sensor's."""
UNSEEN: Final = "load not seen in full"
"""Flag: the sensor sees part of the time, the readings swing, and the load's period is not known."""
IMPOSSIBLE: Final = "impossible reading"
"""Flag: a reading that no such device gives was left out."""
_EDGE: Final = 0.75
"""Slack of an edge in update periods: half for when a reading was renewed, a quarter for where its energy lies."""
_TOLERANCE: Final = 0.05
"""Update and load periods are so well known: A100 renews every 104 ms instead of 100 (data of arXiv 2312.02741)."""
_ABOVE_LIMIT: Final = 1.3
"""Cards exceed their nominal limit: an RTX 3090 of 350 W averaged 442 W over a second (the same data)."""
_IMPOSSIBLE: Final = 2.0
"""Readings of more than so many times the limit, or of less than this part of idle, are faults, such as 65,535 W."""


@dataclass(frozen=True, slots=True)
class PowerSensor:
    """A power register, specified as instruments are.

    >>> PowerSensor(update_s=0.1, window_s=0.025, gain=0.1, offset_w=20.0).seen
    0.25

    Attributes:
        update_s: how often the register is renewed, in seconds; > 0.
        window_s: what one reading averages over; 0 for a point sample. Longer than `update_s`: a moving average;
            shorter: the sensor sees part of the time.
        gain: greatest proportional error as a share of the reading, 0 <= gain < 1.
        offset_w: greatest additional error in watts: the power is within reading ± (gain x reading + offset_w).
        lag_s: seconds between the end of what a reading averages and its renewal.
        part_of_time: share of the time that the sensor looks at; None for min(1, window_s / update_s). An average over
            a second of 25 ms in every 100 has 0.25.
        lag_error_s: greatest further lag, where it is not known exactly.
        limit_w: nominal power limit of the device, where known. It only widens bounds: devices exceed it.
        note: whose numbers these are.
    """

    update_s: float
    window_s: float
    gain: float
    offset_w: float
    lag_s: float = 0.0
    part_of_time: float | None = None
    lag_error_s: float = 0.0
    limit_w: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        numbers = (self.update_s, self.window_s, self.gain, self.offset_w, self.lag_s, self.lag_error_s)
        finite = all(0 <= number < math.inf for number in numbers)
        if not (finite and self.update_s > 0 and self.gain < 1 and 0 <= self.seen <= 1):
            raise ValueError(f"a sensor's numbers are finite, not negative, update_s > 0, gain < 1, seen <= 1: {self}")

    @property
    def seen(self) -> float:
        """Share of the time that the sensor looks at."""
        return min(1.0, self.window_s / self.update_s) if self.part_of_time is None else self.part_of_time

    @property
    def moving(self) -> bool:
        """Whether readings overlap."""
        return self.window_s > 1.2 * self.update_s

    def error_w(self, reading_w: float) -> float:
        """Greatest difference between a reading and the power it stands for, in watts."""
        return self.gain * abs(reading_w) + self.offset_w


@dataclass(frozen=True, slots=True)
class Estimate:
    """An energy, with what a reader should know about it.

    Attributes:
        amount: joules, method `integrated`, with their bound; or why there are none.
        coverage: share of the window that readings speak of; None where there are too few.
        flags: `aliasing possible`, `load not seen in full`, `low coverage`, ...
    """

    amount: Amount | Unavailable
    coverage: float | None = None
    flags: tuple[str, ...] = ()


class _Span(NamedTuple):
    low: float
    value: float
    high: float


def energy_between(
    sensor: PowerSensor,
    times_s: Sequence[float],
    watts: Sequence[float | None],
    opened_s: float,
    closed_s: float,
    *,
    idle_w: float | None = None,
    max_w: float | None = None,
    period_s: float | None = None,
) -> Amount | Unavailable:
    """The energy drawn between two moments, by polled readings of a power sensor.

    Readings from before it, and for an averaging time and a renewal after it, help; polls may have any pace.

    >>> sensor = PowerSensor(update_s=0.1, window_s=0.1, gain=0.05, offset_w=2.0)
    >>> times = [tenth / 10 for tenth in range(31)]
    >>> found = energy_between(sensor, times, [100.0] * 31, 0.5, 2.5)
    >>> [round(joules, 6) for joules in (found.low, found.value, found.high)]
    [186.0, 200.0, 214.0]

    Args:
        sensor: what the readings are.
        times_s: when each reading was polled, in seconds of any one clock.
        watts: what was read; None, negative or not finite where a poll failed. As long as `times_s`.
        opened_s: begin of the window, same clock.
        closed_s: its end, not before its begin.
        idle_w: least power the device draws; 0 W stands in its place.
        max_w: its nominal limit. It bounds what nobody saw and never clips what was read.
        period_s: period of the load, such as an iteration, where known: may it be in step with the sensor?

    Returns:
        Joules with their bound, or why there are none.

    Raises:
        ValueError: lists of unequal length, a window that ends before it begins, a limit that is no number.
    """
    return estimate(sensor, times_s, watts, opened_s, closed_s, idle_w=idle_w, max_w=max_w, period_s=period_s).amount


def estimate(
    sensor: PowerSensor,
    times_s: Sequence[float],
    watts: Sequence[float | None],
    opened_s: float,
    closed_s: float,
    *,
    idle_w: float | None = None,
    max_w: float | None = None,
    period_s: float | None = None,
) -> Estimate:
    """Like `energy_between`, with coverage and flags; same arguments and errors."""
    length_s = closed_s - opened_s
    if len(times_s) != len(watts) or not 0 <= length_s < math.inf:
        raise ValueError(f"{len(times_s)} times for {len(watts)} readings, from {opened_s} s to {closed_s} s")
    if not all(0 <= number < math.inf for number in (idle_w or 0.0, max_w or 0.0, period_s or 0.0)):
        raise ValueError(f"limits and period are not negative: {idle_w=}, {max_w=}, {period_s=}")
    least_w, most_w = (idle_w or 0.0) / _IMPOSSIBLE, _IMPOSSIBLE * max_w if max_w else math.inf
    read = [(t, w) for t, w in zip(times_s, watts, strict=True) if w is not None and 0 <= w < math.inf > abs(t)]
    polls = sorted((t, w) for t, w in read if least_w - sensor.error_w(w) <= w <= most_w)
    flags = [IMPOSSIBLE] if len(polls) < len(read) else []
    if length_s == 0 or len({time_s for time_s, _ in polls}) < 2:
        return Estimate(Unavailable("fewer than two readings" if length_s else "the window has no length"))
    trace = _Trace(sensor, polls, idle_w or 0.0, max(max_w or 0.0, sensor.limit_w or 0.0))
    if trace.jumps:
        flags.append("readings faster than the sensor's averaging time")
        sensor = replace(sensor, window_s=sensor.seen * sensor.update_s, part_of_time=None)
    steps = math.ceil(min(8.0, 2 * sensor.lag_error_s / sensor.update_s))
    lates_s = [sensor.lag_s + sensor.lag_error_s * step / max(steps, 1) for step in range(steps + 1)]
    windows = [_Window(sensor, trace, opened_s + late_s, closed_s + late_s) for late_s in lates_s]
    spans = [window.span(period_s or 0.0) for window in windows]
    flags.extend(dict.fromkeys(flag for window in windows for flag in window.flags))
    coverage = 1 - max(window.gap_s for window in windows) / length_s
    if coverage < NO_COVERAGE:
        return Estimate(Unavailable(f"readings for {coverage:.0%} of the window only"), coverage, ("low coverage",))
    flags.extend(["low coverage"] if coverage < LOW_COVERAGE else [])
    value = spans[len(spans) // 2].value
    error_j = sensor.error_w(value / length_s) * length_s
    low, high = max(0.0, min(span.low for span in spans) - error_j), max(span.high for span in spans) + error_j
    return Estimate(Amount.of(value, "J", Method.INTEGRATED, low=low, high=high), coverage, tuple(flags))


class _Trace:
    """The readings as a curve through the moments at which the register was renewed, as far as polls can tell.

    A value that changes was renewed since the previous poll, one that stays was renewed to the same. The slope of a
    moving average, (P(t) - P(t - a)) / a, shows a swing of the power that it smooths away: `true_swing_w`.
    """

    def __init__(
        self, sensor: PowerSensor, polls: Sequence[tuple[float, float]], idle_w: float, limit_w: float
    ) -> None:
        pace_s = statistics.median(t1 - t0 for (t0, _), (t1, _) in itertools.pairwise(polls))
        self.step_s, self.blur_s = max(sensor.update_s, pace_s), min(sensor.update_s, pace_s) / 2
        self.longest_s = 2 * max(self.step_s, sensor.window_s / 4)
        self.gaps = [(t0, t1) for (t0, _), (t1, _) in itertools.pairwise(polls) if t1 - t0 > self.longest_s]
        self.begin_s, self.end_s = polls[0][0], polls[-1][0]
        self.times, self.watts = [polls[0][0] - sensor.update_s / 2], [polls[0][1]]
        for (before_s, _), (time_s, read_w) in itertools.pairwise(polls):
            moment_s = time_s - min(time_s - before_s, sensor.update_s) / 2
            if read_w == self.watts[-1]:
                moment_s = time_s - (time_s - self.times[-1]) % sensor.update_s
            elif self.watts[-2:] == 2 * self.watts[-1:] and moment_s - self.times[-1] < 0.8 * sensor.update_s:
                del self.times[-1], self.watts[-1]  # A renewal that was only inferred, too near to one that was seen.
            if moment_s > self.times[-1] + 1e-6 * sensor.update_s:
                self.times.append(moment_s)
                self.watts.append(read_w)
        self.least_w, self.greatest_w = min(self.watts), max(self.watts)
        self.swing_w = self.greatest_w - self.least_w
        steepest = max((abs(w1 - w0) / max(t1 - t0, sensor.update_s) for t0, t1, w0, w1 in self.cells()), default=0.0)
        self.true_swing_w = max(self.swing_w, steepest * sensor.window_s) if sensor.moving else self.swing_w
        self.idle_w, self.most_w = min(idle_w, self.least_w), max(self.greatest_w, limit_w or 2 * self.greatest_w)
        self.jumps = sensor.window_s >= 3 * sensor.update_s and self.true_swing_w > 2 * max(self.greatest_w, limit_w)
        crossings = self._crossings()
        self.oscillates = self._oscillates(crossings)
        self.returns = self.oscillates and len(crossings) >= 2 and self.times[-1] - self.times[0] > 14 * self.step_s
        if self.returns:
            # A load that swings has shown about how far, unless only a part of its beat was seen.
            self.idle_w = max(self.idle_w, self.least_w - self.swing_w / 2)
            self.most_w = min(self.most_w, self.greatest_w + self.swing_w / 2)

    def cells(self) -> Iterator[tuple[float, float, float, float]]:
        """From one renewal to the next: both times, both readings."""
        return zip(self.times, self.times[1:], self.watts, self.watts[1:], strict=False)

    def at(self, time_s: float) -> float:
        """The reading at a moment: linear between renewals, as an average of constant power is; held at the ends."""
        index = bisect.bisect_left(self.times, time_s)
        if index in (0, len(self.times)):
            return self.watts[min(index, len(self.times) - 1)]
        t0, t1, w0, w1 = *self.times[index - 1 : index + 1], *self.watts[index - 1 : index + 1]
        return w0 + (w1 - w0) * (time_s - t0) / (t1 - t0)

    def within(self, begin_s: float, end_s: float) -> list[float]:
        """The readings at both ends of a stretch and at all renewals between."""
        first, last = bisect.bisect_right(self.times, begin_s), bisect.bisect_left(self.times, end_s)
        return [self.at(begin_s), *self.watts[first:last], self.at(end_s)]

    def swing_near(self, time_s: float, reach_s: float) -> float:
        """Between the least and the greatest reading around a moment."""
        return max(near := self.within(time_s - reach_s, time_s + reach_s)) - min(near)

    def _crossings(self) -> list[float]:
        """When the readings went from well on one side of the middle of their swing to well on the other."""
        moments: list[float] = []
        side, middle_w = 0, (self.least_w + self.greatest_w) / 2
        for time_s, read_w in zip(self.times, self.watts, strict=True):
            now = (read_w > middle_w + 0.15 * self.swing_w) - (read_w < middle_w - 0.15 * self.swing_w)
            if now and now != side:
                moments.extend([time_s] if side else [])
                side = now
        return moments

    def _oscillates(self, crossings: Sequence[float]) -> bool:
        """Whether the load may be in step: it dwells briefly, returns regularly, turns slowly, or was seen briefly."""
        length_s = self.times[-1] - self.times[0]
        if self.swing_w <= (0.01 if length_s < 14 * self.step_s else 0.1) * self.greatest_w:
            return False
        middle_w, reach_w, still_w = (self.least_w + self.greatest_w) / 2, 0.35 * self.swing_w, 0.01 * self.swing_w
        moving = ((t0, t1, (w0 + w1) / 2) for t0, t1, w0, w1 in self.cells() if abs(w1 - w0) > still_w)
        between_s = sum(t1 - t0 for t0, t1, mean_w in moving if abs(mean_w - middle_w) < reach_w)
        dwells = [after - before for before, after in itertools.pairwise(crossings)]
        brief = any(dwell < 3.5 * self.step_s for dwell in dwells)
        regular = len(dwells) >= 2 and statistics.fmean(dwells) < 30 * self.step_s
        slow = between_s > max(1, len(crossings)) * max(3.1 * self.step_s, 0.31)
        return brief or regular or slow or length_s < 14 * self.step_s


class _Window:
    """One window over a trace; its times are those of the readings, so that the lag is in them already."""

    def __init__(self, sensor: PowerSensor, trace: _Trace, opened_s: float, closed_s: float) -> None:
        self.sensor, self.trace, self.flags = sensor, trace, list[str]()
        self.opened_s, self.closed_s, self.length_s = opened_s, closed_s, closed_s - opened_s
        before_s = trace.begin_s - max(sensor.window_s, sensor.update_s)
        holes = [(-math.inf, before_s), *trace.gaps, (trace.end_s + trace.longest_s, math.inf)]
        self.gap_s = sum(self._inside(*hole) for hole in holes)

    def _inside(self, begin_s: float, end_s: float) -> float:
        return max(0.0, min(end_s, self.closed_s) - max(begin_s, self.opened_s))

    def span(self, period_s: float) -> _Span:
        """Energy with all that the readings leave open; a period of 0 is not known."""
        low, value, high = self._averages() if self.sensor.moving else self._slices(period_known=period_s > 0)
        if period_s > 0:
            less_j, more_j = self._hidden(period_s, value)
            low, high = low - less_j, high + more_j
        mean_w = value / self.length_s
        low -= max(0.0, mean_w - self.trace.idle_w) * self.gap_s
        high += max(0.0, _ABOVE_LIMIT * self.trace.most_w - mean_w) * self.gap_s
        return _Span(min(max(low, 0.0), value), value, max(high, value))

    def _slices(self, *, period_known: bool) -> _Span:
        """Readings that do not overlap: each stands for its own slice, and the mean of both sides between slices."""
        trace, times, watts = self.trace, self.trace.times, self.trace.watts
        known_j = between_j = unseen_s = drift_j = blur_j2 = 0.0
        head = min(self.opened_s, times[0]), times[0], watts[0], watts[0]
        tail = times[-1], max(self.closed_s, times[-1]), watts[-1], watts[-1]
        for t0, t1, w0, w1 in (head, *trace.cells(), tail):
            slice_s = min(self.sensor.window_s, t1 - t0)
            blind_s = self._inside(t0, t1 - slice_s)
            known_j += self._inside(t1 - slice_s, t1) * w1
            unseen_s += blind_s
            between_j += blind_s * (w0 + w1) / 2
            drift_j += blind_s * abs(w1 - w0) / 2
            blur_j2 += (1.2 * (w1 - w0) * trace.blur_s) ** 2 * (self._inside(t0, t1) > 0)  # Two deviations of each.
        value, step = known_j + between_j, trace.step_s
        edges_j = _EDGE * step * sum(trace.swing_near(edge_s, 1.5 * step) for edge_s in (self.opened_s, self.closed_s))
        slack_j = min(edges_j + drift_j + math.sqrt(blur_j2), math.inf if trace.returns else 1.5 * step * trace.swing_w)
        low, high = value - slack_j, value + slack_j
        if trace.oscillates and not period_known and unseen_s > 0.1 * self.length_s:
            self.flags.append(UNSEEN)
            low = min(low, known_j + unseen_s * trace.idle_w - edges_j)
            high = max(high, known_j + unseen_s * trace.most_w + edges_j)
        return _Span(low, value, high)

    def _averages(self) -> _Span:
        """Readings that overlap: a sum of those that do not, and the remainder held by those that contain it.

        The sum may end or begin where the window does, and fall short of it or go beyond: all four intervals hold.
        """
        opened, closed, width, trace = self.opened_s, self.closed_s, self.sensor.window_s, self.trace
        count = math.floor(self.length_s / width + 1e-9)
        rest = max(0.0, self.length_s - count * width)
        ways = [
            (closed, count, opened, opened + rest, 1),
            (opened + count * width, count, closed - rest, closed, 1),
            (closed, count + 1, closed - (count + 1) * width, opened, -1),
            (opened + (count + 1) * width, count + 1, closed, opened + (count + 1) * width, -1),
        ]
        found: list[_Span] = []
        for end, tiles, begin_rest, end_rest, sign in ways if rest > 1e-6 * width else ways[:1]:
            if found and (end > trace.end_s + trace.step_s or begin_rest < trace.begin_s - width):
                continue
            whole, part = self._chain(end, tiles), self._remainder(begin_rest, end_rest)
            less, more = (part.low, part.high) if sign > 0 else (-part.high, -part.low)
            found.append(_Span(whole.low + less, whole.value + sign * part.value, whole.high + more))
        low, high = sorted((max(span.low for span in found), min(span.high for span in found)))
        value = min(max(statistics.fmean(span.value for span in found), low), high)
        most_j = (1.5 * trace.step_s + rest) * trace.swing_w
        return _Span(max(low, value - most_j), value, min(high, value + most_j))

    def _chain(self, end_s: float, tiles: int) -> _Span:
        """Energy of so many averaging times up to a moment; the slack is for when the register was renewed."""
        width, step = self.sensor.window_s, self.trace.step_s
        moments = [end_s - index * width for index in range(tiles)]
        value = width * math.fsum(map(self.trace.at, moments))
        swings_w = math.fsum(self.trace.swing_near(moment, step) for moment in moments)
        slack = min(width / 2 * swings_w, 1.5 * step * self.trace.true_swing_w)
        return _Span(value - slack, value, value + slack)

    def _remainder(self, begin_s: float, end_s: float) -> _Span:
        """Energy of a stretch shorter than an averaging time, by all averages that contain it."""
        trace, width, part = self.trace, self.sensor.window_s, end_s - begin_s
        first, last = min(max(end_s, trace.begin_s), trace.end_s), min(begin_s + width, trace.end_s)
        means = trace.within(first, max(first, last))
        least, most = max(0.0, trace.greatest_w - trace.true_swing_w), trace.least_w + trace.true_swing_w
        least_j, most_j = width * max(means) - (width - part) * most, width * min(means) - (width - part) * least
        slack_j = width / 2 * max(trace.swing_near(moment, trace.step_s) for moment in (first, max(first, last)))
        low, high = sorted((max(part * least, least_j - slack_j), min(part * most, most_j + slack_j)))
        return _Span(low, min(max(part * statistics.fmean(means), low), high), high)

    def _hidden(self, period_s: float, value_j: float) -> tuple[float, float]:
        """How much less, and more, a load of this period may draw than a sensor in step with it shows.

        Looks fall into q places of the load's period where it is close to q/p of theirs; each place, by the length of
        a look or by drifting over the window, covers a share c of it. The mean of the looks then differs from the
        load's by at most (1 - q c)/q of its swing, and by at most 1/(4 q² c) once they overlap.
        """
        sensor, step, idle_w, most_w = self.sensor, self.trace.step_s, self.trace.idle_w, self.trace.most_w
        ratio, mean_w, swing_w = step / period_s, value_j / self.length_s, most_w - idle_w
        look_s = sensor.seen * sensor.update_s if sensor.seen < 1 else sensor.window_s
        less_w = more_w = cut_j = 0.0
        for places in range(1, 9):
            nearest = round(places * ratio)
            if nearest >= 1:
                off = max(0.0, abs(ratio - nearest / places) - _TOLERANCE * ratio)
                covered = places * max(look_s / period_s, off * self.length_s / step)
                share = (1 - covered) / places if covered <= 0.5 else 1 / (4 * places * covered)
                # One busy place of q shows 1/q of the swing, so that the readings limit it.
                less_w = max(less_w, share * min(swing_w, places * max(0.0, mean_w - idle_w)))
                more_w = max(more_w, share * min(swing_w, places * max(0.0, most_w - mean_w)))
        if less_w + more_w > 0.04 * mean_w:
            self.flags.append(ALIASING)
        if period_s <= 2 * max(sensor.window_s, step) and swing_w > 0:
            # Busy for a share d of its period, a load is ahead of its mean by d (1 - d) x period x swing at most.
            blind_s = step + (self.length_s % sensor.window_s if sensor.moving else 0.0)
            cut_j = min(period_s, blind_s) * max(0.0, (mean_w - idle_w) * (most_w - mean_w)) / swing_w
        return less_w * self.length_s + cut_j, more_w * self.length_s + cut_j
