"""Badges: the newest value of a metric as a small SVG, with the method that gave it; and drawings as files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Final
from xml.etree import ElementTree as ET

from harness.publishing.frame import slug
from harness.publishing.parts import Badge
from harness.publishing.results import METRICS, WORDS, Result
from harness.quantity import Amount
from harness.records.metric import RATE
from harness.reporting.wording import base_unit, clean, label
from harness.units import si

COLOURS: Final = {"integrated": "#3d5c96", "estimated": "#8a4d08", "simulated": "#8f3a57"}
"""Paper behind the value, by method; each is dark enough for white letters (WCAG 2.2, 1.4.3)."""
STRONG: Final = "#0b6b57"
DARK: Final = "#3b4046"
INK: Final = "#ffffff"
LETTER: Final = 6.7
"""Width of a letter; the text is fitted to its place, so that it need not be exact."""


def badge(left: str, right: str, method: str) -> str:
    """The SVG of a badge."""
    left, right = clean(left), clean(right)
    widths = [len(text) * LETTER + 12 for text in (left, right)]
    whole = sum(widths)
    root = ET.Element("svg", {
        "xmlns": "http://www.w3.org/2000/svg", "width": f"{whole:.0f}", "height": "20", "role": "img",
        "aria-label": f"{left}: {right}", "viewBox": f"0 0 {whole:.1f} 20",
    })  # fmt: skip
    ET.SubElement(root, "title").text = f"{left}: {right}"
    start = 0.0
    for text, width, paper in zip((left, right), widths, (DARK, COLOURS.get(method, STRONG)), strict=True):
        place = {"x": f"{start:.1f}", "width": f"{width:.1f}", "height": "20", "fill": paper}
        ET.SubElement(root, "rect", place)
        ET.SubElement(root, "text", {
            "x": f"{start + 6:.1f}", "y": "14", "fill": INK, "font-family": "Verdana,DejaVu Sans,sans-serif",
            "font-size": "11", "textLength": f"{width - 12:.1f}", "lengthAdjust": "spacingAndGlyphs",
        }).text = text  # fmt: skip
        start += width
    return ET.tostring(root, encoding="unicode")


def badges(found: Iterable[Result]) -> Iterator[tuple[str, str, Badge, str]]:
    """Of each point's newest valid result, a metric each: heading, file, how it is shown, and its SVG."""
    newest: dict[tuple[str, str], Result] = {}
    for result in found:
        key = (result.point, result.unit)
        if result.valid and (key not in newest or newest[key].run.age < result.run.age):
            newest[key] = result
    for (point, unit), result in sorted(newest.items()):
        for metric in METRICS:
            summary = result.summary(metric)
            if summary is None or not isinstance(summary.value, Amount):
                continue
            value = si(summary.value.value, base_unit(summary.value, unit))
            text = f"{value}{'' if metric == RATE else f'/{unit}'}, {label(summary)}"
            word = f"{unit} rate" if metric == RATE else WORDS[metric]
            name = f"badges/{slug(f'{point} {unit} {metric}')}.svg"
            shown = Badge(name, f"{word}: {text}", f"![{_plain(word)}](SITE/{name})")
            yield f"{point}, on {result.device}", name, shown, badge(word, text, label(summary))


def _plain(text: str) -> str:
    return re.sub(r"[^\w ]", " ", clean(text))


def standalone(svg: str) -> str:
    """A drawing of a page as a file of its own: with its name space and the colours of the page, light and dark."""
    templates = {"harness.reporting": "page.css", "harness.publishing": "site.css"}
    style = "\n".join(
        line
        for room, name in templates.items()
        for line in _drawing_rules(resources.files(room).joinpath(f"templates/{name}").read_text(encoding="utf-8"))
    )
    head, _, rest = svg.partition(">")
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{head}><style>\n{style}\nsvg {{ background: var(--card); font-family: sans-serif; }}\n</style>{rest}"


_RULE: Final = re.compile(r"^(?:svg |\.(?:grid|bound|spread|frontier|mark|limit|band|line|level)\b|\.mark\.)")


def _drawing_rules(sheet: str) -> Iterator[str]:
    """The rules of a style sheet for drawings, and its colours."""
    colours, brace, rest = sheet.partition("* { box-sizing")
    if brace:
        yield colours.strip()
    yield from (line for line in (rest or sheet).splitlines() if _RULE.match(line))
