"""From effects without pairs to verdicts: the rules of `verdict.judge`, for whichever bound an effect comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.gating.verdict import Cell, Judged, Verdict
from harness.statistics.paired import Effect, holm


@dataclass(frozen=True, slots=True)
class Seen:
    """A cell with what was seen of it.

    Attributes:
        cell: name, margin, and why it cannot be judged where it cannot.
        effect: estimate and bounds; None where nothing could be judged.
        p_worse: p-value of "not worse than the margin"; None likewise.
    """

    cell: Cell
    effect: Effect | None = None
    p_worse: float | None = None


def decide(seen: Sequence[Seen], alpha: float) -> list[Judged]:
    """Judges all cells of a build: regressed by Holm over all of them, passed each on its own.

    Raises:
        UsageError: two cells have one name.
    """
    found: dict[str, Judged] = {}
    for each in seen:
        if each.cell.name in found:
            raise UsageError(f"two rules judge {each.cell.name!r}", accepted="one rule a metric and functional unit")
        found[each.cell.name] = _alone(each)
    p_values = {name: judged.p_worse for name, judged in found.items() if judged.p_worse is not None}
    for name in holm(p_values, alpha):
        was = found[name]
        found[name] = Judged(cell=was.cell, verdict=Verdict.REGRESSED, effect=was.effect, p_worse=was.p_worse)
    return list(found.values())


def _alone(each: Seen) -> Judged:
    """What a cell says for itself; whether it regressed is for all cells together to say."""
    cell, effect = each.cell, each.effect
    if effect is None:
        return Judged(cell=cell, verdict=Verdict.INVALID, reason=cell.missing or "there is no value")
    kept = effect.high <= cell.margin if cell.limit else effect.high < cell.margin
    if kept:
        verdict, reason = (Verdict.IMPROVED if effect.high < 0 and not cell.limit else Verdict.PASS), ""
    elif effect.high == math.inf:
        verdict = Verdict.INCONCLUSIVE
        reason = f"{effect.n} values are too few for a bound at an error rate of {effect.alpha:g}"
    else:
        verdict, reason = Verdict.INCONCLUSIVE, "the interval holds the tolerance"
    return Judged(cell=cell, verdict=verdict, effect=effect, p_worse=each.p_worse, reason=reason)
