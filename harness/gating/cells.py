"""The cells of a gate (its comparisons and limits): every rule on every point that it is for, one difference a pair."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from harness.errors import UsageError
from harness.gating.pairs import Series
from harness.gating.verdict import Cell, CellKey, margin
from harness.planning.point import Point
from harness.planning.suite import GateRule
from harness.quantity import Amount, Method, Value, weakest
from harness.records.metric import RATE, Kind, Metric, never_gated
from harness.records.record import Record
from harness.records.trials import PointTrials, energy_beneath, methods_of
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

    @property
    def energy(self) -> set[str]:
        """Suites with a rule that rests on the energy meters: on neither a time, a rate nor a column."""
        apart = {"duration_s", RATE, *self.directions}
        return {
            suite
            for suite, rules in self.by_suite.items()
            if any(rule.metric not in apart and rule.metric.partition(".")[0] not in apart for rule in rules)
        }

    def most_cells(self, points: Iterable[Point]) -> int:
        """How many cells there can be, known before anything is measured."""
        return sum(len(keys(rule, point)) for rule, point in self._applying(points))

    def margins(self, points: Iterable[Point]) -> dict[CellKey, float]:
        """Cell -> tolerance on the logarithmic scale, of every comparison that there can be."""
        return {
            keys(rule, point)[0]: margin(rule.worse_by_at_most)
            for rule, point in self._applying(points)
            if rule.worse_by_at_most is not None
        }

    def _applying(self, points: Iterable[Point]) -> Iterator[tuple[GateRule, Point]]:
        """Rules with the points that have their functional unit."""
        for point in points:
            for rule in self.by_suite.get(point.suite, ()):
                if rule.per is None or rule.per in point.functional_units:
                    yield rule, point

    def unjudged(self, points: Sequence[Point]) -> list[str]:
        """Points that no rule of their suite is for, and which units they have: a pass says nothing of them."""
        judged = {(point.suite, point.label) for _, point in self._applying(points)}
        return [
            f"{point.suite}: {point.label}: no rule judges it; its units: {', '.join(point.functional_units) or 'none'}"
            for point in points
            if (point.suite, point.label) not in judged
        ]

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
                made += [Cell(key=key, missing=each.lost) for key in keys(rule, each.points["head"])]
                continue
            try:
                metric.value(records[0][1])
            except UsageError as error:
                unknown = error
                continue
            made += self._of_point(rule, each, records)
        if unknown is not None and not made:
            raise unknown
        return made

    def _of_point(self, rule: GateRule, series: Series, records: Records) -> list[Cell]:
        made = []
        for key in keys(rule, series.points["head"]):
            if key.bound is None:
                up = self._higher_is_better(rule, Metric(rule.metric, rule.per), records[0][1])
                cell = comparison(key, records, rule.worse_by_at_most or 0.0, higher_is_better=up)
                made.append(cell if cell.missing else replace(cell, head_second=tuple(series.head_second)))
            else:
                made.append(limit(key, [head for _, head in records]))
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


def keys(rule: GateRule, point: Point | PointTrials) -> list[CellKey]:
    """The cells of a rule on a point: the comparison, the floor, the ceiling."""
    compared = CellKey(point.suite, point.label, rule.metric, rule.per)
    found = [compared] if rule.worse_by_at_most is not None else []
    found += [replace(compared, bound=(">=", float(rule.at_least)))] if rule.at_least is not None else []
    return found + ([replace(compared, bound=("<=", float(rule.at_most)))] if rule.at_most is not None else [])


def comparison(key: CellKey, records: Records, tolerance: float, *, higher_is_better: bool) -> Cell:
    """The cell that compares head with base, or why it cannot."""
    metric = Metric(key.metric, key.per)
    differences: list[float] = []
    levels: list[float] = []
    labels: list[Method] = []
    for number, (base, head) in enumerate(records, start=1):
        values, methods = [], []
        for side, found in (("base", base), ("head", head)):
            amount, why = gateable(metric, found)
            if amount is None:
                return Cell(key=key, missing=f"pair {number}, {side}: {why}")
            values.append(amount)
            labels.append(amount.label)
            methods.append(methods_of(amount, energy_beneath(metric, found)))
        first, second = values
        if methods[0] != methods[1]:
            ways = [" and ".join(sorted(each)) for each in methods]
            return Cell(key=key, missing=f"pair {number}: base is {ways[0]}, head is {ways[1]}: not comparable")
        difference = log_ratio(first.value, second.value, higher_is_better=higher_is_better)
        if difference is None:
            return Cell(key=key, missing=f"pair {number}: {first.value:g} and {second.value:g} have no ratio")
        differences.append(difference)
        levels.append(math.log(first.value * second.value) / 2)
    return Cell(
        key=key,
        differences=tuple(differences),
        levels=tuple(levels),
        margin=margin(tolerance),
        method=weakest(*labels) if labels else None,
    )


def limit(key: CellKey, heads: Iterable[Record], trial: str = "pair {}, head") -> Cell:
    """The cell that holds head's values against the key's floor or ceiling.

    Args:
        key: with a bound.
        heads: head's records, in order.
        trial: what one of them is called, with a place for its number.
    """
    assert key.bound is not None
    sign, bound = key.bound
    distances, labels = [], []
    for number, head in enumerate(heads, start=1):
        amount, why = gateable(Metric(key.metric, key.per), head)
        if amount is None:
            return Cell(key=key, missing=f"{trial.format(number)}: {why}", limit=True)
        labels.append(amount.label)
        distances.append(bound - amount.value if sign == ">=" else amount.value - bound)
    method = weakest(*labels) if labels else None
    return Cell(key=key, differences=tuple(distances), limit=True, method=method)


def gateable(metric: Metric, record: Record) -> tuple[Amount | None, str]:
    """A metric's value in a trial, or why a gate may not use it."""
    if reason := never_gated(metric.name):
        return None, reason
    value: Value = metric.value(record)
    if not isinstance(value, Amount):
        return None, value.reason
    kind = metric.kind(record)
    foreign = record.measurement.foreign_load
    if kind is Kind.ENERGY and foreign:
        _, _, scope = metric.name.partition(":")
        why = foreign.get(scope, "") if scope else next(iter(foreign.values()))
        if why:
            return None, why
    flag = TOO_SHORT.get(kind)
    if flag and any(flag in span.flags for span in record.measurement.windows):
        seconds = min(span.duration_s for span in record.measurement.windows)
        return None, f"the windows of {seconds:.3g} s are too short to gate {kind} (`{flag}`)"
    return value, ""
