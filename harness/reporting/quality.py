"""How good the work of a point was, for the tables of what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from harness.quantity import Amount, Method, Value
from harness.records.record import Record
from harness.records.summary import PointReport, Summary, summarise

USUAL: Final = ("quality", "reward", "miou", "accuracy", "score")
"""Columns of quality by their usual names; those that a scorer fills are known from the records."""


def columns(points: Sequence[PointReport]) -> list[str]:
    """Names of the columns of quality that any of the points has."""
    scored = [name for point in points for finished in point.records for name in finished.qualities]
    return [
        name
        for name in dict.fromkeys((*scored, *USUAL))
        if any((found := of(point, name)) is not None and isinstance(found.value, Amount) for point in points)
    ]


def of(point: PointReport, column: str) -> Summary | None:
    """A quality over the trials; None where the point lacks it.

    Of work that says between windows how good it is, such as training, it is what the last window reached: the mean
    over its items would be one over all of the way there.
    """
    last = [_last(finished, column) for finished in point.records]
    reached = [value for value in last if value is not None]
    if reached and len(reached) == len(last):
        return summarise(reached)
    return point.columns.get(column, {}).get("mean")


def _last(finished: Record, column: str) -> Value | None:
    said = finished.measurement.validation
    if not said or column not in said[-1]:
        return None
    return Amount.exact(said[-1][column], "1", Method.SIMULATED if finished.modelled else Method.MEASURED)
