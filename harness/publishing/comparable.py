"""Which results of many runs may stand in one ranking, and what their intervals say about their order.

The rules are those of a report of one run (`harness.reporting.same_work`), and stricter where results come from several
runs: one suite and workload, options and factors that do not contradict each other, one definition of the unit, one
method, the same kinds of meters, one embodied table, the same work items. What differs in any of it stands in another
table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.publishing.results import Items, Result
from harness.quantity import Amount
from harness.records.metric import RATE
from harness.statistics.intervals import LEAST_TRIALS, mean_interval

TIMED = frozenset({"duration_s", RATE})
"""Metrics that no meter has a part in."""


@dataclass(frozen=True, slots=True, order=True)
class Terms:
    """What the results of one ranking share."""

    suite: str
    workload: str
    definition: str
    method: str
    kind: str
    meters: str
    embodied: tuple[str, ...]
    options: int = 0
    items: int = 0


@dataclass(frozen=True, slots=True)
class Ranked:
    """A result in a ranking.

    Attributes:
        result: the newest of its point, options and device.
        others: how many other runs measured the same.
        best: the best rank that its interval leaves open; None where it is not ranked.
        worst: the worst.
        reason: why it is not ranked.
    """

    result: Result
    others: int
    best: int | None = None
    worst: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Results that may be ranked with each other, best first; those without a rank last."""

    terms: Terms
    rows: Sequence[Ranked]


def rankings(found: Iterable[Result], metric: str) -> list[Ranking]:
    """The rankings of one functional unit by one metric, the longest first."""
    by_terms: dict[Terms, list[Result]] = {}
    for result in found:
        if result.summary(metric) is not None:
            by_terms.setdefault(_terms(result, metric), []).append(result)
    made = []
    for terms, shared in sorted(by_terms.items()):
        for options, alike in enumerate(_by_options(shared, metric)):
            for items, group in enumerate(_by_items(_newest(alike))):
                made.append(Ranking(replace(terms, options=options, items=items), _ranked(group, metric)))
    return sorted(made, key=lambda each: (-len(each.rows), each.terms))


def _terms(result: Result, metric: str) -> Terms:
    summary = result.costs[metric]
    return Terms(
        suite=result.suite,
        workload=result.workload,
        definition=result.definition,
        method="" if summary.label is None else summary.label.value,
        kind=result.kind,
        meters="" if metric in TIMED else result.meters,
        embodied=result.embodied if metric == "carbon_g" else (),
    )


def _by_options(found: Sequence[Result], metric: str) -> list[list[Result]]:
    """Runs whose points of one label have the same options and factors; the newest runs come first.

    Points of one run may differ in both: that is what their suite compares. But a suite may change under its name, and
    a grid from year to year: then `small` of last month is not the work, or not the factor, that `small` is today.
    """
    runs: dict[str, list[Result]] = {}
    for result in sorted(found, key=lambda each: each.run.age, reverse=True):
        runs.setdefault(result.run.page, []).append(result)
    classes: list[tuple[dict[str, tuple[str, ...]], list[Result]]] = []
    for of_run in runs.values():
        works = {result.label: (result.work, *result.factors.get(metric, ())) for result in of_run}
        for known, alike in classes:
            if all(known.get(label, work) == work for label, work in works.items()):
                known.update(works)
                alike.extend(of_run)
                break
        else:
            classes.append((works, of_run))
    return [results for _, results in classes]


def _newest(found: Sequence[Result]) -> list[tuple[Result, int]]:
    """The newest result of each point, options and device, a valid one if there is; and how many others were measured.

    A run that was costed again holds its parent's measurements, which are not counted twice.
    """
    groups: dict[tuple[str, str, tuple[str, ...], str], list[Result]] = {}
    for result in sorted(found, key=lambda each: each.run.age, reverse=True):
        groups.setdefault((result.label, result.work, result.cards, result.device), []).append(result)
    shown = [next((each for each in group if each.valid), group[0]) for group in groups.values()]
    return [
        (one, sum(each is not one and not each.run.recosted for each in group))
        for one, group in zip(shown, groups.values(), strict=True)
    ]


def _by_items(found: Sequence[tuple[Result, int]]) -> list[list[tuple[Result, int]]]:
    """Results of which, of any two, one did all the items of the other: windows may end sooner or later in one list."""
    chains: list[tuple[Items | None, list[tuple[Result, int]]]] = []
    ordered = sorted(found, key=lambda each: (-each[0].items.count, each[0].items.sample, each[0].point, each[0].cards))
    for each in ordered:
        items = each[0].items
        for at, (least, results) in enumerate(chains):
            if not items.count or least is None or items.within(least):
                results.append(each)
                chains[at] = (items if items.count else least, results)
                break
        else:
            chains.append((items if items.count else None, [each]))
    return [results for _, results in chains]


# Order


@dataclass(frozen=True, slots=True)
class _Contender:
    """A result that may be ranked, turned so that less is better."""

    row: Ranked
    value: float
    ends: tuple[float, float]
    bound: tuple[float, float] | None

    def before(self, other: _Contender) -> bool:
        """Whether it is better than another beyond what both intervals leave open.

        Two instruments may err in different directions: across devices their bounds must lie apart too, and one that
        is not known tells nothing apart. On one device the bound is that of the same instrument and cancels.
        """
        apart = self.value < other.value and self.ends[1] < other.ends[0]
        if not apart or self._same_instrument(other.row.result):
            return apart
        return self.bound is not None and other.bound is not None and self.bound[1] < other.bound[0]

    def _same_instrument(self, other: Result) -> bool:
        own = self.row.result
        return own.cards == other.cards and (own.identified or own.run.page == other.run.page)


def _ranked(found: Sequence[tuple[Result, int]], metric: str) -> list[Ranked]:
    contenders, others = [], []
    sign = -1.0 if metric == RATE else 1.0
    for result, count in found:
        row = Ranked(result, count)
        summary = result.costs[metric]
        interval = mean_interval(summary.values)
        reason = _why_not(result, metric)
        if reason or interval is None or not isinstance(summary.value, Amount):
            others.append(replace(row, reason=reason or f"fewer than {LEAST_TRIALS} trials"))
            continue
        low, high = summary.bound
        known = None if low is None or high is None else _turned((low, high), sign)
        contenders.append(_Contender(row, sign * summary.value.value, _turned(interval, sign), known))
    contenders.sort(
        key=lambda each: (each.value, each.row.result.point, each.row.result.device, each.row.result.run.age)
    )
    ranked = []
    for each in contenders:
        best = 1 + sum(other.before(each) for other in contenders)
        worst = len(contenders) - sum(each.before(other) for other in contenders)
        ranked.append(replace(each.row, best=best, worst=worst))
    return [*ranked, *sorted(others, key=lambda row: (row.result.point, row.result.device, row.result.run.age))]


def _turned(ends: tuple[float, float], sign: float) -> tuple[float, float]:
    return ends if sign > 0 else (-ends[1], -ends[0])


def _why_not(result: Result, metric: str) -> str:
    """Why a result has no rank whatever the others are; empty where nothing speaks against it."""
    summary = result.costs[metric]
    if not result.valid:
        return "not valid"
    if summary.n < summary.trials:
        return f"{summary.n} of {summary.trials} trials have a value"
    if min(summary.values, default=0.0) <= 0:
        return "0 or less, which no ratio compares"
    return ""
