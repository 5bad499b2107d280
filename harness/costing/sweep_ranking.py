"""Which combination of a sweep costs least, and whether the order of two points depends on it."""

from __future__ import annotations

import itertools
import math
import statistics
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final, TypeAlias

from harness.costing.recost import Columns, Row
from harness.costing.settings import Combinations, shown
from harness.quantity import Amount
from harness.units import si

Ends: TypeAlias = tuple[float, float]
_SHOWN: Final = 5
"""So many points, or changes of order, are told one by one."""


class _Cells:
    """One metric of one point: its values over trials, per combination. Eight bytes a number and nothing else."""

    def __init__(self, combinations: int, unit: str) -> None:
        self.unit = unit
        self.labels: set[str] = set()
        self._values = [array("d") for _ in range(combinations)]
        self._lows = [array("d") for _ in range(combinations)]
        self._highs = [array("d") for _ in range(combinations)]

    def add(self, combination: int, amount: Amount) -> None:
        self.labels.add(amount.label.value)
        self._values[combination].append(amount.value)
        self._lows[combination].append(math.nan if amount.low is None else amount.low)
        self._highs[combination].append(math.nan if amount.high is None else amount.high)

    def medians(self) -> list[float]:
        """Per combination the median over trials; NaN where no trial has a value."""
        return [statistics.median(values) if values else math.nan for values in self._values]

    def range(self, combination: int) -> Ends:
        """The bounds of all trials together; NaN at both ends where neither is known, open at one that is not."""
        low, high = _least(self._lows[combination]), -_least(array("d", (-each for each in self._highs[combination])))
        if math.isnan(low) and math.isnan(high):
            return low, high
        return (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)

    @cached_property
    def common(self) -> bool:
        """Whether each trial's bound is the same share of its value in every combination.

        Then it is that of the energy, which all combinations share, and they can be told apart by their values. An
        interval that begins at its value is nothing but an interval, and no such bound.
        """
        valid = [index for index, values in enumerate(self._values) if values]
        if len({len(self._values[index]) for index in valid}) > 1:
            return False
        shares = [self._shares(index) for index in valid]
        return all(
            one is not None and other is not None and all(map(_near, one, other))
            for one, other in itertools.pairwise([*shares, *shares[:1]])
        )

    def _shares(self, index: int) -> list[float] | None:
        found: list[float] = []
        for value, low, high in zip(self._values[index], self._lows[index], self._highs[index], strict=True):
            if math.isnan(low) or math.isnan(high) or value <= 0 or (low == value and high > value):
                return None
            found += [low / value, high / value]
        return found

    def within(self, combination: int, median: float) -> Ends:
        """What a combination's value may be beside those of others for the same trials."""
        low, high = (median, median) if self.common else self.range(combination)
        return (median, median) if math.isnan(low) else (low, high)


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def _least(values: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else min(values)


class Ranking:
    """Collects rows and draws the conclusions; trials that are not valid do not count.

    Args:
        combinations: of the sweep.
        columns: of its table.
    """

    def __init__(self, combinations: Combinations, columns: Columns) -> None:
        self._combinations = combinations
        self._columns = columns
        self._cells: dict[tuple[str, str], dict[str, _Cells]] = {}
        self._labels: dict[str, str] = {}
        self._factors: list[dict[str, float | None]] = [{} for _ in combinations.values]

    def add(self, row: Row) -> None:
        """Takes one row."""
        if row.invalid:
            return
        self._labels.setdefault(row.point, row.label)
        factors = self._factors[row.combination]
        for name, number in row.factors.items():
            if factors.setdefault(name, number) != number:
                factors[name] = None
        per = {"": row.totals} if not row.units else row.units
        for unit, readings in per.items():
            for metric, value in readings.items():
                if metric in self._columns.ratios or not isinstance(value, Amount):
                    continue
                points = self._cells.setdefault((unit, metric), {})
                if row.point not in points:
                    points[row.point] = _Cells(len(self._factors), value.unit)
                points[row.point].add(row.combination, value)

    def lines(self) -> list[str]:
        """The conclusions, one sentence a line."""
        found = []
        for (unit, metric), points in self._cells.items():
            name = f"{metric} per {unit}" if unit else metric
            medians = {point: cells.medians() for point, cells in points.items()}
            found += [f"{name}: {text}" for text in self._lowest(points, medians)]
            lacking = sum(any(map(math.isnan, values)) for values in medians.values())
            lacking += len(self._labels) - len(medians)
            if lacking:
                which = (
                    f"{lacking} of {len(self._labels)} points lack" if len(self._labels) > 1 else "its only point lacks"
                )
                found.append(f"{name}: {which} a value under some or all combinations; ranked where there is one")
            if len(medians) > 1:
                found += [f"{name}: {text}" for text in self._order(points, medians)]
        return found or ["nothing to rank: no record has an impact under any combination"]

    # Lowest combination

    def _lowest(self, points: dict[str, _Cells], medians: dict[str, list[float]]) -> Iterator[str]:
        best = {point: self._best(points[point], values) for point, values in medians.items()}
        valid = [[value for value in values if not math.isnan(value)] for values in medians.values()]
        if all(len(values) == 1 for values in valid) and len(self._factors) > 1:
            alone = (f"{self._labels[point]} with {self._named(only)}" for point, only in best.items())
            yield f"one value alone, nothing to rank: {', '.join(itertools.islice(alone, _SHOWN))}"
        elif all(len(set(values)) == 1 for values in valid):
            yield "the same in every combination" + ("" if all(map(self._whole, valid)) else " that has a value")
        elif len(medians) == 1 or len(set(best.values())) > 1:
            for point, lowest in itertools.islice(best.items(), _SHOWN):
                yield f"{self._labels[point]}: {self._told(lowest, medians[point], points[point])}"
            if len(best) > _SHOWN:
                counts = Counter(best.values()).most_common(_SHOWN)
                told = "; ".join(f"{self._named(lowest)} for {number}" for lowest, number in counts)
                yield f"lowest, over all {len(best)} points: {told}"
        else:
            lowest = next(iter(best.values()))
            yield f"lowest with {self._named(lowest)} for each of {len(best)} points{_why(lowest)}"

    def _whole(self, values: Sequence[float]) -> bool:
        return len(values) == len(self._factors)

    @staticmethod
    def _best(cells: _Cells, values: Sequence[float]) -> tuple[int, ...]:
        """The combination with the least value, and every other that cannot be told from it."""
        valid = [index for index, value in enumerate(values) if not math.isnan(value)]
        least = min(valid, key=values.__getitem__)
        end = cells.within(least, values[least])[1]
        return tuple(index for index in valid if index == least or cells.within(index, values[index])[0] <= end)

    def _told(self, lowest: tuple[int, ...], values: Sequence[float], cells: _Cells) -> str:
        valid = [index for index, value in enumerate(values) if not math.isnan(value)]
        if len({values[index] for index in valid}) == 1:
            return f"{si(values[valid[0]], cells.unit)}; the same in every combination"
        if len(lowest) == len(valid):
            return "no combination is lowest: their intervals overlap"
        highest = max(valid, key=values.__getitem__)
        least = min(lowest, key=values.__getitem__)
        text = f"lowest with {self._named(lowest)}, {si(values[least], cells.unit)}{_why(lowest)}"
        return f"{text}; highest with {self._name(highest)}, {si(values[highest], cells.unit)}"

    def _named(self, lowest: tuple[int, ...]) -> str:
        shown = " or ".join(self._name(index) for index in lowest[:_SHOWN])
        return shown if len(lowest) <= _SHOWN else f"{shown} or {len(lowest) - _SHOWN} more"

    def _name(self, index: int) -> str:
        return self._combinations.label(index) or "the options given"

    # Order of points

    def _order(self, points: dict[str, _Cells], medians: dict[str, list[float]]) -> Iterator[str]:
        shared = [
            index
            for index in range(len(self._factors))
            if not any(math.isnan(values[index]) for values in medians.values())
        ]
        if not shared:
            yield "the points have no combination in common, and are not ranked against each other"
            return
        first = sorted(medians, key=lambda point: medians[point][shared[0]])
        pairs = list(itertools.pairwise(first))
        signs = {pair: [_sign(pair, points, medians, index) for index in shared] for pair in pairs}
        flips = [pair for pair in pairs if {-1, 1} <= set(signs[pair])]
        if not flips:
            yield self._same(first, signs, shared)
        for one, other in flips[:_SHOWN]:
            yield self._flip(one, other, points, medians, signs[one, other], shared)
        if len(flips) > _SHOWN:
            yield f"the order changes for {len(flips) - _SHOWN} more neighbouring pairs of points"

    def _same(self, first: list[str], signs: dict[tuple[str, str], list[int]], shared: list[int]) -> str:
        marks = [" < " if all(each < 0 for each in signs[pair]) else " ~ " for pair in itertools.pairwise(first)]
        marks = ["", *marks]
        names = "".join(f"{mark}{self._labels[point]}" for mark, point in zip(marks, first[:_SHOWN], strict=False))
        if " < " not in marks:
            return "the points are not told apart: they are equal, or their intervals overlap, in some combination"
        more = f" and {len(first) - _SHOWN} more" if len(first) > _SHOWN else ""
        where = "every combination" if len(shared) == len(self._factors) else f"{len(shared)} of {len(self._factors)}"
        where = where if len(self._factors) > 1 else "the one combination"
        note = " (~: equal, or their intervals overlap, in one combination or more)" if " ~ " in marks else ""
        return f"the order of points is the same in {where}: {names}{more}{note}"

    def _flip(
        self,
        one: str,
        other: str,
        points: dict[str, _Cells],
        medians: dict[str, list[float]],
        signs: list[int],
        shared: list[int],
    ) -> str:
        gaps = [before - later for before, later in zip(medians[one], medians[other], strict=True)]
        before, turned = shared[signs.index(-1)], shared[signs.index(1)]
        text = (
            f"the order flips: {self._labels[one]} < {self._labels[other]} with {self._name(before)}, "
            f"and {self._labels[other]} < {self._labels[one]} with {self._name(turned)}"
        )
        ties = [tie for each in self._axes() if (tie := self._tie(each, gaps))]
        if ties:
            text += f"; they tie at {ties[0]}, by interpolation between the two nearest combinations"
        methods = points[one].labels | points[other].labels
        if len(methods) > 1:
            text += f" (different methods: {', '.join(sorted(methods))}; not to be compared)"
        elif any(math.isnan(points[point].range(index)[0]) for point in (one, other) for index in (before, turned)):
            text += " (their bounds are not known)"
        return text

    def _axes(self) -> Iterator[tuple[str, list[tuple[float, int]]]]:
        """Lines of combinations along which one option changes a number: its own value, or one factor's."""
        values = self._combinations.values
        for position, key in enumerate(self._combinations.keys):
            lines: dict[str, list[int]] = {}
            for index, each in enumerate(values):
                rest = [shown(value) for number, value in enumerate(each) if number != position]
                lines.setdefault("\0".join(rest), []).append(index)
            for line in lines.values():
                own = [values[index][position] for index in line]
                name, numbers = key, own
                if not all(_number(value) for value in own):
                    name, numbers = self._factor_along(line)
                if name:
                    yield name, sorted(zip(numbers, line, strict=True))

    def _factor_along(self, line: Sequence[int]) -> tuple[str, list[Any]]:
        """The only factor that changes along a line, and its values; an empty name where that is not one."""
        names = set.intersection(*(set(self._factors[index]) for index in line))
        known = {name: [self._factors[index][name] for index in line] for name in names}
        changing = [name for name, numbers in known.items() if None not in numbers and len(set(numbers)) > 1]
        return (changing[0], known[changing[0]]) if len(changing) == 1 else ("", [])

    @staticmethod
    def _tie(axis: tuple[str, list[tuple[float, int]]], gaps: Sequence[float]) -> str:
        """Where the gap between two points is 0 along an axis: exact where both costs are linear in it."""
        name, line = axis
        for (x, at), (beyond, after) in itertools.pairwise(line):
            if gaps[at] * gaps[after] < 0:
                return f"{name} = {x + (beyond - x) * gaps[at] / (gaps[at] - gaps[after]):.6g}"
        return ""


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _why(lowest: tuple[int, ...]) -> str:
    return " (equal, or their intervals overlap)" if len(lowest) > 1 else ""


def _sign(pair: tuple[str, str], points: dict[str, _Cells], medians: dict[str, list[float]], index: int) -> int:
    """-1 or 1 where one point is lower or higher than the other, 0 where they are equal or their bounds overlap."""
    (low, high), (other_low, other_high) = (points[point].range(index) for point in pair)
    one, other = (medians[point][index] for point in pair)
    if one == other:
        return 0
    if any(map(math.isnan, (low, other_low))):
        return -1 if one < other else 1
    return -1 if high < other_low else 1 if other_high < low else 0
