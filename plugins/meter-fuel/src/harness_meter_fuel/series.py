"""A grid intensity that changes over time: half-open UTC intervals, and what a window costs outside of them."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias

from harness import csv_table
from harness.csv_table import CsvTable
from harness.errors import MeasurementError, UsageError
from harness.impact import EnergyTrace

COLUMNS: Final = ("start_utc", "end_utc", "g_per_kwh")
"""Columns of an own file."""
_EDGE_SHARE: Final = 0.05
"""A trace may miss so much of the window's ends before it is not used; at 1 Hz that is one sample in 20 s."""
_HOUR: Final = timedelta(hours=1)
HIGHEST_G_PER_KWH: Final = 5000.0
"""Above this an intensity is in another unit: the dirtiest plants emit less than half of it."""
LOWEST_G_PER_KWH: Final = 1.0
"""A file that never reaches this is in another unit: no grid emits so little all the time."""
Past: TypeAlias = Literal["same-hour", "refuse"]


@dataclass(frozen=True, slots=True)
class Interval:
    """Carbon intensity in g/kWh for `start_s <= t < end_s`, in seconds since the Unix epoch."""

    start_s: float
    end_s: float
    g_per_kwh: float


@dataclass(frozen=True, slots=True)
class Intensity:
    """The energy-weighted intensity of a window and its range.

    Attributes:
        g_per_kwh: mean over the window.
        low: lower end of the range; the mean where there is none.
        high: upper end of it.
        uniform: whether the split over intervals followed the clock, for want of a trace of the power.
        past: what was taken in place of the window's own time; empty where it is the window's own.
    """

    g_per_kwh: float
    low: float
    high: float
    uniform: bool
    past: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Intervals in order of time, the digest of the file they came from, and the rule for other times.

    Attributes:
        intervals: in order, none overlapping.
        digest: SHA-256 of the file.
        start_s: time at which every window is taken to begin, in seconds since the Unix epoch; None for its own.
        past: what a window that the intervals do not cover costs: the mean of its UTC hour over the days of its month
            in the last year of the file (`same-hour`), or an error.
    """

    intervals: tuple[Interval, ...]
    digest: str
    start_s: float | None = None
    past: Past = "refuse"
    _starts: list[float] = field(default_factory=list, compare=False, repr=False)
    _typical: dict[tuple[int, int], tuple[float, float, float, str]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def by(self, start_s: float | None, past: Past) -> Series:
        """The same intervals with another rule; what was computed of them stays."""
        return replace(self, start_s=start_s, past=past)

    def _from(self, start_s: float) -> int:
        """Place of the first interval that ends after a time."""
        if len(self._starts) != len(self.intervals):
            self._starts[:] = [each.start_s for each in self.intervals]
        place = max(bisect.bisect_right(self._starts, start_s) - 1, 0)
        return place + (place < len(self.intervals) and self.intervals[place].end_s <= start_s)

    def _clipped(self, start_s: float, end_s: float) -> list[Interval]:
        found = []
        for each in itertools.islice(self.intervals, self._from(start_s), None):
            if each.start_s >= end_s:
                break
            found.append(Interval(max(each.start_s, start_s), min(each.end_s, end_s), each.g_per_kwh))
        return found

    def over(self, start_s: float, duration_s: float) -> tuple[Interval, ...]:
        """The intervals clipped to a window; raises MeasurementError if they leave a part of it uncovered."""
        end_s = start_s + duration_s
        clipped = self._clipped(start_s, end_s)
        reached = start_s
        for each in clipped:
            if each.start_s > reached:
                gap = f"the intensity series has a gap of {each.start_s - reached:g} s in the window"
                raise MeasurementError(gap, hint=self._hint)
            reached = each.end_s
        if reached < end_s:
            left = f"the intensity series leaves {end_s - reached:g} s of the window uncovered"
            raise MeasurementError(f"{left}; it has {self.covers}, the window is of {_shown(start_s)}", hint=self._hint)
        return tuple(clipped)

    @property
    def covers(self) -> str:
        """First and last time of the intervals, for messages."""
        return f"{_shown(self.intervals[0].start_s)} to {_shown(self.intervals[-1].end_s)}"

    @property
    def _hint(self) -> str:
        return (
            "" if self.past == "same-hour" else "`start:` or `past: same-hour` costs a run by a series of another time"
        )

    def intensity(self, start_s: float, duration_s: float, trace: EnergyTrace, scope: str) -> Intensity:
        """`sum(E_k * CI_k) / sum(E_k)` over a window, with E_k from the scope's trace, else in proportion to time.

        With a uniform split the range is that of the intervals: when the energy was spent is not known.

        Raises:
            MeasurementError: the intervals do not cover the window, and the rule gives nothing in their place.
        """
        if self.start_s is not None:
            shift_s, past = self.start_s - start_s, f"costed as though it began at {_shown(self.start_s)}"
            trace = replace(trace, utc_s=tuple(time_s + shift_s for time_s in trace.utc_s))
            return replace(self._weighed(self.over(self.start_s, duration_s), trace, scope), past=past)
        try:
            return self._weighed(self.over(start_s, duration_s), trace, scope)
        except MeasurementError:
            if self.past == "refuse":
                raise
        return self._of_same_hours(start_s, duration_s, trace, scope)

    def _weighed(self, parts: Sequence[Interval], trace: EnergyTrace, scope: str) -> Intensity:
        joules = _joules_per_part(parts, trace, scope)
        mean = _mean(parts, joules)
        if joules:
            return Intensity(mean, mean, mean, uniform=False)
        values = [part.g_per_kwh for part in parts]
        return Intensity(mean, min(values), max(values), uniform=len(parts) > 1)

    def _of_same_hours(self, start_s: float, duration_s: float, trace: EnergyTrace, scope: str) -> Intensity:
        """The rule `same-hour`; the range is that of the days of the month."""
        means: list[Interval] = []
        lows: list[Interval] = []
        highs: list[Interval] = []
        texts: list[str] = []
        end_s = start_s + duration_s
        hour = datetime.fromtimestamp(start_s, UTC).replace(minute=0, second=0, microsecond=0)
        while hour.timestamp() < end_s or not means:
            left_s, right_s = max(hour.timestamp(), start_s), min((hour + _HOUR).timestamp(), end_s)
            mean, low, high, text = self._same_hour(hour.month, hour.hour)
            means.append(Interval(left_s, right_s, mean))
            lows.append(Interval(left_s, right_s, low))
            highs.append(Interval(left_s, right_s, high))
            texts.append(text)
            hour += _HOUR
        joules = _joules_per_part(means, trace, scope)
        past = texts[0] if len(set(texts)) == 1 else f"{texts[0]} to {texts[-1]}"
        return Intensity(
            _mean(means, joules),
            _mean(lows, joules),
            _mean(highs, joules),
            uniform=not joules and len(means) > 1,
            past=past,
        )

    def _same_hour(self, month: int, hour: int) -> tuple[float, float, float, str]:
        """Mean, least and most of a UTC hour over the days of a month, in the last year that has any; and in words."""
        key = (month, hour)
        if key not in self._typical:
            last = datetime.fromtimestamp(self.intervals[-1].end_s - 1, UTC).year
            first = datetime.fromtimestamp(self.intervals[0].start_s, UTC).year
            for year in range(last, first - 1, -1):
                values = self._of_days(year, month, hour)
                if values:
                    days = f"{len(values)} days of " if len(values) != 1 else "one day of "
                    text = f"mean of {hour:02d}-{(hour + 1) % 24:02d} UTC over {days}{year}-{month:02d}"
                    mean = math.fsum(values) / len(values)
                    self._typical[key] = (mean, min(values), max(values), text)
                    break
            else:
                raise MeasurementError(
                    f"the intensity series has no {hour:02d}:00 UTC in any month {month:02d}; it has {self.covers}",
                    hint="`start:` names a time that it has",
                )
        return self._typical[key]

    def _of_days(self, year: int, month: int, hour: int) -> list[float]:
        """The intensity of an hour on each day of a month that the intervals cover whole."""
        at = datetime(year, month, 1, hour, tzinfo=UTC)
        values = []
        while at.month == month:
            parts = self._clipped(at.timestamp(), at.timestamp() + 3600)
            spans = [part.end_s - part.start_s for part in parts]
            if math.isclose(math.fsum(spans), 3600):
                values.append(_mean(parts, []))
            at += timedelta(days=1)
        return values


def _shown(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _mean(parts: Sequence[Interval], joules: Sequence[float]) -> float:
    """Mean weighed by joules, else by time; never outside the range of the parts."""
    weights = joules or [part.end_s - part.start_s for part in parts]
    values = [part.g_per_kwh for part in parts]
    whole = math.fsum(weights)
    mean = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / whole if whole else values[0]
    return min(max(mean, min(values)), max(values))


def _joules_per_part(parts: Sequence[Interval], trace: EnergyTrace, scope: str) -> list[float]:
    """Energy per interval, from interpolated cumulative joules; empty where the trace does not say."""
    times, joules = trace.utc_s, trace.joules.get(scope, ())
    if len(times) < 2 or len(joules) != len(times):
        return []
    start_s, end_s = parts[0].start_s, parts[-1].end_s
    slack = _EDGE_SHARE * (end_s - start_s)
    rising = all(before < after for before, after in itertools.pairwise(times))
    if not rising or times[0] > start_s + slack or times[-1] < end_s - slack:
        return []
    edges = [start_s, *(part.end_s for part in parts)]
    at = [_interpolated(edge, times, joules) for edge in edges]
    spent = [after - before for before, after in itertools.pairwise(at)]
    valid = all(math.isfinite(each) and each >= 0 for each in spent) and math.fsum(spent) > 0
    return spent if valid else []


def _interpolated(time_s: float, times: Sequence[float], joules: Sequence[float]) -> float:
    if time_s <= times[0]:
        return joules[0]
    if time_s >= times[-1]:
        return joules[-1]
    after = bisect.bisect_right(times, time_s)
    before = after - 1
    share = (time_s - times[before]) / (times[after] - times[before])
    return joules[before] + share * (joules[after] - joules[before])


def _stamp(text: str, where: str) -> float:
    try:
        stamp = datetime.fromisoformat(text.strip())
    except ValueError:
        stamp = None
    if stamp is None or stamp.tzinfo is None:
        raise UsageError(
            f"{text!r} is not a UTC time",
            where=where,
            accepted="ISO 8601 with its offset, such as 2026-01-31T13:00:00Z",
        )
    return stamp.timestamp()


def of_table(table: CsvTable) -> tuple[Interval, ...]:
    """The intervals of an own file: in order of time, never overlapping, each with a number; raises UsageError."""
    table.require(COLUMNS)
    intervals: list[Interval] = []
    for row in table:
        start_s, end_s = (_stamp(row[name], row.where) for name in COLUMNS[:2])
        if end_s <= start_s:
            raise UsageError("an interval ends at or before its start", where=row.where)
        if intervals and start_s < intervals[-1].end_s:
            raise UsageError("an interval overlaps the one before it", where=row.where)
        value = row.number(COLUMNS[2])
        if value is None or value < 0:
            raise UsageError(
                f"{row[COLUMNS[2]]!r} is not an intensity",
                where=row.where,
                accepted="a finite number of g/kWh, at least 0",
            )
        intervals.append(Interval(start_s, end_s, value))
    if not intervals:
        raise UsageError("holds no interval", where=table.name)
    _in_grams(intervals, table.name)
    return tuple(intervals)


def _in_grams(intervals: Sequence[Interval], where: str) -> None:
    """Refuses values that no grid has in g/kWh, with the question which unit they are in; raises UsageError.

    A single value may be as low as 0; a whole file of less than 1 g/kWh is in another unit.
    """
    greatest = max(each.g_per_kwh for each in intervals)
    if greatest > HIGHEST_G_PER_KWH:
        raise UsageError(
            f"holds an intensity of {greatest:g} g/kWh",
            where=where,
            accepted=f"0 to {HIGHEST_G_PER_KWH:g} g/kWh: is it in another unit?",
        )
    if 0 < greatest < LOWEST_G_PER_KWH:
        raise UsageError(
            f"holds no intensity above {greatest:g} g/kWh, less than any grid has",
            where=where,
            accepted="g/kWh: are these kg/kWh?",
        )


def read(path: Path) -> Series:
    """A series from a CSV file with the columns `start_utc, end_utc, g_per_kwh`; raises UsageError.

    Intervals stand in order of time and never overlap; a gap is refused only where a window meets it.
    """
    with csv_table.opened(path) as table:
        return Series(of_table(table), table.digest)
