"""The cells of a gate: every rule on every point that it applies to, with one difference a pair."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.errors import UsageError
from harness.gating.pairs import Series
from harness.gating.verdict import Cell, margin
from harness.planning.point import Point
from harness.planning.suite import GateRule
from harness.quantity import Amount, Value
from harness.records.metric import Kind, Metric
from harness.records.record import Record
from harness.statistics.paired import log_ratio

TOO_SHORT: Final = {Kind.ENERGY: "short", Kind.TIME: "short_time"}
"""Flag of a window that keeps a metric of this kind out of gates."""

Records = Sequence[tuple[Record, Record]]
"""The records of a point's pairs, base first."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What suites judge.

    Attributes:
        by_suite: name of a suite -> its rules.
        directions: column -> whether higher is better, as plugins declare it; None where they do not.
    """

    by_suite: Mapping[str, Sequence[GateRule]]
    directions: Mapping[str, bool | None] = field(default_factory=dict)

    def most_cells(self, points: Iterable[Point]) -> int:
        """How many cells there can be, known before anything is measured."""
        return sum(
            sum(each is not None for each in (rule.worse_by_at_most, rule.at_least, rule.at_most))
            for point in points
            for rule in self.by_suite.get(point.suite, ())
            if rule.per is None or rule.per in point.functional_units
        )

    def cells(self, series: Sequence[Series], read: Mapping[str, Records]) -> list[Cell]:
        """The cells of series whose records were read.

        Raises:
            UsageError: a rule's metric or unit is known to none of its points, or has no direction.
        """
        made: list[Cell] = []
        for suite, rules in self.by_suite.items():
            own = [each for each in series if not each.control and each.points["head"].suite == suite]
            for rule in rules:
                made += self._of_rule(rule, own, read)
        return made

    def _of_rule(self, rule: GateRule, series: Sequence[Series], read: Mapping[str, Records]) -> list[Cell]:
        metric = Metric(rule.metric, rule.per)
        made: list[Cell] = []
        unknown: UsageError | None = None
        for each in series:
            if rule.per is not None and rule.per not in each.points["head"].functional_units:
                continue  # a rule is for the points that have its unit, and its metric
            records = read[each.label]
            if each.lost or not records:
                made += [Cell(name=name, missing=each.lost) for name in names(rule, metric, each)]
                continue
            try:
                metric.value(records[0][1])
            except UsageError as error:
                unknown = error
                continue
            made += self._of_point(rule, metric, each, records)
        if unknown is not None and not made:
            raise unknown
        return made

    def _of_point(self, rule: GateRule, metric: Metric, series: Series, records: Records) -> list[Cell]:
        made = []
        wanted = iter(names(rule, metric, series))
        if rule.worse_by_at_most is not None:
            up = self._higher_is_better(rule, metric, records[0][1])
            made.append(comparison(next(wanted), records, metric, rule.worse_by_at_most, higher_is_better=up))
        heads = [head for _, head in records]
        if rule.at_least is not None:
            made.append(limit(next(wanted), heads, metric, floor=float(rule.at_least)))
        if rule.at_most is not None:
            made.append(limit(next(wanted), heads, metric, ceiling=float(rule.at_most)))
        return made

    def _higher_is_better(self, rule: GateRule, metric: Metric, record: Record) -> bool:
        if rule.direction is not None:
            return rule.direction == "higher_is_better"
        column = metric.name.partition(".")[0]
        if rule.per is not None or column not in record.columns:
            return metric.higher_is_better
        declared = self.directions.get(column)
        if declared is None:
            raise UsageError(
                f"no plugin says whether more {column!r} is better or worse",
                accepted="direction: higher_is_better, or direction: lower_is_better",
            )
        return declared


def names(rule: GateRule, metric: Metric, series: Series) -> list[str]:
    """Names of the cells of a rule on a point: of the comparison, of the floor, of the ceiling."""
    start = f"{series.label}: {metric}"
    found = [start] if rule.worse_by_at_most is not None else []
    found += [f"{start} >= {rule.at_least:g}"] if rule.at_least is not None else []
    return found + ([f"{start} <= {rule.at_most:g}"] if rule.at_most is not None else [])


def comparison(name: str, records: Records, metric: Metric, tolerance: float, *, higher_is_better: bool) -> Cell:
    """The cell that compares head with base, or why it cannot."""
    differences: list[float] = []
    levels: list[float] = []
    for number, (base, head) in enumerate(records, start=1):
        values = []
        for side, found in (("base", base), ("head", head)):
            amount, why = gateable(metric, found)
            if amount is None:
                return Cell(name=name, missing=f"pair {number}, {side}: {why}")
            values.append(amount)
        first, second = values
        if first.composition.keys() != second.composition.keys():
            methods = [" and ".join(sorted(amount.composition)) for amount in values]
            return Cell(name=name, missing=f"pair {number}: base is {methods[0]}, head is {methods[1]}: not comparable")
        difference = log_ratio(first.value, second.value, higher_is_better=higher_is_better)
        if difference is None:
            return Cell(name=name, missing=f"pair {number}: {first.value:g} and {second.value:g} have no ratio")
        differences.append(difference)
        levels.append(math.log(first.value * second.value) / 2)
    return Cell(name=name, differences=tuple(differences), levels=tuple(levels), margin=margin(tolerance))


def limit(
    name: str, heads: Iterable[Record], metric: Metric, *, floor: float | None = None, ceiling: float | None = None
) -> Cell:
    """The cell that holds head's values against an absolute floor or ceiling."""
    distances = []
    for number, head in enumerate(heads, start=1):
        amount, why = gateable(metric, head)
        if amount is None:
            return Cell(name=name, missing=f"pair {number}, head: {why}")
        distances.append(floor - amount.value if floor is not None else amount.value - (ceiling or 0.0))
    return Cell(name=name, differences=tuple(distances), limit=True)


def gateable(metric: Metric, record: Record) -> tuple[Amount | None, str]:
    """A metric's value in a trial, or why a gate may not use it."""
    value: Value = metric.value(record)
    if not isinstance(value, Amount):
        return None, value.reason
    flag = TOO_SHORT.get(metric.kind(record))
    if flag and any(flag in span.flags for span in record.measurement.windows):
        seconds = min(span.duration_s for span in record.measurement.windows)
        return None, f"the windows of {seconds:.3g} s are too short to gate {metric.kind(record)} (`{flag}`)"
    return value, ""
