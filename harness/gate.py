"""The gate: measures base and head in pairs, looks at most three times, and says whether it got worse.

The order of thoughts: guards (pairs), the control workload, cells and their verdicts, the verdict of the build.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UsageError
from harness.metric import Kind, Metric
from harness.pairs import Pairs, Series
from harness.quantity import Amount, Value
from harness.record import Record
from harness.statistics import ALPHA, effect, fewest_pairs, log_ratio, look_sizes
from harness.suite import GateRule
from harness.verdict import Cell, Judged, Verdict, build, control_moved, judge, margin, needs_more, one_side_fails

TOO_SHORT = {Kind.ENERGY: "short", Kind.TIME: "short_time"}
"""Flag of a window that keeps a metric of this kind out of gates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a gate found.

    Attributes:
        verdict: of the build.
        judged: every cell of the last look.
        pairs: measured per point.
        looks: pairs and error rate of each look that was taken.
        control: estimate of the control's change, relative; None where there is none.
        notes: what a reader must know: redone pairs, calibration, points that only one side has.
        reason: why the whole job is invalid; empty where it is not.
    """

    verdict: Verdict
    judged: Sequence[Judged]
    pairs: Mapping[str, int]
    looks: Sequence[tuple[int, float]]
    control: float | None = None
    notes: Sequence[str] = ()
    reason: str = ""


@dataclass(slots=True)
class Gate:
    """One gate, from its rules to its result.

    Attributes:
        rules: per suite, what is judged.
        pairs: measures.
        looks: pairs and error rate of each look, ascending.
        deadline_s: on the monotonic clock; no new round begins after it.
        control: label of the control's series; empty without one.
        control_bounds: what the control does when nothing changes, from calibration, on the logarithmic scale.
        direction: column -> whether higher is better, for rules that do not say.
        notes: known before anything was measured.
        clock: seconds, monotonic.
    """

    rules: Mapping[str, Sequence[GateRule]]
    pairs: Pairs
    looks: Sequence[tuple[int, float]]
    deadline_s: float = float("inf")
    control: str = ""
    control_bounds: tuple[float, float] | None = None
    direction: Mapping[str, bool | None] = field(default_factory=dict)
    notes: Sequence[str] = ()
    clock: Callable[[], float] = time.monotonic

    def run(self) -> Result:
        """Measures and looks until the build is decided, the pairs are used up, or the time is."""
        taken: list[tuple[int, float]] = []
        judged: list[Judged] = []
        done = 0
        for n, alpha in self.looks:
            while done < n and self.clock() < self.deadline_s:
                self.pairs.measure(1)
                done += 1
            late = done < n
            spend = self.looks[-1][1] if late else alpha
            self.pairs.finish()
            judged = judge(self.cells(), spend)
            taken.append((done, spend))
            if late or not needs_more(judged):
                break
        return self._result(judged, taken)

    def _result(self, judged: Sequence[Judged], taken: Sequence[tuple[int, float]]) -> Result:
        tried, redone = self.pairs.tried, self.pairs.redone
        moved, shift = self._control()
        reason = moved or one_side_fails(redone["base"], redone["head"], tried["base"], tried["head"])
        notes = [*self.notes] + [
            f"{count} trials of {name} did not count and their pairs were redone"
            for name, count in redone.items()
            if count
        ]
        return Result(
            verdict=Verdict.INVALID if reason else build(judged),
            judged=judged,
            pairs={series.label: series.pairs for series in self.pairs.series},
            looks=taken,
            control=shift,
            notes=notes,
            reason=reason,
        )

    def _control(self) -> tuple[str, float | None]:
        series = next((each for each in self.pairs.series if each.label == self.control), None)
        if series is None or not series.pairs:
            return "", None
        cell = comparison(series, self.pairs.records(series), Metric("duration_s", "item"), 0.0, higher_is_better=False)
        if cell.missing:
            return f"the control workload: {cell.missing}", None
        shift = effect(cell.differences).ratio[0]
        return (control_moved(cell.differences, self.control_bounds) if self.control_bounds else ""), shift

    # Cells

    def cells(self) -> list[Cell]:
        """Every rule on every point that it applies to."""
        made: list[Cell] = []
        for suite, rules in self.rules.items():
            series = [each for each in self.pairs.series if each.points["head"].suite == suite]
            read = {each.label: self.pairs.records(each) for each in series}
            for rule in rules:
                made += self._rule(rule, [each for each in series if each.label != self.control], read)
        return made

    def _rule(
        self, rule: GateRule, series: Sequence[Series], read: Mapping[str, Sequence[tuple[Record, Record]]]
    ) -> list[Cell]:
        metric = Metric(rule.metric, rule.per)
        made: list[Cell] = []
        unknown: UsageError | None = None
        for each in series:
            name = f"{each.label}: {metric}"
            if each.lost:
                made.append(Cell(name=name, missing=each.lost))
                continue
            records = read[each.label]
            if not records:
                made.append(Cell(name=name, missing="no pair was measured in the time given"))
                continue
            try:
                metric.value(records[0][1])
            except UsageError as error:  # a rule is for the points that have its metric
                unknown = error
                continue
            made += self._of_point(rule, metric, each, records)
        if unknown is not None and not made:
            raise unknown
        return made

    def _of_point(
        self, rule: GateRule, metric: Metric, series: Series, records: Sequence[tuple[Record, Record]]
    ) -> list[Cell]:
        made = []
        if rule.worse_by_at_most is not None:
            made.append(
                comparison(series, records, metric, rule.worse_by_at_most, higher_is_better=self._up(rule, metric))
            )
        heads = [head for _, head in records]
        if rule.at_least is not None:
            made.append(limit(series, heads, metric, floor=float(rule.at_least)))
        if rule.at_most is not None:
            made.append(limit(series, heads, metric, ceiling=float(rule.at_most)))
        return made

    def _up(self, rule: GateRule, metric: Metric) -> bool:
        if rule.direction is not None:
            return rule.direction == "higher_is_better"
        declared = self.direction.get(metric.name.partition(".")[0]) if rule.per is None else None
        return metric.higher_is_better if declared is None else declared


def comparison(
    series: Series,
    records: Sequence[tuple[Record, Record]],
    metric: Metric,
    tolerance: float,
    *,
    higher_is_better: bool,
) -> Cell:
    """The cell that compares head with base, or why it cannot."""
    name = f"{series.label}: {metric}"
    differences: list[float] = []
    for number, (base, head) in enumerate(records, start=1):
        values = []
        for side, found in (("base", base), ("head", head)):
            amount, why = gateable(metric, found)
            if amount is None:
                return Cell(name=name, missing=f"pair {number}, {side}: {why}")
            values.append(amount)
        first, second = values
        if first.composition.keys() != second.composition.keys():
            return Cell(name=name, missing=f"pair {number}: measured by other methods on head than on base")
        difference = log_ratio(first.value, second.value, higher_is_better=higher_is_better)
        if difference is None:
            return Cell(name=name, missing=f"pair {number}: {first.value:g} and {second.value:g} have no ratio")
        differences.append(difference)
    return Cell(name=name, differences=tuple(differences), margin=margin(tolerance))


def limit(
    series: Series,
    heads: Sequence[Record],
    metric: Metric,
    *,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Cell:
    """The cell that holds head's values against an absolute floor or ceiling."""
    bound = f">= {floor:g}" if floor is not None else f"<= {ceiling:g}"
    name = f"{series.label}: {metric} {bound}"
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


def looks_for(pairs: int) -> list[tuple[int, float]]:
    """The looks of a gate of so many pairs; raises UsageError where that could only end inconclusive."""
    least = fewest_pairs(ALPHA)
    if pairs < least:
        raise UsageError(
            f"{pairs} pairs cannot decide anything at an error rate of {ALPHA:g}", accepted=f"at least {least}"
        )
    return look_sizes(pairs)


def to_json(result: Result) -> dict[str, Any]:
    """The result as JSON values."""
    return {
        "verdict": result.verdict,
        "exit_code": int(result.verdict.exit_code),
        "reason": result.reason,
        "pairs": dict(result.pairs),
        "looks": [{"pairs": n, "alpha": alpha} for n, alpha in result.looks],
        "control_change": result.control,
        "notes": list(result.notes),
        "cells": [_cell(judged) for judged in result.judged],
    }


def _cell(judged: Judged) -> dict[str, Any]:
    found = judged.effect
    estimate, low, high = found.ratio if found and not judged.cell.limit else (None, None, None)
    if found and judged.cell.limit:
        estimate, low, high = found.estimate, found.low, found.high
    finite = {"estimate": estimate, "low": low, "high": high}
    return {
        "name": judged.cell.name,
        "verdict": judged.verdict,
        "reason": judged.reason,
        "limit": judged.cell.limit,
        "margin": judged.cell.margin,
        "n": found.n if found else 0,
        **{key: value if value is not None and abs(value) != float("inf") else None for key, value in finite.items()},
        "p_worse": judged.p_worse,
    }
