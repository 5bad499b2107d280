"""Functional units: what a cost is divided by. The only module that divides one quantity by another.

A functional unit is a column to sum and a filter on work items: `{sum: output_tokens, where: {ttft_s: "<= 1.0"}}`.
Filtering is per item, counting per unit; comparisons are on unrounded values, without tolerance.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.errors import UsageError
from harness.quantity import Amount, Method, Unavailable, Undefined, Value

Row = Mapping[str, object]
"""A work item: `item_id`, `status` and the workload's columns; a missing value is None or absent, never 0."""

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}
_CONDITION: Final = re.compile(r"\s*(<=|>=|==|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Where:
    """One condition on a column, such as `ttft_s <= 1.0`. A missing or non-finite value satisfies none."""

    column: str
    comparison: str
    limit: float

    @classmethod
    def parse(cls, column: str, text: str) -> Where:
        """A condition from text such as `<= 1.0`; raises UsageError."""
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is not a condition on {column!r}",
                accepted="a comparison and a number, such as '<= 1.0'; comparisons are " + " ".join(_OPERATORS),
            )
        return cls(column, match.group(1), float(match.group(2)))

    def holds(self, row: Row) -> bool:
        """Whether the row satisfies the condition."""
        number = finite(row.get(self.column))
        return number is not None and _OPERATORS[self.comparison](number, self.limit)

    def __str__(self) -> str:
        return f"{self.column} {self.comparison} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class FunctionalUnit:
    """What is counted: the sum of a column over the items that meet every condition.

    Attributes:
        sum: a column of the work items, or `items` to count them.
        where: conditions, all of which must hold.
    """

    sum: str
    where: tuple[Where, ...] = ()

    @classmethod
    def of(cls, sum: str, where: Mapping[str, str] | None = None) -> FunctionalUnit:  # noqa: A002 - the suite's word
        """A functional unit as a suite writes it; raises UsageError on a malformed condition."""
        return cls(sum, tuple(Where.parse(column, text) for column, text in (where or {}).items()))

    def __str__(self) -> str:
        conditions = ", ".join(map(str, self.where))
        return f"{self.sum} where {conditions}" if conditions else self.sum


@dataclass(frozen=True, slots=True)
class UnitCount:
    """How much of a functional unit a run achieved.

    Attributes:
        achieved: the sum over qualifying items; Unavailable where a needed column was never filled.
        items: measured items of every status.
        qualifying: items that completed and met every condition.
        failed: items whose status is not `ok`.
        meeting: per condition, how many items met it alone.
    """

    achieved: float | Unavailable
    items: int
    qualifying: int
    failed: int
    meeting: Mapping[str, int] = field(default_factory=dict)


def finite(value: object) -> float | None:
    """The value as a finite number; None where it is missing, not a number, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def count(unit: FunctionalUnit, rows: Iterable[Row]) -> UnitCount:
    """Counts a functional unit over work items.

    An item whose `status` is not `ok` is failed: it adds nothing whatever its columns hold, but stays in `items`.
    """
    listed = list(rows)
    completed = [row for row in listed if row.get("status", "ok") == "ok"]
    meeting = {str(condition): sum(map(condition.holds, completed)) for condition in unit.where}
    qualifying = [row for row in completed if all(condition.holds(row) for condition in unit.where)]
    achieved: float | Unavailable
    if unit.sum == "items":
        achieved = float(len(qualifying))
    else:
        values = [finite(row.get(unit.sum)) for row in qualifying]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            achieved = Unavailable(
                f"column {unit.sum!r} is missing in {len(values) - len(known)} of {len(values)} items"
            )
        elif any(value < 0 for value in known):
            achieved = Unavailable(f"column {unit.sum!r} holds a negative count")
        else:
            achieved = math.fsum(known)
    for condition in unit.where:
        if completed and all(finite(row.get(condition.column)) is None for row in completed):
            achieved = Unavailable(f"column {condition.column!r} was never filled, so `{condition}` cannot be judged")
    return UnitCount(achieved, len(listed), len(qualifying), len(listed) - len(completed), meeting)


def why_none(name: str, counted: UnitCount) -> str:
    """The reason why no unit was achieved, with the binding condition named."""
    if counted.items == 0:
        return f"no {name}: no work item was recorded"
    if counted.failed == counted.items:
        return f"no {name}: all {counted.items} items failed"
    if counted.meeting:
        binding = min(counted.meeting, key=lambda condition: counted.meeting[condition])
        return f"no {name}: {counted.meeting[binding]} of {counted.items} items met `{binding}`"
    return f"no {name} was achieved"


def per_unit(value: Value, name: str, counted: UnitCount) -> Value:
    """A cost divided by the count of a functional unit; Undefined where none was achieved."""
    if not isinstance(value, Amount):
        return value
    if isinstance(counted.achieved, Unavailable):
        return counted.achieved
    if counted.achieved == 0:
        return Undefined(why_none(name, counted))
    return value.times(1.0 / counted.achieved, f"{value.unit}/{name}")


def per_second(name: str, counted: UnitCount, duration_s: float) -> Value:
    """The rate at which a functional unit was achieved; 0 is a valid rate."""
    if isinstance(counted.achieved, Unavailable):
        return counted.achieved
    if not duration_s > 0:
        return Unavailable("the duration is not positive")
    return Amount.exact(counted.achieved / duration_s, f"{name}/s")


def share(part: float, whole: float, of: str) -> Value:
    """A part of a whole as a number between 0 and 1; Undefined where the whole is 0."""
    return Amount.exact(part / whole, "1") if whole > 0 else Undefined(f"there was no {of}")


def mean_power(energy: Value, duration_s: float) -> Value:
    """Mean power of a span, in watts."""
    if not isinstance(energy, Amount):
        return energy
    return energy.times(1.0 / duration_s, "W") if duration_s > 0 else Unavailable("the duration is not positive")


def mean_of_column(column: str, rows: Sequence[Row], unit: str) -> Value:
    """The mean of a column over completed items that have a value."""
    known = [
        number for row in rows if row.get("status", "ok") == "ok" and (number := finite(row.get(column))) is not None
    ]
    if not known:
        return Unavailable(f"column {column!r} was never filled")
    return Amount.of(math.fsum(known) / len(known), unit, Method.MEASURED)


def quantile_of_column(column: str, rows: Sequence[Row], unit: str, level: float) -> Value:
    """A quantile of a column over completed items, linearly interpolated between order statistics."""
    known = sorted(
        number for row in rows if row.get("status", "ok") == "ok" and (number := finite(row.get(column))) is not None
    )
    if not known:
        return Unavailable(f"column {column!r} was never filled")
    position = level * (len(known) - 1)
    below = math.floor(position)
    above = min(below + 1, len(known) - 1)
    weight = position - below
    return Amount.of(known[below] * (1 - weight) + known[above] * weight, unit, Method.MEASURED)
