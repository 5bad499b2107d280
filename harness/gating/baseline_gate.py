"""`harness gate SUITE --baseline NAME`: judges a run by a stored baseline, which is much weaker than pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.errors import UsageError
from harness.gating.baseline import Baseline, KeptPoint
from harness.gating.cells import gateable
from harness.gating.gate import Result
from harness.gating.unpaired_verdict import Seen, decide
from harness.gating.verdict import Cell, Judged, Verdict, margin
from harness.gating.verdict import build as build_verdict
from harness.planning.suite import GateRule, Suite
from harness.quantity import Amount
from harness.records.metric import Metric
from harness.records.trials import (
    PointTrials,
    describe,
    differing,
    factor_ids,
    methods_of,
    rests_on_factors,
    same_runner,
)
from harness.statistics.paired import ALPHA, effect, p_worse
from harness.statistics.unpaired import least_p, p_above, shift

WEAKER: Final = (
    "compared with a stored baseline: whatever changed on this machine since then counts as a change of the code, and "
    "no error rate is promised for that. On a shared runner this is close to a coin; `--base REF` measures pairs"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineResult:
    """What a gate against a stored baseline found.

    Attributes:
        verdict: of the build; `invalid` where the runners are not comparable.
        baseline: name of the baseline.
        saved_utc: when it was saved.
        judged: every cell; empty where the runners are not comparable.
        differing: declared keys in which the runners differ, with the baseline's value and the present one.
        trials: point -> trials of baseline and head.
        alpha: error rate of each bound.
        notes: what a reader must know; the weakness of a stored baseline first.
    """

    verdict: Verdict
    baseline: str
    saved_utc: str
    judged: Sequence[Judged] = ()
    differing: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    trials: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    alpha: float = ALPHA
    notes: Sequence[str] = ()

    @property
    def reason(self) -> str:
        """Why it is not comparable; empty where it is."""
        if not self.differing:
            return ""
        return f"not comparable: {describe(self.differing, 'baseline', 'here')}"

    def as_result(self) -> Result:
        """The gate's own result type: `pairs` counts head's trials, and the one look is the only one."""
        return Result(
            verdict=self.verdict,
            judged=self.judged,
            pairs={name: head for name, (_, head) in self.trials.items()},
            looks=[(max((head for _, head in self.trials.values()), default=0), self.alpha)],
            notes=self.notes,
            reason=self.reason,
        )


def judge_against_baseline(
    baseline: Baseline,
    suites: Sequence[Suite],
    points: Sequence[PointTrials],
    direction: Mapping[str, bool | None] | None = None,
    alpha: float = ALPHA,
) -> BaselineResult:
    """Judges the trials of a run by a baseline, with the rules of its suites.

    Args:
        baseline: what to judge by.
        suites: with their `gate:` rules.
        points: what was measured now, as `trials.load` gives it.
        direction: column -> whether higher is better, for rules that do not say.
        alpha: error rate of each bound, and of all cells together by Holm.

    Raises:
        UsageError: a rule fits no point, or nothing can be judged.
        MeasurementError: the trials come from different runners.
    """
    odd = differing(baseline.fingerprint, same_runner(points, baseline.keys), baseline.keys)
    kept = {point.key: point for point in baseline.points}
    names = {suite.suite for suite in suites}
    here = [point for point in points if point.suite in names]
    notes = [WEAKER, *_unmatched(baseline, here, names)]
    trials = {
        point.name: (len(kept[point.suite, point.label].trials), len(point.records))
        for point in here
        if (point.suite, point.label) in kept
    }
    if odd:
        return BaselineResult(
            verdict=Verdict.INVALID,
            baseline=baseline.name,
            saved_utc=baseline.saved_utc,
            differing=odd,
            trials=trials,
            alpha=alpha,
            notes=notes,
        )
    seen: list[Seen] = []
    for suite in suites:
        of_suite = [point for point in here if point.suite == suite.suite]
        for rule in suite.gate:
            seen += _rule(rule, of_suite, kept, direction or {}, alpha)
    if not seen:
        raise UsageError("no rule judges a point that the run and the baseline share", hint="; ".join(notes[1:]))
    judged = decide(seen, alpha)
    return BaselineResult(
        verdict=build_verdict(judged),
        baseline=baseline.name,
        saved_utc=baseline.saved_utc,
        judged=judged,
        trials=trials,
        alpha=alpha,
        notes=[*notes, *_too_few(seen, trials, alpha)],
    )


def _unmatched(baseline: Baseline, points: Sequence[PointTrials], names: set[str]) -> list[str]:
    stored = {point.key for point in baseline.points if point.suite in names}
    measured = {(point.suite, point.label) for point in points}
    return [
        *(f"{suite}: {label}: the baseline does not have it" for suite, label in sorted(measured - stored)),
        *(f"{suite}: {label}: in the baseline, not measured now" for suite, label in sorted(stored - measured)),
    ]


def _too_few(seen: Sequence[Seen], trials: Mapping[str, tuple[int, int]], alpha: float) -> list[str]:
    """Says it where so few trials can fail no build of so many cells."""
    if min((least_p(*counts) for counts in trials.values()), default=0.0) <= alpha / max(len(seen), 1):
        return []
    return [f"so few trials cannot fail a build of {len(seen)} cells at an error rate of {alpha:g}; more can"]


# Cells


def _rule(
    rule: GateRule,
    points: Sequence[PointTrials],
    kept: Mapping[tuple[str, str], KeptPoint],
    direction: Mapping[str, bool | None],
    alpha: float,
) -> list[Seen]:
    metric = Metric(rule.metric, rule.per)
    made: list[Seen] = []
    unknown: UsageError | None = None
    for point in points:
        try:
            metric.value(point.records[0])
        except UsageError as error:  # a rule is for the points that have its metric
            unknown = error
            continue
        base = kept.get((point.suite, point.label))
        if rule.worse_by_at_most is not None and base is not None:
            made.append(_comparison(point, base, metric, rule, direction, alpha))
        for bound, sign in ((rule.at_least, -1.0), (rule.at_most, 1.0)):
            if bound is not None:
                made.append(_limit(point, metric, float(bound), sign, alpha))
    if unknown is not None and not made:
        raise unknown
    return made


def _comparison(
    point: PointTrials,
    base: KeptPoint,
    metric: Metric,
    rule: GateRule,
    direction: Mapping[str, bool | None],
    alpha: float,
) -> Seen:
    name = f"{point.name}: {metric}"
    before, why = _stored(base, metric)
    now, why_now = _measured(point, metric)
    why = why or why_now or _incomparable(point, base, metric, before, now)
    if why:
        return Seen(Cell(name=name, missing=why))
    sign = -1.0 if _higher_is_better(rule, metric, direction) else 1.0
    first, second = ([sign * math.log(amount.value) for amount in side] for side in (before, now))
    cell = Cell(name=name, margin=margin(rule.worse_by_at_most or 0.0))
    return Seen(cell, shift(first, second, alpha), p_above(first, second, cell.margin))


def _higher_is_better(rule: GateRule, metric: Metric, direction: Mapping[str, bool | None]) -> bool:
    if rule.direction is not None:
        return rule.direction == "higher_is_better"
    declared = direction.get(metric.name.partition(".")[0]) if rule.per is None else None
    return metric.higher_is_better if declared is None else declared


def _stored(base: KeptPoint, metric: Metric) -> tuple[list[Amount], str]:
    """The baseline's values, or why a gate may not use them."""
    found = base.find(metric)
    if found is None:
        return [], "the baseline does not have this metric"
    if found.ungated:
        return [], f"baseline: {found.ungated}"
    missing = [value.reason for value in found.values if not isinstance(value, Amount)]
    if missing:
        return [], f"baseline: {missing[0]}"
    return [value for value in found.values if isinstance(value, Amount)], ""


def _measured(point: PointTrials, metric: Metric) -> tuple[list[Amount], str]:
    """The present values, or why a gate may not use them."""
    found: list[Amount] = []
    for number, finished in enumerate(point.records, start=1):
        amount, why = gateable(metric, finished)
        if amount is None:
            return [], f"trial {number}: {why}"
        found.append(amount)
    return found, ""


def _incomparable(
    point: PointTrials, base: KeptPoint, metric: Metric, before: Sequence[Amount], now: Sequence[Amount]
) -> str:
    """Why values that both sides have may not be compared; empty where they may."""
    if point.id != base.id:
        return "the baseline measured other work under this label: options, backend, meters or windows differ"
    amounts = [*before, *now]
    if len({amount.unit for amount in amounts}) > 1:
        return f"measured in {now[0].unit}, the baseline in {before[0].unit}"
    if len(set(map(methods_of, amounts))) > 1:
        return "not measured by the same methods as the baseline"
    if any(amount.value <= 0 for amount in amounts):
        return "a value of 0 or less has no ratio"
    factors = {factor for finished in point.records for factor in factor_ids(finished)}
    if rests_on_factors(metric, point.records[0]) and factors != set(base.factors):
        return f"rests on other factors than the baseline: {', '.join(sorted(factors ^ set(base.factors)))}"
    return ""


def _limit(point: PointTrials, metric: Metric, bound: float, sign: float, alpha: float) -> Seen:
    """Head's own distances beyond a floor (sign -1) or a ceiling (sign +1)."""
    name = f"{point.name}: {metric} {'<=' if sign > 0 else '>='} {bound:g}"
    now, why = _measured(point, metric)
    if why:
        return Seen(Cell(name=name, missing=why))
    beyond = tuple(sign * (amount.value - bound) for amount in now)
    return Seen(Cell(name=name, differences=beyond, limit=True), effect(beyond, alpha), p_worse(beyond, 0.0))


def lines(result: BaselineResult) -> Iterator[str]:
    """The result for a terminal: the verdict, then each cell with its interval first, then what it is worth."""
    from harness.gating.outputs import change

    head = "NOT COMPARABLE" if result.differing else str(result.verdict).upper()
    yield f"{head}: baseline {result.baseline}, saved {result.saved_utc}"
    yield f"each bound at an error rate of {result.alpha:g}, for the noise between trials alone"
    for key, (base, now) in result.differing.items():
        yield f"  {key}: {base!r} in the baseline, {now!r} here"
    for judged in result.judged:
        yield f"  {judged.verdict!s:<13} {judged.cell.name}: {change(judged)}"
    for name, (base, now) in result.trials.items():
        yield f"  trials of {name}: {base} in the baseline, {now} here"
    for note in result.notes:
        yield f"  note: {note}"
