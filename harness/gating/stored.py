"""`harness gate SUITE --baseline NAME`: judges a run by a stored baseline, which is much weaker than pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.builtin.local import LocalExecutor
from harness.discovery.registry import Registry
from harness.errors import MeasurementError, UsageError
from harness.gating import baseline as baselines
from harness.gating import job
from harness.gating.baseline import Baseline, KeptPoint
from harness.gating.cells import gateable, keys, limit
from harness.gating.result import InterimAnalysis, Kind, Result
from harness.gating.verdict import Cell, CellKey, Seen, Verdict, build, decide, margin
from harness.machine.provenance import provenance
from harness.planning.point import Point
from harness.planning.probe import plan_probed
from harness.planning.secrecy import command_line
from harness.planning.suite import GateRule, Suite
from harness.quantity import Amount, weakest
from harness.records import trials
from harness.records.metric import Metric
from harness.records.trials import (
    PointTrials,
    describe,
    differing,
    energy_beneath,
    factor_ids,
    methods_of,
    rests_on_factors,
    same_runner,
)
from harness.running.run import Run, Watcher
from harness.running.run_folder import create
from harness.statistics.paired import ALPHA, effect, p_worse
from harness.statistics.unpaired import least_p, p_above, shift

WEAKER: Final = (
    "compared with a stored baseline: whatever changed on this machine since then counts as a change of the code, and "
    "no error rate is promised for that. On a shared runner this is close to a coin; `--base REF` measures pairs"
)


def run(
    name: str,
    files: Sequence[Path],
    store: Path,
    registry: Registry,
    *,
    seed: int,
    watcher: Watcher,
    wait_s: float | None = None,
) -> tuple[Result, Path]:
    """Measures the suites now and judges them by a stored baseline.

    Raises:
        UsageError: no such baseline, no rule, or an unknown metric.
        MeasurementError: every point was skipped, or a trial failed.
    """
    kept = baselines.load(store, name)
    suites = job.load(files)
    planned = plan_probed(suites, registry)
    if not planned.points:
        reasons = "; ".join(f"{each.point.label}: {each.reason}" for each in planned.skipped)
        raise MeasurementError("every point was skipped: nothing was measured", hint=reasons)
    names = [str(file) for file in files]
    folder = create(store, planned, names, command_line(), seed, provenance=provenance(names, registry.sources))
    executor = LocalExecutor(wait_s=wait_s)
    tally = Run(folder, planned.points, seed, registry=registry, executor=executor, watcher=watcher).execute()
    if tally.interrupted:
        raise KeyboardInterrupt
    if tally.failed or tally.invalid:
        raise MeasurementError("; ".join([*tally.failed, *tally.invalid]), where=str(folder))
    directions = registry.directions(offers_of(planned.points))
    result = judge(kept, suites, trials.load(folder), directions)
    result = replace(result, seed=seed, suites=[each.file for each in suites])
    result.write(folder)
    return result, folder


def offers_of(points: Sequence[Point]) -> list[tuple[str, str]]:
    """Kind and name of the workloads and scorers of points."""
    return [
        *(("workload", point.workload) for point in points),
        *(("scorer", choice.name) for point in points for choice in point.scorers),
    ]


def judge(
    baseline: Baseline,
    suites: Sequence[Suite],
    points: Sequence[PointTrials],
    direction: Mapping[str, bool | None] | None = None,
    alpha: float = ALPHA,
) -> Result:
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
    counts = {
        point.name: (len(kept[point.suite, point.label].trials), len(point.records))
        for point in here
        if (point.suite, point.label) in kept
    }
    found = Result(
        kind=Kind.BASELINE,
        verdict=Verdict.INVALID,
        baseline=baseline.name,
        saved_utc=baseline.saved_utc,
        base_trials={name: base for name, (base, _) in counts.items()},
        pairs={name: head for name, (_, head) in counts.items()},
        looks=[InterimAnalysis(max((head for _, head in counts.values()), default=0), alpha)],
        notes=notes,
        cells=(),
    )
    if odd:
        return replace(found, differing=odd, reason=f"not comparable: {describe(odd, 'baseline', 'here')}")
    seen: list[Seen] = []
    for suite in suites:
        of_suite = [point for point in here if point.suite == suite.suite]
        for rule in suite.gate:
            seen += _rule(rule, of_suite, kept, direction or {}, alpha)
    if not seen:
        raise UsageError("no rule judges a point that the run and the baseline share", hint="; ".join(notes[1:]))
    judged = decide(seen, alpha)
    return replace(found, verdict=build(judged), cells=judged, notes=[*notes, *_too_few(seen, counts, alpha)])


def _unmatched(baseline: Baseline, points: Sequence[PointTrials], names: set[str]) -> list[str]:
    stored = {point.key for point in baseline.points if point.suite in names}
    measured = {(point.suite, point.label) for point in points}
    return [
        *(f"{suite}: {label}: the baseline does not have it" for suite, label in sorted(measured - stored)),
        *(f"{suite}: {label}: in the baseline, not measured now" for suite, label in sorted(stored - measured)),
    ]


def _too_few(seen: Sequence[Seen], counts: Mapping[str, tuple[int, int]], alpha: float) -> list[str]:
    """Says it where so few trials can fail no build of so many comparisons."""
    if min((least_p(*both) for both in counts.values()), default=0.0) <= alpha / max(len(seen), 1):
        return []
    return [f"so few trials cannot fail a build of {len(seen)} comparisons at an error rate of {alpha:g}; more can"]


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
        for key in keys(rule, point):
            if key.bound is not None:
                made.append(_limit(key, point, alpha))
            elif base is not None:
                made.append(_comparison(key, point, base, rule, direction, alpha))
    if unknown is not None and not made:
        raise unknown
    return made


def _comparison(
    key: CellKey,
    point: PointTrials,
    base: KeptPoint,
    rule: GateRule,
    direction: Mapping[str, bool | None],
    alpha: float,
) -> Seen:
    metric = Metric(key.metric, key.per)
    before, why = _stored(base, metric)
    now, why_now = _measured(point, metric)
    why = why or why_now or _incomparable(point, base, metric, before, now)
    if why:
        return Seen(Cell(key=key, missing=why))
    sign = -1.0 if _higher_is_better(rule, metric, direction) else 1.0
    first, second = ([sign * math.log(amount.value) for amount in side] for side in (before, now))
    method = weakest(*(amount.label for amount in (*before, *now)))
    cell = Cell(key=key, margin=margin(rule.worse_by_at_most or 0.0), method=method)
    return Seen(cell, shift(first, second, alpha), p_above(first, second, cell.margin + cell.slack))


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
    beneath = base.find(Metric("energy_j"))
    energies = [
        value
        for value in (*(beneath.values if beneath else ()), *(energy_beneath(metric, r) for r in point.records))
        if isinstance(value, Amount) and rests_on_factors(metric, point.records[0])
    ]
    if len(set(map(methods_of, amounts))) > 1 or len(set(map(methods_of, energies))) > 1:
        return "not measured by the same methods as the baseline"
    if any(amount.value <= 0 for amount in amounts):
        return "a value of 0 or less has no ratio"
    factors = {factor for finished in point.records for factor in factor_ids(finished)}
    if rests_on_factors(metric, point.records[0]) and factors != set(base.factors):
        return f"rests on other factors than the baseline: {', '.join(sorted(factors ^ set(base.factors)))}"
    return ""


def _limit(key: CellKey, point: PointTrials, alpha: float) -> Seen:
    """Head's own distances beyond a floor or a ceiling."""
    cell = limit(key, point.records, "trial {}")
    if cell.missing:
        return Seen(cell)
    return Seen(cell, effect(cell.differences, alpha), p_worse(cell.differences, cell.slack))
