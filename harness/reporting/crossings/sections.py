"""The answers of a run as sentences and sections, for every layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.costing.answers import Candidate
from harness.records.questions import BY
from harness.records.summary import RunReport
from harness.reporting.crossings.answer import Answer, answers, pairs, short_unit
from harness.reporting.crossings.sentence import at, sentence, value
from harness.reporting.tables import Section, Table
from harness.reporting.wording import listed
from harness.statistics.crossing import Cell, interval
from harness.statistics.intervals import LEAST_TRIALS
from harness.units import si


def sentences(report: RunReport) -> list[str]:
    """Question and answer, one line each."""
    return [f"{each.asked.ask} {sentence(each)}" for each in answers(report)]


def as_values(report: RunReport) -> list[dict[str, Any]]:
    """The answers for JSON: question, sentence, places, each candidate's middle costs with intervals, turns."""
    return [
        {
            "ask": each.asked.ask,
            "answer": sentence(each),
            "along": each.asked.option,
            "places": list(each.found.places),
            "candidates": [
                {
                    "name": candidate.name,
                    "unit": candidate.unit,
                    "method": candidate.method,
                    "invented": list(candidate.invented),
                    "middles": [cell.middle for cell in candidate.cells],
                    "intervals": [interval(cell) for cell in candidate.cells],
                }
                for candidate in each.found.candidates
            ],
            "turns": [
                {"pair": [one, other], "low": turn.low, "high": turn.high, "at": turn.at, "found_by": turn.method,
                 "cheaper_before": one if turn.first < 0 else other}
                for one, other, turn in each.found.turns
            ],
        }
        for each in answers(report)
    ]  # fmt: skip


def sections(report: RunReport) -> list[Section]:
    """For the terminal's details and Markdown: each answer with its tables."""
    found = []
    for each in answers(report):
        first, *rest = list(tables(each))
        told = [sentence(each), *notice(each), *first.paragraphs]
        found.append(Section(each.asked.ask, first.table, first.items, told))
        found += rest
    return found


def notice(answer: Answer) -> Iterator[str]:
    """What a reader must know before any number."""
    made_up = [each for each in answer.found.candidates if each.invented]
    if made_up:
        parts = dict.fromkeys(part for each in made_up for part in each.invented)
        names = listed([each.name for each in made_up])
        told = "No real place or device has these values; they show what a report of real ones looks like."
        yield f"INVENTED: {', '.join(parts)} of {names}. {told}"
    if answer.asked.published:
        yield f"Published: {answer.asked.published}"
    if answer.asked.differs:
        yield f"Here it differs: {'; '.join(answer.asked.differs)}."


def tables(answer: Answer) -> Iterator[Section]:
    """The ranking, where candidates change places, what stands beside it, and what it rests on."""
    if answer.found.failed:
        yield Section("")
        return
    yield Section("", _ranking(answer), paragraphs=list(_reading(answer)))
    if turns := _turns(answer):
        yield turns
    yield from _beside(answer)
    if any(each.rests_on for each in answer.found.candidates):
        rows = [
            [each.name, name, number, source]
            for each in answer.found.candidates
            for name, number, source in each.rests_on
        ]
        yield Section("What the candidates rest on", Table(["candidate", "factor", "value", "source"], rows))


def _ranking(answer: Answer) -> Table:
    """Candidates by their mean rank over the places, the least first; intervals below the middle."""
    places, unit = answer.found.places, answer.asked.unit
    order = sorted(answer.found.candidates, key=lambda each: _mean_rank(answer, each))
    rows = [
        [str(rank), each.name, *(_cell(answer, each, cell) for cell in each.cells)]
        for rank, each in enumerate(order, start=1)
    ]
    first = f"{answer.asked.axis} {value(places[0], unit)}"
    heads = [first, *(value(place) for place in places[1:])]
    return Table(["rank", "candidate", *heads], rows)


def _mean_rank(answer: Answer, candidate: Candidate) -> float:
    ranks = []
    for number, cell in enumerate(candidate.cells):
        mine = cell.middle
        others = [each.cells[number].middle for each in answer.found.candidates]
        ranks.append(len(others) if mine is None else sum(other is not None and other < mine for other in others))
    return sum(ranks) / max(1, len(ranks))


def _cell(answer: Answer, candidate: Candidate, cell: Cell) -> str:
    middle = cell.middle
    if middle is None:
        return f"no {answer.asked.per} counted" if cell.nothing else "-"
    unit = short_unit(answer, candidate)
    found = interval(cell)
    text = si(middle, unit)
    return text if found is None or found[0] == found[1] else f"{text}\n{si(found[0], unit)} to {si(found[1], unit)}"


def _reading(answer: Answer) -> Iterator[str]:
    """What the numbers of the table are, and what they are not."""
    asked, found = answer.asked, answer.found
    metric = f"{asked.metric} per {asked.per}" if asked.per else asked.metric
    methods = sorted({each.method for each in found.candidates if each.method})
    if asked.own:
        how = (
            "all candidates are one measurement, whose own bound and spread they share: an interval is the range of "
            "a candidate's factors alone, and without one they have no range"
        )
    else:
        how = (
            f"medians of the trials with the 95 % interval of their mean, of {LEAST_TRIALS} trials and more; "
            "each two candidates are compared at 95 %, whatever others there are"
        )
        if found.comparisons > 1:
            how += f", at all {found.comparisons} places together (Bonferroni)"
    yield f"{metric} ({', '.join(methods) or 'none'}); ranked by the mean rank over the places; {how}."
    reasons = {each.name: "; ".join(each.missing) for each in found.candidates if each.missing}
    for reason in dict.fromkeys(reasons.values()):
        yield f"No value somewhere: {listed([name for name, why in reasons.items() if why == reason])}: {reason}."


def _turns(answer: Answer) -> Section | None:
    """Every pair that changes places, and how many do not."""
    rows, still = [], 0
    for one, other, turns in pairs(answer):
        still += not turns
        for turn in turns:
            before, after = (one, other) if turn.first < 0 else (other, one)
            rows.append([before, after, at(answer, turn), turn.method if turn.at is not None else "two places"])
    if not rows:
        return None
    note = f"{still} further pairs do not change places, or it cannot be told." if still else ""
    how = (
        "An interval ends where the two can just be told apart."
        if answer.found.continuous
        else "Between the two places named, one candidate stops being the cheaper one; an estimate is interpolated."
    )
    title = f"Where two candidates change places along {answer.asked.axis}"
    return Section(
        title,
        Table(["cheaper before", "cheaper after", "turn", "found by"], rows),
        paragraphs=[how, *([note] if note else [])],
    )


def _beside(answer: Answer) -> Iterator[Section]:
    """Other readings of every candidate, a row each."""
    rows = []
    for metric in answer.asked.beside:
        for each in answer.found.candidates:
            told = each.beside.get(metric, ())
            if any(number is not None for number in told):
                cells = ["-" if number is None else si(number, _unit_of(metric)) for number in told]
                rows.append([each.name, metric, *cells])
    if rows:
        places = [value(place, answer.asked.unit) for place in answer.found.places]
        per = f" per {answer.asked.per}" if answer.asked.per else ""
        yield Section(f"Beside it{per}", Table(["candidate", "reading", *places], rows))


def _unit_of(metric: str) -> str:
    name = metric.partition(BY)[0]
    return {"_g": "g", "_j": "J", "_s": "s", "_l": "L"}.get(name[-2:], "")
