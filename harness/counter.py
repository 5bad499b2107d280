"""Turns readings of an energy counter, or of power, into cumulative joules that only ever grow.

Shared by meters: `CounterTrack` for counters that wrap, reset, jump or fail to answer, `PowerIntegrator` for sampled
power. What no device can have drawn, by its `harness.power_limit.PowerLimit`, is never counted: it is a gap between
idle power and the limit, and `Cumulative.dropped` counts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from harness.power_limit import PowerLimit
from harness.quantity import Method
from harness.sample import Cumulative
from harness.units import nanoseconds, seconds


def _usable(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and value >= 0 else None


class _Running:
    """The sums behind a `Cumulative`."""

    def __init__(self) -> None:
        self._joules = 0.0
        self._over_j = 0.0
        self._under_j = 0.0
        self._integrated_j = 0.0
        self._gap_ns = 0
        self._resets = 0
        self._dropped = 0

    @property
    def _sums(self) -> tuple[float, float, float]:
        return self._joules, self._over_j, self._under_j

    @property
    def state(self) -> Cumulative:
        """The sums so far."""
        other = {Method.INTEGRATED: self._integrated_j} if self._integrated_j > 0 else {}
        return Cumulative(
            self._joules,
            self._over_j,
            self._under_j,
            other,
            gap_s=seconds(self._gap_ns),
            resets=self._resets,
            dropped=self._dropped,
        )


class PowerIntegrator(_Running):
    """Trapezoid over time-stamped power samples, with gaps bounded by the least and the greatest power.

    An interval longer than two expected ones, or one in which a sample failed, is a gap: its value is still the
    trapezoid, its bound reaches from `idle_w` to `max_w` times its length, and its length is counted in `gap_s`.

    A sample that cannot be true takes part in no trapezoid: more than `SHORT_TIME_FACTOR` times what the sensor may
    show at `max_w`, or 0 W of a device whose idle power is known. The last good power stands in its place, as a gap.

    Args:
        expected_interval_s: the sampling interval that is aimed at; > 0.
        idle_w: least power the device can draw.
        max_w: greatest power it can draw; None where it is not known: then the greatest power seen stands in its
            place, and `gap_s` alone says that the upper bound is incomplete.
        gain: relative half-width of the sensor's proportional error, allowed for when a sample is held against `max_w`.
        offset_w: half-width of its constant error, likewise.

    Examples:
        >>> power = PowerIntegrator(expected_interval_s=0.1, max_w=300.0)
        >>> started = power.update(0, 100.0)
        >>> power.update(100_000_000, 120.0).joules  # 0.1 s later
        11.0
        >>> failed = power.update(200_000_000, None)
        >>> late = power.update(300_000_000, 120.0)  # the interval of a failed sample is a gap with a bound
        >>> round(late.joules, 9), round(late.under_j, 9), late.gap_s
        (35.0, 36.0, 0.2)
    """

    def __init__(
        self,
        expected_interval_s: float,
        idle_w: float = 0.0,
        max_w: float | None = None,
        *,
        gain: float = 0.0,
        offset_w: float = 0.0,
    ) -> None:
        super().__init__()
        if not expected_interval_s > 0:
            raise ValueError(f"the expected interval is positive, not {expected_interval_s} s")
        self._longest_ns = nanoseconds(2 * expected_interval_s)
        self._idle_w = idle_w
        self._limit = PowerLimit(max_w, gain, offset_w)
        self._greatest_w = 0.0
        self._last: tuple[int, float] | None = None
        self._waiting_since: int | None = None
        self._failed = False

    def update(self, t_ns: int, watts: float | None) -> Cumulative:
        """Takes one sample.

        Args:
            t_ns: monotonic time of the sample; never before the previous one.
            watts: power; None, negative or not finite for a sample that failed.

        Returns:
            The energy up to now, or up to the last good sample if this one failed: then the meter says Unavailable for
            this snapshot. A sample that cannot be true does not fail: its interval is in the energy, as a gap.
        """
        power = _usable(watts)
        began = self._last[0] if self._last else self._waiting_since
        if began is not None and t_ns < began:
            raise ValueError(f"samples come in order of time: {t_ns} ns is before {began} ns")
        implausible = power is not None and not self._plausible(power)
        self._dropped += implausible or (power is None and watts is not None)
        if power is None or (implausible and self._last is None):
            self._failed = True
            if began is None:
                self._waiting_since = t_ns
            return self.state
        if implausible and self._last is not None:
            power, self._failed = self._last[1], True
        self._greatest_w = max(self._greatest_w, power)
        if began is not None:
            before_w = self._last[1] if self._last else power
            self._add(t_ns - began, before_w, power)
        self._last, self._failed = (t_ns, power), implausible
        return self.state

    def _plausible(self, power_w: float) -> bool:
        return self._limit.allows(power_w) and (power_w > 0 or self._idle_w == 0)

    def _add(self, length_ns: int, before_w: float, after_w: float) -> None:
        length_s = seconds(length_ns)
        value_j = (before_w + after_w) / 2 * length_s
        self._joules += value_j
        if self._failed or length_ns > self._longest_ns:
            most_w = self._greatest_w if self._limit.watts is None else self._limit.watts
            self._over_j += max(0.0, value_j - self._idle_w * length_s)
            self._under_j += max(0.0, most_w * length_s - value_j)
            self._gap_ns += length_ns


@dataclass(slots=True)
class _Doubt:
    """A reading that does not continue the line of those before it, until the next ones say what it was.

    Attributes:
        t_ns: when it was first read.
        joules: what it showed.
        restart: whether it may be all that a counter has counted since it was reset.
        dropped: whether it is in `dropped` already.
        since_line: joules, over and under, added since the last reading on the old line.
        since_doubt_j: joules added since this reading.
    """

    t_ns: int
    joules: float
    restart: bool
    dropped: bool
    since_line: list[float]
    since_doubt_j: float = 0.0


class CounterTrack(_Running):
    """A counter's readings as cumulative joules: what it cannot have counted never becomes a joule.

    A counter that goes backwards has wrapped (policy `wrap`: difference + range) or was reset (policy `reset`). A
    decrease under policy `wrap` that would ask for more than `max_power_w` is a reset too. A reset interval is taken
    from power samples where they cover it (method `integrated`); else it adds what the counter shows after the reset,
    as the least that was drawn, with all of the interval counted as a gap.

    An increase beyond what `max_power_w` allows in the time since the counter last moved is a gap too, between
    `idle_w` and the limit, and counts in `dropped`. The readings that follow decide: where they continue the line from
    before, a single bad sample was dropped and the energy is exact; where they continue from the new value, the
    counter has jumped or was reset; where both are possible, the bounds hold both. A new line is believed once it
    moves: a counter that shows 0 for a while and then returns was never reset.

    A read that failed is not a wrap: the next good one closes the interval. Under policy `wrap` that holds while the
    interval is shorter than the shortest wrap, `range_j / max_power_w`; a longer one may hide wraps, so that it is a
    gap whose upper bound is the greatest energy that fits.

    Args:
        range_j: where the counter wraps; needed by policy `wrap`.
        policy: what a decrease means.
        max_power_w: greatest power; without it nothing is implausible, hidden wraps are not looked for and a reset's
            `under_j` stays unknown.
        tick_s: how late the counter may be, allowed for when an increase is held against `max_power_w`.
        idle_w: least power the device can draw.
        gain: relative half-width of the counter's proportional error, allowed for likewise.
        offset_w: half-width of its constant error, likewise.
        longest_still_s: a counter that shows one value for longer was stuck: the time until it moves is a gap; None
            for one that may rightly stand still.

    Examples:
        A counter that wraps at 100 J, on a device that draws at most 50 W:

        >>> track = CounterTrack(range_j=100.0, policy="wrap", max_power_w=50.0)
        >>> started = track.update(0, 90.0)
        >>> track.update(1_000_000_000, 20.0).joules
        30.0

        Under the default policy a counter that goes backwards was reset:

        >>> reset = CounterTrack()
        >>> started = reset.update(0, 90.0)
        >>> seen = reset.update(1_000_000_000, 20.0)
        >>> seen.joules, seen.gap_s, seen.resets  # what it shows since is the least that was drawn
        (20.0, 1.0, 1)
    """

    def __init__(
        self,
        range_j: float | None = None,
        policy: Literal["reset", "wrap"] = "reset",
        max_power_w: float | None = None,
        *,
        tick_s: float = 0.0,
        idle_w: float = 0.0,
        gain: float = 0.0,
        offset_w: float = 0.0,
        longest_still_s: float | None = None,
    ) -> None:
        super().__init__()
        if policy == "wrap" and (range_j is None or not range_j > 0):
            raise ValueError(f"a counter that wraps has a range, found {range_j}")
        self._range_j = range_j if policy == "wrap" else None
        self._limit = PowerLimit(max_power_w, gain, offset_w)
        self._tick_s = tick_s
        self._idle_w = idle_w
        self._longest_still_s = math.inf if longest_still_s is None else longest_still_s
        self._started_ns: int | None = None
        self._last: tuple[int, float] | None = None
        self._line: tuple[int, float] | None = None
        self._doubt: _Doubt | None = None
        self._moved_ns: int | None = None
        self._last_power: tuple[int, float] | None = None
        self._power_j = 0.0
        self._power_ns = 0

    def update(self, t_ns: int, joules: float | None, power_w: float | None = None) -> Cumulative:
        """Takes one reading.

        Args:
            t_ns: monotonic time of the reading; never before the previous one.
            joules: the counter; None, negative or not finite for a read that failed.
            power_w: power at that moment, where it was read; used for an interval that the counter says nothing about.

        Returns:
            The energy up to now, or up to the last good read if this one failed: then the meter says Unavailable for
            this snapshot. A reading that cannot be true does not fail: its interval is in the energy, as a gap.
        """
        began = self._last[0] if self._last else self._started_ns
        if began is not None and t_ns < began:
            raise ValueError(f"readings come in order of time: {t_ns} ns is before {began} ns")
        self._take_power(t_ns, _usable(power_w))
        value_j = _usable(joules)
        if value_j is None:
            self._dropped += joules is not None
            self._started_ns = t_ns if self._started_ns is None else self._started_ns
            return self.state
        if self._line is None:
            if began is not None:
                self._bridge(t_ns - began, 0.0)
            self._line, self._doubt = (t_ns, value_j), None
        elif self._doubt is not None:
            self._decide(self._doubt, self._line, t_ns, value_j)
        elif value_j != self._line[1]:
            self._continue(self._line, t_ns, value_j)
        if self._last is None or value_j != self._last[1]:
            self._moved_ns = t_ns
            self._power_j, self._power_ns = 0.0, 0
        self._last = (t_ns, value_j)
        return self.state

    def __copy__(self) -> Self:
        """A track that goes on from here and leaves this one as it is."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._doubt = None if self._doubt is None else replace(self._doubt)
        return made

    @property
    def doubts(self) -> bool:
        """Whether the last good reading may yet turn out to be a wrong one: the next tells what the energy was."""
        return self._doubt is not None

    def still_s(self, t_ns: int) -> float:
        """Seconds for which the counter has shown one and the same value; 0 before the first good read.

        A device that draws power cannot stand still for many ticks: a meter then says Unavailable.
        """
        return 0.0 if self._moved_ns is None else seconds(t_ns - self._moved_ns)

    def _take_power(self, t_ns: int, power_w: float | None) -> None:
        if power_w is not None and not self._limit.allows(power_w):
            self._dropped += 1
            power_w = None
        if power_w is not None and self._last_power is not None:
            length_ns = t_ns - self._last_power[0]
            self._power_j += (self._last_power[1] + power_w) / 2 * seconds(length_ns)
            self._power_ns += length_ns
        self._last_power = None if power_w is None else (t_ns, power_w)

    def _increase(self, since: tuple[int, float], t_ns: int, value_j: float) -> float | None:
        """Joules since a reading, with a wrap repaired; None where no device can have drawn them."""
        most_j = self._limit.most_j(seconds(t_ns - since[0]) + self._tick_s)
        increase_j = value_j - since[1]
        if increase_j < 0 and self._range_j is not None:
            increase_j += self._range_j
        return increase_j if 0 <= increase_j <= most_j else None

    def _continue(self, line: tuple[int, float], t_ns: int, value_j: float) -> None:
        """A reading after one that was believed."""
        length_ns = t_ns - line[0]
        increase_j = self._increase(line, t_ns, value_j)
        if increase_j is None:
            self._begin_doubt(length_ns, t_ns, value_j, line)
            return
        self._joules += increase_j
        fits_j = self._limit.drawn_j(seconds(length_ns) + self._tick_s)
        if self._range_j is not None and self._range_j <= fits_j < math.inf:
            hidden = max(0, math.floor((fits_j - increase_j) / self._range_j))
            self._under_j += hidden * self._range_j
            self._gap_ns += length_ns
        elif self._last is not None and seconds(self._last[0] - line[0]) > self._longest_still_s:
            self._dropped += 1
            self._gap_ns += length_ns
            missing_j = self._limit.drawn_j(seconds(length_ns) + self._tick_s) - increase_j
            self._under_j += missing_j if 0 < missing_j < math.inf else 0.0
        self._line, self._doubt = (t_ns, value_j), None

    def _begin_doubt(self, length_ns: int, t_ns: int, value_j: float, line: tuple[int, float]) -> None:
        before = self._sums
        fell = value_j < line[1]
        restart = fell and value_j <= self._limit.most_j(seconds(length_ns) + self._tick_s)
        self._resets += fell
        self._dropped += not restart
        self._bridge(length_ns, value_j if restart else 0.0)
        added = [now - then for now, then in zip(self._sums, before, strict=True)]
        self._doubt = _Doubt(t_ns, value_j, restart, not restart, added)

    def _decide(self, doubt: _Doubt, line: tuple[int, float], t_ns: int, value_j: float) -> None:
        """A reading after one that was doubted: on the old line, on the new one, on both, or on neither."""
        old_j = self._increase(line, t_ns, value_j)
        moved = value_j != doubt.joules
        new_j = self._increase((doubt.t_ns, doubt.joules), t_ns, value_j) if moved else None
        if old_j is None and new_j is None:
            self._stay_in_doubt(doubt, t_ns, value_j, moved=moved)
            return
        added_j, over_j, under_j = doubt.since_line
        total_j = math.nan if new_j is None else added_j + new_j - doubt.since_doubt_j
        returned = old_j is not None and (new_j is None or not doubt.restart)
        best_j = old_j if old_j is not None and returned else total_j
        # The sum only grows: what the doubt has added beyond the best estimate stays, inside the bound.
        found_j = max(added_j, best_j)
        self._joules += found_j - added_j
        ends = [] if old_j is None else [old_j]
        ends += [] if new_j is None else [total_j - over_j, total_j + under_j]
        self._over_j += max(0.0, found_j - over_j - min(ends))
        self._under_j += max(0.0, max(ends) - found_j - under_j)
        self._dropped += returned and not doubt.dropped
        self._line, self._doubt = (t_ns, value_j), None

    def _stay_in_doubt(self, doubt: _Doubt, t_ns: int, value_j: float, *, moved: bool) -> None:
        before = self._sums
        assert self._last is not None
        self._bridge(t_ns - self._last[0], 0.0)
        added = [now - then for now, then in zip(self._sums, before, strict=True)]
        doubt.since_line = [sum(pair) for pair in zip(doubt.since_line, added, strict=True)]
        doubt.since_doubt_j += added[0]
        doubt.restart = False
        if moved:
            self._dropped += 1
            doubt.dropped = True
            doubt.t_ns, doubt.joules, doubt.since_doubt_j = t_ns, value_j, 0.0

    def _bridge(self, length_ns: int, least_j: float) -> None:
        """Adds an interval that the counter says nothing about: integrated power, and a gap for what it leaves.

        Args:
            length_ns: its length.
            least_j: what was drawn at least, by a counter that began again in it.
        """
        missing_ns = length_ns - self._power_ns
        value_j = max(self._power_j + self._idle_w * seconds(missing_ns), least_j)
        self._joules += value_j
        self._integrated_j += self._power_j
        self._gap_ns += missing_ns
        if self._limit.watts is not None:
            # What the counter had not shown at the last good read is lost; what it shows late is counted again.
            late_j = self._limit.drawn_j(self._tick_s) if self._doubt is None else 0.0
            self._over_j += min(late_j, self._power_j)
            most_j = self._power_j + self._limit.drawn_j(seconds(missing_ns)) + late_j
            self._under_j += max(0.0, most_j - value_j)
        self._power_j, self._power_ns = 0.0, 0
