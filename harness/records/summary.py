"""The numbers of a report: a run's records grouped by point, functional unit and metric."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import MeasurementError, UsageError
from harness.quantity import Amount, Method, Unavailable, Undefined, Value
from harness.records.files import load_record, trial_folders
from harness.records.metric import RATE
from harness.records.paths import FAILURE, RECORD, RUN
from harness.records.record import Record
from harness.records.trials import PointTrials, by_point
from harness.sample import TOO_LITTLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One metric of one point, over its trials.

    Attributes:
        value: the median over the trials that have a value, as an amount whose `low` and `high` are the bound of the
            median trial (for an even number: of the mean of the two middle ones), or why there is none.
        spread: least and greatest value of the trials; None for fewer than two. Never merged with the bound.
        n: trials that have a value.
        trials: trials there were.
        label: the weakest method of any trial; None where there is no value.
        shares: share of each method in the sum over the trials; empty where that sum is 0.
        missing: why the other trials have no value.
        values: of the trials that have one, in their order.
    """

    value: Value
    spread: tuple[float, float] | None
    n: int
    trials: int
    label: Method | None
    shares: Mapping[Method, float]
    missing: tuple[str, ...]
    values: tuple[float, ...] = ()

    @property
    def bound(self) -> tuple[float | None, float | None]:
        """The instrument's bound; None at an end that is not known."""
        return (self.value.low, self.value.high) if isinstance(self.value, Amount) else (None, None)

    @property
    def composition(self) -> str:
        """The shares as text: `counter 82 %, estimated 18 %`; empty where one method gave all."""
        parts = {method: part for method, part in self.shares.items() if part != 0}
        if len(parts) < 2:
            return ""
        ordered = sorted(parts.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{method.value} {_percent(part)}" for method, part in ordered)


def _percent(share: float) -> str:
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 < share < 1:
        return ">99 %"
    return f"{share * 100:.0f} %"


def _middle(amounts: Sequence[Amount]) -> Amount:
    """The median trial; for an even number the mean of the two middle ones, bounds included."""
    ordered = sorted(amounts, key=lambda amount: amount.value)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    if low is high:
        return low
    parts = {
        method: (low.composition.get(method, 0.0) + high.composition.get(method, 0.0)) / 2
        for method in {**low.composition, **high.composition}
    }
    return Amount(
        math.fsum(parts.values()),
        low.unit,
        parts,
        None if low.low is None or high.low is None else (low.low + high.low) / 2,
        None if low.high is None or high.high is None else (low.high + high.high) / 2,
    )


def summarise(values: Sequence[Value]) -> Summary:
    """Median, bound, spread, label and composition of one metric over trials; amounts of one unit.

    Where some of the trials used less than a counter shows there is none: the others are those of more energy than its
    step, and their median alone would be too high.
    """
    amounts = [value for value in values if isinstance(value, Amount)]
    others = [value for value in values if not isinstance(value, Amount)]
    missing = tuple(dict.fromkeys(value.reason for value in others))
    unmoved = [value.reason for value in others if TOO_LITTLE in value.reason]
    if amounts and unmoved:
        reason = f"{unmoved[0]}, in {len(unmoved)} of {len(values)}: the others alone would overstate it"
        amounts, others, missing = [], [Unavailable(reason)], (reason,)
    units = {amount.unit for amount in amounts}
    if len(units) > 1:
        reason = f"the trials differ in their unit: {', '.join(sorted(units))}"
        amounts, others, missing = [], [Unavailable(reason)], (reason,)
    if not amounts:
        why: Unavailable | Undefined = others[0] if others else Unavailable("no trial has this metric")
        return Summary(value=why, spread=None, n=0, trials=len(values), label=None, shares={}, missing=missing)
    parts: dict[Method, float] = {}
    for amount in amounts:
        for method, part in amount.composition.items():
            parts[method] = parts.get(method, 0.0) + part
    whole = math.fsum(parts.values())
    numbers = [amount.value for amount in amounts]
    return Summary(
        value=_middle(amounts),
        spread=(min(numbers), max(numbers)) if len(numbers) > 1 else None,
        n=len(amounts),
        trials=len(values),
        label=max((amount.label for amount in amounts), key=lambda method: method.weakness),
        shares={method: part / whole for method, part in parts.items()} if whole else {},
        missing=missing,
        values=tuple(numbers),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PointReport:
    """What the trials of one point say.

    Attributes:
        trials: of the point.
        label: of the point, as the suite's author knows it, with the suite's name where a run has several.
        units: functional unit -> metric -> summary; `rate` and the names of the costs.
        definitions: functional unit -> its definition, with what the workload says that its column means.
        columns: column -> statistic -> summary.
        totals: reading -> summary.
        notes: reading -> what tells it from its like, as the records say it.
    """

    trials: PointTrials
    label: str
    units: Mapping[str, Mapping[str, Summary]]
    definitions: Mapping[str, str]
    columns: Mapping[str, Mapping[str, Summary]]
    totals: Mapping[str, Summary]
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Of the point."""
        return self.trials.id

    @property
    def suite(self) -> str:
        """The suite that it comes from."""
        return self.trials.suite

    @property
    def records(self) -> Sequence[Record]:
        """The trials that count: the valid ones; all of them where none is valid."""
        return self.trials.records

    @property
    def left_out(self) -> Sequence[Record]:
        """The trials that were not valid while others were."""
        return self.trials.left_out

    @property
    def valid(self) -> bool:
        """Whether the trials that count are valid."""
        return self.trials.valid

    @property
    def short(self) -> bool:
        """Whether a window was too short for its energy to be gated."""
        return any("short" in _flags(finished) for finished in self.records)


def _flags(finished: Record) -> set[str]:
    seen = {*finished.flags, *finished.measurement.flags}
    return seen.union(*(span.flags for span in finished.measurement.windows))


@dataclass(frozen=True, slots=True)
class Failure:
    """A trial without a record.

    Attributes:
        where: label of its point if it is known, and the trial.
        reason: why.
        log_tail: the last lines that the worker printed.
    """

    where: str
    reason: str
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Everything a report says, before it is laid out.

    Attributes:
        folder: of the run.
        run: `run.json`; empty where there is none.
        points: in the order of the plan.
        skipped: (point, reason).
        failures: trials that failed, were not costed, could not be read, or were planned and never ran.
    """

    folder: Path
    run: Mapping[str, Any]
    points: tuple[PointReport, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    failures: tuple[Failure, ...] = field(default=())

    @property
    def records(self) -> tuple[Record, ...]:
        """Of all trials that have one, valid or not."""
        return tuple(finished for point in self.points for finished in (*point.records, *point.left_out))

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Functional units in order of first appearance."""
        return tuple(dict.fromkeys(name for point in self.points for name in point.units))


def _over_trials(tables: Sequence[Mapping[str, Value]]) -> dict[str, Summary]:
    """Per name, the summary over trials; a trial that lacks the name says so."""
    names = dict.fromkeys(name for table in tables for name in table)
    return {
        name: summarise([table.get(name, Unavailable("this trial has no such reading")) for table in tables])
        for name in names
    }


def _point(trials: PointTrials, label: str) -> PointReport:
    counted = trials.records
    names = dict.fromkeys(name for finished in counted for name in finished.units)
    columns = dict.fromkeys(name for finished in counted for name in finished.columns)
    return PointReport(
        trials=trials,
        label=label,
        units={
            name: _over_trials(
                [
                    {RATE: finished.units[name].rate, **finished.units[name].costs}
                    for finished in counted
                    if name in finished.units
                ]
            )
            for name in names
        },
        definitions={name: next(_definition(r, name) for r in counted if name in r.units) for name in names},
        columns={name: _over_trials([finished.columns.get(name, {}) for finished in counted]) for name in columns},
        totals=_over_trials([finished.totals for finished in counted]),
        notes=_notes(counted),
    )


def _definition(finished: Record, name: str) -> str:
    definition = finished.units[name].unit
    means = finished.measurement.workload.get("means")
    column = definition.partition(" ")[0].rstrip(",")
    return f"{definition}: {means[column]}" if isinstance(means, Mapping) and column in means else definition


def _notes(counted: Sequence[Record]) -> dict[str, str]:
    """Each note once: trials of one point may differ where a stretch of one could not be measured."""
    found: dict[str, dict[str, None]] = {}
    for finished in counted:
        for name, note in finished.notes.items():
            found.setdefault(name, {})[note] = None
    return {name: " or ".join(notes) for name, notes in found.items()}


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise MeasurementError(f"not readable as JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise MeasurementError("a JSON object is expected here", where=str(path))
    return content


def _failure(folder: Path, labels: Mapping[str, str]) -> Failure:
    """Why a trial has no record, as the run wrote it down."""
    content = _read_json(folder / FAILURE)
    point, _, trial = folder.name.rpartition("-t")
    label = str(labels.get(point) or content.get("label") or folder.name)
    where = f"{label}, trial {int(trial)}" if trial.isdigit() and label != folder.name else label
    if not content:
        return Failure(where, "measured, but not scored and costed")
    return Failure(
        where, str(content.get("reason") or "no reason was written"), tuple(map(str, content.get("log_tail") or ()))
    )


def _labels(planned: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Point id -> label, with the suite's name before it where a run has several suites."""
    several = len({point.get("suite") for point in planned}) > 1
    return {
        str(point["id"]): f"{point['suite']}: {point.get('label', point['id'])}"
        if several and point.get("suite")
        else str(point.get("label", point["id"]))
        for point in planned
    }


def _not_run(
    planned: Iterable[Mapping[str, Any]], labels: Mapping[str, str], seen: Mapping[str, int], status: str
) -> list[Failure]:
    """Trials that were planned and left nothing behind."""
    found = []
    for point in planned:
        lacking = int(point.get("trials", 0)) - seen.get(str(point["id"]), 0)
        if lacking > 0:
            reason = f"{lacking} of {point['trials']} trials did not run (the run is {status or 'of unknown status'})"
            found.append(Failure(labels[str(point["id"])], reason))
    return found


def load(run_folder: Path) -> RunReport:
    """The report of a run.

    Raises:
        UsageError: there is no such folder.
        MeasurementError: it has no finished trial.
    """
    if not run_folder.is_dir():
        raise UsageError(
            "there is no such run folder", where=str(run_folder), accepted="the folder of a run, or its URL"
        )
    run = _read_json(run_folder / RUN)
    planned = [point for point in run.get("points", ()) if "id" in point]
    labels = _labels(planned)
    place = {identity: number for number, identity in enumerate(labels)}
    records: list[Record] = []
    seen: dict[str, int] = {}
    failures: list[Failure] = []
    for folder in trial_folders(run_folder):
        identity = folder.name.rpartition("-t")[0]
        if not (folder / RECORD).exists():
            failures.append(_failure(folder, labels))
        else:
            try:
                finished = load_record(folder)
            except MeasurementError as error:
                failures.append(Failure(folder.name, str(error)))
            else:
                identity = str(finished.measurement.point["id"])
                records.append(finished)
        seen[identity] = seen.get(identity, 0) + 1
    failures += _not_run(planned, labels, seen, str(run.get("status", "")))
    skipped = tuple(
        (str(row.get("label") or row.get("point") or "?"), str(row.get("reason", ""))) for row in run.get("skipped", ())
    )
    grouped = sorted(by_point(records), key=lambda point: place.get(point.id, len(place)))
    points = tuple(_point(point, labels.get(point.id, point.label)) for point in grouped)
    if not points:
        raise MeasurementError("no trial of this run has a record", where=str(run_folder), hint=_why(skipped, failures))
    return RunReport(folder=run_folder, run=run, points=points, skipped=skipped, failures=tuple(failures))


def _why(skipped: Sequence[tuple[str, str]], failures: Sequence[Failure]) -> str:
    reasons = [f"{failure.where}: {failure.reason}" for failure in failures]
    reasons += [f"{label}: skipped: {reason}" for label, reason in skipped]
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more if reasons else "nothing was run in this folder"
