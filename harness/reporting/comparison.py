"""Several runs side by side: one report of all their points, and the differences between equal points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from harness.quantity import Amount
from harness.records.record import Record
from harness.records.summary import RATE, Failure, PointReport, RunReport, Summary
from harness.reporting.tables import Section, Table
from harness.units import si

WHAT: Final = (
    "Difference: median of the later run minus median of the first. Range: every trial of one run minus every trial of "
    "the other lies in it; it is no confidence interval. Apart: the range does not hold 0."
)


def names_of(count: int) -> list[str]:
    """Short names of runs: A, B, ..., Z, R27, ..."""
    return [chr(ord("A") + number) if number < 26 else f"R{number + 1}" for number in range(count)]


def combined(reports: Sequence[RunReport], names: Sequence[str]) -> RunReport:
    """One report of the points of all runs, labelled with the runs' names; a single run stays as it is."""
    if len(reports) == 1:
        return reports[0]
    points: list[PointReport] = []
    skipped: list[tuple[str, str]] = []
    failures: list[Failure] = []
    for name, report in zip(names, reports, strict=True):
        points += [replace(point, label=f"{name}: {point.label}") for point in report.points]
        skipped += [(f"{name}: {label}", reason) for label, reason in report.skipped]
        failures += [replace(failure, where=f"{name}: {failure.where}") for failure in report.failures]
    run = {"run": ", ".join(str(report.run.get("run", report.folder.name)) for report in reports)}
    return RunReport(folder=Path(), run=run, points=tuple(points), skipped=tuple(skipped), failures=tuple(failures))


@dataclass(frozen=True)
class Runs:
    """The runs that a page is about.

    Attributes:
        reports: one a run.
        names: their short names.
    """

    reports: Sequence[RunReport]
    names: Sequence[str]

    @cached_property
    def whole(self) -> RunReport:
        """One report of all their points."""
        return combined(self.reports, self.names)

    def folder(self, finished: Record) -> Path:
        """The folder of one of their trials."""
        return self._folders[id(finished)]

    @cached_property
    def _folders(self) -> dict[int, Path]:
        # A recosted record names the run that it was measured in, so that the name would find the wrong folder.
        return {
            id(finished): report.folder / finished.measurement.trial_id
            for report in self.reports
            for finished in report.records
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of one point in two runs.

    Attributes:
        point: label of the point.
        metric: name of the cost, or `rate`.
        per: functional unit.
        first: of the first run.
        other: of the other run.
        names: of the two runs.
        absent: why they cannot be compared; empty where they can.
    """

    point: str
    metric: str
    per: str
    first: Summary
    other: Summary
    names: tuple[str, str]
    absent: str

    @property
    def change(self) -> float | None:
        """Difference of the medians; None where they cannot be compared."""
        first, other = self.first.value, self.other.value
        if self.absent or not isinstance(first, Amount) or not isinstance(other, Amount):
            return None
        return other.value - first.value

    @property
    def range(self) -> tuple[float, float] | None:
        """Least and greatest difference between a trial of each; None where a run has fewer than two trials."""
        if self.absent or self.first.spread is None or self.other.spread is None:
            return None
        return self.other.spread[0] - self.first.spread[1], self.other.spread[1] - self.first.spread[0]

    @property
    def base(self) -> float | None:
        """What a relative difference is relative to: the first run's median, unless it is 0 or missing."""
        value = self.first.value
        return value.value if isinstance(value, Amount) and value.value > 0 else None

    @property
    def verdict(self) -> str:
        """Whether the trials of the two runs overlap."""
        if self.range is None:
            return self.absent or "too few trials"
        low, high = self.range
        return "overlap" if low <= 0 <= high else "apart"


def differences(reports: Sequence[RunReport], names: Sequence[str]) -> Iterator[Difference]:
    """Of every later run against the first: each metric of each functional unit of the points they share."""
    first = _by_key(reports[0])
    for name, report in zip(names[1:], reports[1:], strict=True):
        for key, point in _by_key(report).items():
            if key not in first:
                continue
            for unit, metrics in point.units.items():
                known = first[key].units.get(unit, {})
                for metric, other in metrics.items():
                    if metric in known and metric != "duration_s" and not metric.startswith("energy_j:"):
                        yield Difference(
                            point=point.label,
                            metric=metric,
                            per=unit,
                            first=known[metric],
                            other=other,
                            names=(names[0], name),
                            absent=_absent(first[key], point, unit, known[metric], other),
                        )


def _by_key(report: RunReport) -> Mapping[tuple[str, str], PointReport]:
    """Points by suite and label: the identity of a point changes with any option, its label with the matrix only."""
    return {(point.suite, point.label): point for point in report.points}


def _absent(one: PointReport, two: PointReport, unit: str, first: Summary, other: Summary) -> str:
    values = (first.value, other.value)
    reasons = [value.reason for value in values if not isinstance(value, Amount)]
    if reasons:
        return "; ".join(dict.fromkeys(reasons))
    if one.definitions.get(unit) != two.definitions.get(unit):
        return f"{unit} is defined as {one.definitions.get(unit)} and as {two.definitions.get(unit)}"
    kinds = [{method for method, share in each.shares.items() if share} for each in (first, other)]
    if kinds[0] != kinds[1]:
        texts = [" and ".join(sorted(kind)) or "nothing" for kind in kinds]
        return f"obtained in different ways: {texts[0]}, {texts[1]}"
    if not (one.valid and two.valid):
        return "the measurement of a run is not valid"
    return ""


def section(reports: Sequence[RunReport], names: Sequence[str]) -> Section | None:
    """The table of differences; None for a single run."""
    if len(reports) < 2:
        return None
    rows = [_row(difference) for difference in differences(reports, names)]
    if not rows:
        text = "The runs share no point with a functional unit: nothing can be compared."
        return Section("Differences between the runs", paragraphs=[text])
    columns = ["point", "metric", "from", "to", "difference", "range over trials", "trials"]
    return Section("Differences between the runs", Table(columns, rows), paragraphs=[WHAT])


def _row(found: Difference) -> list[str]:
    metric = f"{found.metric} per {found.per}" if found.metric != RATE else f"{found.per} per second"
    ends = [f"{name}: {_value(each)}" for name, each in zip(found.names, (found.first, found.other), strict=True)]
    change = "not compared" if found.change is None else _relative(found, found.change)
    within = "" if found.range is None else " to ".join(_relative(found, end) for end in found.range)
    return [found.point, metric, *ends, change, within, found.verdict]


def _value(summary: Summary) -> str:
    value = summary.value
    return si(value.value, value.unit) if isinstance(value, Amount) else value.kind


def _relative(found: Difference, number: float) -> str:
    if found.base is None:
        unit = found.first.value.unit if isinstance(found.first.value, Amount) else ""
        return ("+" if number > 0 else "") + si(number, unit)
    return f"{number / found.base * 100:+.2g} %"
