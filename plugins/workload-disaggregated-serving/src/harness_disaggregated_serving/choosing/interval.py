"""How far a saving can be trusted: its interval over declared watts, embodied figures and seeds, and what moves it.

Carbon is a sum of terms, each a coefficient that was simulated or measured times a number that was declared: watts of a
phase, a board's embodied carbon. The saving is one minus a quotient of two such sums over the same declared numbers, so
its ends over all of them at once lie where every number is at one of its ends; Dinkelbach's method (Management Science
13(7), 1967) finds these in a few rounds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.quantity import Undefined

T_975: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % points of Student's t for 1, 2, ... 30 degrees of freedom; the last stands for more."""
WORTH_TELLING: Final = 0.01
"""A declared number that moves a saving by less goes untold."""
TOLD: Final = 2
"""How many declared numbers are told."""

Ends = tuple[float, float, float]
"""A term at the low end of its declared number, at its value and at its high end; g a request."""
Terms = Mapping[str, Ends]
"""Terms by the name of their declared number; equal names are one number."""


def half_width(values: Sequence[float]) -> float | None:
    """Half width of the 95 % interval of the mean by Student's t; None for a single value."""
    if len(values) < 2:
        return None
    return T_975[min(len(values) - 1, len(T_975)) - 1] * statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingRange:
    """Share of the baseline's carbon saved, with its sign.

    Attributes:
        value: at the declared values, mean over seeds.
        low: least over all declared numbers and seeds.
        high: greatest.
        seeds: streams of requests that it is the mean of; over one there is no interval.
        depends: declared numbers that move it most, with the saving at either of their ends.
    """

    value: float
    low: float
    high: float
    seeds: int
    depends: tuple[tuple[str, float, float], ...] = ()

    @property
    def told(self) -> bool:
        """Whether its sign is certain within what was declared."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"

    @property
    def notes(self) -> str:
        """What it depends on, for people; empty where nothing moves it."""
        return "; ".join(f"{name} ({low:+.1%} to {high:+.1%})" for name, low, high in self.depends)


def saving_range(candidate: Sequence[Terms], baseline: Sequence[Terms]) -> SavingRange | Undefined:
    """The saving of a candidate, both with the terms of each seed; seeds are paired in their order."""
    pairs = list(zip(candidate, baseline, strict=False))
    if not pairs or any(_sum(base, 1) <= 0 for _, base in pairs):
        return Undefined("standalone emits nothing, so a share of it says nothing")
    values = [1 - _sum(mine, 1) / _sum(base, 1) for mine, base in pairs]
    lows = [1 - _extreme(mine, base, max) for mine, base in pairs]
    highs = [1 - _extreme(mine, base, min) for mine, base in pairs]
    return SavingRange(
        value=statistics.fmean(values),
        low=statistics.fmean(lows) - (half_width(lows) or 0.0),
        high=statistics.fmean(highs) + (half_width(highs) or 0.0),
        seeds=len(pairs),
        depends=_depends(pairs),
    )


def mixed(lower: Sequence[Terms], upper: Sequence[Terms], weight: float) -> tuple[Terms, ...]:
    """Terms between two points, linear."""
    found: list[Terms] = []
    for below, above in zip(lower, upper, strict=False):
        names = dict.fromkeys((*below, *above))
        zero = (0.0, 0.0, 0.0)
        found.append(
            {
                name: _three(
                    one + (two - one) * weight
                    for one, two in zip(below.get(name, zero), above.get(name, zero), strict=True)
                )
                for name in names
            }
        )
    return tuple(found)


def _three(values: Iterable[float]) -> Ends:
    low, value, high = values
    return low, value, high


def _sum(terms: Terms, end: int) -> float:
    return math.fsum(ends[end] for ends in terms.values())


def _extreme(mine: Terms, base: Terms, best: Callable[[float, float], float]) -> float:
    """The greatest or least quotient over all ends of all declared numbers."""
    zero = (0.0, 0.0, 0.0)
    pairs = [(mine.get(name, zero), base.get(name, zero)) for name in dict.fromkeys((*mine, *base))]
    quotient = _sum(mine, 1) / _sum(base, 1)
    for _ in range(50):
        above = below = 0.0
        for its, bases in pairs:
            ends = (0, 2)
            gains = [its[end] - quotient * bases[end] for end in ends]
            chosen = ends[0] if best(gains[0], gains[1]) == gains[0] else ends[1]
            above, below = above + its[chosen], below + bases[chosen]
        if below <= 0:
            return quotient
        following = above / below
        if math.isclose(following, quotient, rel_tol=1e-12, abs_tol=1e-15):
            return following
        quotient = following
    return quotient


def _depends(pairs: Sequence[tuple[Terms, Terms]]) -> tuple[tuple[str, float, float], ...]:
    """The saving at either end of each declared number alone, the widest first."""
    names = dict.fromkeys(name for mine, base in pairs for name in (*mine, *base))
    swings = []
    for name in names:
        ends = []
        for end in (0, 2):
            quotients = []
            for mine, base in pairs:
                above, below = _sum(mine, 1), _sum(base, 1)
                for terms, sign in ((mine, 0), (base, 1)):
                    if name in terms:
                        change = terms[name][end] - terms[name][1]
                        above, below = (above + change, below) if sign == 0 else (above, below + change)
                quotients.append(1 - above / below if below > 0 else math.nan)
            ends.append(statistics.fmean(quotients))
        swings.append((name, ends[0], ends[1]))
    swings = [one for one in swings if abs(one[2] - one[1]) >= WORTH_TELLING]
    return tuple(sorted(swings, key=lambda one: -abs(one[2] - one[1]))[:TOLD])
