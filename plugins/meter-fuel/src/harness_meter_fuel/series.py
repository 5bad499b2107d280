"""A grid intensity that changes over time: contiguous half-open UTC intervals from a CSV file."""

from __future__ import annotations

import bisect
import csv
import hashlib
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from harness.errors import MeasurementError, UsageError
from harness.impact import EnergyTrace

_COLUMNS: Final = ("start_utc", "end_utc", "g_per_kwh")
_EDGE_SHARE: Final = 0.05
"""A trace may miss so much of the window's ends before it is not used; at 1 Hz that is one sample in 20 s."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Carbon intensity in g/kWh for `start_s <= t < end_s`, in seconds since the Unix epoch."""

    start_s: float
    end_s: float
    g_per_kwh: float


@dataclass(frozen=True, slots=True)
class Intensity:
    """The energy-weighted intensity of a window, its range, and whether the split followed the power or the clock."""

    g_per_kwh: float
    low: float
    high: float
    uniform: bool


@dataclass(frozen=True, slots=True)
class Series:
    """Intervals in order of time, and the digest of the file they came from."""

    intervals: tuple[Interval, ...]
    digest: str

    def over(self, start_s: float, duration_s: float) -> tuple[Interval, ...]:
        """The intervals clipped to a window; raises MeasurementError if they leave a part of it uncovered."""
        end_s = start_s + duration_s
        clipped = tuple(
            Interval(max(each.start_s, start_s), min(each.end_s, end_s), each.g_per_kwh)
            for each in self.intervals
            if each.start_s < end_s and each.end_s > start_s
        )
        reached = start_s
        for each in clipped:
            if each.start_s > reached:
                raise MeasurementError(f"the intensity series has a gap of {each.start_s - reached:g} s in the window")
            reached = each.end_s
        if reached < end_s:
            raise MeasurementError(f"the intensity series leaves {end_s - reached:g} s of the window uncovered")
        return clipped

    def intensity(self, start_s: float, duration_s: float, trace: EnergyTrace, scope: str) -> Intensity:
        """`sum(E_k * CI_k) / sum(E_k)` over a window, with E_k from the scope's trace, else in proportion to time.

        With a uniform split the range is that of the intervals: when the energy was spent is not known.
        """
        parts = self.over(start_s, duration_s)
        joules = _joules_per_part(parts, trace, scope)
        weights = joules or [part.end_s - part.start_s for part in parts]
        values = [part.g_per_kwh for part in parts]
        mean = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)
        mean = min(max(mean, min(values)), max(values))
        if joules:
            return Intensity(mean, mean, mean, uniform=False)
        return Intensity(mean, min(values), max(values), uniform=len(parts) > 1)


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


def _value(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{text!r} is not an intensity", where=where, accepted="a finite number of g/kWh, at least 0")
    return value


def read(path: Path) -> Series:
    """A series from a CSV file with the columns `start_utc, end_utc, g_per_kwh`; raises UsageError.

    Intervals stand in order of time and never overlap; a gap is refused only where a window meets it.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the intensity series {path}: {error}") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if not set(_COLUMNS) <= set(rows.fieldnames or ()):
        raise UsageError(f"{path} lacks columns", accepted=", ".join(_COLUMNS))
    intervals: list[Interval] = []
    for row in rows:
        where = f"{path}:{rows.line_num}"
        start_s, end_s = (_stamp(row[name] or "", where) for name in _COLUMNS[:2])
        if end_s <= start_s:
            raise UsageError("an interval ends at or before its start", where=where)
        if intervals and start_s < intervals[-1].end_s:
            raise UsageError("an interval overlaps the one before it", where=where)
        intervals.append(Interval(start_s, end_s, _value(row["g_per_kwh"] or "", where)))
    if not intervals:
        raise UsageError(f"{path} holds no interval")
    return Series(tuple(intervals), hashlib.sha256(raw).hexdigest())
