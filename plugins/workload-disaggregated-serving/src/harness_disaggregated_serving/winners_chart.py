"""A chart of who wins, as SVG: intensity across, a row for each pair of lifetimes, a panel for each rate and link."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from harness_disaggregated_serving.winners import Cell

COLOURS: Final = {"standalone": "#4c78a8", "spec-local": "#72b7b2", "dpd": "#f58518", "dsd": "#54a24b"}
NOBODY: Final = "#dddddd"
LOW, HIGH = 1.0, 1000.0
"""Ends of the logarithmic axis, in g/kWh."""
WIDTH, ROW, MARGIN, GAP = 240, 14, 70, 46


def _across(intensity: float) -> float:
    clipped = min(max(intensity, LOW), HIGH)
    return WIDTH * math.log(clipped / LOW) / math.log(HIGH / LOW)


def _text(x: float, y: float, text: str, *, size: int = 10, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'


def _bar(cell: Cell, x: float, y: float) -> list[str]:
    drawn = [f'<rect x="{x:.1f}" y="{y:.1f}" width="{WIDTH}" height="{ROW - 2}" fill="{NOBODY}"/>']
    for part in cell.ranges:
        start, end = _across(part.low), _across(part.high)
        if end > start:
            colour = COLOURS.get(part.configuration, "#b279a2")
            drawn.append(
                f'<rect x="{x + start:.1f}" y="{y:.1f}" width="{end - start:.1f}" height="{ROW - 2}" fill="{colour}">'
                f"<title>{escape(str(part))}</title></rect>"
            )
    return drawn


def _panel(cells: Sequence[Cell], x: float, y: float) -> list[str]:
    one = cells[0]
    drawn = [_text(x, y - 6, f"QPS {one.qps:g}, {one.bandwidth * 8 / 1e9:g} Gbit/s, {one.accounting.value}")]
    for number, cell in enumerate(cells):
        top = y + number * ROW
        drawn.append(_text(x - 4, top + ROW - 4, f"{cell.new_years:g}, {cell.old_years:g} y", size=9, anchor="end"))
        drawn += _bar(cell, x, top)
    for intensity in (1, 10, 100, 1000):
        drawn.append(_text(x + _across(intensity), y + len(cells) * ROW + 9, f"{intensity}", size=8, anchor="middle"))
    return drawn


def as_svg(cells: Sequence[Cell], *, title: str) -> str:
    """The chart; colours name configurations, grey that none is feasible. Lifetimes are new, old."""
    panels: dict[tuple[float, float, float, str], list[Cell]] = {}
    for cell in cells:
        key = (cell.prompt_tokens, cell.qps, cell.bandwidth, cell.accounting.value)
        panels.setdefault(key, []).append(cell)
    columns = max(1, len({(key[2], key[3]) for key in panels}))
    deepest = max((len(rows) for rows in panels.values()), default=0)
    height = deepest * ROW + GAP
    drawn = [_text(MARGIN, 20, title, size=13)]
    for number, (name, colour) in enumerate(COLOURS.items()):
        drawn.append(f'<rect x="{MARGIN + number * 100}" y="30" width="10" height="10" fill="{colour}"/>')
        drawn.append(_text(MARGIN + number * 100 + 14, 39, name))
    drawn.append(_text(MARGIN + len(COLOURS) * 100, 39, "across: g/kWh; down: lifetime of new, old; simulated"))
    for number, rows in enumerate(panels.values()):
        column, line = number % columns, number // columns
        drawn += _panel(rows, MARGIN + column * (WIDTH + MARGIN), 70 + line * height)
    total_w = MARGIN + columns * (WIDTH + MARGIN)
    total_h = 70 + math.ceil(len(panels) / columns) * height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_w}" height="{total_h}" font-family="sans-serif">'
        '<rect width="100%" height="100%" fill="white"/>' + "".join(drawn) + "</svg>\n"
    )
