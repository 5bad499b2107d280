"""Functional units: what a cost is divided by. The only module that divides one quantity by another.

A functional unit is a column to sum and a filter on work items: `{sum: output_tokens, where: {ttft_s: "<= 1.0"}}`.
Filtering is per item, counting per unit; comparisons are on unrounded values, and two that differ by a part in 1e9 are
equal: 0.1 + 0.2 is 0.3 for `<=`, `>=` and `==`, and neither less nor greater for `<` and `>`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.errors import MeasurementError, UsageError
from harness.quantity import SLACK, Amount, Method, Unavailable, Undefined, Value, weakest

Row = Mapping[str, object]
"""A work item: `item_id`, `status` and the workload's columns; a missing value is None or absent, never 0."""


def _equal(value: float, limit: float) -> bool:
    return math.isclose(value, limit, rel_tol=SLACK, abs_tol=0.0)


_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": lambda value, limit: value <= limit or _equal(value, limit),
    ">=": lambda value, limit: value >= limit or _equal(value, limit),
    "<": lambda value, limit: value < limit and not _equal(value, limit),
    ">": lambda value, limit: value > limit and not _equal(value, limit),
    "==": _equal,
}
_CLOCK_S: Final = 1e-9  # resolution of the clock: two differences of its readings may be rounded so far apart
_CONDITION: Final = re.compile(r"\s*(<=|>=|==|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Where:
    """One condition on a column, such as `ttft_s <= 1.0`. A missing or non-finite value satisfies none."""

    column: str
    comparison: str
    limit: float

    @classmethod
    def parse(cls, column: str, text: str) -> Where:
        """A condition from text such as `<= 1.0`; raises UsageError.

        Examples:
            >>> late = Where.parse("ttft_s", "<= 1.0")
            >>> late.holds({"ttft_s": 0.4}), late.holds({"ttft_s": 1.2}), late.holds({})
            (True, False, False)
        """
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

    @property
    def is_time_limit(self) -> bool:
        """Whether this is a service-level objective: an upper limit on a time, whose column ends in `_s`."""
        return self.column.endswith("_s") and self.comparison in {"<", "<="}

    def __str__(self) -> str:
        return f"{self.column} {self.comparison} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class FunctionalUnit:
    """What is counted: the sum of a column over the items that meet every condition.

    Attributes:
        sum: a column of the work items, or `items` to count them.
        where: conditions, all of which must hold.
        span: span that its costs and its rate are of, such as `steady`; the whole window if empty.
    """

    sum: str
    where: tuple[Where, ...] = ()
    span: str = ""

    @classmethod
    def of(cls, sum: str, where: Mapping[str, str] | None = None, span: str = "") -> FunctionalUnit:  # noqa: A002
        """A functional unit as a suite writes it; raises UsageError on a malformed condition."""
        return cls(sum, tuple(Where.parse(column, text) for column, text in (where or {}).items()), span)

    def __str__(self) -> str:
        conditions = ", ".join(map(str, self.where))
        span = f", in span {self.span}" if self.span else ""
        return (f"{self.sum} where {conditions}" if conditions else self.sum) + span


@dataclass(frozen=True, slots=True)
class UnitCount:
    """How much of a functional unit a run achieved.

    Attributes:
        achieved: the sum over qualifying items; Unavailable where a needed column was never filled.
        items: measured items of every status.
        qualifying: items that completed and met every condition.
        failed: items whose status is not `ok`, and those that completed without an output token.
        meeting: per condition, how many completed items met it alone.
        in_time: items that completed and met every time limit, whatever their quality; None without a time limit.
        produced: the sum over all completed items, qualifying or not; None where it is not known.
        why_zero: what the workload says of a sum of 0; empty where it says nothing.
        method: the weakest of the columns that are summed and judged; `simulated` where the items are.
    """

    achieved: float | Unavailable
    items: int
    qualifying: int
    failed: int
    meeting: Mapping[str, int] = field(default_factory=dict)
    in_time: int | None = None
    produced: float | None = None
    why_zero: str = ""
    method: Method = Method.MEASURED


@dataclass(frozen=True, slots=True)
class Sweep:
    """One condition of a functional unit as an axis: what is achieved at any other limit of it, without another run.

    The completed items that meet every other condition, grouped by the swept column; all lists have one length.

    Attributes:
        column: the swept column.
        comparison: of the condition.
        values: distinct finite values of the column, rising.
        amounts: sum of the unit's column over the items of each value.
        items: number of those items.
        bars: limits worth showing: those the scorer declares, else deciles of what was observed; the unit's own too.
    """

    column: str
    comparison: str
    values: tuple[float, ...]
    amounts: tuple[float, ...]
    items: tuple[int, ...]
    bars: tuple[float, ...]

    def achieved(self, limit: float) -> float:
        """How much of the unit is achieved with another limit in the condition's place."""
        holds = _OPERATORS[self.comparison]
        return math.fsum(part for value, part in zip(self.values, self.amounts, strict=True) if holds(value, limit))

    def qualifying(self, limit: float) -> int:
        """How many items qualify with another limit."""
        holds = _OPERATORS[self.comparison]
        return sum(number for value, number in zip(self.values, self.items, strict=True) if holds(value, limit))


def finite(value: object) -> float | None:
    """The value as a finite number; None where it is missing, not a number, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def has_completed(row: Row) -> bool:
    """Whether an item completed; one that says `ok` and returned no output token has failed."""
    return row.get("status", "ok") == "ok" and finite(row.get("output_tokens")) != 0


def count(unit: FunctionalUnit, rows: Iterable[Row], methods: Mapping[str, Method] = {}) -> UnitCount:
    """Counts a functional unit over work items.

    An item that did not complete is failed: it adds nothing whatever its columns hold, but stays in `items`.

    Args:
        unit: what is counted.
        rows: work items.
        methods: column -> how its values were obtained, `items` for the items themselves; measured where not named.

    Examples:
        >>> good_token = FunctionalUnit.of("output_tokens", {"ttft_s": "<= 1.0"})
        >>> found = count(good_token, [
        ...     {"item_id": "a", "status": "ok", "output_tokens": 30, "ttft_s": 0.4},
        ...     {"item_id": "b", "status": "ok", "output_tokens": 50, "ttft_s": 1.7},
        ...     {"item_id": "c", "status": "timeout", "output_tokens": 5, "ttft_s": 0.2},
        ... ])
        >>> found.achieved, found.items, found.qualifying, found.failed
        (30.0, 3, 1, 1)
    """
    listed = list(rows)
    completed = [row for row in listed if has_completed(row)]
    limits = [condition for condition in unit.where if condition.is_time_limit]
    qualifying = [row for row in completed if _meets(row, unit.where)]
    achieved = _sum(unit.sum, qualifying)
    for condition in unit.where:
        if completed and all(finite(row.get(condition.column)) is None for row in completed):
            achieved = Unavailable(f"column {condition.column!r} was never filled, so `{condition}` cannot be judged")
    produced = _sum(unit.sum, completed)
    return UnitCount(
        achieved,
        items=len(listed),
        qualifying=len(qualifying),
        failed=len(listed) - len(completed),
        meeting={str(condition): sum(map(condition.holds, completed)) for condition in unit.where},
        in_time=sum(_meets(row, limits) for row in completed) if limits else None,
        produced=produced if isinstance(produced, float) else None,
        method=weakest(
            *(methods.get(column, Method.MEASURED) for column in ("items", unit.sum, *(w.column for w in unit.where)))
        ),
    )


def _meets(row: Row, conditions: Iterable[Where]) -> bool:
    return all(condition.holds(row) for condition in conditions)


def _sum(column: str, rows: Sequence[Row]) -> float | Unavailable:
    """The sum of a column over items, or their number."""
    if column == "items":
        return float(len(rows))
    values = [finite(row.get(column)) for row in rows]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Unavailable(f"column {column!r} is missing in {len(values) - len(known)} of {len(values)} items")
    if any(value < 0 for value in known):
        return Unavailable(f"column {column!r} holds a negative count")
    return math.fsum(known)


def sweep(unit: FunctionalUnit, rows: Iterable[Row], column: str, bars: Sequence[float] = ()) -> Sweep | Unavailable:
    """The unit's condition on a column as an axis.

    Args:
        unit: has exactly one condition on `column`.
        rows: work items with that column.
        column: the one to sweep.
        bars: limits worth showing; deciles of the observed values where none are given.
    """
    swept = [condition for condition in unit.where if condition.column == column]
    if len(swept) != 1:
        return Unavailable(f"{len(swept)} conditions on {column!r}: one is swept")
    others = [condition for condition in unit.where if condition.column != column]
    grouped: dict[float, list[Row]] = {}
    for row in rows:
        value = finite(row.get(column))
        if value is not None and has_completed(row) and _meets(row, others):
            grouped.setdefault(value, []).append(row)
    values = sorted(grouped)
    amounts = []
    for value in values:
        part = _sum(unit.sum, grouped[value])
        if isinstance(part, Unavailable):
            return part
        amounts.append(part)
    shown = bars or [values[round(tenth * (len(values) - 1) / 10)] for tenth in range(11) if values]
    return Sweep(
        column,
        swept[0].comparison,
        tuple(values),
        tuple(amounts),
        tuple(len(grouped[value]) for value in values),
        tuple(sorted({swept[0].limit, *shown})),
    )


def check_rows(rows: Iterable[Row], counts: Collection[str] = ("output_tokens", "total_tokens")) -> None:
    """Refuses work items that no clock and no tokenizer can have written; raises MeasurementError with item and column.

    Refused in a completed item: a fractional or negative count in one of the columns `counts`, and an end that lies
    before the first token.
    """
    for row in filter(has_completed, rows):
        where = f"item {row.get('item_id')!r}"
        for column in counts:
            number = finite(row.get(column))
            if number is not None and (number < 0 or number != math.floor(number)):
                raise MeasurementError(
                    f"{column} is {number:g}", where=where, accepted="a whole number of tokens, at least 0"
                )
        latency_s, ttft_s = finite(row.get("latency_s")), finite(row.get("ttft_s"))
        if latency_s is not None and ttft_s is not None and latency_s < ttft_s - _CLOCK_S:
            raise MeasurementError(
                f"latency_s {latency_s:g} is less than ttft_s {ttft_s:g}",
                where=where,
                accepted="a completed item lasts at least until its first token",
            )


def why_none(name: str, counted: UnitCount) -> str:
    """The reason why no unit was achieved, with the binding condition named."""
    if counted.items == 0:
        return f"no {name}: no work item was recorded"
    if counted.failed == counted.items:
        return f"no {name}: all {counted.items} items failed"
    if counted.qualifying and counted.why_zero:
        return f"no {name}: {counted.why_zero}"
    if counted.qualifying:
        items, sums = ("item", "sums") if counted.qualifying == 1 else ("items", "sum")
        return f"no {name}: the {counted.qualifying} {items} that met every condition {sums} to 0"
    if counted.meeting:
        binding = min(counted.meeting, key=lambda condition: counted.meeting[condition])
        return f"no {name}: {counted.meeting[binding]} of {counted.items} items met `{binding}`"
    return f"no {name} was achieved"


def per_unit(value: Value, name: str, counted: UnitCount) -> Value:
    """A cost divided by the count of a functional unit; Undefined where none was achieved.

    Examples:
        >>> energy = Amount.of(60.0, "J", Method.COUNTER)
        >>> rows = [{"item_id": "a", "status": "ok", "output_tokens": 30, "ttft_s": 0.4}]
        >>> each = per_unit(energy, "token", count(FunctionalUnit.of("output_tokens"), rows))
        >>> f"{each.value:g} {each.unit}"
        '2 J/token'
        >>> per_unit(energy, "token", count(FunctionalUnit.of("output_tokens", {"ttft_s": "<= 0.1"}), rows))
        Undefined(reason='no token: 0 of 1 items met `ttft_s <= 0.1`', kind='undefined')
    """
    if not isinstance(value, Amount):
        return value
    if isinstance(counted.achieved, Unavailable):
        return counted.achieved
    if counted.achieved == 0:
        return Undefined(why_none(name, counted))
    return value.times(1.0 / counted.achieved, f"{value.unit}/{name}", method=counted.method)


def per_second(name: str, counted: UnitCount, duration: Value) -> Value:
    """The rate at which a functional unit was achieved in the time of the very work; 0 is a valid rate."""
    if isinstance(counted.achieved, Unavailable):
        return counted.achieved
    if not isinstance(duration, Amount):
        return duration
    if not duration.value > 0:
        return Unavailable("the duration is not positive")
    return _counted(counted.achieved, name, counted.method).over(duration, f"{name}/s")


def _counted(value: float, unit: str, method: Method) -> Amount:
    """A count, exact where its items were counted and not modelled."""
    return Amount.exact(value, unit) if method is Method.MEASURED else Amount.of(value, unit, method)


def share(part: float, whole: float, of: str) -> Value:
    """A part of a whole as a number between 0 and 1; Undefined where the whole is 0."""
    return Amount.exact(part / whole, "1") if whole > 0 else Undefined(f"there was no {of}")


def shares(counted: UnitCount) -> dict[str, Value]:
    """Shares of all measured items, failed ones among them, in percent.

    `pass_share` met every condition, `slo_attainment` every time limit (quality not asked), `failed` did not complete,
    and `failing <condition>` fails that condition alone; a failed item fails every one of them.
    """
    parts = {"pass_share": counted.qualifying, "failed": counted.failed}
    if counted.in_time is not None:
        parts["slo_attainment"] = counted.in_time
    parts |= {f"failing {condition}": counted.items - met for condition, met in counted.meeting.items()}
    return {name: _percent(part, counted) for name, part in parts.items()}


def _percent(part: float, counted: UnitCount) -> Value:
    if not counted.items > 0:
        return Undefined("there was no work item")
    return _counted(100 * part / counted.items, "%", counted.method)


def mean_power(energy: Value, duration: Value) -> Value:
    """Mean power over the time of the very work that the energy is of, in watts."""
    for part in (energy, duration):
        if not isinstance(part, Amount):
            return part
    assert isinstance(energy, Amount)
    assert isinstance(duration, Amount)
    return energy.over(duration, "W") if duration.value > 0 else Unavailable("the duration is not positive")


def mean_of_column(column: str, rows: Sequence[Row], unit: str, method: Method = Method.MEASURED) -> Value:
    """The mean of a column over completed items that have a value."""
    known = [number for row in rows if has_completed(row) and (number := finite(row.get(column))) is not None]
    if not known:
        return Unavailable(f"column {column!r} was never filled")
    return Amount.of(math.fsum(known) / len(known), unit, method)


def quantile_of_column(
    column: str, rows: Sequence[Row], unit: str, level: float, method: Method = Method.MEASURED
) -> Value:
    """A quantile of a column over completed items, linearly interpolated between order statistics."""
    known = sorted(number for row in rows if has_completed(row) and (number := finite(row.get(column))) is not None)
    if not known:
        return Unavailable(f"column {column!r} was never filled")
    position = level * (len(known) - 1)
    below = math.floor(position)
    above = min(below + 1, len(known) - 1)
    weight = position - below
    return Amount.of(known[below] * (1 - weight) + known[above] * weight, unit, method)
