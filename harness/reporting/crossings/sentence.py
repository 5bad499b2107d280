"""The answer to a question as one sentence: who costs least where, where the order turns, or that it is not known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from harness.costing.answers import Candidate
from harness.quantity import Method
from harness.reporting.crossings.answer import Answer, turn_of
from harness.reporting.wording import counted, listed, percent
from harness.statistics.crossing import Lead, Turn
from harness.statistics.intervals import LEAST_TRIALS

LEAST: Final = {
    "energy_j": "Least energy",
    "carbon_g": "Least carbon",
    "carbon_operational_g": "Least operational carbon",
    "carbon_embodied_g": "Least embodied carbon",
    "duration_s": "Least time",
    "water_l": "Least water",
    "awi_adjusted_l": "Least adjusted water impact (AWI)",
    "sci_g": "Lowest SCI score",
}
_SHOWN: Final = 4
_TOLD: Final = 2
"""Of the pairs behind the first that change places so many are told."""


def value(number: float, unit: str = "") -> str:
    """A place of the axis: at most four significant digits, and of a smaller number at most three."""
    text = f"{number:.4g}" if number >= 1000 else f"{number:.3g}"
    return f"{text} {unit}".rstrip()


def sentence(answer: Answer) -> str:
    """The answer, one sentence without the question."""
    asked, found = answer.asked, answer.found
    what = LEAST.get(asked.metric, f"Least {asked.metric}") + (f" per {asked.per}" if asked.per else "")
    if found.failed:
        return f"{what} cannot be told: {found.failed}."
    known = [lead for lead in answer.leads if lead.names]
    if not known:
        reasons = dict.fromkeys(reason for each in found.candidates for reason in each.missing)
        return f"{what} cannot be told: {'; '.join(itertools.islice(reasons, 2)) or 'no candidate has a value'}."
    body = _body(answer, known)
    return f"{what}{_basis(answer)}: {body}."


def _basis(answer: Answer) -> str:
    """What of all candidates is made up and which are simulated, said before any of them is named."""
    made_up = [each for each in answer.found.candidates if each.invented]
    parts = ", ".join(dict.fromkeys(part for each in made_up for part in each.invented))
    told = [f"INVENTED {parts}{_whose(answer, made_up)}"] if made_up else []
    simulated = [each for each in answer.found.candidates if each.method == Method.SIMULATED.value]
    told += [f"simulated{_whose(answer, simulated)}"] if simulated else []
    return f" ({'; '.join(told)})" if told else ""


def _whose(answer: Answer, some: Sequence[Candidate]) -> str:
    """Names of candidates; nothing where no other has a value."""
    valued = [each for each in answer.found.candidates if each.method]
    return "" if all(each in some for each in valued) else f" of {listed([each.name for each in some])}"


def _body(answer: Answer, known: Sequence[Lead]) -> str:
    singles = [lead for lead in known if len(lead.names) == 1]
    if not singles:
        names = list(dict.fromkeys(name for lead in known for name in lead.names))
        return f"cannot be told {_everywhere(answer)}: {_why(answer, names)}"
    if len({lead.names for lead in known}) == 1 and not any(lead.missing for lead in answer.leads):
        (name,) = known[0].names
        return f"{name} {_everywhere(answer)}{_margin(answer, name)}; {_behind(answer, name)}"
    turned = _turns(answer, singles) or _turns(answer, known)
    told = known if not turned else [lead for lead in known if not _within_turn(answer, known, lead)]
    text = ", ".join(_stretch(answer, lead) for lead in told)
    return f"{text}; {turned}" if turned else text


def _within_turn(answer: Answer, known: Sequence[Lead], lead: Lead) -> bool:
    """Whether a stretch without a single leader lies between two that a turn is told of: its interval says as much."""
    place = known.index(lead)
    if len(lead.names) == 1 or not 0 < place < len(known) - 1:
        return False
    before, after = known[place - 1], known[place + 1]
    if len(before.names) != 1 or len(after.names) != 1 or before.names == after.names:
        return False
    places = answer.found.places
    return turn_of(answer, before.names[0], after.names[0], (places[before.last], places[after.first])) is not None


def _behind(answer: Answer, first: str) -> str:
    """Where those behind the first change places, the first few; the first itself leads everywhere."""
    told = [
        f"{before} and {after} {at(answer, turn)}"
        for before, after, turn in answer.found.turns
        if first not in (before, after)
    ]
    if not told:
        return (
            "no other two are told to change places there" if len(answer.found.candidates) > 2 else "it does not turn"
        )
    more = f" and {counted(len(told) - _TOLD, 'further pair')}" if len(told) > _TOLD else ""
    return f"behind it the order turns: {', '.join(told[:_TOLD])}{more}"


def _stretch(answer: Answer, lead: Lead) -> str:
    where = _where(answer, lead)
    if lead.missing:
        where += f" (without {listed(list(lead.missing), _SHOWN)}, of which no value is known there)"
    if len(lead.names) == 1:
        return f"{lead.names[0]} {where}"
    return f"{listed(list(lead.names), _SHOWN)} not told apart {where}"


def _where(answer: Answer, lead: Lead) -> str:
    places, unit = answer.found.places, answer.asked.unit
    name = "" if unit else f"{answer.asked.axis} "
    first, last = places[lead.first], places[lead.last]
    if lead.first == lead.last:
        return f"at {name}{value(first, unit)}"
    if lead.first == 0 and lead.last < len(places) - 1:
        return f"up to {name}{value(last, unit)}"
    if lead.last == len(places) - 1 and lead.first > 0:
        return f"from {name}{value(first, unit)} on"
    return f"from {name}{value(first)} to {value(last, unit)}"


def _everywhere(answer: Answer) -> str:
    """All places where anything is known."""
    asked = answer.asked
    known = [lead for lead in answer.leads if lead.names]
    places = answer.found.places[known[0].first : known[-1].last + 1]
    if len(places) == 1:
        return f"at {asked.axis} {value(places[0], asked.unit)}"
    return f"at every {asked.axis} from {value(places[0])} to {value(places[-1], asked.unit)}"


def _turns(answer: Answer, known: Sequence[Lead]) -> str:
    """Where those in front change places, a sentence part a pair, the first few."""
    told: list[str] = []
    places = answer.found.places
    for one, other in itertools.pairwise(known):
        for first, second in itertools.product(one.names, other.names):
            turn = turn_of(answer, first, second, (places[one.last], places[other.first]))
            if turn is not None and turn.first < 0:
                told.append(f"from {first} to {second} {at(answer, turn)}")
    told = list(dict.fromkeys(told))
    return f"the order turns {'; '.join(told[:_TOLD])}" if told else ""


def at(answer: Answer, turn: Turn) -> str:
    """Where a turn lies: an estimate with its interval, or the two places that it lies between."""
    axis, unit = answer.asked.axis, answer.asked.unit
    between = f"between {'' if unit else f'{axis} '}{value(turn.low)} and {value(turn.high, unit)}"
    if turn.at is None:
        return f"{between}"
    if not answer.found.continuous:
        return f"{between} (about {value(turn.at)} by interpolation)"
    if value(turn.low) == value(turn.high):
        return f"at {axis} {value(turn.at, unit)}"
    return f"at {axis} {value(turn.at, unit)} ({value(turn.low)} to {value(turn.high)})"


def _margin(answer: Answer, name: str) -> str:
    """How much less the first costs than the next, least and most over the axis."""
    first = next(each for each in answer.found.candidates if each.name == name)
    shares = []
    for number, cell in enumerate(first.cells):
        others = [each.cells[number].middle for each in answer.found.candidates if each.name != name]
        known = [other for other in others if other is not None and other > 0]
        if cell.middle is not None and known:
            shares.append(1 - cell.middle / min(known))
    if not shares:
        return ""
    low, high = percent(min(shares)), percent(max(shares))
    return f", {low} less than the next" if low == high else f", {low} to {high} less than the next"


def _why(answer: Answer, names: Sequence[str]) -> str:
    cells = [cell for each in answer.found.candidates if each.name in names for cell in each.cells if cell.values]
    if any(not cell.shared and len(cell.values) < LEAST_TRIALS for cell in cells):
        return f"it takes {LEAST_TRIALS} trials of each point to know an interval"
    return f"the intervals of {listed(list(names), _SHOWN)} overlap"
