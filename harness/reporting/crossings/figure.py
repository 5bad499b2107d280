"""The figure of an answer: costs of each candidate along the axis with intervals and turns, or a heat map."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final

from harness.costing.answers import Candidate
from harness.quantity import Method
from harness.reporting.blocks import Chart
from harness.reporting.charts import LETTER, shortened
from harness.reporting.crossings.answer import Answer, short_unit
from harness.reporting.crossings.sentence import sentence, value
from harness.reporting.svg import Drawing, Scale
from harness.statistics.crossing import interval
from harness.units import number as told_number
from harness.units import prefix_of, si

WIDTH: Final = 720.0
LEFT: Final = 74.0
RIGHT: Final = 16.0
HEIGHT: Final = 340.0
_COLOURS: Final = 8
_MOST: Final = 8
"""So many candidates have a line each; the table holds all of them."""
_STEPS: Final = 5
"""Shades of a heat map."""


def chart(answer: Answer) -> Chart | None:
    """The figure; None where there is nothing to draw."""
    drawn = [each for each in answer.found.candidates if any(cell.values for cell in each.cells)]
    if not drawn or len(answer.found.places) < 1:
        return None
    if answer.asked.figure == "heat":
        return Chart(_heat(answer, drawn), _caption_of_heat(answer))
    shown = drawn[:_MOST]
    legend = [(f"fill{number % _COLOURS}", each.name) for number, each in enumerate(shown)]
    more = f" {len(drawn) - _MOST} more candidates stand in the table." if len(drawn) > _MOST else ""
    return Chart(_lines(answer, shown), _caption(answer) + more, legend)


def _caption(answer: Answer) -> str:
    bars = "thin lines: " + (
        "range of each candidate's own factors" if answer.asked.own else "95 % interval of the mean of the trials"
    )
    turned = "; grey bands: where the order of two candidates turns" if answer.found.turns else ""
    return f"{_metric(answer)} along {answer.asked.axis}; {bars}{turned}."


def _caption_of_heat(answer: Answer) -> str:
    return (
        f"{_metric(answer)}: candidates by {answer.asked.axis}; the darker, the more; framed: the least of each column."
    )


def _metric(answer: Answer) -> str:
    return answer.asked.metric + (f" per {answer.asked.per}" if answer.asked.per else "")


def _lines(answer: Answer, drawn: Sequence[Candidate]) -> str:
    places = answer.found.places
    unit = short_unit(answer, drawn[0])
    drawing = Drawing(WIDTH, HEIGHT, answer.asked.ask, sentence(answer))
    ends = [
        end for each in drawn for cell in each.cells if cell.values for end in (*(interval(cell) or ()), *cell.values)
    ]
    positive = [end for end in ends if end > 0 and math.isfinite(end)]
    logarithmic = places[0] > 0 and places[-1] / places[0] > 8
    margin = (places[-1] / places[0]) ** 0.03 if logarithmic else (places[-1] - places[0]) * 0.03 or 1.0
    across = (places[0] / margin, places[-1] * margin) if logarithmic else (places[0] - margin, places[-1] + margin)
    x = Scale(*across, LEFT, WIDTH - RIGHT, logarithmic=logarithmic)
    y = Scale.over(
        positive if len(positive) == len(ends) else [end for end in ends if math.isfinite(end)], HEIGHT - 48, 26
    )
    _bands(drawing, answer, x)
    _axes(drawing, answer, x, y, unit)
    for number, each in enumerate(drawn):
        _line(drawing, answer, each, number, x, y, unit)
    return drawing.markup()


def _bands(drawing: Drawing, answer: Answer, x: Scale) -> None:
    for one, other, turn in answer.found.turns:
        start, end = x(turn.low), x(turn.high)
        tip = f"{one} and {other} change places between {value(turn.low)} and {value(turn.high)}"
        drawing.add(
            "rect", "band", tip, x=min(start, end) - 0.75, y=26, width=abs(end - start) + 1.5, height=HEIGHT - 74
        )


def _axes(drawing: Drawing, answer: Answer, x: Scale, y: Scale, unit: str) -> None:
    floor, free = HEIGHT - 48, 0.0
    for place in answer.found.places if len(answer.found.places) <= 16 else x.ticks():
        text, at = value(place), x(place)
        drawing.line((at, 26, at, floor), "grid")
        half = len(text) * LETTER / 2
        if at - half >= free:
            drawing.text(at, floor + 16, text, "tick", "middle")
            free = at + half + LETTER
    for tick in y.ticks():
        drawing.line((LEFT, y(tick), WIDTH - RIGHT, y(tick)), "grid")
        drawing.text(LEFT - 6, y(tick) + 4, si(tick, unit), "tick", "end")
    drawing.text(LEFT, 15, _metric(answer), "axis")
    drawing.text(WIDTH - RIGHT, HEIGHT - 8, f"{answer.asked.axis} {answer.asked.unit}".rstrip(), "axis", "end")


def _line(drawing: Drawing, answer: Answer, each: Candidate, number: int, x: Scale, y: Scale, unit: str) -> None:
    colour = number % _COLOURS
    spots: list[tuple[float, float]] = []
    for place, cell in zip(answer.found.places, each.cells, strict=True):
        middle = cell.middle
        if middle is None:
            continue
        at = (x(place), y(middle))
        spots.append(at)
        found = interval(cell)
        told = ""
        if found is not None and found[0] > (0 if y.logarithmic else -math.inf):
            drawing.line((at[0], y(found[0]), at[0], y(found[1])), "spread")
            told = f", {si(found[0], unit)} to {si(found[1], unit)}"
        tip = f"{each.name} at {value(place, answer.asked.unit)}: {si(middle, unit)}{told}"
        drawing.marker(*at, _method(each), f"fill{colour}", tip)
    if len(spots) > 1:
        drawing.add("path", f"power line{colour}", d="M" + " L".join(f"{a:.1f} {b:.1f}" for a, b in spots))


def _method(each: Candidate) -> Method | None:
    return Method(each.method) if each.method else None


def _heat(answer: Answer, drawn: Sequence[Candidate]) -> str:
    places, unit = answer.found.places, short_unit(answer, drawn[0])
    names = min(26 * LETTER, max(len(each.name) for each in drawn) * LETTER) + 10
    wide = max(46.0, (WIDTH - names) / len(places))
    tall = 30.0
    drawing = Drawing(names + wide * len(places) + 2, tall * len(drawn) + 44, answer.asked.ask, sentence(answer))
    middles = [cell.middle for each in drawn for cell in each.cells if cell.middle is not None]
    factor, prefixed = _prefix(statistics.median(middles), unit)
    scale = Scale.over([each for each in middles if each > 0] or [0.0, 1.0], 0.0, 1.0)
    least = [
        min((cell.middle for each in drawn if (cell := each.cells[at]).middle is not None), default=None)
        for at in range(len(places))
    ]
    for at, place in enumerate(places):
        drawing.text(names + wide * (at + 0.5), 14, value(place), "tick", "middle")
    drawing.text(0, 14, f"{answer.asked.axis} {answer.asked.unit}".rstrip(), "tick")
    for row, each in enumerate(drawn):
        top = 20 + tall * row
        drawing.text(0, top + 19, shortened(each.name, 26), "name")
        for at, cell in enumerate(each.cells):
            box = (names + wide * at, top, wide, tall)
            shade = 0 if not cell.middle else min(_STEPS - 1, max(0, int(scale(cell.middle) * _STEPS)))
            frame = " least" if cell.middle == least[at] else ""
            told = "-" if cell.middle is None else told_number(cell.middle / factor)
            tip = f"{each.name} at {value(places[at])}: {told} {prefixed}"
            _square(drawing, box, told, f"heat{shade}{frame}" if cell.middle is not None else "", tip)
    drawing.text(0, 20 + tall * len(drawn) + 17, f"{_metric(answer)}, in {prefixed}", "axis")
    return drawing.markup()


def _prefix(number: float, unit: str) -> tuple[float, str]:
    """What all numbers of a map are divided by, and the unit that they are in then."""
    factor, prefix = prefix_of(number, unit)
    return factor, f"{prefix}{unit}"


def _square(drawing: Drawing, box: tuple[float, float, float, float], told: str, style: str, tip: str) -> None:
    """A square of the map; without a style nothing is known there."""
    left, top, wide, tall = box
    if style:
        drawing.add("rect", style, tip, x=left + 1, y=top + 1, width=wide - 2, height=tall - 2)
    drawing.text(left + wide / 2, top + 19, told, f"on{style[4]}" if style else "tick", "middle")
