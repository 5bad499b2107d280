"""From rows with a time to intervals: gaps, repeated hours, unsorted rows and clock changes by rule, and told."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from harness.errors import UsageError
from harness_meter_fuel.series import HIGHEST_G_PER_KWH, Interval

HOUR_S: Final = 3600.0
_DAY_S: Final = 86400.0
_EUROPEAN: Final = re.compile(r"(\d{1,2})[./](\d{1,2})[./](\d{4})(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?)?")
_AMERICAN: Final = re.compile(
    r"(\d{1,2})/(\d{1,2})/(\d{4})(?: (\d{1,2}):(\d{2})(?::(\d{2}))?(?: ?([AP])\.?M\.?)?)?", re.IGNORECASE
)
_TAGS: Final = {"UTC": 0, "GMT": 0, "WET": 0, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "BST": 1, "WEST": 1}


@dataclass(frozen=True, slots=True)
class Point:
    """A row: its start in seconds since the Unix epoch, its intensity or None, its end where the row says."""

    start_s: float
    g_per_kwh: float | None
    end_s: float | None = None


def iso_utc(text: str, where: str) -> float:
    """Seconds since the Unix epoch of an ISO 8601 time; one without an offset is UTC."""
    try:
        stamp = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"{text!r} is not a time", where=where, accepted="ISO 8601, such as 2024-01-31 13:00"
        ) from None
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()


def american_utc(text: str, where: str) -> float:
    """Seconds since the Unix epoch of a UTC time written month first, such as `01/31/2024 1:00:00 PM`, or as ISO."""
    match = _AMERICAN.fullmatch(text.strip())
    if match is None:
        return iso_utc(text, where)
    month, day, year, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    half = (match.group(7) or "").upper()
    if half:
        hour = hour % 12 + (12 if half == "P" else 0)
    return _instant(text, where, (year, month, day, hour, minute, second), UTC)


def european(text: str, where: str, zone: str) -> tuple[float, float]:
    """The earlier and the later instant that a local time written day first may mean; the same but for a clock change.

    A mark such as `(CEST)` behind the time decides.
    """
    tagged = re.search(r"\(([A-Z]+)\)", text)
    bare = re.sub(r"\([A-Z]+\)", "", text).strip()
    match = _EUROPEAN.fullmatch(bare)
    if match is None:
        try:
            stamp = datetime.fromisoformat(bare)
        except ValueError:
            accepted = "31.01.2024 13:00, 31/01/2024 13:00:00 or 2024-01-31 13:00"
            raise UsageError(f"{text!r} is not a time", where=where, accepted=accepted) from None
        if stamp.tzinfo:
            return stamp.timestamp(), stamp.timestamp()
        parts = (stamp.year, stamp.month, stamp.day, stamp.hour, stamp.minute, stamp.second)
    else:
        day, month, year, hour, minute, second = (int(part or 0) for part in match.groups())
        parts = (year, month, day, hour, minute, second)
    if tagged and tagged.group(1) in _TAGS:
        instant = _instant(text, where, parts, UTC) - HOUR_S * _TAGS[tagged.group(1)]
        return instant, instant
    place: tzinfo = UTC if zone == "UTC" else _zone(zone)
    return _instant(text, where, parts, place), _instant(text, where, parts, place, fold=1)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"no time zone {name!r} on this machine", hint="pip install tzdata") from None


def _instant(text: str, where: str, parts: tuple[int, int, int, int, int, int], zone: tzinfo, fold: int = 0) -> float:
    year, month, day, hour, minute, second = parts
    try:
        stamp = datetime(year, month, day, tzinfo=zone, fold=fold)
        return stamp.replace(hour=hour, minute=minute, second=second).timestamp()
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time: {error}", where=where) from None


def intervals(points: Sequence[Point], where: str) -> tuple[tuple[Interval, ...], tuple[str, ...]]:
    """Intervals in order of time, none overlapping, and what was done to the rows.

    A row without an end lasts as long as most rows do, or to the next row if that begins earlier; days, months and
    years follow the calendar. Repeated times become their mean. A row without a value leaves a gap, and so does an
    hour without a row: a gap is an error only for a window that meets it.

    Raises:
        UsageError: no value at all, or one that is not an intensity in g/kWh.
    """
    notes = []
    for point in points:
        _checked(point, where)
    known = [point for point in points if point.g_per_kwh is not None]
    if not known:
        raise UsageError("holds no row with an intensity", where=where, accepted="rows with a time and a number")
    if len(known) < len(points):
        notes.append(f"{len(points) - len(known)} of {len(points)} rows without a value left out")
    if any(after.start_s < before.start_s for before, after in itertools.pairwise(known)):
        notes.append("rows sorted by time")
    known.sort(key=lambda point: point.start_s)
    merged = [_merged(list(same)) for _, same in itertools.groupby(known, key=lambda point: point.start_s)]
    if len(merged) < len(known):
        notes.append(f"{len(known) - len(merged)} repeated times: the mean of each is taken")
    every = sorted({point.start_s for point in points})
    ends = _Ends(every)
    if len(every) == 1 and merged[0].end_s is None:
        notes.append("one row alone: taken as one hour")
    found = []
    for place, point in enumerate(merged):
        end_s = point.end_s if point.end_s is not None else ends.of(point.start_s)
        if place + 1 < len(merged):
            end_s = min(end_s, merged[place + 1].start_s)
        assert point.g_per_kwh is not None
        found.append(Interval(point.start_s, end_s, point.g_per_kwh))
    gaps = [after.start_s - before.end_s for before, after in itertools.pairwise(found) if after.start_s > before.end_s]
    if gaps:
        notes.append(f"{len(gaps)} gaps, {math.fsum(gaps) / HOUR_S:g} h in all")
    return tuple(found), tuple(notes)


def _checked(point: Point, where: str) -> None:
    value = point.g_per_kwh
    if value is None:
        return
    if not 0 <= value <= HIGHEST_G_PER_KWH:
        raise UsageError(
            f"the intensity at {_shown(point)} is {value:g} g/kWh",
            where=where,
            accepted=f"0 to {HIGHEST_G_PER_KWH:g} g/kWh: is it in another unit?",
        )
    if point.end_s is not None and point.end_s <= point.start_s:
        raise UsageError(f"the interval at {_shown(point)} ends at or before its start", where=where)


def _shown(point: Point) -> str:
    return datetime.fromtimestamp(point.start_s, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _merged(same: list[Point]) -> Point:
    values = [point.g_per_kwh for point in same if point.g_per_kwh is not None]
    return Point(same[0].start_s, math.fsum(values) / len(values), same[0].end_s)


class _Ends:
    """Where rows end that only say when they start."""

    def __init__(self, starts: Sequence[float]) -> None:
        steps = Counter(after - before for before, after in itertools.pairwise(starts))
        self.step_s = max(steps, key=lambda step: (steps[step], -step)) if steps else HOUR_S
        days = self.step_s / _DAY_S
        self.calendar = "year" if 364 < days < 367 else "month" if 27 < days < 32 else ""

    def of(self, start_s: float) -> float:
        """The end of the row that starts then."""
        if not self.calendar:
            return start_s + self.step_s
        stamp = datetime.fromtimestamp(start_s, UTC)
        if self.calendar == "year":
            return datetime(stamp.year + 1, 1, 1, tzinfo=UTC).timestamp()
        following = (stamp.replace(day=1) + timedelta(days=32)).replace(day=1)
        return following.timestamp()
