"""Stored baselines: what a suite's points measured once, kept as one small JSON file, and judged against later.

Much weaker than pairs. Base and head lie days apart, so whatever changed on the runner in between counts as a change of
the code; the rank bounds below hold for the noise between trials and know nothing of the noise between jobs. Hence the
fingerprints of both runners must agree, and every result says what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import ConfigDict, ValidationError

from harness.errors import MeasurementError, UsageError, did_you_mean
from harness.executor import FORK
from harness.gating.cells import gateable
from harness.quantity import Amount
from harness.records.files import adapter, records_of, write_json
from harness.records.metric import Metric
from harness.records.paths import BASELINES, RUN
from harness.records.record import AnyValue, Record
from harness.records.trials import (
    RUNNER_KEYS,
    PointTrials,
    factor_ids,
    group,
    metrics_of,
    same_runner,
    start_of,
    value_of,
)

SCHEMA_VERSION: Final = 1
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMetric:
    """One metric of a point.

    Attributes:
        name: of the metric.
        per: functional unit; None for a total or a column.
        ungated: why no gate may use it, such as windows that were too short; empty where it may.
        values: one a trial, with method and bound, or why there is none.
    """

    name: str
    per: str | None = None
    ungated: str = ""
    values: tuple[AnyValue, ...]

    @property
    def metric(self) -> Metric:
        """The metric by name."""
        return Metric(self.name, self.per)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPoint:
    """One point of a suite.

    Attributes:
        id: digest of what was measured; a point of another id is other work.
        suite: name of its suite.
        label: for people, unique in its suite.
        trials: `<run>/<trial id>` of each trial.
        left_out: trials that were not valid.
        factors: ids of the factors its impacts rest on.
        metrics: everything that was measured.
    """

    id: str
    suite: str
    label: str
    trials: tuple[str, ...]
    left_out: int = 0
    factors: tuple[str, ...] = ()
    metrics: tuple[KeptMetric, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What a point of another run is matched by."""
        return self.suite, self.label

    def find(self, metric: Metric) -> KeptMetric | None:
        """A metric by name; a column's mean where no statistic is named."""
        wanted = metric.name, f"{metric.name}.mean"
        return next((kept for kept in self.metrics if kept.per == metric.per and kept.name in wanted), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A stored baseline.

    Attributes:
        name: of its file.
        saved_utc: when it was saved.
        runs: the runs it was made from.
        keys: what a runner's fingerprint must agree in.
        fingerprint: of the runner, all keys.
        packages: versions of distributions that can change a measurement.
        plugins: versions of the plugins.
        points: what was measured.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schema: int = SCHEMA_VERSION
    name: str
    saved_utc: str
    runs: tuple[str, ...]
    keys: tuple[str, ...] = RUNNER_KEYS
    fingerprint: Mapping[str, Any]
    packages: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)
    points: tuple[KeptPoint, ...]

    @property
    def trials(self) -> int:
        """How many trials it holds."""
        return sum(len(point.trials) for point in self.points)


def path_of(store: Path, name: str) -> Path:
    """The file of a baseline; raises UsageError for a name that is none."""
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} is not a valid name of a baseline",
            accepted="up to 100 of A-Z a-z 0-9 . _ -, a letter or digit first",
        )
    return store / BASELINES / f"{name}.json"


def build(name: str, runs: Sequence[Path], keys: Sequence[str] = RUNNER_KEYS) -> Baseline:
    """A baseline of the valid trials of finished runs; trials of one point in several runs are put together.

    Raises:
        UsageError: a folder is no run, or a key is unknown.
        MeasurementError: nothing valid was measured, the trials come from different runners, or they were forked.
    """
    records: list[Record] = []
    for run in runs:
        if not (run / RUN).exists():
            raise UsageError("this is not a run folder", where=str(run), accepted=f"a folder with {RUN}")
        records += records_of(run)
    points = group(records)
    if not points:
        raise MeasurementError("no valid trial in these runs has a record", where=", ".join(map(str, runs)))
    if any(start_of(finished.measurement) == FORK for point in points for finished in point.records):
        raise MeasurementError(
            "these trials were forked from one process, whose memory layout and hash seed they share",
            accepted="trials of fresh processes",
            where=", ".join(map(str, runs)),
            hint="harness run --executor-option start=spawn",
        )
    fingerprint = same_runner(points, keys)
    for key in keys:
        if key not in fingerprint:
            raise UsageError(
                f"the runner's fingerprint has no {key!r}",
                accepted=", ".join(sorted(fingerprint)),
                hint=did_you_mean(key, fingerprint),
            )
    measurement = points[0].records[0].measurement
    return Baseline(
        name=name,
        saved_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        runs=tuple(dict.fromkeys(finished.measurement.run for finished in records)),
        keys=tuple(dict.fromkeys(keys)),
        fingerprint=fingerprint,
        packages=measurement.environment.get("packages", {}),
        plugins=measurement.plugins,
        points=tuple(map(_keep, points)),
    )


def _keep(point: PointTrials) -> KeptPoint:
    return KeptPoint(
        id=point.id,
        suite=point.suite,
        label=point.label,
        trials=tuple(f"{finished.measurement.run}/{finished.measurement.trial_id}" for finished in point.records),
        left_out=len(point.left_out),
        factors=tuple(sorted({factor for finished in point.records for factor in factor_ids(finished)})),
        metrics=tuple(_keep_metric(metric, point.records) for metric in metrics_of(point.records)),
    )


def _keep_metric(metric: Metric, records: Sequence[Record]) -> KeptMetric:
    values = tuple(value_of(metric, finished) for finished in records)
    reasons = (
        gateable(metric, finished)[1]
        for finished, value in zip(records, values, strict=True)
        if isinstance(value, Amount)
    )
    return KeptMetric(name=metric.name, per=metric.per, values=values, ungated=next(filter(None, reasons), ""))


def save(store: Path, baseline: Baseline, *, replace: bool = False) -> Path:
    """Writes a baseline whole or not at all.

    Raises:
        UsageError: the name is none, or taken and not to be replaced.
    """
    path = path_of(store, baseline.name)
    if path.exists() and not replace:
        raise UsageError(f"there is a baseline {baseline.name!r} already", where=str(path), hint="--replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, adapter(Baseline).dump_python(baseline, mode="json"))
    return path


def load(store: Path, name: str) -> Baseline:
    """A stored baseline.

    Raises:
        UsageError: there is none of that name.
        MeasurementError: its file cannot be read.
    """
    path = path_of(store, name)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        known = names(store)
        raise UsageError(
            f"there is no baseline {name!r}",
            where=str(path.parent),
            accepted=", ".join(known) or "none is saved yet",
            hint=did_you_mean(name, known),
        ) from None
    try:
        found = json.loads(text).get("schema")
        if found != SCHEMA_VERSION:
            raise MeasurementError(f"a baseline of schema {found}, not {SCHEMA_VERSION}", where=str(path))
        return adapter(Baseline).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise MeasurementError(f"not a baseline: {place}: {first['msg']}", where=str(path)) from None
    except (ValueError, AttributeError) as error:
        raise MeasurementError(f"not a baseline: {error}", where=str(path)) from None


def names(store: Path) -> list[str]:
    """Names of the stored baselines, sorted."""
    return sorted(path.stem for path in (store / BASELINES).glob("*.json") if _NAME.fullmatch(path.stem))


def remove(store: Path, name: str) -> Path:
    """Deletes a baseline; raises UsageError where there is none."""
    path = path_of(store, name)
    if not path.exists():
        load(store, name)
    path.unlink()
    return path
