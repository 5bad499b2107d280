"""Numbers of a CSV row that have to be there: each is refused by file, line, column and what it may be."""

from __future__ import annotations

import math

from harness.csv_table import Row
from harness.errors import UsageError


def number(row: Row, column: str, *, least: float = -math.inf, most: float = math.inf, above: bool = False) -> float:
    """A field as a finite number within its limits; raises UsageError for a missing, odd or impossible one.

    Args:
        row: of a CSV file.
        column: its heading.
        least: the least value.
        most: the greatest.
        above: whether `least` itself is refused.
    """
    found = row.number(column)
    if found is None or not (least < found if above else least <= found) or found > most:
        limits = [] if least == -math.inf else [f"above {least:g}" if above else f"{least:g} or more"]
        limits += [] if most == math.inf else [f"up to {most:g}"]
        told = "missing" if found is None else repr(row[column])
        raise UsageError(f"{column} is {told}", where=row.where, accepted=", ".join(["a finite number", *limits]))
    return found


def whole(row: Row, column: str, *, least: int = 1) -> int:
    """A field as a count; raises UsageError as `number` does, and for one with decimals."""
    found = number(row, column, least=least)
    if not found.is_integer():
        raise UsageError(f"{column} is {row[column]!r}", where=row.where, accepted=f"a whole number, {least} or more")
    return int(found)
