"""Answers to a run's questions that need its records costed again: each candidate along an option of an impact meter.

Candidates that are options (sites, tables) share one measurement. Its noise is theirs in common, so that what tells
them apart is the range of their factors alone: they are costed from the measured joules without their bound.
"""

from __future__ import annotations

import itertools
import math
import statistics
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from harness.costing.answers import Candidate, Found, made_up, plain, write_found
from harness.costing.impacts import Applied, CostedWindows, Costs
from harness.costing.recost import count_of, span_of, trials
from harness.costing.settings import Combinations, setting
from harness.costing.trace import StoredTrace
from harness.discovery.registry import Registry, load_plugins
from harness.errors import HarnessError, UsageError
from harness.impact import Costed, Factor, Impact, ImpactMeter
from harness.planning.located_yaml import parse
from harness.quantity import Amount, Unavailable, Undefined, Value
from harness.records.files import load_record
from harness.records.questions import BY, Asked, asked_in
from harness.records.record import Record
from harness.statistics import crossing
from harness.statistics.crossing import Cell, Turn

_BETWEEN: Final = 0.382
"""Share of the way from one place to the next that lies on no whole number."""
ENERGY: Final = "energy_j"


def written(asked: Asked, place: float) -> Any:
    """A place of the axis as the option is given it."""
    text = asked.written.replace("{}", f"{int(place)}" if place.is_integer() else repr(place))
    return parse(f"[{text}\n]", "along", {}).data[0]


class _Costed:
    """One candidate: some records, and the options by which they are costed again.

    Args:
        asked: the question.
        name: of the candidate.
        options: of impact meters.
        records: finished trials with their folders.
        registry: the plugins.
    """

    def __init__(
        self,
        asked: Asked,
        name: str,
        options: Mapping[str, Any],
        records: Sequence[tuple[Record, Path]],
        registry: Registry,
    ) -> None:
        self.name = name
        self._asked, self._registry = asked, registry
        self._fixed = [setting(key, value, where=name) for key, value in options.items()]
        self._records = records
        self._windows = [
            CostedWindows(_exact(each) if asked.own else each.measurement, StoredTrace(folder, each.measurement),
                          modelled=each.modelled)
            for each, folder in records
        ]  # fmt: skip
        self._known: dict[float, list[tuple[Costs, dict[str, Value]]]] = {}

    def check(self, places: Iterable[float]) -> None:
        """Raises UsageError where an option or a place of the axis is refused."""
        for place in places:
            for record, _ in self._records:
                self._applied(record.impacts, place)

    def _applied(self, impacts: Sequence[Mapping[str, Any]], place: float) -> Sequence[Applied]:
        axis = setting(self._asked.option, written(self._asked, place), where=self._asked.option)
        found = Combinations([*self._fixed, axis], [], self._registry, Path(self._asked.folder)).of(impacts)[0]
        if not self._asked.own:
            return found
        return [replace(each, meter=_Exact(each.meter)) if ENERGY in each.spec.yields else each for each in found]

    def at(self, place: float) -> list[tuple[Costs, dict[str, Value]]]:
        """Per record, its costs and what they are per functional unit, at a place of the axis."""
        if place not in self._known:
            made = []
            for (record, _), windows in zip(self._records, self._windows, strict=True):
                applied = self._applied(record.impacts, place)
                unit = record.units.get(self._asked.per)
                span = span_of(record, self._asked.per) if unit else ""
                costs = (windows.within(span) if span else windows).cost(applied)
                values = {**costs.totals, **_alternatives(costs)}
                if unit is not None:
                    values |= replace(costs, totals=values).per_unit(self._asked.per, count_of(record, unit))
                made.append((costs, values))
            self._known[place] = made
        return self._known[place]

    def value(self, place: float) -> list[Value]:
        """Per record, the reading that ranks."""
        nothing = Unavailable(f"no reading {self._asked.metric}")
        return [values.get(self._asked.metric, nothing) for _, values in self.at(place)]

    def cell(self, place: float) -> Cell:
        """What it costs at a place."""
        found = self.value(place)
        amounts = [each for each in found if isinstance(each, Amount)]
        if len(amounts) < len(found) or not amounts:
            others = [each for each in found if not isinstance(each, Amount)]
            return Cell(nothing=bool(others) and all(isinstance(each, Undefined) for each in others))
        ends = [(each.low, each.high) for each in amounts]
        low, high = (_median([pair[end] for pair in ends]) for end in (0, 1))
        return Cell(
            values=tuple(each.value for each in amounts),
            low=low if self._asked.own else None,
            high=high if self._asked.own else None,
            shared=self._asked.own,
        )

    def middle(self, place: float) -> float:
        """The median cost at a place; NaN where there is none."""
        found = self.cell(place).middle
        return math.nan if found is None else found

    def readings(self, place: float) -> dict[str, float]:
        """Median of each reading at a place, without those that a trial lacks."""
        rows = [values for _, values in self.at(place)]
        found = {}
        for name in rows[0]:
            amounts = [value for row in rows if isinstance(value := row.get(name), Amount)]
            if len(amounts) == len(rows):
                found[name] = statistics.median(each.value for each in amounts)
        return found

    def meter_of(self, place: float) -> Applied | None:
        """The impact meter that the axis is an option of."""
        name = self._asked.option.partition(".")[0]
        applied = self._applied(self._records[0][0].impacts, place)
        return next((each for each in applied if each.name == name), None)

    def described(self, places: Sequence[float]) -> Candidate:
        """For the file."""
        cells = tuple(self.cell(place) for place in places)
        values = [value for place in places for value in self.value(place)]
        amounts = [value for value in values if isinstance(value, Amount)]
        factors = [each for place in places for costs, _ in self.at(place) for each in costs.factors]
        return Candidate(
            name=self.name,
            cells=cells,
            unit=amounts[0].unit if amounts else "",
            method=max((each.label for each in amounts), key=lambda label: label.weakness).value if amounts else "",
            missing=tuple(dict.fromkeys(value.reason for value in values if not isinstance(value, Amount))),
            beside={name: tuple(self.readings(place).get(name) for place in places) for name in self._asked.beside},
            invented=made_up(factors),
            rests_on=_rests_on(factors),
        )


def _rests_on(factors: Iterable[Factor]) -> tuple[tuple[str, str, str], ...]:
    """Name, value and source of each factor; of one that follows the axis its first and its last value."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in factors:
        found.setdefault((plain(each.name), each.source), []).append(_number(each))
    return tuple(
        (name, numbers[0] if len(set(numbers)) == 1 else f"{numbers[0]} at first, {numbers[-1]} at last", source)
        for (name, source), numbers in found.items()
    )


def _number(factor: Factor) -> str:
    if factor.value is None:
        return "an interval" if factor.low is not None else ""
    ends = "" if factor.low is None or factor.high is None else f" ({factor.low:.4g} to {factor.high:.4g})"
    unit = "" if factor.unit == "1" else f" {factor.unit}"
    return f"{factor.value:.4g}{unit}{ends}"


def _median(ends: Sequence[float | None]) -> float | None:
    known = [each for each in ends if each is not None]
    return statistics.median(known) if len(known) == len(ends) else None


def _alternatives(costs: Costs) -> dict[str, Value]:
    return {
        f"{reading}{BY}{table}": value
        for reading, tables in costs.alternatives.items()
        for table, value in tables.items()
    }


def _without_bound(value: Any) -> Any:
    return replace(value, low=value.value, high=value.value) if isinstance(value, Amount) else value


class _Exact(ImpactMeter):
    """An impact meter that adds energy, whose joules are without a bound."""

    def __init__(self, meter: ImpactMeter) -> None:
        self._meter = meter

    def apply(self, costed: Costed) -> Impact:
        """As the meter itself."""
        impact = self._meter.apply(costed)
        return replace(
            impact,
            energy={scope: _without_bound(value) for scope, value in impact.energy.items()},
            readings={name: _without_bound(value) for name, value in impact.readings.items()},
        )


def _exact(record: Record) -> Any:
    """A measurement whose joules are without a bound: what candidates of one measurement have in common."""
    measurement = record.measurement
    exact = _without_bound
    readings = tuple(replace(each, value=exact(each.value), whole=exact(each.whole)) for each in measurement.readings)
    return replace(measurement, readings=readings)


# One question


def answered(asked: Asked, run: Path, registry: Registry) -> Found | None:
    """What the records of a run say of a question; None where they need not be costed again."""
    if not asked.swept:
        return None
    groups = _groups(asked, run)
    if not groups:
        return Found(failed="no point of the run has a record that the question is about")
    chosen = asked.candidates or {"": {}}
    candidates = [
        _Costed(asked, _named(name, label, len(groups)), options, records, registry)
        for label, records in groups.items()
        for name, options in chosen.items()
    ]
    places = tuple(float(value) for value in asked.values)
    described = [each.described(places) for each in candidates]
    continuous = _continuous(candidates, places)
    turns = tuple(
        (one.name, other.name, turn)
        for one, other in itertools.combinations(candidates, 2)
        for turn in _turns(asked, one, other, places, continuous=continuous)
    )
    return Found(places=places, candidates=tuple(described), turns=turns, continuous=continuous)


def _named(candidate: str, label: str, groups: int) -> str:
    if not candidate:
        return label
    return f"{label}, {candidate}" if groups > 1 else candidate


def _groups(asked: Asked, run: Path) -> dict[str, list[tuple[Record, Path]]]:
    """Name of a point among those that compete -> its valid records."""
    found: dict[tuple[int, str], list[tuple[Record, Path]]] = {}
    for folder in trials(run):
        record = load_record(folder)
        point = record.measurement.point
        if asked.concerns(point) and not record.measurement.invalid and (not asked.per or asked.per in record.units):
            found.setdefault((int(point.get("case", 0)), str(point["id"])), []).append((record, folder))
    matrices = {key: records[0][0].measurement.point.get("matrix", {}) for key, records in found.items()}
    names = asked.names(matrices)
    return {names[key]: records for key, records in found.items()}


def _continuous(candidates: Sequence[_Costed], places: Sequence[float]) -> bool:
    """Whether the option takes numbers between the places: a month does not."""
    try:
        candidates[0].check([one + (other - one) * _BETWEEN for one, other in itertools.pairwise(places)])
    except HarnessError:
        return False
    return True


def _turns(asked: Asked, one: _Costed, other: _Costed, places: Sequence[float], *, continuous: bool) -> list[Turn]:
    """Where two candidates change places, by the meter's formula or by bisection where the axis has no gaps."""

    @cache
    def told(place: float) -> int:
        return crossing.cheaper(one.cell(place), other.cell(place))

    ties = _ties(asked, one, other, places) if continuous else None
    grid = sorted({*places, *((a + b) / 2 for a, b in itertools.pairwise(ties or ()))})
    found = []
    for before, after in crossing.changes([told(place) for place in grid]):
        low, high, first = grid[before], grid[after], told(grid[before])
        if not continuous:
            found.append(Turn(low=low, high=high, at=None, first=first))  # there is no place between two months
            continue
        inside = [tie for tie in ties or () if low <= tie <= high]
        at = inside[0] if inside else crossing.root(lambda place: one.middle(place) - other.middle(place), low, high)
        low, high = crossing.narrowed(told, low, high, first)
        found.append(Turn(low=low, high=high, at=at, first=first, method="formula" if inside else "bisection"))
    return found


def _ties(asked: Asked, one: _Costed, other: _Costed, places: Sequence[float]) -> tuple[float, ...] | None:
    """Every place at which two candidates cost the same, by the impact meter's own formula; None without one."""
    meters = [each.meter_of(places[0]) for each in (one, other)]
    if meters[0] is None or meters[1] is None:
        return None
    name = asked.option.partition(".")[2]
    try:
        return meters[0].meter.equal_at(
            name,
            asked.metric,
            (one.readings(places[0]), other.readings(places[0])),
            meters[1].meter,
            (places[0], places[-1]),
        )
    except UsageError:
        return None


def answer(run: Path, registry: Registry | None = None) -> int:
    """Works out the questions of a run and keeps what was found beside it; 1 where one failed, which is kept too."""
    questions = asked_in(run)
    if not questions:
        return 0
    registry = registry or load_plugins()
    found: list[Found | None] = []
    for each in questions:
        try:
            found.append(answered(each, run, registry))
        except Exception as error:  # noqa: BLE001 - one question's fault must not cost the run its other answers
            traceback.print_exc()
            reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            found.append(Found(failed=reason))
    write_found(run, found)
    return int(any(each is not None and each.failed for each in found))
