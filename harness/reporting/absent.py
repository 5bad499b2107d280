"""The section "Not measured, and why": everything that a reader might expect and does not find."""

from __future__ import annotations

from collections.abc import Iterator

from harness.quantity import Amount
from harness.records.record import Record
from harness.records.summary import PointReport, RunReport
from harness.reporting.tables import Item, Section
from harness.reporting.wording import listed

EMPTY = "never filled by the workload or a scorer"
"""Reason of a column without a value; one reason for all columns, so that they make one item."""
NAMES = 40
"""So many names of one reason are listed."""
LOG_LINES = 8
"""So many last lines of a failed worker's log are shown."""


def section(report: RunReport) -> Section | None:
    """Failed, invalid and skipped trials, then readings that are missing, each with its reason."""
    items = [*_failed(report), *_invalid(report), *_skipped(report), *_missing(report)]
    return Section("Not measured, and why", items=items) if items else None


def _failed(report: RunReport) -> Iterator[Item]:
    for failure in report.failures:
        yield Item(failure.where, failure.reason, failure.log_tail[-LOG_LINES:])


def _invalid(report: RunReport) -> Iterator[Item]:
    for point in report.points:
        for finished in (*point.records, *point.left_out):
            if finished.measurement.invalid:
                done = "left out" if point.valid else "shown, for want of a valid one"
                where = f"{point.label}, trial {finished.measurement.trial}"
                yield Item(where, f"not valid, {done}: {'; '.join(finished.measurement.invalid)}")


def skipped_by_reason(report: RunReport) -> dict[str, list[str]]:
    """Reason -> the points that were skipped for it."""
    by_reason: dict[str, list[str]] = {}
    for point, reason in report.skipped:
        by_reason.setdefault(reason, []).append(point)
    return by_reason


def _skipped(report: RunReport) -> Iterator[Item]:
    for reason, points in skipped_by_reason(report).items():
        yield Item(f"skipped: {listed(points)}", reason)


def _missing(report: RunReport) -> Iterator[Item]:
    """One item a reason: what it took away, and at which points."""
    what: dict[str, dict[str, None]] = {}
    where: dict[str, dict[str, None]] = {}
    for point in report.points:
        for name, reason in _lacks(point):
            what.setdefault(reason, {})[name] = None
            where.setdefault(reason, {})[point.label] = None
    for reason, names in what.items():
        points = list(where[reason])
        suffix = "" if len(points) == len(report.points) else f" [at {listed(points)}]"
        yield Item(listed(list(names), NAMES if reason == EMPTY else 4), reason + suffix)


def _lacks(point: PointReport) -> Iterator[tuple[str, str]]:
    for finished in (*point.records, *point.left_out):
        yield from _meters(finished)
        for name, value in finished.totals.items():
            if not isinstance(value, Amount):
                yield name, value.reason
        for name, unit in finished.units.items():
            for metric, value in (("rate", unit.rate), *unit.costs.items()):
                if not isinstance(value, Amount):
                    yield f"{metric} per {name}", value.reason
        for column, statistics in finished.columns.items():
            for value in statistics.values():
                if not isinstance(value, Amount):
                    empty = value.reason == f"column {column!r} was never filled"
                    yield f"column {column}", EMPTY if empty else value.reason


def _meters(finished: Record) -> Iterator[tuple[str, str]]:
    for meter in finished.measurement.meters:
        for scope, reason in meter.missing.items():
            asked = " (asked for)" if meter.asked else ""
            yield f"meter {meter.name}{asked}" + ("" if scope == "*" else f" on {scope}"), reason
    for reading in finished.measurement.readings:
        if not isinstance(reading.value, Amount):
            yield f"meter {reading.meter} on {reading.scope}, {reading.span}", reading.value.reason
