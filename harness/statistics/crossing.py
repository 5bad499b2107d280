"""Where along an axis the order of two candidates turns, and how well that is known.

At each place of the axis one of two candidates is told to cost less, or neither is. A turn lies between the last place
at which one is told to be the cheaper and the next one at which the other is: these two places are its interval, and
nothing is assumed of what lies between them. Where the costs can be worked out at any place the interval is narrowed by
bisection until the two cannot be told apart at its ends.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from harness.statistics.assumptions import student_quantile
from harness.statistics.intervals import LEAST_TRIALS, LEVEL, mean_interval

_HALVINGS: Final = 60
_NEAR: Final = 1e-9
"""An interval is no longer halved once it is so short, relative to its ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a candidate costs at one place of the axis.

    Attributes:
        values: of the trials, in their order; empty where there is none.
        low: lower end of the candidate's own range, where `shared`; None where it is not known.
        high: upper end of it.
        shared: whether the candidates are one measurement under different factors: its noise is theirs in common, and
            what tells them apart is the range of their factors alone.
        nothing: whether a trial achieved no functional unit at all, so that the mean cost is above every finite one.
    """

    values: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    shared: bool = False
    nothing: bool = False

    @property
    def middle(self) -> float | None:
        """The median over the trials; None where there is no value."""
        return statistics.median(self.values) if self.values else None

    @property
    def known(self) -> bool:
        """Whether it can stand beside another at all."""
        return bool(self.values) or self.nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A change of places of two candidates.

    Attributes:
        low: the last place at which the first is told to be cheaper.
        high: the first place at which the other is.
        at: where their middle costs are equal; None where that is not known.
        first: -1 where the first candidate is the cheaper one before the turn, 1 where the other is.
        method: how `at` was found: `formula` (exact), `bisection`, or `interpolation` between two places.
    """

    low: float
    high: float
    at: float | None
    first: int
    method: str = "interpolation"


def interval(cell: Cell) -> tuple[float, float] | None:
    """Where a candidate's cost lies: its own range, or the interval of the mean of three trials and more."""
    if cell.shared:
        return None if cell.low is None or cell.high is None else (cell.low, cell.high)
    return mean_interval(cell.values)


def cheaper(one: Cell, other: Cell, comparisons: int = 1) -> int:
    """-1 where the first is told to cost less, 1 where the other is, 0 where it cannot be told.

    Candidates of one measurement are told apart where their ranges are, others where the interval of their ratio
    (Student's, of the logarithms) leaves out 1: of pairs where both have as many trials, since the same trial of two
    points has the same seed and so the same requests; else Welch's, with the degrees of freedom of the smaller sample.
    """
    if one.nothing or other.nothing:
        return 0 if one.nothing == other.nothing or not (one.known and other.known) else 1 if one.nothing else -1
    if one.shared and other.shared:
        return _apart(interval(one), interval(other))
    if min(len(one.values), len(other.values)) < LEAST_TRIALS:
        return 0
    if not all(0 < value < math.inf for value in (*one.values, *other.values)):
        return 0
    logs = [[math.log(value) for value in cell.values] for cell in (one, other)]
    apart = statistics.fmean(logs[0]) - statistics.fmean(logs[1])
    if len(logs[0]) == len(logs[1]):
        error = statistics.stdev(a - b for a, b in zip(*logs, strict=True)) / math.sqrt(len(logs[0]))
    else:
        error = math.sqrt(sum(statistics.variance(each) / len(each) for each in logs))
    half = _quantile(min(map(len, logs)), comparisons) * error
    return -1 if apart + half < 0 else 1 if apart - half > 0 else 0


def _apart(one: tuple[float, float] | None, other: tuple[float, float] | None) -> int:
    if one is None or other is None:
        return 0
    return -1 if one[1] < other[0] else 1 if other[1] < one[0] else 0


@cache
def _quantile(count: int, comparisons: int) -> float:
    return student_quantile((1 - LEVEL) / 2 / comparisons, count - 1)


def changes(signs: Sequence[int]) -> list[tuple[int, int]]:
    """Positions of the last sign before and the first sign after each change; zeros between them tell nothing.

    Example:
        >>> changes([-1, -1, 0, 1, 1, -1])
        [(1, 3), (4, 5)]
    """
    found: list[tuple[int, int]] = []
    last: int | None = None
    for position, sign in enumerate(signs):
        if sign and last is not None and sign != signs[last]:
            found.append((last, position))
        if sign:
            last = position
    return found


def interpolated(places: tuple[float, float], costs: tuple[tuple[float, float], tuple[float, float]]) -> float | None:
    """Where two costs are equal between two places, if the logarithm of their ratio is linear there.

    Args:
        places: of the axis, rising; logarithmic where both are above 0.
        costs: of both candidates at the first place, then at the second.
    """
    if not all(cost > 0 for pair in costs for cost in pair):
        return None
    gaps = [math.log(one / other) for one, other in costs]
    if gaps[0] == gaps[1]:
        return None
    share = gaps[0] / (gaps[0] - gaps[1])
    if not 0 <= share <= 1:
        return None
    low, high = places
    if low > 0:
        return float(low * (high / low) ** share)
    return low + share * (high - low)


def narrowed(told: Callable[[float], int], low: float, high: float, first: int) -> tuple[float, float]:
    """The interval of a turn with ends as near to it as the candidates are told apart.

    Args:
        told: the sign at a place.
        low: place with the sign `first`.
        high: place with the other one.
        first: the sign before the turn.
    """
    return _edge(lambda place: told(place) == first, low, high)[0], _edge(lambda at: told(at) != -first, low, high)[1]


def root(gap: Callable[[float], float], low: float, high: float) -> float | None:
    """Where a continuous gap of two middle costs is 0 between two places; None where it has one sign at both."""
    start, end = gap(low), gap(high)
    if start == 0 or end == 0:
        return low if start == 0 else high
    if (start > 0) == (end > 0):
        return None
    low, high = _edge(lambda place: (gap(place) > 0) == (start > 0), low, high)
    return (low + high) / 2


def _edge(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Two neighbouring places, the first of which holds and the second does not; at the ends that is so."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if high - low <= _NEAR * max(abs(low), abs(high)) or middle in (low, high):
            break
        if holds(middle):
            low = middle
        else:
            high = middle
    return low, high


@dataclass(frozen=True, slots=True)
class Lead:
    """A stretch of the axis with the same candidates in front.

    Attributes:
        names: the one that costs less than all others, or those that cannot be told from the least; empty where
            nothing is known.
        first: position of its first place.
        last: position of its last place.
        missing: candidates without a value there, of which nothing is claimed.
    """

    names: tuple[str, ...]
    first: int
    last: int
    missing: tuple[str, ...] = ()


def leads(cells: Mapping[str, Sequence[Cell]], comparisons: int = 1) -> list[Lead]:
    """Who is in front along the axis; a candidate without a value at a place is left out there."""
    size = len(next(iter(cells.values()), ()))
    found: list[Lead] = []
    for position in range(size):
        here = {name: row[position] for name, row in cells.items() if row[position].known}
        names = tuple(
            name
            for name, cell in here.items()
            if not any(cheaper(other, cell, comparisons) < 0 for rival, other in here.items() if rival != name)
        )
        if all(cell.nothing for cell in here.values()):
            names = ()
        missing = tuple(name for name in cells if name not in here)
        if found and (found[-1].names, found[-1].missing) == (names, missing):
            found[-1] = Lead(names, found[-1].first, position, missing)
        else:
            found.append(Lead(names, position, position, missing))
    return found
