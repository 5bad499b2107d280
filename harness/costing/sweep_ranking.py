"""Which combination of a sweep costs least, and whether the order of two points depends on it."""

from __future__ import annotations

import itertools
import math
import statistics
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from harness.costing.recost import Columns, Row
from harness.costing.settings import Combinations, shown
from harness.quantity import Amount
from harness.units import si

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

    def range(self, combination: int) -> tuple[float, float]:
        """The bounds of all trials together; NaN at an end that is not known."""
        return _least(self._lows[combination]), -_least(array("d", (-each for each in self._highs[combination])))


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
            whole = {point: values for point, values in medians.items() if not any(map(math.isnan, values))}
            found += [f"{name}: {text}" for text in self._lowest(points, whole)]
            if len(whole) < len(self._labels):
                lacking = len(self._labels) - len(whole)
                found.append(f"{name}: {lacking} of {len(self._labels)} points lack a value and are not ranked")
            if len(whole) > 1 and len(self._factors) > 1:
                found += [f"{name}: {text}" for text in self._order(points, whole)]
        return found or ["nothing to rank: no record has an impact under any combination"]

    # Lowest combination

    def _lowest(self, points: dict[str, _Cells], whole: dict[str, list[float]]) -> Iterator[str]:
        winners = {point: min(range(len(values)), key=values.__getitem__) for point, values in whole.items()}
        if whole and all(len(set(values)) == 1 for values in whole.values()):
            yield "the same in every combination"
        elif len(whole) == 1 or len(set(winners.values())) > 1:
            for point, index in itertools.islice(winners.items(), _SHOWN):
                values = whole[point]
                highest = max(range(len(values)), key=values.__getitem__)
                text = (
                    f"{self._labels[point]}: lowest with {self._name(index)}, {si(values[index], points[point].unit)}"
                )
                if values[highest] > values[index]:
                    text += f"; highest with {self._name(highest)}, {si(values[highest], points[point].unit)}"
                else:
                    text += "; the same in every combination"
                yield text
            if len(winners) > _SHOWN:
                counts = Counter(winners.values()).most_common(_SHOWN)
                told = "; ".join(f"{self._name(index)} for {number}" for index, number in counts)
                yield f"lowest, over all {len(winners)} points: {told}"
        elif whole:
            yield f"lowest with {self._name(next(iter(winners.values())))} for each of {len(whole)} points"

    def _name(self, index: int) -> str:
        return self._combinations.label(index) or "the options given"

    # Order of points

    def _order(self, points: dict[str, _Cells], whole: dict[str, list[float]]) -> Iterator[str]:
        first = sorted(whole, key=lambda point: whole[point][0])
        # an order that keeps every neighbouring pair of the first one is the first one
        flips = [
            (one, other)
            for one, other in itertools.pairwise(first)
            if any(later < before for before, later in zip(whole[one], whole[other], strict=True))
        ]
        if not flips:
            names = " < ".join(self._labels[point] for point in first[:_SHOWN])
            more = f" and {len(first) - _SHOWN} more" if len(first) > _SHOWN else ""
            yield f"the order of points is the same in every combination: {names}{more}"
        for one, other in flips[:_SHOWN]:
            yield self._flip(one, other, points, whole)
        if len(flips) > _SHOWN:
            yield f"the order changes for {len(flips) - _SHOWN} more neighbouring pairs of points"

    def _flip(self, one: str, other: str, points: dict[str, _Cells], whole: dict[str, list[float]]) -> str:
        gaps = [before - later for before, later in zip(whole[one], whole[other], strict=True)]
        turned = next(index for index, gap in enumerate(gaps) if gap > 0)
        text = (
            f"the order flips: {self._labels[one]} < {self._labels[other]} with {self._name(0)}, "
            f"and {self._labels[other]} < {self._labels[one]} with {self._name(turned)}"
        )
        ties = [tie for each in self._axes() if (tie := self._tie(each, gaps))]
        if ties:
            text += f"; they tie at {ties[0]}, by interpolation between the two nearest combinations"
        methods = points[one].labels | points[other].labels
        if len(methods) > 1:
            text += f" (different methods: {', '.join(sorted(methods))}; not to be compared)"
        elif any(not _apart(points[one].range(at), points[other].range(at)) for at in (0, turned)):
            text += " (within their bounds, or these are not known)"
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


def _apart(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two ranges are known and do not touch."""
    return one[1] < other[0] or other[1] < one[0]
