"""A stored baseline as a table: each metric with its trials, method and bound."""

from __future__ import annotations

from harness.gating.baseline import KeptMetric, KeptPoint
from harness.quantity import Amount
from harness.records.summary import summarise
from harness.reporting.tables import Section, Table
from harness.reporting.wording import bound, counted, label, spread
from harness.units import si

COLUMNS = ("metric", "median", "trials", "method", "bound", "gate")


def section(point: KeptPoint) -> Section:
    """One point's metrics; a metric that no trial has says why."""
    left_out = f"; {counted(point.left_out, 'trial')} not valid and left out" if point.left_out else ""
    factors = (f"factors: {', '.join(point.factors)}",) if point.factors else ()
    return Section(
        title=f"{point.suite}: {point.label} ({counted(len(point.trials), 'trial')}{left_out})",
        table=Table(COLUMNS, [_row(metric) for metric in point.metrics]),
        paragraphs=factors,
    )


def _row(kept: KeptMetric) -> list[str]:
    found = summarise(kept.values)
    if not isinstance(found.value, Amount):
        return [str(kept.metric), "-", "", "", "", found.value.reason]
    unit = "" if found.value.unit == "1" else found.value.unit
    return [
        str(kept.metric),
        si(found.value.value, unit),
        spread(found, unit),
        label(found),
        bound(found, unit),
        kept.ungated or "yes",
    ]
