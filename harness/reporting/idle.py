"""Gross energy, idle power and energy above idle, side by side."""

from __future__ import annotations

from typing import Final

from harness.quantity import Amount
from harness.records.metric import ABOVE_IDLE, IDLE_POWER, LOADED_IDLE_POWER, idle_measured
from harness.records.summary import PointReport, RunReport, Summary
from harness.reporting.tables import Section, Table
from harness.reporting.wording import Footnotes, bound, label
from harness.units import si

COLUMNS: Final = {
    "energy_j": "gross energy (the result)",
    IDLE_POWER: "idle power before loading",
    LOADED_IDLE_POWER: "idle power after loading",
    ABOVE_IDLE: "net energy above idle",
}
"""Reading -> its heading."""
EXPLAINED: Final = (
    "Medians over the trials, over all windows of each. The gross energy is the result. Net = gross - idle power x "
    "duration: it may be 0 or less, its bound holds the worst of both parts, and no gate judges it."
)


def measured(point: PointReport) -> bool:
    """Whether a trial of a point had an idle stretch."""
    return idle_measured(point.totals)


def section(report: RunReport) -> Section | None:
    """The table; None where no point measured idle power."""
    points = [point for point in report.points if measured(point)]
    if not points:
        return None
    notes = Footnotes()
    rows = [[point.label, *(_cell(point, name, notes) for name in COLUMNS)] for point in points]
    return Section(
        "Gross, idle and net", Table(["point", *COLUMNS.values()], rows), paragraphs=[EXPLAINED, *notes.texts()]
    )


def _cell(point: PointReport, name: str, notes: Footnotes) -> str:
    summary: Summary | None = point.totals.get(name)
    if summary is None:
        return f"unavailable {notes.mark('no such idle stretch was measured')}"
    value = summary.value
    if not isinstance(value, Amount):
        return f"{value.kind} {notes.mark(value.reason)}"
    lines = [si(value.value, value.unit), label(summary), bound(summary, value.unit)]
    if name == ABOVE_IDLE:
        lines.append(point.notes.get(name, ""))
    return "\n".join(line for line in lines if line)
