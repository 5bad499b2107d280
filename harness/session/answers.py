"""What `harness measure` says: a table for each command, how two compare, and all of it as JSON."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from harness.planning.point import Point
from harness.quantity import Amount, Unavailable, Undefined, Value
from harness.records.metric import RATE
from harness.records.record import MeterReport, Record
from harness.records.summary import summarise
from harness.session.commands import UNIT, Answer
from harness.session.table import WORDS, Row, as_json, rows
from harness.statistics.intervals import LEAST_TRIALS, NAME, mean_interval
from harness.statistics.paired import ALPHA, effect, fewest_pairs, log_ratio
from harness.units import si

OF_THE_COMMAND: Final[Mapping[str, str]] = {
    "latency_s": "duration_s",
    "cpu_s": "cpu_s",
    "peak_memory_bytes": "peak_memory_bytes",
}
"""Column of workload `command` -> the reading that it stands for here."""
_NUMBER: Final = re.compile(r"\d[\d.]*")
COMPARED: Final = ("duration_s", "cpu_s", "energy_j", "carbon_g", "water_l")
SHORT_COUNTER: Final = "shorter than the {scope} counter's period of {tick}: the bound holds what it did not show"


def readings_of(record: Record) -> dict[str, Value]:
    """The readings of one run: those of the command itself, which clocks and counters give, then its window's."""
    own: dict[str, Value] = {}
    for column, name in OF_THE_COMMAND.items():
        value = record.columns.get(column, {}).get("mean", Unavailable("not recorded"))
        own[name] = Amount.exact(value.value, value.unit) if isinstance(value, Amount) else value
    if not isinstance(own["peak_memory_bytes"], Amount):
        own["peak_memory_bytes"] = Unavailable("no larger than that of the harness, which the system counts in")
    return {**record.totals, **own}


def summarised(records: Sequence[Record]) -> dict[str, Row]:
    """Reading -> its median over the runs, with the least and the greatest, and an interval of the mean."""
    tables = [readings_of(record) for record in records]
    names = dict.fromkeys(name for table in tables for name in table)
    found = {}
    for name in names:
        summary = summarise([table[name] for table in tables if name in table])
        found[name] = Row(name, name, summary.value, summary.spread, mean_interval(summary.values))
    return found


def lines(answer: Answer, *, idle: bool) -> Iterator[str]:
    """The tables, one command after the other."""
    for point in answer.points:
        records = answer.records.get(point.id, [])
        codes = answer.exit_codes.get(point.id, [])
        yield point.label
        if not records:
            yield f"  not measured: exit code {next((code for code in codes if code), 0)} while warming up"
            continue
        yield from _table(records, [name for name in point.functional_units if name != UNIT], idle=idle)
        failed = [code for code in codes if code]
        if failed:
            runs = "the run" if len(codes) == 1 else f"{len(failed)} of {len(codes)} runs"
            yield f"  {runs} failed with exit code {failed[0]}{_signal(failed[0])}: the numbers are no result"
        yield from (f"  note: {note}" for note in notes(records))
        yield ""


def _signal(code: int) -> str:
    """The signal behind an exit code above 128, as shells count them."""
    try:
        return f", which is {signal.Signals(code - 128).name}" if code > 128 else ""
    except ValueError:
        return ""


def _table(records: Sequence[Record], units: Sequence[str], *, idle: bool) -> Iterator[str]:
    found = summarised(records)
    several = len(records) > 1
    header = ["", f"median of {len(records)} runs" if several else "1 run", "bound", "method"]
    intervals = len(records) >= LEAST_TRIALS
    header += [NAME if intervals else "least to greatest"] if several else []
    header += [f"per {unit}" for unit in units]
    grid = [header]
    for row in rows({name: each.value for name, each in found.items()}, idle):
        name = row.reading
        label, value, bound, method = row.cells()
        spread = found[name].interval if intervals else found[name].spread
        cells = [f"  {label}", value, bound, method if value != "none" else ""]
        cells += [_spread(spread, row.value)] if several else []
        cells += [_each(records, unit, name) for unit in units]
        grid.append(cells)
    widths = [max(len(line[column]) for line in grid) for column in range(len(header))]
    for line in grid:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _spread(spread: tuple[float, float] | None, value: Value) -> str:
    if spread is None or not isinstance(value, Amount):
        return ""
    return f"{si(spread[0], value.unit)} to {si(spread[1], value.unit)}"


def per_unit_of(record: Record, unit: str) -> dict[str, Value]:
    """The rate and what one unit cost; the time is that of the command, without the edges of its window."""
    result = record.units[unit]
    found = {RATE: result.rate, **result.costs}
    own, cost, rate = readings_of(record)["duration_s"], result.costs.get("duration_s"), result.rate
    if isinstance(own, Amount) and isinstance(cost, Amount) and isinstance(rate, Amount) and own.value > 0:
        share = own.value / record.totals["duration_s"].value if isinstance(record.totals["duration_s"], Amount) else 1
        found["duration_s"] = Amount.exact(cost.value * share, cost.unit)
        found[RATE] = Amount.exact(rate.value / share, rate.unit)
    return found


def _each(records: Sequence[Record], unit: str, name: str) -> str:
    costs = [per_unit_of(record, unit).get(name) for record in records if unit in record.units]
    known = [cost for cost in costs if cost is not None]
    if not known:
        return ""
    value = summarise(known).value
    return si(value.value, value.unit) if isinstance(value, Amount) else "none"


def notes(records: Sequence[Record]) -> list[str]:
    """What a reader must know: missing values, conditions, counters that the runs are too short for.

    Notes that differ in their numbers alone are told once, with how many runs have one.
    """
    found: dict[str, tuple[str, int]] = {}
    for record in records:
        for key, note in {_NUMBER.sub("#", note): note for note in _notes(record)}.items():
            first, count = found.get(key, (note, 0))
            found[key] = (first, count + 1)
    runs = len(records)
    return [f"{note} ({count} of {runs} runs)" if count < runs else note for note, count in found.values()]


def _notes(record: Record) -> Iterator[str]:
    measurement = record.measurement
    readings = readings_of(record)
    for name in ("peak_memory_bytes", "energy_j", "carbon_g", "water_l"):
        value = readings.get(name)
        if value is not None and not isinstance(value, Amount):
            yield f"{WORDS[name]}: {value.reason}"
    yield from _silent(measurement.meters)
    longest_s = max((span.duration_s for span in measurement.windows), default=0.0)
    for scope, described in measurement.scopes.items():
        if described.tick_s and longest_s < described.tick_s:
            yield SHORT_COUNTER.format(scope=scope, tick=si(described.tick_s, "s"))
    yield from (f"{seen.kind} on {seen.scope}: {seen.detail}" for seen in measurement.conditions)
    yield from (*measurement.flags, *record.flags)
    for unit in record.units.values():
        cost = unit.costs.get("duration_s")
        if isinstance(cost, Undefined):
            yield cost.reason


def _silent(meters: Sequence[MeterReport]) -> Iterator[str]:
    """What is not read, and why; meters that `auto` tried and that read nothing here share one note."""
    tried = [report for report in meters if not report.asked and not report.scopes]
    together = tried if len(tried) > 1 else []
    for report in meters:
        if report not in together:
            yield from (f"meter {report.name}: {reason}" for reason in report.missing.values())
    if together:
        said = (f"{report.name} ({', '.join(dict.fromkeys(report.missing.values()))})" for report in together)
        yield f"meters that read nothing here: {'; '.join(said)}"


def comparison(answer: Answer) -> Iterator[str]:
    """How each further command compares with the first, by pairs of runs of one round."""
    first = answer.points[0]
    for other in answer.points[1:]:
        yield f"{other.label}, against {first.label}"
        for name, found in compared(answer, first, other).items():
            yield f"  {name}: {found['text']}"


def compared(answer: Answer, first: Point, other: Point) -> dict[str, dict[str, Any]]:
    """Reading -> the change from the first command to the other, with its interval of 90 %: both bounds at 5 %."""
    pairs = list(zip(answer.records.get(first.id, ()), answer.records.get(other.id, ()), strict=False))
    found: dict[str, dict[str, Any]] = {}
    for name in COMPARED:
        values = [(readings_of(base).get(name), readings_of(head).get(name)) for base, head in pairs]
        known = [(base, head) for base, head in values if isinstance(base, Amount) and isinstance(head, Amount)]
        if not known or len(known) < len(values):
            continue
        differences = [log_ratio(base.value, head.value) for base, head in known]
        logs = [each for each in differences if each is not None]
        if len(logs) < len(known):
            found[name] = {"text": "cannot be told: a value is 0"}
            continue
        estimate, low, high = effect(logs, ALPHA).ratio
        told = len(logs) >= fewest_pairs(ALPHA)
        text = f"{estimate:+.1%}"
        text += (
            f", between {low:+.1%} and {high:+.1%} (90 %, {len(logs)} pairs)"
            if told
            else (f" in the middle of {len(logs)} pairs; --repeat {fewest_pairs(ALPHA)} or more gives an interval")
        )
        if told and low < 0 < high:
            text += ": no difference can be told"
        methods = {amount.label for pair in known for amount in pair}
        text += f" [{', '.join(sorted(method.value for method in methods))}]"
        found[name] = {
            "text": text,
            "change": estimate,
            "low": low if told else None,
            "high": high if told else None,
            "pairs": len(logs),
        }
    return found


def to_json(answer: Answer) -> dict[str, Any]:
    """All of it as JSON values."""
    first = answer.points[0]
    return {
        "run": str(answer.folder),
        "commands": [
            {
                "command": point.label,
                "point": point.id,
                "exit_codes": answer.exit_codes.get(point.id, []),
                "readings": {
                    name: {**as_json(row.value), "least_to_greatest": row.spread, "interval": row.interval}
                    for name, row in summarised(answer.records.get(point.id, ())).items()
                },
                "runs": [
                    {
                        "readings": {name: as_json(value) for name, value in readings_of(record).items()},
                        "per_unit": {
                            name: {cost: as_json(value) for cost, value in per_unit_of(record, name).items()}
                            for name in record.units
                        },
                    }
                    for record in answer.records.get(point.id, ())
                ],
                "notes": notes(answer.records.get(point.id, ())),
            }
            for point in answer.points
        ],
        "comparisons": [
            {"command": other.label, "against": first.label, "changes": compared(answer, first, other)}
            for other in answer.points[1:]
        ],
    }
