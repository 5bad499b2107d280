"""What one run adds to every series of every metric, and where that is kept: in the user's cache, a file a run.

Reading thousands of records for one metric takes seconds; what they add to the series is a few kilobytes a run. It is
computed from the records by the one function that a history without it uses, and is a copy: a file whose name does not
fit the records as they are, its own content, or the code that made it, is made anew and never read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Final

from pydantic import ValidationError

from harness import quantity, records
from harness.errors import MeasurementError
from harness.quantity import Amount
from harness.records.files import adapter, load_record, recorded_trials, write_atomically
from harness.records.metric import RATE, Metric
from harness.records.paths import RUN
from harness.records.record import Record
from harness.records.trials import (
    PointTrials,
    cards,
    drivers,
    energy_beneath,
    factor_ids,
    group,
    methods_of,
    metrics_of,
    rests_on_factors,
    start_of,
    value_of,
)
from harness.storing.index import cache_of, documents_of, forget

SUFFIX: Final = ".series.json"


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """What the values of one series share; a change in any of it begins another series.

    Attributes:
        point: suite and label.
        id: of the point: digest of options, backend, meters and windows.
        cards: devices by kind, product and identity.
        drivers: their versions.
        methods: how the values were obtained.
        factors: ids of the factors that an impact rests on; empty for a time or an energy.
        unit: of the values.
        start: how the processes of the trials came to be: `spawn` or `fork`; empty for modelled work.
    """

    point: str
    id: str
    cards: tuple[str, ...]
    drivers: tuple[str, ...]
    methods: tuple[str, ...]
    factors: tuple[str, ...]
    unit: str
    start: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One run: when it started, its id, and the median of its trials."""

    started_utc: str
    run: str
    value: float
    trials: int


@dataclass(frozen=True, slots=True)
class OfMetric:
    """What the trials of a point add to the series of one metric."""

    name: str
    per: str | None
    entries: tuple[tuple[SeriesKey, Entry], ...]


@dataclass(frozen=True, slots=True)
class OfPoint:
    """What the trials of a point add to the series of its metrics; `known` is what may be asked for, as text."""

    name: str
    known: tuple[str, ...]
    metrics: tuple[OfMetric, ...]


@dataclass(frozen=True, slots=True)
class OfRun:
    """What a run adds to any history; `recosted` where it holds other costs of a run that the store may hold too.

    What could not be read of it is in `unread`.
    """

    recosted: bool
    points: tuple[OfPoint, ...] = ()
    unread: tuple[str, ...] = ()


def read(run: Path) -> OfRun:
    """What a run adds, from its records; one that cannot be read is named in `unread` and costs no other."""
    unread: list[str] = []
    try:
        if recosted(run):
            return OfRun(recosted=True)
    except MeasurementError as error:
        return OfRun(recosted=False, unread=(str(error),))
    points = tuple(map(of_point, group(_records(run, unread))))
    return OfRun(recosted=False, points=points, unread=tuple(unread))


def _records(run: Path, unread: list[str]) -> Iterator[Record]:
    for folder in recorded_trials(run):
        try:
            yield load_record(folder)
        except (MeasurementError, OSError) as error:
            unread.append(str(error))


def recosted(run: Path) -> bool:
    """Whether a run holds other costs of a run that the store may hold too."""
    path = run / RUN
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("parent"))
    except (OSError, ValueError, AttributeError) as error:
        raise MeasurementError(f"the run's description cannot be read: {error}", where=str(path)) from None


def of_point(point: PointTrials, only: Container[Metric] | None = None) -> OfPoint:
    """What the trials of a point add to the series: of every metric, or of these alone."""
    metrics = dict.fromkeys(
        metric for finished in point.records for metric in _accepted(finished) if only is None or metric in only
    )
    return OfPoint(
        name=point.name,
        known=tuple(map(str, metrics_of(point.records))),
        metrics=tuple(
            OfMetric(metric.name, metric.per, entries)
            for metric in metrics
            if (entries := tuple(_entries(metric, point)))
        ),
    )


def _accepted(finished: Record) -> Iterator[Metric]:
    """Every name that a record has a value for; a column alone stands for its mean."""
    yield from map(Metric, finished.totals)
    for column, statistics in finished.columns.items():
        yield Metric(column)
        yield from (Metric(f"{column}.{statistic}") for statistic in statistics)
    for name, unit in finished.units.items():
        yield from (Metric(metric, name) for metric in (RATE, *unit.costs))


def _entries(metric: Metric, point: PointTrials) -> Iterator[tuple[SeriesKey, Entry]]:
    """The entry of one run; trials that differ in what a series shares are entries of different series."""
    by_key: dict[SeriesKey, list[tuple[str, float]]] = {}
    for finished in point.records:
        value = value_of(metric, finished)
        if isinstance(value, Amount):
            measurement = finished.measurement
            key = SeriesKey(
                point=point.name,
                id=point.id,
                cards=tuple(cards(measurement)),
                drivers=tuple(drivers(measurement)),
                methods=tuple(sorted(methods_of(value, energy_beneath(metric, finished)))),
                factors=factor_ids(finished) if rests_on_factors(metric, finished) else (),
                unit=value.unit,
                start=start_of(measurement),
            )
            by_key.setdefault(key, []).append((measurement.started_utc, value.value))
    run = point.records[0].measurement.run
    for key, values in by_key.items():
        yield key, Entry(min(started for started, _ in values), run, median(v for _, v in values), len(values))


# Kept


class KeptSeries:
    """The series of the runs of a folder, read from what is kept of them; made and kept where that is not fresh.

    Args:
        folder: that the runs lie in.
    """

    def __init__(self, folder: Path) -> None:
        self._home = cache_of(folder).with_name("series")
        self._standing: dict[str, list[Path]] = {}
        for path in self._home.glob(f"*{SUFFIX}"):
            self._standing.setdefault(path.name.split("~", 1)[0], []).append(path)

    def of(self, run: Path) -> OfRun:
        """What a run adds; raises as `read` does."""
        basis = _digest(json.dumps([_code(), sorted(documents_of(run).items())]).encode())
        standing = self._standing.get(run.name, [])
        for path in standing:
            found = _kept(path, f"{run.name}~{basis}~")
            if found is not None:
                return found
        made = read(run)
        if not made.unread:
            self._keep(run.name, basis, made)
        forget(standing)
        return made

    def _keep(self, run: str, basis: str, made: OfRun) -> None:
        data = adapter(OfRun).dump_json(made)
        with suppress(OSError, MeasurementError):  # a cache that cannot be written costs time and no answer
            self._home.mkdir(parents=True, exist_ok=True)
            write_atomically(self._home / f"{run}~{basis}~{_digest(data)}{SUFFIX}", data)


def _kept(path: Path, begin: str) -> OfRun | None:
    """What a file holds; None where it is of other records or not what its name says."""
    if not path.name.startswith(begin):
        return None
    try:
        data = path.read_bytes()
        intact = path.name == f"{begin}{_digest(data)}{SUFFIX}"
        return adapter(OfRun).validate_json(data) if intact else None
    except (OSError, ValidationError):
        return None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@cache
def _code() -> str:
    """Digest of the code that the series come from: another version may read the same records otherwise."""
    folder = Path(str(records.__file__)).parent
    files = [Path(__file__), Path(str(quantity.__file__)), *sorted(folder.glob("*.py"))]
    return _digest(b"\0".join(file.read_bytes() for file in files))
