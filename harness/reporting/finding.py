"""What a run found, in a sentence: the cheapest point and by how much, or that it cannot be told, and why.

A point is called cheaper than others only where its interval lies apart from all of theirs. That the cheapest is looked
for among several needs no further correction: of pairs of equal points with 3 to 10 trials of lognormal noise 0.5 % lie
apart by chance, and the first of five or ten almost never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.quantity import Amount
from harness.records.summary import PointReport, RunReport, Summary
from harness.reporting.same_work import differences
from harness.reporting.wording import counted, label, listed, percent
from harness.statistics.intervals import LEAST_TRIALS, mean_interval, ratio_interval
from harness.units import si

METRICS: Final = {
    "energy_j": ("Least energy", "J"),
    "carbon_g": ("Least carbon", "g"),
    "carbon_operational_g": ("Least operational carbon", "g"),
    "duration_s": ("Fastest", "s"),
}
"""What points are ranked by, the first that two of them have: how the least of it is called, and its unit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A conclusion.

    Attributes:
        text: the sentence.
        cheapest: labels of the points that cost less than all others: one where it can be told, none where not.
        notes: what it leaves out.
    """

    text: str
    cheapest: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A point that may be ranked."""

    point: PointReport
    summary: Summary
    low: float
    high: float

    @property
    def value(self) -> float:
        assert isinstance(self.summary.value, Amount)
        return self.summary.value.value


def finding(report: RunReport, name: str) -> Finding:
    """The conclusion about one functional unit."""
    points = [point for point in report.points if name in point.units]
    metric = next((metric for metric in METRICS if sum(_has(point, name, metric) for point in points) > 1), "")
    if not metric:
        return _single(points, name)
    known = [point for point in points if _has(point, name, metric)]
    ranked = [point for point in known if point.valid]
    notes = _left_out(points, known, ranked, name, metric)
    if len(ranked) < 2:
        return Finding(f"Nothing to compare per {name}: fewer than two points have a valid {metric}.", notes=notes)
    odd = differences(report, ranked, name, metric)
    if odd:
        return Finding(f"Not ranked by {metric} per {name}: {'; '.join(odd)}.", notes=notes)
    text, cheapest = _ranking(ranked, name, metric)
    return Finding(text, cheapest, notes)


def _has(point: PointReport, name: str, metric: str) -> bool:
    summary = point.units[name].get(metric)
    return summary is not None and isinstance(summary.value, Amount)


def _single(points: Sequence[PointReport], name: str) -> Finding:
    for metric, (_, unit) in METRICS.items():
        for point in points:
            if _has(point, name, metric):
                cost = _costs(point.units[name][metric], unit)
                return Finding(f"{point.label}: {cost} per {name}; no other point to compare it with.")
    return Finding(f"No cost per {name} was measured.")


def _costs(summary: Summary, unit: str) -> str:
    assert isinstance(summary.value, Amount)
    return f"{si(summary.value.value, unit)} ({label(summary)})"


def _left_out(
    points: Sequence[PointReport], known: Sequence[PointReport], ranked: Sequence[PointReport], name: str, metric: str
) -> tuple[str, ...]:
    lacking = [point.label for point in points if point not in known]
    invalid = [point.label for point in known if point not in ranked]
    reasons = {f"without {metric} per {name}": lacking, "not valid": invalid}
    return tuple(f"Not ranked, {reason}: {listed(labels)}." for reason, labels in reasons.items() if labels)


def _ranking(points: Sequence[PointReport], name: str, metric: str) -> tuple[str, tuple[str, ...]]:
    word, unit = METRICS[metric]
    untold = f"{word} per {name} cannot be told"
    candidates, few = [], []
    for point in points:
        summary = point.units[name][metric]
        interval = mean_interval(summary.values)
        if interval is None:
            few.append(point.label)
        else:
            candidates.append(_Candidate(point, summary, *interval))
    if few:
        return f"{untold}: fewer than {counted(LEAST_TRIALS, 'trial')} of {listed(few)}; see the table.", ()
    candidates.sort(key=lambda each: (each.low, each.high, each.point.label))
    if (zeros := [each.point.label for each in candidates if each.low <= 0]) != []:
        return f"{untold}: {listed(zeros)} read 0 or less, which no ratio compares.", ()
    first = _overlapping(candidates)
    others = candidates[len(first) :]
    apart = bool(others) and max(each.value for each in first) < min(each.value for each in others)
    if not apart:
        return f"{untold}: the intervals of {listed([each.point.label for each in first])} overlap.", ()
    labels = tuple(each.point.label for each in first)
    if len(first) > 1:
        rest = counted(len(others), "point")
        return f"{untold}: the intervals of {listed(labels)} overlap; they lie below the other {rest}.", labels
    best, second = first[0], others[0]
    ratio = ratio_interval(second.summary.values, best.summary.values)
    if ratio is None or ratio[2] >= 1:
        return f"{untold}: the ratio of {best.point.label} to {second.point.label} may be 1.", ()
    less, least, most = (percent(1 - each) for each in (ratio[0], ratio[2], ratio[1]))
    what = f"{best.point.label}, {_costs(best.summary, unit)}"
    return (
        f"{word} per {name}: {what}, {less} less than {second.point.label} (95 % interval {least} to {most}).",
        labels,
    )


def _overlapping(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Of candidates by rising low ends: the first, and all that hang together with it by intervals that touch."""
    found = [candidates[0]]
    reach = candidates[0].high
    for each in candidates[1:]:
        if each.low > reach:
            break
        found.append(each)
        reach = max(reach, each.high)
    return found
