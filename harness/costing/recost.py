"""`harness recost`: impacts of finished records with other options, from stored energy alone.

Nothing is run, scored or measured again: energy, counts of functional units and quality columns are the record's. The
raw files are read only; with `--set` a new run folder is written, with `--sweep` one table.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from harness.costing.impacts import Applied, CostedWindows, Costs
from harness.costing.settings import Combinations
from harness.costing.trace import StoredTrace
from harness.discovery.registry import Registry
from harness.errors import MeasurementError, UsageError, did_you_mean
from harness.functional_unit import UnitCount, per_second, per_unit, shares
from harness.impact import ImpactMeterSpec
from harness.planning.point import Choice, Point
from harness.planning.secrecy import redacted_command
from harness.quantity import Method, Value, weakest
from harness.records.files import load_record, trial_folders, write_json, write_measurement, write_record
from harness.records.paths import ENERGY, FAILURE, ITEMS, MEASUREMENT, PLAN, RECORD, RUN
from harness.records.record import Record, UnitResult
from harness.running.run_folder import new_run_id, planned_points

WHOLE: Final = "trial"
"""Name of the whole trial, where a functional unit may be named."""
KEPT_FILES: Final = (MEASUREMENT, ITEMS, ENERGY, FAILURE)
"""What a new trial folder holds beside its record: copies, so that it can be costed again by itself.

The measurement too is a copy and no reference to the parent's folder: a run can be moved, sent to a store and read
there without another run, and the digest in the record says that it is the parent's.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One record under one combination.

    Attributes:
        run: id of the run it was read from.
        trial_id: of the trial.
        point: id of its point.
        label: of its point, for people.
        combination: index of the combination.
        totals: impact reading -> value of the whole trial.
        units: functional unit -> impact reading -> value per unit.
        factors: name -> value of each factor that is a number.
        flags: what a reader must know.
        invalid: why the trial's measurement is not valid; empty when it is.
    """

    run: str
    trial_id: str
    point: str
    label: str
    combination: int
    totals: Mapping[str, Value]
    units: Mapping[str, Mapping[str, Value]]
    factors: Mapping[str, float]
    flags: tuple[str, ...]
    invalid: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """What a table of a sweep has columns for.

    Attributes:
        metrics: impact readings.
        ratios: those of them that are never divided.
        units: functional units in order of appearance.
        chosen: whether the user chose among them.
    """

    metrics: tuple[str, ...]
    ratios: frozenset[str]
    units: tuple[str, ...]
    chosen: bool = False

    def only(self, metrics: Sequence[str], per: Sequence[str]) -> Columns:
        """The columns that are asked for, all where none is; raises UsageError for a name that is not known.

        Args:
            metrics: impact readings.
            per: functional units; `trial` for the whole trial.
        """
        for name, known, what in (
            *((name, self.metrics, "metric") for name in metrics),
            *((name, (*self.units, WHOLE), "functional unit") for name in per),
        ):
            if name not in known:
                hint = did_you_mean(name, known)
                raise UsageError(f"there is no {what} {name!r}", accepted=", ".join(known), hint=hint)
        units = tuple(unit for unit in self.units if unit in per) if per else self.units
        return replace(self, metrics=tuple(metrics) or self.metrics, units=units, chosen=bool(metrics or per))


def trials(run: Path) -> Iterator[Path]:
    """Folders of the trials of a run that have a record."""
    for folder in trial_folders(run):
        if (folder / RECORD).exists():
            yield folder


def points_of(runs: Sequence[Path]) -> dict[Path, list[Point]]:
    """The planned points of each run; raises UsageError for what is no run folder or holds no record."""
    found: dict[Path, list[Point]] = {}
    for run in runs:
        if run.resolve() in {other.resolve() for other in found}:
            raise UsageError("this run is named twice", where=str(run), accepted="each run once")
        found[run] = planned_points(run)
        if next(trials(run), None) is None:
            raise UsageError("no trial of this run has a record", where=str(run), accepted="a finished run")
    return found


def _own_impacts(point: Point, registry: Registry) -> list[dict[str, Any]]:
    """A point's impact meters; the meters that measured need not be installed where it is costed again."""
    found = [(choice, registry.find("meter", choice.name)) for choice in point.meters]
    return [
        {"name": choice.name, "options": dict(choice.options)}
        for choice, offer in found
        if offer is not None and isinstance(offer.spec, ImpactMeterSpec)
    ]


def columns_of(points: Sequence[Point], combinations: Combinations, registry: Registry) -> Columns:
    """The columns of a sweep's table; raises UsageError where no impact meter is applied at all."""
    metrics: dict[str, None] = {}
    ratios: set[str] = set()
    units: dict[str, None] = {}
    for point in points:
        units.update(dict.fromkeys(point.functional_units))
        for each in combinations.of(_own_impacts(point, registry))[0]:
            metrics.update(dict.fromkeys(each.spec.yields))
            ratios.update(each.spec.ratios)
    if not metrics:
        raise UsageError("no impact meter is applied", accepted="--set or --sweep with an impact meter's option")
    return Columns(tuple(metrics), frozenset(ratios), tuple(units))


def rows(runs: Sequence[Path], combinations: Combinations, columns: Columns) -> Iterator[Row]:
    """Every record under every combination, one record in memory at a time."""
    for run in runs:
        for folder in trials(run):
            finished = load_record(folder)
            windows = _windows(finished, folder)
            invalid = finished.measurement.invalid
            counts = {name: count_of(finished, unit) for name, unit in finished.units.items() if name in columns.units}
            for index, applied in enumerate(combinations.of(finished.impacts)):
                costs = _Costed(windows, applied, columns.metrics)
                yield _row(run, finished, index, costs, columns, invalid, counts)


class _Costed:
    """What the spans of one record cost with one combination; the whole windows are the span without a name."""

    def __init__(self, windows: CostedWindows, applied: Sequence[Applied], only: Sequence[str] | None = None) -> None:
        self._windows, self._applied, self._only = windows, applied, only
        self._found: dict[str, Costs] = {}

    def of(self, span: str) -> Costs:
        """The costs of a span."""
        if span not in self._found:
            windows = self._windows.within(span) if span else self._windows
            self._found[span] = windows.cost(self._applied, self._only)
        return self._found[span]


def span_of(finished: Record, unit: str) -> str:
    """The span that a functional unit is divided over; empty for the whole windows."""
    units = finished.measurement.point.get("functional_units") or {}
    return str((units.get(unit) or {}).get("span", ""))


def _row(
    run: Path,
    finished: Record,
    index: int,
    costed: _Costed,
    columns: Columns,
    invalid: tuple[str, ...],
    counts: Mapping[str, UnitCount],
) -> Row:
    costs = costed.of("")
    totals = {name: costs.totals[name] for name in columns.metrics if name in costs.totals}
    point = finished.measurement.point
    return Row(
        run=run.name,
        trial_id=finished.measurement.trial_id,
        point=str(point["id"]),
        label=str(point.get("label") or point["id"]),
        combination=index,
        totals=totals,
        units={
            name: {
                metric: per_unit(value, name, counted)
                for metric, value in costed.of(span_of(finished, name)).totals.items()
                if metric in columns.metrics and metric not in columns.ratios
            }
            for name, counted in counts.items()
        },
        factors={factor.name: factor.value for factor in costs.factors if factor.value is not None},
        flags=costs.flags,
        invalid=invalid,
    )


def _windows(finished: Record, folder: Path) -> CostedWindows:
    trace = StoredTrace(folder, finished.measurement)
    return CostedWindows(finished.measurement, trace, modelled=finished.modelled)


def count_of(finished: Record, unit: UnitResult) -> UnitCount:
    """What was counted; older records do not say how."""
    return replace(unit.count, method=weakest(unit.count.method, Method.SIMULATED)) if finished.modelled else unit.count


def recosted(parent: Record, folder: Path, applied: Sequence[Applied], parent_id: str) -> Record:
    """A record with other impacts; what does not depend on them is the parent's.

    Args:
        parent: the record to start from.
        folder: of its trial, for the trace.
        applied: impact meters in order.
        parent_id: `<run>/<trial>` of the parent.
    """
    costed = _Costed(_windows(parent, folder), applied)
    costs = costed.of("")
    units = {}
    for name, unit in parent.units.items():
        counted = count_of(parent, unit)
        own = costed.of(span_of(parent, name))
        units[name] = replace(
            unit,
            count=counted,
            costs=own.per_unit(name, counted),
            rate=per_second(name, counted, own.totals["duration_s"]),
            shares=shares(counted),
        )
    return replace(
        parent,
        totals=costs.totals,
        units=units,
        impacts=tuple({"name": each.name, "options": dict(each.options)} for each in applied),
        factors=costs.factors,
        flags=costs.flags,
        alternatives=costs.alternatives,
        notes=costs.notes,
        parent=parent_id,
    )


def write_runs(
    runs: Mapping[Path, Sequence[Point]],
    store: Path,
    combinations: Combinations,
    registry: Registry,
    command: Sequence[str],
) -> list[Path]:
    """Writes one new run per run; all of them, or none if anything goes wrong."""
    made: list[tuple[Path, Path]] = []
    try:
        for run, points in runs.items():
            final = store / new_run_id([*(point.suite for point in points), "recost"])
            partial = store / f".{final.name}.partial"
            made.append((partial, final))
            partial.mkdir(parents=True)
            _write_run(run, points, partial, final.name, combinations, registry, command)
        for partial, final in made:
            partial.rename(final)
    except BaseException:
        for partial, final in made:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(final, ignore_errors=True)
        raise
    return [final for _, final in made]


def _write_run(
    run: Path,
    points: Sequence[Point],
    folder: Path,
    name: str,
    combinations: Combinations,
    registry: Registry,
    command: Sequence[str],
) -> None:
    described = _described(run)
    for trial in trial_folders(run):
        target = folder / trial.name
        target.mkdir()
        for file in KEPT_FILES:
            with suppress(FileNotFoundError):
                shutil.copyfile(trial / file, target / file)
        if (trial / RECORD).exists():
            parent = load_record(trial)
            if not (target / MEASUREMENT).exists():  # a record of before may stand alone, since it holds it itself
                write_measurement(target, parent.measurement)
            (applied,) = combinations.of(parent.impacts)
            write_record(target, recosted(parent, trial, applied, f"{run.name}/{trial.name}"))
    write_json(folder / PLAN, [_replanned(point, combinations, registry).to_json() for point in points])
    described |= {
        "run": name,
        "parent": run.name,
        "settings": {setting.key: setting.values[0] for setting in combinations.fixed},
        "command": redacted_command(list(command)),
        "recosted_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / RUN, described)


def _described(run: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((run / RUN).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise MeasurementError(f"not readable as a JSON object: {error}", where=str(run / RUN)) from error


def _replanned(point: Point, combinations: Combinations, registry: Registry) -> Point:
    """The point with the impact meters as they were applied; its id stays, since the same was measured."""
    own = _own_impacts(point, registry)
    names = {each["name"] for each in own}
    applied = [Choice(each["name"], each["options"]) for each in combinations.choices(own)]
    return replace(point, meters=(*(choice for choice in point.meters if choice.name not in names), *applied))
