"""Local calendar months of a site, cut out of UTC windows, and the energy on each side of a cut."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from harness.errors import MeasurementError, UsageError, did_you_mean
from harness.impact import EnergyTrace

_EDGE_SHARE: Final = 0.05
"""A trace may miss so much of the window's ends before it is not used; at 1 Hz that is one sample in 20 s."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a window inside one local month: `start_s <= t < end_s` in seconds since the Unix epoch."""

    start_s: float
    end_s: float
    year: int
    month: int


@lru_cache
def zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name; raises UsageError with the nearest one."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
        accepted = "an IANA name such as America/Phoenix"
        raise UsageError(f"{name!r} is not a time zone", accepted=accepted, hint=did_you_mean(name, known)) from None


def local_instant(text: str, name: str) -> float:
    """Seconds since the Unix epoch of a local time in a zone, or of a time that carries its own offset.

    Args:
        text: ISO 8601, such as `2025-06-30T20:00` or `2025-06-30T20:00-07:00`.
        name: IANA zone of a time without offset; empty where none is known.

    Raises:
        UsageError: no time, or a local time that occurs twice or never; with an offset it is taken.
    """
    try:
        stamp = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{text!r} is not a time", accepted="ISO 8601, such as 2025-06-30T20:00") from None
    if stamp.tzinfo is not None:
        return stamp.timestamp()
    if not name:
        raise UsageError(f"local time {text} has no time zone", accepted="a time with its offset, such as ...+02:00")
    place = zone(name)
    readings = [stamp.replace(tzinfo=place, fold=fold) for fold in (0, 1)]
    offsets = sorted({reading.utcoffset() or timedelta() for reading in readings}, reverse=True)
    if len(offsets) == 1:
        return readings[0].timestamp()
    exists = readings[0].astimezone(UTC).astimezone(place).replace(tzinfo=None) == stamp
    meanings = " or ".join(f"{stamp.isoformat()}{_sign(offset)}" for offset in offsets)
    raise UsageError(
        f"local time {text} occurs {'twice' if exists else 'never'} in {name}",
        accepted=f"a time with its offset, such as {meanings}",
    )


def _sign(offset: timedelta) -> str:
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


@lru_cache(maxsize=4096)
def month_start(name: str, year: int, month: int) -> float:
    """The instant at which the local calendar first shows a month, in seconds since the Unix epoch.

    Where a clock change skips that midnight, it is the change itself.
    """
    place = zone(name)
    first, second = (int(datetime(year, month, 1, tzinfo=place, fold=fold).timestamp()) for fold in (0, 1))
    shown = datetime.fromtimestamp(first, place)
    if (shown.year, shown.month, shown.day, shown.hour, shown.minute) == (year, month, 1, 0, 0):
        return float(first)
    candidates = range(min(first, second), max(first, second) + 1)
    return float(candidates[bisect.bisect_left(candidates, (year, month), key=lambda s: _month(s, place))])


def _month(instant_s: float, place: ZoneInfo) -> tuple[int, int]:
    shown = datetime.fromtimestamp(instant_s, place)
    return shown.year, shown.month


def split(start_s: float, end_s: float, name: str) -> tuple[Part, ...]:
    """A window cut at the local months of a zone; durations are elapsed time, whatever the clocks did.

    Raises MeasurementError for a window that ends before it starts or whose ends are not finite.
    """
    if not (math.isfinite(start_s) and math.isfinite(end_s) and start_s <= end_s):
        raise MeasurementError(
            f"the window is {start_s}..{end_s}", accepted="finite UTC seconds, the end not before the start"
        )
    place = zone(name)
    year, month = _month(start_s, place)
    parts = []
    while True:
        following = (year + month // 12, month % 12 + 1)
        next_s = month_start(name, *following)
        parts.append(Part(start_s, min(end_s, next_s), year, month))
        if next_s >= end_s:
            return tuple(parts)
        start_s, (year, month) = next_s, following


def energy_shares(parts: Sequence[Part], trace: EnergyTrace, scope: str) -> tuple[list[float], bool]:
    """The share of a scope's energy in each part, and whether it follows the clock (a uniform split) or the trace.

    The trace's cumulative joules are interpolated at the cuts, so that splitting a window conserves energy.
    """
    if len(parts) == 1:
        return [1.0], False
    spent = _joules_per_part(parts, trace, scope)
    weights = spent or [part.end_s - part.start_s for part in parts]
    whole = math.fsum(weights)
    return [weight / whole for weight in weights], not spent


def _joules_per_part(parts: Sequence[Part], trace: EnergyTrace, scope: str) -> list[float]:
    """Energy per part; empty where the trace does not say."""
    times, joules = trace.utc_s, trace.joules.get(scope, ())
    if len(times) < 2 or len(joules) != len(times):
        return []
    start_s, end_s = parts[0].start_s, parts[-1].end_s
    slack = _EDGE_SHARE * (end_s - start_s)
    if times[0] > start_s + slack or times[-1] < end_s - slack:
        return []
    at = [_interpolated(edge, times, joules) for edge in (start_s, *(part.end_s for part in parts))]
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
