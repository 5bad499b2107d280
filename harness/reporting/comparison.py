"""Several runs side by side: one report of all their points, and the differences between equal points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from harness.comparing.compare import Compared, ComparedPoint, Comparison, compare_points
from harness.records.cross_checks import CrossCheck
from harness.records.metric import Metric, base_name
from harness.records.record import Record
from harness.records.summary import Failure, PointReport, RunReport, Summary
from harness.reporting.tables import Section, Table
from harness.reporting.wording import label
from harness.units import si

NOT_PAIRS: Final = (
    "Change of the second against the first: each end of an interval errs in 5 % of comparisons, as far as "
    "the noise between trials goes. Two runs are no pairs: what drifted between them is in the change. "
    "Many metrics are compared here; the adjusted p-values of `harness compare --details` allow for that."
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


def compared(reports: Sequence[RunReport]) -> list[Comparison]:
    """Every later run against the first, as `harness compare` does: costs and rates of functional units."""
    first, *others = ([point.trials for point in report.points] for report in reports)
    return [compare_points(first, other, _shown) for other in others]


def _shown(metric: Metric) -> bool:
    return metric.per is not None and metric.name != "duration_s" and base_name(metric.name) == metric.name


def section(reports: Sequence[RunReport], names: Sequence[str]) -> Section | None:
    """The table of differences; None for a single run."""
    if len(reports) < 2:
        return None
    title = "Differences between the runs"
    rows: list[list[str]] = []
    notes: list[str] = []
    for name, comparison in zip(names[1:], compared(reports), strict=True):
        rows += [
            [point.name, str(each.metric), interval(each), *_ends(each, names[0], name), each.conclusion]
            for point in comparison.points
            for each in point.metrics
        ]
        notes += [f"{names[0]} and {name}: {note}" for note in comparison.notes]
        notes += [f"{names[0]} and {name}: {point.name}: {note}" for point in comparison.points for note in point.notes]
    if not rows:
        text = "The runs share no valid point with a functional unit: nothing can be compared."
        return Section(title, paragraphs=[text, *notes])
    columns = ["point", "metric", "change", "from", "to", "conclusion"]
    return Section(title, Table(columns, rows), paragraphs=[NOT_PAIRS, *notes])


def _ends(each: Compared, *names: str) -> list[str]:
    return [f"{name}: {value}" for name, value in zip(names, _sides(each), strict=True)]


def sections(point: ComparedPoint, *, details: bool) -> Iterator[Section]:
    """Tables of one point: the changes, the details if wanted, the cross-check meters if there are any."""
    changes = [[str(each.metric), interval(each), *_sides(each), each.conclusion] for each in point.metrics]
    yield Section(
        title=point.name,
        table=Table(("metric", "change", "first", "second", "conclusion"), changes),
        paragraphs=tuple(f"note: {note}" for note in point.notes),
    )
    if details:
        adjusted = point.adjusted
        rows = [
            [
                str(each.metric),
                "-" if each.p_value is None else f"{each.p_value:.3g}",
                "-" if each.p_value is None else f"{adjusted[str(each.metric)]:.3g}",
                f"{each.first.n} and {each.second.n}",
                " / ".join(dict.fromkeys(_method(side) for side in (each.first, each.second))),
            ]
            for each in point.metrics
        ]
        yield Section(title="Details", table=Table(("metric", "p", "p adjusted", "trials", "methods"), rows))
    if any(point.checks):
        yield Section(
            title="Primary meters and cross-checks",
            table=Table(("scope", "primary", "cross-check", "first", "second"), _checks(*point.checks)),
        )


def interval(each: Compared) -> str:
    """The change with its interval first: `+1.2 % to +3.4 % (+2.1 %)`."""
    found = each.interval
    if found is None:
        return "-"
    amounts = [each.first.value, each.second.value]
    unit = next((amount.unit for amount in amounts if amount.kind == "amount"), "")
    low, high, estimate = (_change(value, "" if each.ratio else unit) for value in found)
    return (
        f"({estimate})" if not math.isfinite(each.effect.low if each.effect else 0) else f"{low} to {high} ({estimate})"
    )


def _change(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "unknown"
    return f"{value:+.4g} {unit}" if unit else f"{100 * value:+.3g} %"


def _sides(each: Compared) -> list[str]:
    return [
        f"{si(side.value.value, '' if side.value.unit == '1' else side.value.unit)}, {label(side)}"
        if side.value.kind == "amount"
        else "-"
        for side in (each.first, each.second)
    ]


def _method(summary: Summary) -> str:
    return summary.composition or (summary.label.value if summary.label else "none")


def _checks(first: Sequence[CrossCheck], second: Sequence[CrossCheck]) -> list[list[str]]:
    """One row a scope and pair of meters: how far the cross-check lay from the primary meter in each run."""
    sides = [{(check.scope, check.primary, check.check): check for check in side} for side in (first, second)]
    return [
        [*key, *(_difference(side.get(key)) for side in sides)]
        for key in dict.fromkeys(key for s in sides for key in s)
    ]


def _difference(check: CrossCheck | None) -> str:
    if check is None:
        return "not read"
    return check.note if check.difference is None else f"{100 * check.difference:+.3g} %"
