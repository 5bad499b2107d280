"""Turns readings of an energy counter, or of power, into cumulative joules that only ever grow.

Shared by meters: `CounterTrack` for counters that wrap, reset or fail to answer, `PowerIntegrator` for sampled power.
"""

from __future__ import annotations

import math
from typing import Literal

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

    def _state(self) -> Cumulative:
        other = {Method.INTEGRATED: self._integrated_j} if self._integrated_j > 0 else {}
        return Cumulative(
            self._joules, self._over_j, self._under_j, other, gap_s=seconds(self._gap_ns), resets=self._resets
        )


class PowerIntegrator(_Running):
    """Trapezoid over time-stamped power samples, with gaps bounded by the least and the greatest power.

    An interval longer than two expected ones, or one in which a sample failed, is a gap: its value is still the
    trapezoid, its bound reaches from `idle_w` to `max_w` times its length, and its length is counted in `gap_s`.

    Args:
        expected_interval_s: the sampling interval that is aimed at; > 0.
        idle_w: least power the device can draw.
        max_w: greatest power it can draw; None where it is not known: then the greatest power seen stands in its
            place, and `gap_s` alone says that the upper bound is incomplete.

    Example:
        >>> power = PowerIntegrator(expected_interval_s=0.1, max_w=300.0)
        >>> power.update(0, 100.0).joules
        0.0
        >>> power.update(100_000_000, 120.0).joules  # 0.1 s later
        11.0
        >>> power.update(200_000_000, None).joules  # a sample that failed adds nothing ...
        11.0
        >>> late = power.update(300_000_000, 120.0)  # ... and its interval is a gap with a bound
        >>> round(late.joules, 9), round(late.under_j, 9), late.gap_s
        (35.0, 36.0, 0.2)
    """

    def __init__(self, expected_interval_s: float, idle_w: float = 0.0, max_w: float | None = None) -> None:
        super().__init__()
        if not expected_interval_s > 0:
            raise ValueError(f"the expected interval is positive, not {expected_interval_s} s")
        self._longest_ns = nanoseconds(2 * expected_interval_s)
        self._idle_w = idle_w
        self._max_w = max_w
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
            The energy up to the last good sample. After a failed one the meter says Unavailable for this snapshot.
        """
        power = _usable(watts)
        began = self._last[0] if self._last else self._waiting_since
        if began is not None and t_ns < began:
            raise ValueError(f"samples come in order of time: {t_ns} ns is before {began} ns")
        if power is None:
            self._failed = True
            if began is None:
                self._waiting_since = t_ns
            return self._state()
        self._greatest_w = max(self._greatest_w, power)
        if began is not None:
            before_w = self._last[1] if self._last else power
            self._add(t_ns - began, before_w, power)
        self._last, self._failed = (t_ns, power), False
        return self._state()

    def _add(self, length_ns: int, before_w: float, after_w: float) -> None:
        length_s = seconds(length_ns)
        value_j = (before_w + after_w) / 2 * length_s
        self._joules += value_j
        if self._failed or length_ns > self._longest_ns:
            most_w = self._greatest_w if self._max_w is None else self._max_w
            self._over_j += max(0.0, value_j - self._idle_w * length_s)
            self._under_j += max(0.0, most_w * length_s - value_j)
            self._gap_ns += length_ns


class CounterTrack(_Running):
    """A counter's readings as cumulative joules: wraps are repaired, resets and failed reads never add a wrong joule.

    A counter that goes backwards has wrapped (policy `wrap`: difference + range) or was reset (policy `reset`). A
    decrease under policy `wrap` that would ask for more than `max_power_w` is a reset too. A reset interval is taken
    from power samples where they cover it (method `integrated`); else it adds 0 J with all of it counted as a gap.

    A read that failed is not a wrap: the next good one closes the interval. Under policy `wrap` that holds while the
    interval is shorter than the shortest wrap, `range_j / max_power_w`; a longer one may hide wraps, so that it is a
    gap whose upper bound is the greatest energy that fits.

    Args:
        range_j: where the counter wraps; needed by policy `wrap`.
        policy: what a decrease means.
        max_power_w: greatest power; without it hidden wraps are not looked for and a reset's `under_j` stays unknown.
        tick_s: how late the counter may be, allowed for when an increase is held against `max_power_w`.

    Example:
        A counter that wraps at 100 J, on a device that draws at most 50 W:

        >>> track = CounterTrack(range_j=100.0, policy="wrap", max_power_w=50.0)
        >>> track.update(0, 90.0).joules
        0.0
        >>> track.update(1_000_000_000, 20.0).joules
        30.0

        Under the default policy a counter that goes backwards was reset:

        >>> reset = CounterTrack()
        >>> reset.update(0, 90.0).joules
        0.0
        >>> seen = reset.update(1_000_000_000, 20.0)
        >>> seen.joules, seen.gap_s, seen.resets
        (0.0, 1.0, 1)
    """

    def __init__(
        self,
        range_j: float | None = None,
        policy: Literal["reset", "wrap"] = "reset",
        max_power_w: float | None = None,
        *,
        tick_s: float = 0.0,
    ) -> None:
        super().__init__()
        if policy == "wrap" and (range_j is None or not range_j > 0):
            raise ValueError(f"a counter that wraps has a range, found {range_j}")
        self._range_j = range_j
        self._wraps = policy == "wrap"
        self._max_power_w = max_power_w
        self._tick_s = tick_s
        self._started_ns: int | None = None
        self._last: tuple[int, float] | None = None
        self._moved_ns: int | None = None
        self._last_power: tuple[int, float] | None = None
        self._power_j = 0.0
        self._power_ns = 0

    def update(self, t_ns: int, joules: float | None, power_w: float | None = None) -> Cumulative:
        """Takes one reading.

        Args:
            t_ns: monotonic time of the reading; never before the previous one.
            joules: the counter; None, negative or not finite for a read that failed.
            power_w: power at that moment, where it was read; used for an interval with a reset.

        Returns:
            The energy up to the last good read. After a failed one the meter says Unavailable for this snapshot.
        """
        began = self._last[0] if self._last else self._started_ns
        if began is not None and t_ns < began:
            raise ValueError(f"readings come in order of time: {t_ns} ns is before {began} ns")
        self._take_power(t_ns, _usable(power_w))
        value_j = _usable(joules)
        if value_j is None:
            self._started_ns = t_ns if self._started_ns is None else self._started_ns
            return self._state()
        if self._last is not None:
            self._close(t_ns - self._last[0], value_j - self._last[1])
        elif began is not None:
            self._bridge(t_ns - began)
        if self._last is None or value_j != self._last[1]:
            self._moved_ns = t_ns
        self._last = (t_ns, value_j)
        self._power_j, self._power_ns = 0.0, 0
        return self._state()

    def still_s(self, t_ns: int) -> float:
        """Seconds for which the counter has shown one and the same value; 0 before the first good read.

        A device that draws power cannot stand still for many ticks: a meter then says Unavailable.
        """
        return 0.0 if self._moved_ns is None else seconds(t_ns - self._moved_ns)

    def _take_power(self, t_ns: int, power_w: float | None) -> None:
        if power_w is not None and self._last_power is not None:
            length_ns = t_ns - self._last_power[0]
            self._power_j += (self._last_power[1] + power_w) / 2 * seconds(length_ns)
            self._power_ns += length_ns
        self._last_power = None if power_w is None else (t_ns, power_w)

    def _most_j(self, length_ns: int) -> float:
        return math.inf if self._max_power_w is None else self._max_power_w * (seconds(length_ns) + self._tick_s)

    def _close(self, length_ns: int, increase_j: float) -> None:
        most_j = self._most_j(length_ns)
        if increase_j < 0 and self._wraps and self._range_j is not None and increase_j + self._range_j <= most_j:
            increase_j += self._range_j
        if increase_j < 0:
            self._resets += 1
            self._bridge(length_ns)
            return
        self._joules += increase_j
        if self._wraps and self._range_j is not None and self._range_j <= most_j < math.inf:
            hidden = max(0, math.floor((most_j - increase_j) / self._range_j))
            self._under_j += hidden * self._range_j
            self._gap_ns += length_ns

    def _bridge(self, length_ns: int) -> None:
        """Adds an interval that the counter says nothing about: integrated power, and a gap for what it leaves."""
        missing_ns = length_ns - self._power_ns
        self._joules += self._power_j
        self._integrated_j += self._power_j
        self._gap_ns += missing_ns
        if self._max_power_w is not None:
            # What the counter had not shown at the last good read is lost; what it shows late is counted again.
            late_j = self._max_power_w * self._tick_s
            self._over_j += min(late_j, self._power_j)
            self._under_j += self._max_power_w * seconds(missing_ns) + late_j
