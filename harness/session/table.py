"""What was measured outside of a suite, as a table of text or HTML, and as JSON values."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.quantity import Amount, Method, Value
from harness.records.metric import ABOVE_IDLE, base_name
from harness.records.record import SIMULATOR
from harness.units import si

COLUMNS: Final = ("", "value", "bound", "method")
EVEN: Final = 0.02
"""Ends of a bound that lie so evenly about the value are told as one number."""
ORDER: Final = (
    "duration_s",
    "cpu_s",
    "peak_memory_bytes",
    "energy_j",
    ABOVE_IDLE,
    "power_w",
    "carbon_operational_g",
    "carbon_g",
    "water_l",
)
"""What is shown, in this order; a reading of one scope follows its total."""
WORDS: Final[Mapping[str, str]] = {
    "duration_s": "time",
    "cpu_s": "CPU time",
    "peak_memory_bytes": "peak memory",
    "energy_j": "energy",
    ABOVE_IDLE: "energy above idle",
    "power_w": "mean power",
    "carbon_operational_g": "operational carbon",
    "carbon_g": "carbon",
    "water_l": "water",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        reading: its name in a record.
        name: what it is of, for people.
        value: what was found, or why nothing.
        spread: least and greatest of several runs; None for one.
        interval: of the mean of several runs; None where they are too few.
    """

    reading: str
    name: str
    value: Value
    spread: tuple[float, float] | None = None
    interval: tuple[float, float] | None = None

    def cells(self) -> tuple[str, str, str, str]:
        """Name, value, bound and method; of a missing value, its reason."""
        if not isinstance(self.value, Amount):
            return self.name, "none", "", self.value.reason
        return self.name, si(self.value.value, self.value.unit), bound(self.value), self.value.label.value


def bound(amount: Amount) -> str:
    """The bound of the instrument: `± 4.2 %`, two ends, `exact` of a clock or count, or `not known`."""
    if amount.low is None or amount.high is None:
        return "not known"
    if amount.low == amount.high:
        return "exact" if amount.label is Method.MEASURED else "not known"
    share = amount.relative_bound
    down, up = amount.value - amount.low, amount.high - amount.value
    if share is not None and amount.low >= 0 and abs(up - down) <= EVEN * (up + down):
        return f"± {100 * share:.2g} %"
    return f"{si(amount.low, amount.unit)} to {si(amount.high, amount.unit)}"


def rows(readings: Mapping[str, Value], idle: bool = False) -> list[Row]:
    """The readings that are shown, totals before their scopes.

    Args:
        readings: by name, as a record has them.
        idle: whether energy above idle was asked for.
    """
    found = []
    for base in ORDER:
        if base == ABOVE_IDLE and not idle:
            continue
        own = [name for name in readings if base_name(name) == base and not name.startswith(SIMULATOR)]
        for name in sorted(own, key=len):
            scope = name.partition(":")[2]
            found.append(Row(name, f"  {scope}" if scope else WORDS[base], readings[name]))
    return found


def text(title: str, listed: Iterable[Row], notes: Sequence[str] = ()) -> str:
    """The table as lines of plain text, reasons of missing values below it."""
    cells = [COLUMNS, *(row.cells() for row in listed)]
    reasons = [f"{row[0].strip()}: {row[3]}" for row in cells[1:] if row[1] == "none"]
    shown = [row if row[1] != "none" else (row[0], "none", "", "") for row in cells]
    widths = [max(len(row[column]) for row in shown) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    return "\n".join([title, *lines, *(f"note: {each}" for each in dict.fromkeys([*reasons, *notes]))])


def as_html(title: str, listed: Iterable[Row], notes: Sequence[str] = ()) -> str:
    """The table as HTML for a notebook."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
    cells = (row.cells() for row in listed)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(each.strip())}</td>" for each in row) + "</tr>" for row in cells)
    said = "".join(f"<p>{html.escape(note)}</p>" for note in dict.fromkeys(notes))
    caption = f"<caption>{html.escape(title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}"


def as_json(value: Value) -> dict[str, Any]:
    """A value as JSON: number, unit, bound, method and composition, or null and the reason."""
    if not isinstance(value, Amount):
        return {"value": None, value.kind: value.reason}
    return {
        "value": value.value,
        "unit": value.unit,
        "low": value.low,
        "high": value.high,
        "method": value.label.value,
        "composition": {method.value: part for method, part in value.composition.items()},
    }
