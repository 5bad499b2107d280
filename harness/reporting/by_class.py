"""Quality by class, as workloads tell it: a table of classes with the points side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from harness.records.summary import PointReport, RunReport
from harness.reporting.same_work import apart, titled
from harness.reporting.tables import Section, Table
from harness.units import number

ENDING: Final = "_by_class"
"""Of the facts of a workload that are meant: name of a class -> number, None where it does not occur."""
ACROSS: Final = 12
"""Points in one table."""

Numbered = tuple[int, PointReport]


def sections(report: RunReport) -> list[Section]:
    """A table for each such fact and list of classes; points are called by their numbers."""
    numbers = {point.id: place for place, point in enumerate(report.points, start=1)}
    groups: dict[tuple[str, str, tuple[str, ...]], list[Numbered]] = {}
    for kind, part in apart(report):
        for point in part.points:
            for name, classes in _told(point):
                groups.setdefault((kind, name, classes), []).append((numbers[point.id], point))
    return [
        _section(kind, name, classes, points[first : first + ACROSS])
        for (kind, name, classes), points in groups.items()
        for first in range(0, len(points), ACROSS)
    ]


def _told(point: PointReport) -> dict[tuple[str, tuple[str, ...]], None]:
    """Facts with their classes, where they hold a number."""
    return {
        (name, tuple(map(str, fact))): None
        for finished in point.records
        for name, fact in finished.measurement.workload.items()
        if name.endswith(ENDING) and isinstance(fact, Mapping) and any(_is_number(value) for value in fact.values())
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _section(kind: str, name: str, classes: Sequence[str], points: Sequence[Numbered]) -> Section:
    columns = {place: [_over_trials(point, name, each) for each in classes] for place, point in points}
    rows = [[each, *(column[row] for column in columns.values())] for row, each in enumerate(classes)]
    told = "; ".join(f"#{place} {point.label}" for place, point in points)
    what = name.removesuffix(ENDING)
    note = f"{told}. Median over the trials; a class that never occurs has no number."
    return Section(
        titled(f"{what} of each class", kind),
        Table(["class", *(f"#{place}" for place in columns)], rows),
        paragraphs=[note],
    )


def _over_trials(point: PointReport, name: str, each: str) -> str:
    facts = [finished.measurement.workload.get(name) for finished in point.records]
    values = [fact[each] for fact in facts if isinstance(fact, Mapping) and _is_number(fact.get(each))]
    return number(median(values)) if values else ""
