"""A chart of who wins, as SVG: intensity across, a row for each pair of lifetimes, a panel for each rate and link."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

from harness_disaggregated_serving.choosing.winners import Cell, Range

COLOURS: Final = {"standalone": "#4c78a8", "spec-local": "#72b7b2"}
PAIRS: Final = ("#f58518", "#54a24b", "#e45756", "#b279a2", "#9d755d", "#eeca3b")
"""Of configurations with an old device, in order of their names; they repeat beyond six."""
NOBODY: Final = "#dddddd"
LOW, HIGH = 1.0, 1000.0
"""Ends of the logarithmic axis, in g/kWh."""
WIDTH, ROW, MARGIN, GAP = 240, 14, 70, 46


def _across(intensity: float) -> float:
    clipped = min(max(intensity, LOW), HIGH)
    return WIDTH * math.log(clipped / LOW) / math.log(HIGH / LOW)


def _text(x: float, y: float, text: str, *, size: int = 10, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'


def _strip(ranges: Sequence[Range], x: float, y: float, height: float, colours: Mapping[str, str]) -> list[str]:
    drawn = [f'<rect x="{x:.1f}" y="{y:.1f}" width="{WIDTH}" height="{height:.1f}" fill="{NOBODY}"/>']
    for part in ranges:
        start, end = _across(part.low), _across(part.high)
        if end > start:
            drawn.append(
                f'<rect x="{x + start:.1f}" y="{y:.1f}" width="{end - start:.1f}" height="{height:.1f}" '
                f'fill="{colours[part.configuration]}"><title>{escape(str(part))}</title></rect>'
            )
    return drawn


def _panel(cells: Sequence[Cell], x: float, y: float, colours: Mapping[str, str]) -> list[str]:
    one = cells[0]
    drawn = [
        _text(x, y - 6, f"{one.size}, QPS {one.qps:g}, {one.bandwidth * 8 / 1e9:g} Gbit/s, {one.accounting.value}")
    ]
    for number, cell in enumerate(cells):
        top = y + number * ROW
        drawn.append(_text(x - 4, top + ROW - 4, f"{cell.new_years:g}, {cell.old_years:g} y", size=9, anchor="end"))
        half = (ROW - 2) / 2
        drawn += _strip(cell.ranges, x, top, half, colours)
        drawn += _strip(cell.published, x, top + half, half, colours)
    for intensity in (1, 10, 100, 1000):
        drawn.append(_text(x + _across(intensity), y + len(cells) * ROW + 9, f"{intensity}", size=8, anchor="middle"))
    return drawn


def as_svg(cells: Sequence[Cell], *, title: str) -> str:
    """The chart; colours name configurations, grey that none is feasible. Lifetimes are new, old."""
    panels: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        key = (cell.size, cell.conditions, cell.qps, cell.bandwidth, cell.accounting.value)
        panels.setdefault(key, []).append(cell)
    columns = max(1, len({(key[3], key[4]) for key in panels}))
    deepest = max((len(rows) for rows in panels.values()), default=0)
    height = deepest * ROW + GAP
    names = sorted({part.configuration for cell in cells for part in (*cell.ranges, *cell.published)} - set(COLOURS))
    colours = dict(COLOURS) | {name: PAIRS[number % len(PAIRS)] for number, name in enumerate(names)}
    drawn = [_text(MARGIN, 20, title, size=13)]
    for number, (name, colour) in enumerate(colours.items()):
        drawn.append(f'<rect x="{MARGIN + number * 140}" y="30" width="10" height="10" fill="{colour}"/>')
        drawn.append(_text(MARGIN + number * 140 + 14, 39, name))
    drawn.append(
        _text(
            MARGIN, 54, "across: g/kWh; down: lifetimes of new, old; lower half of a bar: spec-local left out", size=9
        )
    )
    for number, rows in enumerate(panels.values()):
        column, line = number % columns, number // columns
        drawn += _panel(rows, MARGIN + column * (WIDTH + MARGIN), 80 + line * height, colours)
    total_w = MARGIN + columns * (WIDTH + MARGIN)
    total_h = 80 + math.ceil(len(panels) / columns) * height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_w}" height="{total_h}" font-family="sans-serif">'
        '<rect width="100%" height="100%" fill="white"/>' + "".join(drawn) + "</svg>\n"
    )
