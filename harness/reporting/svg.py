"""Drawing: elements of SVG whose texts are always escaped, and scales with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from harness.quantity import Method
from harness.reporting.wording import clean


class Drawing:
    """An image with a title and a description for those who do not see it.

    Sizes are in pixels of a drawing that is scaled to its column; colours are classes of the page's style sheet.
    """

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self.width = width
        self.height = height
        self.title = clean(title)
        self._root = ET.Element(
            "svg", {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "width": f"{width:g}", "class": "chart"}
        )
        ET.SubElement(self._root, "title").text = self.title
        ET.SubElement(self._root, "desc").text = clean(description)

    def add(self, tag: str, style: str = "", tip: str = "", text: str = "", **attributes: float | str) -> None:
        """Draws an element; a tip is shown when it is pointed at. `_` in an attribute's name stands for `-`."""
        element = ET.SubElement(self._root, tag, {"class": style} if style else {})
        for name, value in attributes.items():
            element.set(name.replace("_", "-"), value if isinstance(value, str) else _round(value))
        if text:
            element.text = clean(text)
        if tip:
            ET.SubElement(element, "title").text = clean(tip)

    def line(self, ends: tuple[float, float, float, float], style: str, tip: str = "") -> None:
        """A line from x1, y1 to x2, y2."""
        x1, y1, x2, y2 = ends
        self.add("path", style, tip, d=f"M{_round(x1)} {_round(y1)}L{_round(x2)} {_round(y2)}")

    def text(self, x: float, y: float, text: str, style: str = "", anchor: str = "start") -> None:
        """A line of text."""
        self.add("text", style, text=text, x=x, y=y, **{"text-anchor": anchor} if anchor != "start" else {})

    def marker(self, x: float, y: float, method: Method | None, style: str, tip: str) -> None:
        """A mark whose shape says the method: circle, triangle, square, diamond from strong to weak."""
        self.add("path", f"mark {style}", tip, d=_shape(x, y, method))

    def markup(self) -> str:
        """The element as text, safe inside HTML."""
        return ET.tostring(self._root, encoding="unicode", short_empty_elements=True)


def _round(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _shape(x: float, y: float, method: Method | None) -> str:
    centre = f"M{_round(x)} {_round(y)}"
    weakness = 0 if method is None else method.weakness
    return (
        centre
        + (
            "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
            "m0 -6l6 10h-12z",
            "m-4.5 -4.5h9v9h-9z",
            "m0 -6.5l6.5 6.5l-6.5 6.5l-6.5 -6.5z",
        )[weakness]
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places on the drawing, linear or logarithmic.

    Attributes:
        low: least value shown.
        high: greatest value shown.
        start: place of the least.
        end: place of the greatest.
        logarithmic: whether equal ratios have equal lengths.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, zero: bool = False) -> Scale:
        """A scale that shows all values: from 0 if asked for, logarithmic where positive values differ much."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        if not zero and low > 0 and high / low > 30:
            return cls(low / 1.15, high * 1.15, start, end, logarithmic=True)
        if zero:
            low = min(low, 0.0)
        gap = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        return cls(low if zero and low == 0 else low - gap, high + gap, start, end)

    def __call__(self, value: float) -> float:
        """The place of a value."""
        if self.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, wanted: int = 7) -> list[float]:
        """Round values inside the scale."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            inside: list[float] = []
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [step * 10.0**decade for decade in decades for step in steps]
                inside = [value for value in found if self.low <= value <= self.high]
                if len(inside) <= wanted:
                    break
            return inside[:: 1 + len(inside) // (wanted + 1)]
        raw = (self.high - self.low) / wanted
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [(first + number) * step for number in range(count)]
