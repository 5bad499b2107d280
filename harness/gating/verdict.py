"""From effects to verdicts: per cell, per interim analysis, and for the build. Arithmetic only.

A cell is one rule on one point: a metric, per functional unit or not, and how much worse, how low or how high it may
be. A build fails by Holm's procedure over all cells of an analysis; it passes when every cell passes on its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

from harness.errors import ExitCode, UsageError
from harness.gating.bounds import Assumptions, OrderEffect, bounds
from harness.quantity import SLACK, Method
from harness.records.metric import Metric
from harness.statistics.paired import ALPHA, Effect, fewest_pairs, holm
from harness.statistics.unpaired import shift


class Verdict(StrEnum):
    """What is known of a cell, or of a build."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    IMPROVED = "improved"
    REGRESSED = "regressed"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"

    @property
    def decided(self) -> bool:
        """Whether more pairs could change nothing."""
        return self is not Verdict.INCONCLUSIVE

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a build with this verdict."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Verdict.PASS: ExitCode.OK,
    Verdict.IMPROVED: ExitCode.OK,
    Verdict.REGRESSED: ExitCode.REGRESSED,
    Verdict.INVALID: ExitCode.MEASUREMENT,
    Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
}
_GRAVEST_FIRST = (Verdict.REGRESSED, Verdict.INVALID, Verdict.INCONCLUSIVE, Verdict.PASS)


@dataclass(frozen=True, slots=True)
class CellKey:
    """What one rule on one point is known by, in a gate, its result and a calibration.

    Attributes:
        suite: name of the point's suite; empty where it has none, as a benchmark of pytest-benchmark.
        label: of the point, unique in its suite.
        metric: by name; empty for a name of an older file that does not tell.
        per: functional unit; None for a total or a column.
        bound: a floor (`>=`) or ceiling (`<=`) with its value; None where head is compared with base.
    """

    suite: str
    label: str
    metric: str
    per: str | None = None
    bound: tuple[Literal[">=", "<="], float] | None = None

    def __str__(self) -> str:
        point = f"{self.suite}: {self.label}" if self.suite else self.label
        if not self.metric:
            return point
        bound = "" if self.bound is None else f" {self.bound[0]} {self.bound[1]:g}"
        return f"{point}: {Metric(self.metric, self.per)}{bound}"

    @classmethod
    def parse(cls, text: str) -> CellKey:
        """The key that `str` gave, as files of older versions hold it; any other text is a label by itself."""
        found = _KEY.fullmatch(text)
        if found is None:
            return cls("", text, "")
        sign, value = found["sign"], found["value"]
        bound: tuple[Literal[">=", "<="], float] | None = None
        if sign is not None:
            bound = (">=" if sign == ">=" else "<=", float(value))
        return cls(found["suite"] or "", found["label"], found["metric"], found["per"], bound)


ORDER_ALPHA: Final = 0.005
"""Error rate of each bound of the effect of the order: both together leave 1 %."""
_KEY: Final = re.compile(
    r"(?:(?P<suite>[^:]*): )?(?P<label>.*): (?P<metric>\S+)(?: per (?P<per>\S+))?"
    r"(?: (?P<sign>>=|<=) (?P<value>[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|inf)))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One rule on one point, with what was measured for it.

    Attributes:
        key: what it is known by; unique in a build.
        differences: one a pair, positive is worse: logarithms of ratios, or for a limit the distance beyond it.
        margin: the largest difference that is still allowed; log(1 + tolerance), or 0 for a limit.
        levels: per pair the mean logarithm of base and head, from which drift shows; empty for a limit.
        head_second: per pair whether head ran second; empty where that is not known, and for a limit.
        missing: why it cannot be judged; empty where it can.
        limit: whether the rule is an absolute floor or ceiling rather than a comparison.
        method: the weakest by which its values were obtained; None where it is not known.
    """

    key: CellKey
    differences: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    head_second: tuple[bool, ...] = ()
    margin: float = 0.0
    missing: str = ""
    limit: bool = False
    method: Method | None = None

    @property
    def slack(self) -> float:
        """How far beyond the margin still counts as equal to it: rounding, not a change."""
        return SLACK * abs(self.key.bound[1]) if self.key.bound is not None else SLACK

    @property
    def constant(self) -> bool:
        """Whether all pairs, at least the fewest that may decide, differ by the same: the metric has no noise."""
        if len(self.differences) < fewest_pairs(ALPHA):
            return False
        return max(self.differences) - min(self.differences) <= self.slack

    @property
    def values(self) -> tuple[list[float], list[float]]:
        """What both sides measured, in the metric's unit; swapped where higher is better, none for a limit."""
        each = list(zip(self.levels, self.differences, strict=False))
        return [math.exp(level - d / 2) for level, d in each], [math.exp(level + d / 2) for level, d in each]


@dataclass(frozen=True, slots=True)
class Seen:
    """A cell with what was seen of it, in pairs or without.

    Attributes:
        cell: its key, its margin, and why it cannot be judged where it cannot.
        effect: estimate and bounds; None where nothing was seen.
        p_worse: p-value of "not worse than the margin"; None likewise.
        assumptions: of the bounds, with what was found of them; None without pairs.
    """

    cell: Cell
    effect: Effect | None = None
    p_worse: float | None = None
    assumptions: Assumptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The verdict on a cell, as it is kept in a gate's result.

    Estimate and ends of the interval are relative changes of head against base, positive where it is worse (0.03 is
    3 %); for a limit they are distances beyond it, in the metric's own unit.

    Attributes:
        key: what was judged.
        verdict: on this cell.
        reason: why it is invalid or inconclusive.
        limit: whether the metric is held against an absolute floor or ceiling rather than against base.
        worse_by_at_most: the relative change that is allowed; None for a limit.
        n: values that the estimate rests on.
        estimate: None where nothing could be judged.
        low: lower end of the interval; None where it is not bounded.
        high: upper end, likewise.
        p_worse: p-value of "not worse than allowed"; None where nothing could be judged.
        method: the weakest by which its values were obtained; None where it is not known.
        assumptions: what the bounds assume, and how far it holds; None where nothing was compared in pairs.
        order_effect: how much worse the second trial of a pair is than the first; None where that is not known.
    """

    key: CellKey
    verdict: Verdict
    reason: str = ""
    limit: bool = False
    worse_by_at_most: float | None = None
    n: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p_worse: float | None = None
    method: Method | None = None
    assumptions: Assumptions | None = None
    order_effect: OrderEffect | None = None

    @property
    def name(self) -> str:
        """The key, for people."""
        return str(self.key)


def margin(worse_by_at_most: float) -> float:
    """The tolerance on the logarithmic scale of differences: log(1 + 0.03) for 3 %."""
    if not 0 <= worse_by_at_most < math.inf:
        raise ValueError(f"a tolerance is finite and not negative, not {worse_by_at_most}")
    return math.log1p(worse_by_at_most)


def judge(cells: Sequence[Cell], alpha: float, planned: int = 0) -> list[Judged]:
    """Judges cells by the differences of their pairs.

    Args:
        cells: of one build.
        alpha: error rate of this analysis.
        planned: pairs that the job may measure; these are all where it is not more.

    Raises:
        UsageError: two cells have one key.
    """
    return decide([paired(cell, alpha, planned, len(cells)) for cell in cells], alpha)


def paired(cell: Cell, alpha: float, planned: int = 0, family: int = 1) -> Seen:
    """What the pairs of a cell show, of a build of so many cells; without noise they show it with certainty."""
    if cell.missing or not cell.differences:
        return Seen(cell)
    if cell.constant:
        centre = cell.differences[0]
        found = Effect(len(cell.differences), centre, min(cell.differences), max(cell.differences), alpha)
        return Seen(cell, found, 0.0 if centre > cell.margin + cell.slack else 1.0, Assumptions(constant=True))
    return Seen(
        cell,
        *bounds(
            cell.differences,
            cell.margin,
            alpha,
            slack=cell.slack,
            values=cell.values,
            planned=planned,
            family=family,
            relative=not cell.limit,
        ),
    )


def decide(seen: Sequence[Seen], alpha: float) -> list[Judged]:
    """Judges all cells of a build by whichever bounds their effects come from.

    A comparison regressed when Holm's procedure over all cells of the build rejects "not worse than the margin"; it
    passes when its upper bound lies below the margin, and is improved when that bound lies below no change. A limit is
    kept up to and including its value.

    Raises:
        UsageError: two cells have one key.
    """
    found: dict[CellKey, Judged] = {}
    for each in seen:
        if each.cell.key in found:
            raise UsageError(f"two rules judge {str(each.cell.key)!r}", accepted="one rule a metric and unit")
        found[each.cell.key] = _judged(each)
    p_values = {each.cell.key: each.p_worse for each in seen if each.p_worse is not None}
    decided = {each.cell.key: each.assumptions.decided_by for each in seen if each.assumptions is not None}
    for key in holm(p_values, alpha):
        found[key] = replace(found[key], verdict=Verdict.REGRESSED, reason=decided.get(key, ""))
    return list(found.values())


def _judged(each: Seen) -> Judged:
    """A cell by itself; whether it regressed is for all cells together to say."""
    cell, found = each.cell, each.effect
    verdict, reason = _alone(cell, found, each.assumptions)
    values: tuple[float | None, ...] = (None, None, None)
    if found is not None:
        estimate, low, high = (found.estimate, found.low, found.high) if cell.limit else found.ratio
        values = (estimate, None if found.low == -math.inf else low, None if found.high == math.inf else high)
    return Judged(
        key=cell.key,
        verdict=verdict,
        reason=reason,
        limit=cell.limit,
        worse_by_at_most=None if cell.limit else math.expm1(cell.margin),
        n=found.n if found else 0,
        estimate=values[0],
        low=values[1],
        high=values[2],
        p_worse=each.p_worse,
        method=cell.method,
        assumptions=each.assumptions,
        order_effect=order_effect(cell),
    )


def _alone(cell: Cell, found: Effect | None, assumed: Assumptions | None) -> tuple[Verdict, str]:
    if cell.missing:
        return Verdict.INVALID, cell.missing
    if found is None:
        return Verdict.INCONCLUSIVE, "no pair was measured"
    if found.high <= cell.margin + cell.slack:
        better = found.high < -cell.slack and not cell.limit
        return (Verdict.IMPROVED if better else Verdict.PASS), (assumed.decided_by if assumed else "")
    if found.high == math.inf:
        return Verdict.INCONCLUSIVE, f"{found.n} values are too few for a bound at an error rate of {found.alpha:g}"
    return Verdict.INCONCLUSIVE, "; ".join(["the interval holds the tolerance", *(assumed.failed if assumed else ())])


def order_effect(cell: Cell) -> OrderEffect | None:
    """How much worse the second trial of a pair is than the first, with its bounds; None where that is not known.

    Half of the shift between the pairs in which head ran second and those in which it ran first: the effect of head
    itself is in both.
    """
    if cell.limit or len(cell.head_second) != len(cell.differences):
        return None
    first = [d for d, second in zip(cell.differences, cell.head_second, strict=True) if not second]
    last = [d for d, second in zip(cell.differences, cell.head_second, strict=True) if second]
    if not first or not last:
        return None
    found = shift(first, last, ORDER_ALPHA)
    low, high = found.low / 2, found.high / 2
    return OrderEffect(
        estimate=math.expm1(found.estimate / 2),
        low=None if low == -math.inf else math.expm1(low),
        high=None if high == math.inf else math.expm1(high),
    )


def order_matters(judged: Iterable[Judged]) -> str:
    """Why the order inside pairs makes a job invalid, or an empty string: it surely changes more than is allowed."""
    for each in judged:
        found, allowed = each.order_effect, each.worse_by_at_most
        if found is not None and allowed is not None and found.at_least > allowed + SLACK:
            return (
                f"{each.name}: the second trial of a pair differs from the first by {found}, more than the tolerance "
                f"of {allowed:.1%}: trials disturb each other; a longer warm-up or a pause between them may help"
            )
    return ""


def build(judged: Sequence[Judged]) -> Verdict:
    """The verdict of the whole build: the gravest of its cells, regressed before invalid before inconclusive."""
    found = {Verdict.PASS if item.verdict is Verdict.IMPROVED else item.verdict for item in judged}
    if not found:
        return Verdict.INVALID
    worst = next(verdict for verdict in _GRAVEST_FIRST if verdict in found)
    if worst is Verdict.PASS and any(item.verdict is Verdict.IMPROVED for item in judged):
        return Verdict.IMPROVED
    return worst


def needs_more(judged: Sequence[Judged]) -> bool:
    """Whether more pairs may change the build's verdict: none regressed, and some cell is undecided."""
    verdicts = [item.verdict for item in judged]
    return Verdict.REGRESSED not in verdicts and Verdict.INCONCLUSIVE in verdicts
