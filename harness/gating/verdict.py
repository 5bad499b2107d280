"""From paired differences to a verdict: per cell, per look, and for the build. Arithmetic only.

A cell is one rule on one point: a metric, per functional unit or not, and how much worse, how low or how high it may
be. A build fails by Holm's procedure over all cells of a look; it passes when every cell passes on its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import ExitCode
from harness.statistics.paired import Effect, effect, fisher_more_often, holm, p_worse


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One rule on one point.

    Attributes:
        name: point, metric and functional unit, for people; unique in a build.
        differences: one a pair, positive is worse: logarithms of ratios, or for a limit the distance beyond it.
        margin: the largest difference that is still allowed; log(1 + tolerance), or 0 for a limit.
        levels: per pair the mean logarithm of base and head, from which drift shows; empty for a limit.
        missing: why it cannot be judged; empty where it can.
        limit: whether the rule is an absolute floor or ceiling rather than a comparison.
    """

    name: str
    differences: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    margin: float = 0.0
    missing: str = ""
    limit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A cell with its verdict.

    Attributes:
        cell: what was judged.
        verdict: of this cell.
        effect: estimate and bounds at this look's error rate; None where nothing could be judged.
        p_worse: p-value of "not worse than allowed"; None likewise.
        reason: why it is invalid or inconclusive.
    """

    cell: Cell
    verdict: Verdict
    effect: Effect | None = None
    p_worse: float | None = None
    reason: str = ""


def margin(worse_by_at_most: float) -> float:
    """The tolerance on the logarithmic scale of differences: log(1 + 0.03) for 3 %."""
    if not 0 <= worse_by_at_most < math.inf:
        raise ValueError(f"a tolerance is finite and not negative, not {worse_by_at_most}")
    return math.log1p(worse_by_at_most)


def judge(cells: Iterable[Cell], alpha: float) -> list[Judged]:
    """Judges all cells of one look.

    A comparison regressed when Holm's procedure over all cells of the build rejects "not worse than the margin"; it
    passes when its upper bound lies below the margin, and is improved when that bound lies below no change. A limit is
    kept up to and including its value.
    """
    cells = list(cells)
    judged: dict[str, Judged] = {}
    p_values: dict[str, float] = {}
    for cell in cells:
        if cell.name in judged:
            raise ValueError(f"two cells are named {cell.name!r}")
        if cell.missing:
            judged[cell.name] = Judged(cell=cell, verdict=Verdict.INVALID, reason=cell.missing)
            continue
        if not cell.differences:
            judged[cell.name] = Judged(cell=cell, verdict=Verdict.INCONCLUSIVE, reason="no pair was measured")
            continue
        found = effect(cell.differences, alpha)
        p_values[cell.name] = p_worse(cell.differences, cell.margin)
        verdict, reason = _alone(cell, found)
        judged[cell.name] = Judged(cell=cell, verdict=verdict, effect=found, p_worse=p_values[cell.name], reason=reason)
    for name in holm(p_values, alpha):
        was = judged[name]
        judged[name] = Judged(cell=was.cell, verdict=Verdict.REGRESSED, effect=was.effect, p_worse=was.p_worse)
    return [judged[cell.name] for cell in cells]


def _alone(cell: Cell, found: Effect) -> tuple[Verdict, str]:
    """What a cell says for itself; whether it regressed is for the family of all cells to say."""
    kept = found.high <= cell.margin if cell.limit else found.high < cell.margin
    if kept:
        return (Verdict.IMPROVED if found.high < 0 and not cell.limit else Verdict.PASS), ""
    if found.high == math.inf:
        return Verdict.INCONCLUSIVE, f"{found.n} pairs are too few for a bound at an error rate of {found.alpha:g}"
    return Verdict.INCONCLUSIVE, "the interval holds the tolerance"


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


def control_moved(differences: Sequence[float], bounds: tuple[float, float]) -> str:
    """Why the control workload makes a job invalid, or an empty string.

    Args:
        differences: log ratios of the control, head over base.
        bounds: what the control's estimate does when nothing changes, from calibration.
    """
    estimate = effect(differences).estimate
    low, high = bounds
    if low <= estimate <= high:
        return ""
    return (
        f"the control workload, which the change cannot touch, moved by {math.expm1(estimate):+.1%}; "
        f"without a change it stays within {math.expm1(low):+.1%} and {math.expm1(high):+.1%}"
    )


def one_side_fails(base_redone: int, head_redone: int, base_tried: int, head_tried: int, alpha: float = 0.05) -> str:
    """Why redone pairs make a job invalid, or an empty string: one side's trials fail clearly more often.

    Redoing pairs would then hide an effect: the failing trials may be the slow ones.
    """
    for name, hits, tried, other, others in (
        ("head", head_redone, head_tried, base_redone, base_tried),
        ("base", base_redone, base_tried, head_redone, head_tried),
    ):
        p_value = fisher_more_often(hits, tried, other, others)
        if p_value < alpha:
            return (
                f"trials of {name} were not valid clearly more often: {hits} of {tried} against {other} of {others} "
                f"(p = {p_value:.2g})"
            )
    return ""
