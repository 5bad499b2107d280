"""The bounds that a gate decides by: the exact signed-rank test, and whatever its assumptions ask for besides.

What is compared with the tolerance is the pseudo-median of the pairs' differences over the whole job. Each assumption
is tested, and each one that is in doubt adds a test that does without it and must agree:

- symmetry: where the differences lean to the side of the verdict, the sign test, which bounds their median;
- one effect during the job: where there is a trend, the line through the differences in the middle of both halves; an
  analysis before the last pair always asks also for that line in the middle of all planned pairs;
- values that were not rounded: the step of which all values are multiples is taken off both bounds.

All of them can only withhold a verdict, so the error rate of the signed-rank test is an upper limit throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.quantity import SLACK
from harness.statistics.assumptions import asymmetry, line, p_trend, signs, step, tied_share
from harness.statistics.paired import Effect, effect, p_worse

ASYMMETRY_LEVEL: Final = 0.01
TREND_LEVEL: Final = 0.01
"""Two-sided error rates at which an assumption is said to have failed, shared out to the cells of a build: so that a
clean job is marked in at most 5 % of cases, heavy tails included, under which the test of symmetry errs more often."""
LEAN_LEVEL: Final = 0.08
"""One-sided: where the differences lean so clearly to the side of a verdict, the sign test must agree with it."""
EARLY_FACTOR: Final = 2
"""The extended line of an early analysis may err so many times as often as the analysis itself."""
COARSE: Final = 0.1
"""A step above this share of the tolerance is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What the bounds of a comparison assume, and how far it holds.

    Attributes:
        compared: what is held against the tolerance.
        asymmetry_p: two-sided p-value of "the differences are symmetric"; small where they lean to one side.
        trend_p: two-sided p-value of "the effect stays the same during the job".
        tied_share: share of the values that another value of the same side equals.
        step: the step of which all values are multiples, relative to their median; 0 where there is none.
        constant: whether all pairs differ by the same, so that nothing is estimated.
        failed: the assumptions that do not hold, each with what follows.
        decided_by: what else had to agree with the verdict; empty where the signed-rank test decided alone.
    """

    compared: str = "pseudo-median"
    asymmetry_p: float = 1.0
    trend_p: float = 1.0
    tied_share: float = 0.0
    step: float = 0.0
    constant: bool = False
    failed: tuple[str, ...] = ()
    decided_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEffect:
    """How much worse the second trial of a pair is than the first, relative; bounds at 99 %.

    Attributes:
        estimate: positive where the second trial is worse.
        low: lower bound; None where there are too few pairs for one.
        high: upper bound, likewise.
    """

    estimate: float
    low: float | None = None
    high: float | None = None

    @property
    def at_least(self) -> float:
        """How large the effect surely is, whichever its sign."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return max(low, -high, 0.0)

    def __str__(self) -> str:
        low, high = ("unknown" if bound is None else f"{bound:+.1%}" for bound in (self.low, self.high))
        return f"{self.estimate:+.1%} (99 %: {low} to {high})"


def bounds(
    differences: Sequence[float],
    margin: float,
    alpha: float,
    *,
    slack: float = SLACK,
    values: tuple[Sequence[float], Sequence[float]] = ((), ()),
    planned: int = 0,
    family: int = 1,
    relative: bool = True,
) -> tuple[Effect, float, Assumptions]:
    """Estimate and bounds of paired differences, the p-value of "at most the margin", and what was assumed.

    Args:
        differences: one a pair, in the order measured.
        margin: what is allowed, on their scale.
        alpha: error rate of each bound.
        slack: how far beyond the margin is still equal to it.
        values: what each side measured, for the step of rounded values.
        planned: pairs that the job may measure; these are all where it is not more.
        family: cells of the build, which share the error rates of the marks.
        relative: whether the differences are logarithms of ratios.
    """
    n = len(differences)
    tied = (tied_share(values[0]) + tied_share(values[1])) / 2
    rounded = math.log1p(step([*values[0], *values[1]])) if tied else 0.0
    allowed = margin + slack + rounded
    whole = effect(differences, alpha)
    seen = _Agreed(whole.low, whole.high, p_worse(differences, allowed))
    (lean, asymmetry_p), trend_p = asymmetry(differences), p_trend(differences)
    failed = []
    asymmetric = asymmetry_p <= ASYMMETRY_LEVEL / family
    if asymmetric or asymmetry_p <= 2 * LEAN_LEVEL:
        found, p_value = signs(differences, allowed, alpha)
        seen.ask("the sign test", found, p_value, below=asymmetric or lean > 0, above=asymmetric or lean < 0)
    if asymmetric:
        failed.append(f"the differences are asymmetric (p = {asymmetry_p:.2g}), so the sign test had to agree")
    if trend_p <= TREND_LEVEL / family:
        first, last = (line(differences, share * (n - 1), allowed, alpha) for share in (0.25, 0.75))
        seen.ask("both halves of the job", *first)
        seen.ask("both halves of the job", *last)
        change = " to ".join(_shown(end.estimate, relative=relative) for end, _ in (first, last))
        failed.append(f"the effect changed during the job ({change}, p = {trend_p:.2g}), so both halves had to agree")
    if n < planned:
        found, p_value = line(differences, (planned - 1) / 2, allowed, min(0.5, EARLY_FACTOR * alpha))
        seen.ask("", found, p_value / EARLY_FACTOR)
    if rounded > COARSE * margin:
        failed.append(f"the values are multiples of {math.expm1(rounded):.2g} of their size; both bounds allow for it")
    return (
        Effect(n, whole.estimate, seen.low - rounded, seen.high + rounded, alpha),
        seen.p_value,
        Assumptions(
            asymmetry_p=asymmetry_p,
            trend_p=trend_p,
            tied_share=tied,
            step=math.expm1(rounded),
            failed=tuple(failed),
            decided_by=seen.said,
        ),
    )


def _shown(estimate: float, *, relative: bool) -> str:
    return f"{math.expm1(estimate):+.1%}" if relative else f"{estimate:+.3g}"


@dataclass(slots=True)
class _Agreed:
    """Bounds and p-value on which all tests so far agree."""

    low: float
    high: float
    p_value: float
    names: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """Which tests besides the signed-rank test agreed; empty where none had to."""
        named = [name for name in dict.fromkeys(self.names) if name]
        return f"{' and '.join(named)} agreed" if named else ""

    def ask(self, name: str, found: Effect, p_value: float, *, below: bool = True, above: bool = True) -> None:
        """Asks one more test; for a bound from below, from above or both."""
        self.names.append(name)
        if below:
            self.low = min(self.low, found.low)
            self.p_value = max(self.p_value, p_value)
        if above:
            self.high = max(self.high, found.high)
