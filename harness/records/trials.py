"""Trials of finished runs, grouped by point: what a baseline keeps, a comparison compares and a history follows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.errors import MeasurementError, UsageError
from harness.executor import SPAWN
from harness.quantity import Amount, Method, Unavailable, Value
from harness.records.files import load_record, records_of
from harness.records.metric import ABOVE_IDLE, POWERS, RATE, Metric, base_name, idle_measured
from harness.records.paths import RECORD
from harness.records.record import SIMULATOR, Measurement, Record

RUNNER_KEYS: Final = (
    "cpu",
    "cores_logical",
    "cores_allowed",
    "cpu_limit",
    "governor",
    "system",
    "machine",
    "virtualised",
    "python",
    "variables",
    "devices",
    "drivers",
    "start",
)
"""What two measurements must share before one may be judged by the other, unless other keys are declared."""
_OF_ONE_RUN: Final = frozenset({"load_1min", "cpu_mhz", "packages", "locks"})
"""What a trial's environment says that is no property of its runner."""


OWN_READINGS: Final = frozenset(
    {"duration_s", "energy_j", ABOVE_IDLE, *POWERS, RATE, f"{SIMULATOR}s", f"{SIMULATOR}energy_j"}
)
"""What is read or follows from reading, and rests on no factor."""


@dataclass(frozen=True, slots=True)
class PointTrials:
    """The trials of one point.

    Attributes:
        id: of the point: the digest of what is measured.
        suite: name of its suite.
        label: for people; unique in its suite.
        records: the trials that count, in order: the valid ones, all of them where none is valid.
        left_out: the trials that were not valid while others were.
        valid: whether the trials that count are valid.
    """

    id: str
    suite: str
    label: str
    records: Sequence[Record]
    left_out: Sequence[Record] = ()
    valid: bool = True

    @property
    def name(self) -> str:
        """Suite and label."""
        return f"{self.suite}: {self.label}"


def load(path: Path) -> list[PointTrials]:
    """The points with a valid trial of a run folder, or of one trial's folder; raises as `load_all` does."""
    return [point for point in load_all(path) if point.valid]


def load_all(path: Path) -> list[PointTrials]:
    """The points of a run folder, or of one trial's folder, valid or not.

    Raises:
        UsageError: there is no such folder.
        MeasurementError: no valid trial has a record, or a record cannot be read.
    """
    if not path.is_dir():
        raise UsageError("there is no such folder", where=str(path), accepted="a run folder or a record folder")
    single = (path / RECORD).exists()
    found = by_point([load_record(path)] if single else records_of(path))
    if not any(point.valid for point in found):
        raise MeasurementError("no valid trial in this folder has a record", where=str(path))
    return found


def group(records: Iterable[Record]) -> list[PointTrials]:
    """Records by point; points without a valid trial are left out."""
    return [point for point in by_point(records) if point.valid]


def by_point(records: Iterable[Record]) -> list[PointTrials]:
    """Records by point, in the order in which the points appear."""
    found: dict[str, list[Record]] = {}
    for finished in records:
        found.setdefault(str(finished.measurement.point["id"]), []).append(finished)
    return [_of_point(identity, trials) for identity, trials in found.items()]


def _of_point(identity: str, trials: Sequence[Record]) -> PointTrials:
    point = trials[0].measurement.point
    valid = [finished for finished in trials if not finished.measurement.invalid]
    return PointTrials(
        id=identity,
        suite=str(point.get("suite", "")),
        label=str(point.get("label", identity)),
        records=valid or trials,
        left_out=[finished for finished in trials if valid and finished.measurement.invalid],
        valid=bool(valid),
    )


def metrics_of(records: Sequence[Record]) -> list[Metric]:
    """Every metric that any of the records has: totals, costs per functional unit, rates, statistics of columns.

    Energy above idle is left out where no trial measured idle power: nobody asked for it.
    """
    found: dict[Metric, None] = {}
    for finished in records:
        for name, unit in finished.units.items():
            found |= dict.fromkeys(Metric(metric, name) for metric in (RATE, *unit.costs))
        found |= dict.fromkeys(Metric(metric) for metric in finished.totals)
        for column, statistics in finished.columns.items():
            found |= dict.fromkeys(Metric(f"{column}.{statistic}") for statistic in statistics)
    asked = any(idle_measured(finished.totals) for finished in records)
    return [metric for metric in found if asked or base_name(metric.name) != ABOVE_IDLE]


def value_of(metric: Metric, finished: Record) -> Value:
    """A metric's value in a trial; Unavailable where that trial does not know it."""
    try:
        return metric.value(finished)
    except UsageError as error:
        return Unavailable(str(error))


def methods_of(amount: Amount, energy: Value | None = None) -> frozenset[Method]:
    """The methods that a value was obtained by; totals are compared with totals of the same kinds only.

    Args:
        amount: the value.
        energy: of an impact, the energy that it comes from: under an estimated factor all energies look alike.
    """
    beneath = energy.composition if isinstance(energy, Amount) else ()
    return frozenset((*amount.composition, *beneath))


def energy_beneath(metric: Metric, finished: Record) -> Value | None:
    """The energy that an impact comes from; None for what is none."""
    return finished.totals.get("energy_j") if rests_on_factors(metric, finished) else None


def factor_ids(finished: Record) -> tuple[str, ...]:
    """Identity of every factor used, sorted."""
    return tuple(sorted({factor.id or f"{factor.name}={factor.value}" for factor in finished.factors}))


def rests_on_factors(metric: Metric, finished: Record) -> bool:
    """Whether a metric is an impact: neither time, energy, power, a rate nor a column of the work items."""
    base = base_name(metric.name)
    column = metric.name.partition(".")[0]
    own = metric.per is None and column in finished.columns
    return bool(finished.factors) and base not in OWN_READINGS and not own


def drivers(measurement: Measurement) -> list[str]:
    """Versions of device drivers, as the backend and the meters report them."""
    facts: list[Mapping[str, Any]] = [measurement.backend, *(report.facts for report in measurement.meters)]
    return sorted({str(each["driver"]) for each in facts if each.get("driver")})


def cards(measurement: Measurement) -> list[str]:
    """The devices of a trial by kind, product and identity."""
    return sorted(f"{device.kind} {device.name} {device.uuid}" for device in measurement.devices)


def start_of(measurement: Measurement) -> str:
    """How the process of a trial came to be: `fork` or `spawn`; empty where that cannot have a part in the numbers.

    Records that do not say it were all made by fresh processes. Modelled numbers do not depend on the process.
    """
    modelled = any(span.modelled for span in measurement.windows)
    return "" if modelled else str(measurement.environment.get("start", SPAWN))


def runner(measurement: Measurement) -> dict[str, Any]:
    """The fingerprint of what a trial ran on, as JSON values; `RUNNER_KEYS` are some of its keys."""
    environment = {key: value for key, value in measurement.environment.items() if key not in _OF_ONE_RUN}
    plain = {**environment, "devices": cards(measurement), "drivers": drivers(measurement)}
    plain["start"] = start_of(measurement)
    return dict(json.loads(json.dumps(plain, default=str)))


def differing(base: Mapping[str, Any], head: Mapping[str, Any], keys: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """The declared keys in which two fingerprints differ, with both values."""
    return {key: (base.get(key), head.get(key)) for key in keys if base.get(key) != head.get(key)}


def same_runner(points: Sequence[PointTrials], keys: Sequence[str]) -> dict[str, Any]:
    """The one fingerprint of all trials.

    Raises:
        MeasurementError: the trials differ in a declared key.
    """
    found = [runner(finished.measurement) for point in points for finished in point.records]
    for other in found[1:]:
        odd = differing(found[0], other, keys)
        if odd:
            raise MeasurementError(f"the trials do not come from one runner: {describe(odd)}")
    return found[0]


def describe(odd: Mapping[str, tuple[Any, Any]], first: str = "one", second: str = "another") -> str:
    """Differing keys for people."""
    return "; ".join(
        f"{key}: {first} {json.dumps(base)}, {second} {json.dumps(head)}" for key, (base, head) in odd.items()
    )
