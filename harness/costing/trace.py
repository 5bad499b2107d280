"""The stored trace of a trial: cumulative joules over time, through every attempt at it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from harness.errors import MeasurementError
from harness.impact import EnergyTrace
from harness.records.files import read_lines
from harness.records.paths import ENERGY
from harness.records.record import Measurement
from harness.units import seconds


class TraceError(MeasurementError):
    """The stored trace cannot be read: a fault of the store and of no meter, so that it is never a missing value."""


class StoredTrace(EnergyTrace):
    """The trace of a trial's folder, read when a meter first looks at it: most never do."""

    __slots__ = ("_read",)
    _read: Callable[[], EnergyTrace]

    def __init__(self, folder: Path, measurement: Measurement) -> None:
        read = cache(lambda: _intact_trace(folder / ENERGY, measurement))
        object.__setattr__(self, "_read", read)  # a trace is frozen

    @property
    def utc_s(self) -> tuple[float, ...]:
        """Seconds since the Unix epoch."""
        return self._read().utc_s

    @property
    def joules(self) -> Mapping[str, tuple[float, ...]]:
        """Per scope, cumulative joules at those times."""
        return self._read().joules


def _intact_trace(path: Path, measurement: Measurement) -> EnergyTrace:
    try:
        return read_trace(path, measurement)
    except MeasurementError as error:
        raise TraceError(error.message, where=error.where, accepted=error.accepted, hint=error.hint) from error


def read_trace(path: Path, measurement: Measurement) -> EnergyTrace:
    """Cumulative joules of each primary scope over UTC, at the times when all of them had been read."""
    primary = {(reading.meter, reading.scope) for reading in measurement.readings if reading.primary}
    times: list[float] = []
    joules: dict[str, list[float]] = defaultdict(list)
    wanted = {scope for _, scope in primary}
    for anchor, rows in _attempts(read_lines(path)):
        latest: dict[str, float] = {}
        before = {scope: values[-1] for scope, values in joules.items()}
        for row in sorted(rows, key=itemgetter("t")):  # edges are written a little late
            latest |= {
                scope: before.get(scope, 0.0) + value
                for scope, value in row["j"].items()
                if (row["m"], scope) in primary and value is not None
            }
            moment = anchor["utc_s"] + seconds(row["t"] - anchor["monotonic_ns"])
            if latest.keys() != wanted or (times and moment <= times[-1]):
                continue
            times.append(moment)
            for scope in wanted:
                joules[scope].append(latest[scope])
    return EnergyTrace(tuple(times), {scope: tuple(values) for scope, values in joules.items()})


def _attempts(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """The anchor and the readings of each attempt at the trial; in each the joules begin anew."""
    anchor: Mapping[str, Any] | None = None
    found: list[Mapping[str, Any]] = []
    for row in rows:
        if "anchor" in row:
            if anchor is not None:
                yield anchor, found
            anchor, found = row["anchor"], []
        elif "t" in row:
            found.append(row)
    if anchor is not None:
        yield anchor, found
