"""`harness.load`: a kept run as objects, as a data frame, and as a table in a notebook."""

from __future__ import annotations

import html
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from harness.errors import UsageError
from harness.quantity import Amount, Value
from harness.records.files import load_items
from harness.records.metric import RATE
from harness.records.record import Record, UnitResult
from harness.records.summary import Failure, PointReport, RunReport, Summary
from harness.records.summary import load as load_report
from harness.session import table
from harness.storing.places import run_folder

FRAMES: Final = ("pandas", "polars")
"""Libraries that a frame may be of, the first one installed if none is named."""


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class LoadedTrial:
    """A finished trial.

    Attributes:
        record: all that is kept of it.
        folder: where.
    """

    record: Record
    folder: Path

    @property
    def number(self) -> int:
        """Counts from 0 within its point."""
        return self.record.measurement.trial

    @property
    def valid(self) -> bool:
        """Whether nothing that was seen makes its numbers no result."""
        return not self.record.measurement.invalid

    @property
    def readings(self) -> Mapping[str, Value]:
        """Reading -> its total over the trial's windows: `duration_s`, `energy_j`, `carbon_g`, ..."""
        return self.record.totals

    @property
    def units(self) -> Mapping[str, UnitResult]:
        """Functional unit -> how much was achieved, and what one cost."""
        return self.record.units

    def __repr__(self) -> str:
        return f"<harness trial {self.number}{'' if self.valid else ', not valid'}: {len(self.readings)} readings>"

    def items(self) -> Iterator[dict[str, Any]]:
        """The work items, in the order in which they were written."""
        return load_items(self.folder)


@dataclass(frozen=True, slots=True)
class LoadedPoint:
    """What was measured several times.

    Attributes:
        report: what its trials say together.
        trials: in their order, valid or not.
    """

    report: PointReport
    trials: tuple[LoadedTrial, ...]

    @property
    def id(self) -> str:
        """Of the point, the same in every run."""
        return self.report.id

    @property
    def label(self) -> str:
        """For people."""
        return self.report.label

    @property
    def readings(self) -> Mapping[str, Summary]:
        """Reading -> median over the trials that count, with bound, spread and method."""
        return self.report.totals

    @property
    def units(self) -> Mapping[str, Mapping[str, Summary]]:
        """Functional unit -> reading -> likewise, per unit; `rate` is units per second."""
        return self.report.units

    def __repr__(self) -> str:
        return f"<harness point {self.label!r}: {_number(len(self.trials), 'trial')}>"

    def summary(self, reading: str, per: str | None = None) -> Summary:
        """One reading; raises UsageError where there is none of that name."""
        found = self.readings if per is None else self.units.get(per, {})
        if reading not in found:
            of = f" per {per}" if per else ""
            raise UsageError(f"there is no reading {reading!r}{of}", accepted=", ".join(found) or "none")
        return found[reading]


@dataclass(frozen=True)
class LoadedRun:
    """A kept run.

    Attributes:
        report: all that a report says of it.
    """

    report: RunReport

    @property
    def name(self) -> str:
        """Of the run."""
        return self.report.folder.name

    @property
    def folder(self) -> Path:
        """On this machine."""
        return self.report.folder

    @cached_property
    def points(self) -> tuple[LoadedPoint, ...]:
        """In the order of the plan."""
        return tuple(
            LoadedPoint(
                point,
                tuple(
                    LoadedTrial(record, self.folder / record.measurement.trial_id)
                    for record in sorted((*point.records, *point.left_out), key=lambda each: each.measurement.trial)
                ),
            )
            for point in self.report.points
        )

    @property
    def trials(self) -> tuple[LoadedTrial, ...]:
        """Of all points."""
        return tuple(trial for point in self.points for trial in point.trials)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Trials without a record, and why."""
        return self.report.failures

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Points that could not run, and why."""
        return self.report.skipped

    def point(self, label: str) -> LoadedPoint:
        """The point of a label or an id; raises UsageError where there is none, or several."""
        found = [point for point in self.points if label in {point.label, point.id}]
        if len(found) != 1:
            raise UsageError(f"{len(found)} points are called {label!r}", accepted=self._labels)
        return found[0]

    @property
    def _labels(self) -> str:
        return ", ".join(repr(point.label) for point in self.points) or "none"

    def rows(self) -> list[dict[str, Any]]:
        """A row for each reading of each trial, in total and per functional unit: what a frame holds."""
        found = []
        for point in self.points:
            for trial in point.trials:
                who = {"run": self.name, "point": point.label, "point_id": point.id, "trial": trial.number}
                who["valid"] = trial.valid
                found += [{**who, "per": None, **_cells(name, value)} for name, value in trial.readings.items()]
                for unit, result in trial.units.items():
                    costs: dict[str, Value] = {RATE: result.rate, **result.costs}
                    found += [{**who, "per": unit, **_cells(name, value)} for name, value in costs.items()]
        return found

    def frame(self, library: Literal["pandas", "polars"] | None = None) -> Any:
        """The rows as a data frame of pandas or polars, the first that is installed if none is named.

        A missing value is null, with its reason beside it. Raises UsageError where neither is installed.
        """
        wanted = FRAMES if library is None else (library,)
        name = next((each for each in wanted if importlib.util.find_spec(each) is not None), None)
        if name is None or name not in FRAMES:
            raise UsageError(
                f"{' and '.join(wanted)} cannot be imported", accepted="pandas or polars", hint="pip install pandas"
            )
        rows = self.rows()
        module = importlib.import_module(name)
        columns = {column: [row[column] for row in rows] for column in rows[0]} if rows else {}
        return module.DataFrame(columns)

    def __repr__(self) -> str:
        return (
            f"<harness run {self.name!r}: {_number(len(self.points), 'point')}, {_number(len(self.trials), 'trial')}>"
        )

    def _repr_html_(self) -> str:
        tables = []
        for point in self.points:
            totals = {name: summary.value for name, summary in point.readings.items()}
            listed = table.rows(totals)
            for unit, costs in point.units.items():
                own = {name: summary.value for name, summary in costs.items() if ":" not in name}
                listed += [table.Row(row.reading, f"{row.name} per {unit}", row.value) for row in table.rows(own)]
            counted = len(point.report.records)
            title = f"{point.label} (median of {counted} trials)" if counted != 1 else f"{point.label} (1 trial)"
            tables.append(table.as_html(title, listed))
        lost = [f"{label}: {reason}" for label, reason in self.skipped]
        lost += [f"{failure.where}: {failure.reason}" for failure in self.failures]
        said = "".join(f"<p>{html.escape(text)}</p>" for text in lost)
        return f"<p>{html.escape(self.name)}</p>{''.join(tables)}{said}"


def _cells(name: str, value: Value) -> dict[str, Any]:
    if not isinstance(value, Amount):
        return {"reading": name, **dict.fromkeys(("value", "unit", "low", "high", "method")), "missing": value.reason}
    return {
        "reading": name,
        "value": value.value,
        "unit": value.unit,
        "low": value.low,
        "high": value.high,
        "method": value.label.value,
        "missing": None,
    }


def load(run: str | Path) -> LoadedRun:
    """A kept run, by its folder or by the URL of its store, a `/` and its name.

    Args:
        run: the folder, or the URL.

    Raises:
        UsageError: there is no such run.
        MeasurementError: it cannot be read.
    """
    return LoadedRun(load_report(run_folder(run)))
