"""What a run says of a question: costs of each candidate along the axis, who leads where, and where two change places.

What needed other factors was worked out by costing; what stands in the records alone is gathered here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.costing.answers import Candidate, Found, made_up, read_found
from harness.errors import MeasurementError
from harness.functional_unit import Sweep, per_unit
from harness.quantity import Amount, Unavailable, Undefined, Value
from harness.records.questions import BAR, BY, Asked, asked_of
from harness.records.record import Record
from harness.records.summary import PointReport, RunReport
from harness.reporting.ranking import at_bar
from harness.statistics import crossing
from harness.statistics.crossing import Cell, Lead, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question and what was found.

    Attributes:
        asked: the question.
        found: places, candidates and turns; its `failed` says why there is no answer.
        leads: who is in front along the axis.
    """

    asked: Asked
    found: Found
    leads: tuple[Lead, ...]


def answers(report: RunReport) -> list[Answer]:
    """The answers of a run, in the order of its suites' questions; none for a suite without points in it."""
    asked = asked_of(report.run)
    try:
        kept = read_found(report.folder) if asked else []
    except MeasurementError as error:
        kept = [Found(failed=str(error))] * len(asked)
    suites = {str(point.records[0].measurement.point.get("suite", "")) for point in report.points}
    made = []
    for number, question in enumerate(asked):
        if question.suite not in suites:
            continue
        found = kept[number] if number < len(kept) else None
        if question.swept:
            found = found or Found(failed="its records were not costed again: `harness score RUN` does it")
        else:
            found = _of_records(question, report)
        rows = {each.name: each.cells for each in found.candidates}
        made.append(Answer(asked=question, found=found, leads=tuple(crossing.leads(rows, found.comparisons))))
    return made


# From the records alone


def _of_records(asked: Asked, report: RunReport) -> Found:
    points = [point for point in report.points if point.valid and _concerns(asked, point)]
    if asked.option.startswith(BAR):
        return _told(asked, *_by_bar(asked, points))
    return _told(asked, *_by_option(asked, points))


def _concerns(asked: Asked, point: PointReport) -> bool:
    planned = point.records[0].measurement.point
    return asked.concerns(planned) and (not asked.per or asked.per in point.units)


Rows = dict[str, dict[float, list[Record]]]
"""Candidate -> place -> its records there."""


def _by_option(asked: Asked, points: Sequence[PointReport]) -> tuple[Rows, tuple[float, ...]]:
    """Candidates are what of a point is left without the axis."""
    grouped: dict[tuple[int, str], dict[float, PointReport]] = {}
    rests: dict[tuple[int, str], dict[str, object]] = {}
    for point in points:
        planned = point.records[0].measurement.point
        matrix = dict(planned.get("matrix", {}))
        place = matrix.pop(asked.option, None)
        if isinstance(place, bool) or not isinstance(place, int | float):
            continue
        key = (int(planned.get("case", 0)), repr(sorted(matrix.items())))
        grouped.setdefault(key, {})[float(place)] = point
        rests[key] = matrix
    names = asked.names(rests)
    places = sorted({place for row in grouped.values() for place in row} & set(asked.values or _all(grouped)))
    return {names[key]: {at: list(point.records) for at, point in row.items()} for key, row in grouped.items()}, tuple(
        places
    )


def _all(grouped: Mapping[tuple[int, str], Mapping[float, PointReport]]) -> set[float]:
    return {place for row in grouped.values() for place in row}


def _by_bar(asked: Asked, points: Sequence[PointReport]) -> tuple[Rows, tuple[float, ...]]:
    """Every point is a candidate, at every bar."""
    column = asked.option.removeprefix(BAR)
    bars = {
        bar
        for point in points
        for record in point.records
        if isinstance(sweep := record.units[asked.per].sweeps.get(column), Sweep)
        for bar in sweep.bars
    }
    places = asked.values or tuple(sorted(bars))
    planned = {point.id: point.records[0].measurement.point for point in points}
    names = asked.names({(int(each.get("case", 0)), key): each.get("matrix", {}) for key, each in planned.items()})
    return {
        names[int(planned[point.id].get("case", 0)), point.id]: {place: list(point.records) for place in places}
        for point in points
    }, places


def _told(asked: Asked, rows: Rows, places: tuple[float, ...]) -> Found:
    if len(rows) < 2 or not places:
        return Found(
            failed="fewer than two candidates have a valid result" if places else "no place of the axis was run"
        )
    candidates = tuple(_candidate(asked, name, row, places) for name, row in rows.items())
    comparisons = len(places)
    turns = []
    for one, other in itertools.combinations(candidates, 2):
        signs = [crossing.cheaper(a, b, comparisons) for a, b in zip(one.cells, other.cells, strict=True)]
        for before, after in crossing.changes(signs):
            turn = _turn(one, other, (before, after), places, signs[before])
            # A bar is met or not: between two values of a quality there is none.
            turn = replace(turn, at=None) if asked.option.startswith(BAR) else turn
            turns.append((one.name, other.name, turn))
    return Found(places=places, candidates=candidates, turns=tuple(turns), comparisons=comparisons)


def _turn(one: Candidate, other: Candidate, at: tuple[int, int], places: Sequence[float], first: int) -> Turn:
    """Between two places; estimated between those two neighbours where the middle costs change their order."""
    middles = [(one.cells[number].middle, other.cells[number].middle) for number in range(at[0], at[1] + 1)]
    estimate = None
    for offset, (before, after) in enumerate(itertools.pairwise(middles)):
        known = [value for pair in (before, after) for value in pair]
        if None in known:
            continue
        costs = ((known[0] or 0.0, known[1] or 0.0), (known[2] or 0.0, known[3] or 0.0))
        estimate = crossing.interpolated((places[at[0] + offset], places[at[0] + offset + 1]), costs)
        if estimate is not None:
            break
    return Turn(low=places[at[0]], high=places[at[1]], at=estimate, first=first)


def _candidate(asked: Asked, name: str, row: Mapping[float, Sequence[Record]], places: Sequence[float]) -> Candidate:
    found = {place: [_cost(asked, record, asked.metric, place) for record in row.get(place, ())] for place in places}
    values = [value for each in found.values() for value in each]
    amounts = [value for value in values if isinstance(value, Amount)]
    return Candidate(
        name=name,
        cells=tuple(_cell(found[place]) for place in places),
        unit=amounts[0].unit if amounts else "",
        method=max((each.label for each in amounts), key=lambda label: label.weakness).value if amounts else "",
        missing=tuple(dict.fromkeys(value.reason for value in values if not isinstance(value, Amount))),
        beside={
            other: tuple(
                _middle([_cost(asked, record, other, place) for record in row.get(place, ())]) for place in places
            )
            for other in asked.beside
        },
        invented=made_up(factor for records in row.values() for record in records for factor in record.factors),
    )


def _cost(asked: Asked, record: Record, metric: str, place: float) -> Value:
    reading, _, table = metric.partition(BY)
    none = Unavailable(f"no reading {metric}")
    if not asked.per:
        return record.alternatives.get(reading, {}).get(table, none) if table else record.totals.get(reading, none)
    unit = record.units[asked.per]
    if table:
        return per_unit(record.alternatives.get(reading, {}).get(table, none), asked.per, unit.count)
    if asked.option.startswith(BAR):
        sweep = unit.sweeps.get(asked.option.removeprefix(BAR), none)
        return sweep if not isinstance(sweep, Sweep) else at_bar(record, unit, asked.per, sweep, place, reading)
    return unit.costs.get(reading, none)


def _cell(values: Sequence[Value]) -> Cell:
    amounts = [each for each in values if isinstance(each, Amount)]
    if not values or len(amounts) < len(values):
        others = [each for each in values if not isinstance(each, Amount)]
        return Cell(nothing=bool(others) and all(isinstance(each, Undefined) for each in others))
    return Cell(values=tuple(each.value for each in amounts))


def _middle(values: Sequence[Value]) -> float | None:
    return _cell(values).middle


def short_unit(answer: Answer, candidate: Candidate) -> str:
    """Unit of the ranking reading without functional unit and adjective: `L` of `L stress-adjusted/token`."""
    unit = candidate.unit.removesuffix(f"/{answer.asked.per}") if answer.asked.per else candidate.unit
    return unit.partition(" ")[0]


def pairs(answer: Answer) -> Iterator[tuple[str, str, list[Turn]]]:
    """Every pair of candidates with its turns."""
    names = [each.name for each in answer.found.candidates]
    for one, other in itertools.combinations(names, 2):
        yield one, other, [turn for a, b, turn in answer.found.turns if (a, b) == (one, other)]


def turn_of(answer: Answer, one: str, other: str, near: tuple[float, float]) -> Turn | None:
    """The turn of two candidates that meets a stretch of the axis, with `first` as seen from the first name."""
    for a, b, turn in answer.found.turns:
        if {a, b} == {one, other} and turn.low <= near[1] and turn.high >= near[0]:
            return turn if a == one else replace(turn, first=-turn.first)
    return None
