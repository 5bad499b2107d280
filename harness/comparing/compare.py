"""Two runs side by side: per point and metric how far the second lies from the first, with its interval.

Not a gate: nothing fails. The trials of two runs are no pairs, so what drifted between the runs is part of the effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError, did_you_mean
from harness.quantity import Amount
from harness.records.cross_checks import CrossCheck, cross_checks
from harness.records.metric import Kind, Metric
from harness.records.summary import Summary, summarise
from harness.records.trials import (
    RUNNER_KEYS,
    PointTrials,
    cards,
    describe,
    differing,
    energy_beneath,
    factor_ids,
    load_all,
    methods_of,
    metrics_of,
    rests_on_factors,
    runner,
    start_of,
    value_of,
)
from harness.statistics.paired import ALPHA, Effect, benjamini_hochberg
from harness.statistics.unpaired import p_different, shift


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One metric of one point on both sides.

    Attributes:
        metric: what is compared.
        first: over the trials of the first run.
        second: of the second.
        effect: second against first: of logarithms, or of values where one is not positive; None where none is given.
        ratio: whether the effect is of logarithms.
        p_value: two-sided and exact, that there is no shift; None where there is no effect.
        conclusion: `higher`, `lower`, or why neither can be said.
    """

    metric: Metric
    first: Summary
    second: Summary
    effect: Effect | None = None
    ratio: bool = True
    p_value: float | None = None
    conclusion: str

    @property
    def interval(self) -> tuple[float, float, float] | None:
        """Low end, high end and estimate of the change: relative, or in the metric's unit where there is no ratio."""
        if self.effect is None:
            return None
        estimate, low, high = self.effect.ratio if self.ratio else (self.effect.estimate, *_ends(self.effect))
        return low, high, estimate


def _ends(effect: Effect) -> tuple[float, float]:
    return effect.low, effect.high


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPoint:
    """One point of both runs.

    Attributes:
        name: of the first run's point, and of the second's where that is another.
        metrics: what both have.
        checks: cross-check meters of the first run, and of the second.
        notes: what a reader must know of this point.
    """

    name: str
    metrics: Sequence[Compared]
    checks: tuple[Sequence[CrossCheck], Sequence[CrossCheck]]
    notes: Sequence[str]

    @property
    def adjusted(self) -> dict[str, float]:
        """P-values after Benjamini and Hochberg, over this point's metrics."""
        return benjamini_hochberg({str(each.metric): each.p_value for each in self.metrics if each.p_value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs compared: their points, and what a reader must know of both."""

    points: Sequence[ComparedPoint]
    notes: Sequence[str]


def compare(first: Path, second: Path, only: Sequence[str] = (), alpha: float = ALPHA) -> Comparison:
    """Compares two run folders, or folders of single records.

    Args:
        first: what is compared with.
        second: what is compared.
        only: names of metrics to be shown; all unless given.
        alpha: error rate of each end of an interval.

    Raises:
        UsageError: no such folder or metric, or no point in common.
        MeasurementError: nothing valid was measured.
    """
    ours, theirs = load_all(first), load_all(second)
    matched, _ = _match(ours, theirs)
    if not matched:
        raise UsageError(
            "the two runs have no point in common",
            hint=f"first: {_listed(ours)}; second: {_listed(theirs)}; or name two folders of single records",
        )
    known = {metric.name for pair in matched for metric in metrics_of(pair[0].records)}
    for name in only:
        if name not in known:
            raise UsageError(
                f"there is no metric {name!r}", accepted=", ".join(sorted(known)), hint=did_you_mean(name, known)
            )

    def wanted(metric: Metric) -> bool:
        return not only or metric.name in only or metric.name.partition(".")[0] in only

    return compare_points(ours, theirs, wanted, alpha)


def compare_points(
    ours: Sequence[PointTrials],
    theirs: Sequence[PointTrials],
    wanted: Callable[[Metric], bool],
    alpha: float = ALPHA,
) -> Comparison:
    """Compares the points of two runs that have a valid trial in both; there may be none.

    Args:
        ours: all points of what is compared with, as `trials.load_all` gives them.
        theirs: of what is compared.
        wanted: which metrics.
        alpha: error rate of each end of an interval.
    """
    matched, notes = _match(ours, theirs)
    points = [_point(*pair, wanted, alpha) for pair in matched]
    return Comparison(points=points, notes=[*notes, *(_runners(*matched[0]) if matched else ())])


def _match(
    ours: Sequence[PointTrials], theirs: Sequence[PointTrials]
) -> tuple[list[tuple[PointTrials, PointTrials]], list[str]]:
    """Points with a valid trial in both, by name, or the only two that there are; and what to say of the others."""
    first, second = ([point for point in side if point.valid] for side in (ours, theirs))
    by_name = {point.name: point for point in second}
    matched = [(point, by_name[point.name]) for point in first if point.name in by_name]
    if not matched and len(first) == len(second) == 1:
        return [(first[0], second[0])], ["the two are different points: what is compared is not one piece of work"]
    notes = [
        f"no trial of {point.name} in the {side} is valid"
        for side, points in (("first", ours), ("second", theirs))
        for point in points
        if not point.valid
    ]
    odd = {point.name for point in ours} ^ {point.name for point in theirs}
    return matched, [*notes, *(f"only one of the two has {name}" for name in sorted(odd))]


def _listed(points: Sequence[PointTrials], most: int = 3) -> str:
    names = ", ".join(point.name for point in points[:most])
    return names + (f" and {len(points) - most} more" if len(points) > most else "")


def _runners(one: PointTrials, other: PointTrials) -> list[str]:
    """What differs between the machines and the installations."""
    first, second = one.records[0].measurement, other.records[0].measurement
    odd = differing(runner(first), runner(second), RUNNER_KEYS)
    common = first.plugins.keys() & second.plugins.keys()  # a record names every plugin installed, or those it used
    versions: list[dict[str, Any]] = [
        {**each.environment.get("packages", {}), **{name: each.plugins[name] for name in common}}
        for each in (first, second)
    ]
    changed = differing(versions[0], versions[1], sorted(versions[0].keys() | versions[1].keys()))
    notes = [f"not the same runner: {describe(odd, 'first', 'second')}"] if odd else []
    return notes + ([f"other versions: {describe(changed, 'first', 'second')}"] if changed else [])


def _point(first: PointTrials, second: PointTrials, wanted: Callable[[Metric], bool], alpha: float) -> ComparedPoint:
    notes = []
    if first.name == second.name and first.id != second.id:
        notes.append("options, backend, meters or windows differ under this label")
    for side, point in (("first", first), ("second", second)):
        if point.left_out:
            notes.append(f"{len(point.left_out)} trials of the {side} are not valid and left out")
        if len(starts := {start_of(finished.measurement) for finished in point.records}) > 1:
            notes.append(f"trials of the {side} started in several ways ({', '.join(sorted(starts))}): not alike")
    common = set(metrics_of(second.records))
    shown = [metric for metric in metrics_of(first.records) if metric in common and wanted(metric)]
    return ComparedPoint(
        name=first.name if first.name == second.name else f"{first.name} -> {second.name}",
        metrics=[_compared(metric, first, second, alpha) for metric in shown],
        checks=(cross_checks(first.records), cross_checks(second.records)),
        notes=notes,
    )


def _compared(metric: Metric, first: PointTrials, second: PointTrials, alpha: float) -> Compared:
    sides = [[value_of(metric, finished) for finished in point.records] for point in (first, second)]
    before, after = ([value for value in values if isinstance(value, Amount)] for values in sides)
    summaries = [summarise(values) for values in sides]

    def said(conclusion: str) -> Compared:
        return Compared(metric=metric, first=summaries[0], second=summaries[1], conclusion=conclusion)

    if not before or not after:
        reason = next(summary.missing[0] for summary in summaries if summary.missing)
        return said(f"no value: {reason}")
    if len({amount.unit for amount in (*before, *after)}) > 1:
        return said("measured in different units")
    definitions = [_definition(metric, point) for point in (first, second)]
    if definitions[0] != definitions[1]:
        return said(f"not comparable: {metric.per} is defined as {definitions[0]} and as {definitions[1]}")
    methods = dict.fromkeys(
        methods_of(value, energy_beneath(metric, finished))
        for point in (first, second)
        for finished in point.records
        if isinstance(value := value_of(metric, finished), Amount)
    )
    if len(methods) > 1:
        ways = ", ".join(" and ".join(sorted(each)) or "nothing" for each in methods)
        return said(f"not comparable: obtained by different methods ({ways})")
    ids = [{factor for finished in point.records for factor in factor_ids(finished)} for point in (first, second)]
    if rests_on_factors(metric, first.records[0]) and ids[0] != ids[1]:
        return said("not comparable: rests on other factors")
    ratio = all(amount.value > 0 for amount in (*before, *after))
    values = [[math.log(each.value) if ratio else each.value for each in side] for side in (before, after)]
    effect = shift(values[0], values[1], alpha)
    return Compared(
        metric=metric,
        first=summaries[0],
        second=summaries[1],
        effect=effect,
        ratio=ratio,
        p_value=p_different(values[0], values[1]),
        conclusion=_conclusion(effect, summaries, _gain_matters(metric, first, second)),
    )


def _definition(metric: Metric, point: PointTrials) -> str:
    """What the metric's functional unit counts; empty for a metric without one."""
    found = (finished.units.get(metric.per or "") for finished in point.records)
    return next((unit.unit for unit in found if unit is not None), "")


def _gain_matters(metric: Metric, first: PointTrials, second: PointTrials) -> bool:
    """On one card the sensor's gain cancels in a comparison; between two cards it does not."""
    measurements = [point.records[0].measurement for point in (first, second)]
    return metric.kind(first.records[0]) is Kind.ENERGY and cards(measurements[0]) != cards(measurements[1])


def _conclusion(effect: Effect, summaries: Sequence[Summary], gain_matters: bool) -> str:
    if effect.low == -math.inf:
        return "too few trials for an interval"
    if effect.low <= 0 <= effect.high:
        return "no difference shown"
    if gain_matters:
        (low, high), (other_low, other_high) = summaries[0].bound, summaries[1].bound
        if low is None or high is None or other_low is None or other_high is None:
            return "not distinguishable: two cards, and a bound is not known"
        if low <= other_high and other_low <= high:
            return "not distinguishable: inside the bounds of both cards"
    return "higher" if effect.low > 0 else "lower"


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values."""
    return {
        "notes": list(comparison.notes),
        "points": [
            {
                "name": point.name,
                "notes": list(point.notes),
                "metrics": [_metric_json(each, point.adjusted) for each in point.metrics],
                "cross_checks": [[_check_json(check) for check in side] for side in point.checks],
            }
            for point in comparison.points
        ],
    }


def _metric_json(each: Compared, adjusted: dict[str, float]) -> dict[str, Any]:
    low, high, estimate = each.interval or (None, None, None)
    medians = [
        summary.value.value if isinstance(summary.value, Amount) else None for summary in (each.first, each.second)
    ]
    unit = next((s.value.unit for s in (each.first, each.second) if isinstance(s.value, Amount)), None)
    return {
        "metric": each.metric.name,
        "per": each.metric.per,
        "unit": unit,
        "change": {key: _finite(value) for key, value in (("low", low), ("high", high), ("estimate", estimate))},
        "relative": each.ratio,
        "medians": medians,
        "methods": [summary.label.value if summary.label else None for summary in (each.first, each.second)],
        "trials": [each.first.n, each.second.n],
        "p_value": each.p_value,
        "p_adjusted": adjusted.get(str(each.metric)),
        "conclusion": each.conclusion,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _check_json(check: CrossCheck) -> dict[str, Any]:
    return {
        "scope": check.scope,
        "primary": check.primary,
        "check": check.check,
        "difference": check.difference,
        "trials": check.n,
        "note": check.note,
    }
