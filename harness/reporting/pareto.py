"""Which points are worth having: quality against what a functional unit costs, in joules and in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.quantity import Amount
from harness.records.summary import PointReport, RunReport, Summary
from harness.reporting import quality
from harness.reporting.tables import Section, Table
from harness.reporting.wording import interval
from harness.units import si

COSTS: Final = {"energy_j": "J", "duration_s": "s"}
"""Costs that a quality is held against, and their units."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point with its cost and a quality of which more is better."""

    label: str
    cost: float
    quality: float

    def beats(self, other: Candidate) -> bool:
        """Whether it is nowhere worse and somewhere better."""
        no_worse = self.cost <= other.cost and self.quality >= other.quality
        return no_worse and (self.cost < other.cost or self.quality > other.quality)


def dominating(candidates: Iterable[Candidate]) -> dict[str, str | None]:
    """For each candidate the best of those that beat it, or None where it is on the front."""
    everyone = list(candidates)
    found: dict[str, str | None] = {}
    for each in everyone:
        better = [other for other in everyone if other.beats(each)]
        found[each.label] = max(better, key=lambda other: (other.quality, -other.cost)).label if better else None
    return found


def sections(report: RunReport) -> list[Section]:
    """One section for each functional unit and each column of quality that two points or more have."""
    return [
        section
        for name in report.unit_names
        for column in dict.fromkeys(c for point in report.points for r in point.records for c in r.qualities)
        if (section := _section(report, name, column)) is not None
    ]


def _section(report: RunReport, name: str, column: str) -> Section | None:
    points = [point for point in report.points if name in point.units and _amount(_quality(point, column))]
    if len(points) < 2:
        return None
    higher = all(finished.qualities.get(column, True) for point in points for finished in point.records)
    notes: list[str] = []
    verdicts = {}
    for metric, unit in COSTS.items():
        reason = _incomparable(points, name, metric)
        if reason:
            notes.append(f"No front in {unit}/{name}: {reason}.")
        else:
            verdicts[metric] = dominating(_candidates(points, name, column, metric, higher=higher))
    if not verdicts:
        return None
    first = next(iter(verdicts))
    rows = []
    for point in sorted(points, key=lambda point: _number(point.units[name].get(first)) or 0.0):
        cells = [point.label, _shown(_quality(point, column), "")]
        for metric, found in verdicts.items():
            cells.append(_shown(point.units[name].get(metric), COSTS[metric]))
            beaten_by = found.get(point.label, "")
            cells.append("on the front" if beaten_by is None else f"beaten by {beaten_by}" if beaten_by else "")
        rows.append(cells)
    columns = ["point", column]
    for metric in verdicts:
        columns += [f"{COSTS[metric]}/{name}", f"{column} against {COSTS[metric]}"]
    direction = "More" if higher else "Less"
    notes.append(
        f"{direction} {column} is better. On the front: no other point is as cheap and as good, and better in one. By "
        "the medians of the trials' means; differences within the intervals of the trials decide nothing."
    )
    return Section(f"Pareto front: {column} per {name}", Table(columns, rows), paragraphs=notes)


def _quality(point: PointReport, column: str) -> Summary | None:
    return quality.of(point, column)


def _amount(summary: Summary | None) -> bool:
    return summary is not None and isinstance(summary.value, Amount)


def _number(summary: Summary | None) -> float | None:
    return summary.value.value if summary is not None and isinstance(summary.value, Amount) else None


def _shown(summary: Summary | None, unit: str) -> str:
    if summary is None or not isinstance(summary.value, Amount):
        return "unavailable"

    return "\n".join(text for text in (si(summary.value.value, unit), interval(summary, unit)) if text)


def _incomparable(points: Sequence[PointReport], name: str, metric: str) -> str:
    """Why the points' costs cannot be held against each other; empty where they can."""
    known = [point for point in points if _number(point.units[name].get(metric)) is not None]
    if len(known) < 2:
        return "fewer than two points have a value"
    labels = {summary.label for point in known if (summary := point.units[name][metric]).label is not None}
    if len(labels) > 1:
        return f"it is {' in some points, '.join(sorted(label.value for label in labels))} in others"
    definitions = {point.definitions[name] for point in known}
    return f"{name} is defined in {len(definitions)} ways" if len(definitions) > 1 else ""


def _candidates(
    points: Iterable[PointReport], name: str, column: str, metric: str, *, higher: bool
) -> Iterable[Candidate]:
    for point in points:
        cost, quality = _number(point.units[name].get(metric)), _number(_quality(point, column))
        if cost is not None and quality is not None:
            yield Candidate(point.label, cost, quality if higher else -quality)
