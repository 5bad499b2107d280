"""Whether points did the same work and were read in the same way: only then does their order mean something."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from harness.records.files import read_lines
from harness.records.paths import ITEMS
from harness.records.summary import PointReport, RunReport
from harness.reporting.tables import Section

RANKED_AS: Final = "ranked_as"
"""Fact of a workload: points in which it differs are never ranked with each other."""
OTHER: Final = "other work"
"""Points of which their workload says no such thing, beside others of which it does."""
MOST_ITEMS: Final = 50_000
"""So many rows of a trial are looked at for the items that it did."""


def apart(report: RunReport) -> list[tuple[str, RunReport]]:
    """The points that may be ranked with each other, kind by kind; one report without a name where all may."""
    kinds: dict[str, list[PointReport]] = {}
    for point in report.points:
        kinds.setdefault(kind(point), []).append(point)
    if len(kinds) < 2:
        return [("", report)]
    return [(name or OTHER, replace(report, points=tuple(points))) for name, points in kinds.items()]


def titled(title: str, name: str) -> str:
    """A title that says of which kind of points it is, where there are several."""
    return f"{title}: {name}" if name else title


def each_kind(report: RunReport, of: Callable[[RunReport], Iterable[Section | None]]) -> list[Section]:
    """Sections that rank or compare points, made for each kind of them alone."""
    return [
        replace(section, title=titled(section.title, name))
        for name, part in apart(report)
        for section in of(part)
        if section is not None
    ]


def differences(report: RunReport, points: Sequence[PointReport], name: str, metric: str) -> list[str]:
    """Why a metric per functional unit of these points is not one and the same quantity; empty where it is.

    Args:
        report: whose folder holds the items of the trials; a report of several runs has none, and says nothing of them.
        points: at least two.
        name: of the functional unit.
        metric: that they would be ranked by.
    """
    found = []
    checks: tuple[tuple[str, Callable[[PointReport], str]], ...] = (
        (f"count another {name}", lambda point: point.definitions[name]),
        ("were obtained by different methods", lambda point: method(point, name, metric)),
        ("are ranked apart by their workload", kind),
        ("were read by different meters", meters if metric != "duration_s" else lambda _: ""),
    )
    for what, of in checks:
        by_answer: dict[str, list[str]] = {}
        for point in points:
            by_answer.setdefault(of(point), []).append(point.label)
        if len(by_answer) > 1:
            told = "; ".join(f"{answer or 'none'}: {', '.join(labels)}" for answer, labels in by_answer.items())
            found.append(f"they {what} ({told})")
    if (odd := _other_items(report, points)) is not None:
        found.append(f"they did different work items ({odd[0]} and {odd[1]} each have items that the other lacks)")
    return found


def method(point: PointReport, name: str, metric: str) -> str:
    """The weakest method that a metric per unit was obtained by; empty where there is none."""
    summary = point.units[name].get(metric)
    return summary.label.value if summary is not None and summary.label is not None else ""


def kind(point: PointReport) -> str:
    """What the workload says that its numbers may be ranked with; empty where it says nothing."""
    return " and ".join(sorted({str(each.measurement.workload.get(RANKED_AS, "")) for each in point.records}))


def meters(point: PointReport) -> str:
    """The primary meters of a point's windows with the kinds of what they read, whichever device it was."""
    found = {
        f"{reading.meter} on {reading.scope.partition(':')[0].rpartition('/')[2]}"
        for finished in point.records
        for reading in finished.measurement.readings
        if reading.primary and reading.span == "window"
    }
    return " and ".join(sorted(found))


def _other_items(report: RunReport, points: Sequence[PointReport]) -> tuple[str, str] | None:
    """Two points of which each did an item that the other did not; windows may end sooner or later in one list."""
    sets = {point.label: items for point in points if (items := items_of(report, point))}
    for (first, some), (second, others) in itertools.combinations(sets.items(), 2):
        if some - others and others - some:
            return first, second
    return None


def items_of(report: RunReport, point: PointReport) -> set[str]:
    """Ids of the work items that the trials of a point did, of the first `MOST_ITEMS` rows of each."""
    found: set[str] = set()
    for finished in point.records:
        path = report.folder / finished.measurement.trial_id / ITEMS
        if path.is_file():
            found.update(str(row.get("item_id")) for row in itertools.islice(read_lines(path), MOST_ITEMS))
    return found
