"""Temperature, rests and drift: what each trial of a run owes to the trials before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.quantity import Amount
from harness.records.record import Record
from harness.records.summary import PointReport, RunReport
from harness.reporting.tables import Item, Section, Table
from harness.reporting.wording import counted, percent
from harness.statistics.paired import ALPHA, holm
from harness.statistics.trend import trend

DRIFT: Final = "drift over trials"
ALL: Final = "all trials"
EACH: Final = "each point"
LEAST_RISE: Final = 5.0
"""A rise of the temperature at the start of windows below this, in °C, is not told."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A trend over the trials of a run, in order of time, that chance does not explain.

    Attributes:
        what: `temperature of n0/gpu:...`, or `energy per token`.
        where: label of the point; `all trials` for all in one order, `each point` for all points together.
        change: from the first trial to the last, by the median slope: in °C, or relative to the point's median.
        slope: likewise, from one trial to the next.
        unit: of both: `°C`, or `1` for a relative one.
        p_value: of the trend, one-sided for a temperature that rises, two-sided for an energy.
        trials: how many.
    """

    what: str
    where: str
    change: float
    slope: float
    unit: str
    p_value: float
    trials: int

    def __str__(self) -> str:
        change, slope = (
            f"{each:+.1f} °C" if self.unit == "°C" else _signed(each) for each in (self.change, self.slope)
        )
        return f"{change} from first to last, {slope} a trial, p = {self.p_value:.2g}, {counted(self.trials, 'trial')}"


def _signed(share: float) -> str:
    return ("+" if share > 0 else "") + percent(share)


def drifts(report: RunReport) -> list[Drift]:
    """Temperatures at the start of windows that rise by more than 5 °C, and energies per unit that change.

    Each is looked for in every point and over all of them together; Holm keeps chance from flagging more than one run
    in twenty, of each scope and each functional unit.
    """
    points = [(point.label, _in_time(point.records)) for point in report.points]
    every = _in_time([finished for _, records in points for finished in records])
    return [*_warming(points, every), *_energies(report.points, points)]


def _in_time(records: Sequence[Record]) -> list[Record]:
    return sorted(records, key=lambda finished: finished.measurement.started_utc)


def _warming(points: Sequence[tuple[str, Sequence[Record]]], every: Sequence[Record]) -> Iterator[Drift]:
    scopes = dict.fromkeys(scope for finished in every for scope in started_at(finished))
    for scope in scopes:
        groups = {label: _starts(records, scope) for label, records in points}
        found = {label: each for label, values in groups.items() if (each := trend([values]))}
        if len(points) > 1 and (whole := trend([_starts(every, scope)])):
            found[ALL] = whole
        holding = holm({label: each.p_rise for label, each in found.items()}, ALPHA)
        for label, each in found.items():
            if label not in holding:
                continue
            change = each.slope * (each.n - 1)
            if change > LEAST_RISE:
                yield Drift(f"temperature of {scope}", label, change, each.slope, "°C", each.p_rise, each.n)


def _starts(records: Sequence[Record], scope: str) -> list[float]:
    return [started[scope] for finished in records if scope in (started := started_at(finished))]


def started_at(finished: Record) -> dict[str, float]:
    """Scope -> its temperature as the first window opened."""
    windows = finished.measurement.windows
    return {scope: at for scope, (at, _) in windows[0].celsius.items()} if windows else {}


def _energies(reports: Sequence[PointReport], points: Sequence[tuple[str, Sequence[Record]]]) -> Iterator[Drift]:
    for unit in dict.fromkeys(name for report in reports for name in report.units):
        groups = {label: values for label, records in points if (values := _relative(records, unit))}
        found = {label: each for label, values in groups.items() if (each := trend([values]))}
        if len(groups) > 1 and (whole := trend(list(groups.values()))):
            found[EACH] = whole
        holding = holm({label: each.p_value for label, each in found.items()}, ALPHA)
        for label in (label for label in found if label in holding):
            each = found[label]
            steps = max(map(len, groups.values())) - 1 if label == EACH else each.n - 1
            yield Drift(f"energy per {unit}", label, each.slope * steps, each.slope, "1", each.p_value, each.n)


def _relative(records: Sequence[Record], unit: str) -> list[float]:
    """Energies per unit in order, over their mean; empty where that is not positive."""
    values = [
        cost.value
        for finished in records
        if unit in finished.units and isinstance(cost := finished.units[unit].costs.get("energy_j"), Amount)
    ]
    mean = sum(values) / len(values) if values else 0.0
    return [value / mean for value in values] if mean > 0 else []


def section(report: RunReport) -> Section | None:
    """Temperatures at window boundaries and the rests before the warm-up; then what drifts."""
    rows = [row for point in report.points for row in _rows(point)]
    items = [Item(f"{DRIFT}: {each.what}, {each.where}", str(each)) for each in drifts(report)]
    if not rows and not items:
        return None
    columns = ["point", "scope", "at opening", "at closing", "rested", "cooled"]
    return Section("Temperature and drift", Table(columns, rows) if rows else None, items=items)


def _rows(point: PointReport) -> Iterator[list[str]]:
    rests = [finished.measurement.rest for finished in point.records if finished.measurement.rest is not None]
    rested = _range([rest.waited_s for rest in rests], "s")
    asked = [rest for rest in rests if rest.to_celsius is not None]
    cooled = f"{sum(rest.cooled is True for rest in asked)} of {len(asked)}" if asked else ""
    opened: dict[str, list[float]] = {}
    closed: dict[str, list[float]] = {}
    for finished in point.records:
        for span in finished.measurement.windows:
            for scope, (first, last) in span.celsius.items():
                opened.setdefault(scope, []).append(first)
                closed.setdefault(scope, []).append(last)
    for scope, starts in opened.items():
        yield [point.label, scope, _range(starts, "°C"), _range(closed[scope], "°C"), rested, cooled]
    if rests and not opened:
        yield [point.label, "not readable", "", "", rested, cooled]


def _range(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    least, greatest = f"{min(values):.1f}", f"{max(values):.1f}"
    return f"{least} {unit}" if least == greatest else f"{least} to {greatest} {unit}"


def as_values(report: RunReport) -> list[dict[str, Any]]:
    """The drifts as JSON values."""
    return [{name: getattr(each, name) for name in Drift.__slots__} for each in drifts(report)]
