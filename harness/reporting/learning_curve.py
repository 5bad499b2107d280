"""What work that learns had spent when it was how good: quality between windows over joules, seconds and steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from harness.quantity import Amount
from harness.records.record import Record
from harness.records.summary import RunReport
from harness.reporting import charts
from harness.reporting.blocks import Block, Chart
from harness.reporting.tables import Section, Table
from harness.reporting.wording import counted
from harness.sample import disjoint
from harness.units import si

STEPS: Final = "steps"
"""Name that a workload gives the count of what it did, among what it says of its quality."""
SPENT: Final = (("energy_j", "energy", "J"), ("duration_s", "time", "s"), (STEPS, STEPS, "1"))
LEAST: Final = 2
"""Windows that make a curve."""


@dataclass(frozen=True, slots=True)
class After:
    """Where the work stood after a window.

    Attributes:
        spent: what had been spent until then, by name; without what is not known.
        quality: what the workload said of it, by name.
    """

    spent: Mapping[str, float]
    quality: Mapping[str, float]


def curve(record: Record) -> list[After]:
    """Every window of a trial that says how good the work was after it, with all spent in windows until then."""
    measurement = record.measurement
    if len(measurement.validation) != len(measurement.windows):
        return []
    scopes = {name: scope for meter in measurement.meters for name, scope in meter.scopes.items()}
    read: dict[int, dict[str, float | None]] = {}
    for reading in measurement.readings:
        if reading.primary and reading.span == "window":
            joules = reading.value.value if isinstance(reading.value, Amount) else None
            read.setdefault(reading.window, {})[reading.scope] = joules
    found, energy_j, duration_s = [], 0.0, 0.0
    known = bool(read)
    for span, said in zip(measurement.windows, measurement.validation, strict=True):
        here = read.get(span.window, {})
        summed = [here[name] for name in disjoint([name for name in here if name in scopes], scopes)]
        known = known and bool(summed) and None not in summed
        energy_j += sum(joules for joules in summed if joules is not None)
        duration_s += span.duration_s
        spent = {"duration_s": duration_s, **({"energy_j": energy_j} if known else {})}
        if STEPS in said:
            spent[STEPS] = said[STEPS]
        found.append(After(spent, {name: value for name, value in said.items() if name != STEPS}))
    return found


def block(report: RunReport) -> Block | None:
    """The curves of every point that has some, with the first window that reached a target; None where none has."""
    drawn: list[Chart] = []
    rows: list[list[str]] = []
    for number, point in enumerate(report.points, start=1):
        curves = [(record, curve(record)) for record in point.records]
        curves = [(record, found) for record, found in curves if found]
        for name in dict.fromkeys(name for _, found in curves for after in found for name in after.quality):
            long = [(record.measurement.trial, found) for record, found in curves if len(found) >= LEAST]
            drawn += _charts(f"#{number} {point.label}", name, long) if long else ()
            rows += [_row(f"#{number}", record, found, name) for record, found in curves]
    if not rows:
        return None
    head = ["point", "trial", "quality", "best", "target", "reached after"]
    return Block(
        anchor="learning",
        title="Quality over what was spent for it",
        intro="Each mark is a window's end; a line is a trial. What was spent between windows, to judge, is left out.",
        charts=drawn,
        sections=[Section("", Table(head, rows))],
    )


def _charts(label: str, name: str, curves: list[tuple[int, list[After]]]) -> Iterator[Chart]:
    for key, word, unit in SPENT:
        series = [
            (f"trial {trial}", [(after.spent[key], after.quality[name]) for after in found])
            for trial, found in curves
            if all(key in after.spent and name in after.quality for after in found)
        ]
        if series:
            title = f"{name} over {word}: {label}"
            says = f"{counted(len(series), 'trial')}, {name} at most {_best([found for _, found in curves], name):.3g}"
            yield Chart(charts.learning(series, ((word, unit), name), title, says), f"{title}. {says}.")


def _best(curves: list[list[After]], name: str) -> float:
    return max(after.quality[name] for after in itertools.chain(*curves) if name in after.quality)


def _row(point: str, record: Record, found: list[After], name: str) -> list[str]:
    """Of one trial: its best, the target that its option `target_<quality>` sets, and what had been spent there."""
    target = record.measurement.point.get("options", {}).get(f"target_{name}")
    crossing = ""
    if isinstance(target, int | float):
        first = next((after for after in found if after.quality.get(name, -1.0) >= target), None)
        crossing = "not reached" if first is None else _spent(first)
    best = f"{_best([found], name):.4g}"
    return [point, str(record.measurement.trial), name, best, "" if target is None else f"{target:g}", crossing]


def _spent(after: After) -> str:
    told = [si(after.spent[key], unit) for key, _, unit in SPENT[:2] if key in after.spent]
    return ", ".join([*told, *([f"{after.spent[STEPS]:g} steps"] if STEPS in after.spent else [])])
