"""The charts of the HTML page: each shows numbers that stand in a table too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.quantity import Amount, Method
from harness.records.summary import Summary
from harness.reporting.svg import Drawing, Scale
from harness.reporting.wording import LEAST_ITEMS, bound, counted, interval, label
from harness.statistics.intervals import mean_interval
from harness.units import si

WIDTH: Final = 460.0
LEFT: Final = 58.0
RIGHT: Final = 14.0
ROW: Final = 42.0
"""Height of a row with its label above it, also where a narrow screen makes letters larger."""
LETTER: Final = 7.5
"""Width of a letter of a tick at most; labels that would overlap are left out, their lines stay."""
_LABEL: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A value with its two intervals.

    Attributes:
        name: what it belongs to.
        value: the median.
        bound: of the instrument; None where it is not known.
        spread: the interval of the mean of three trials and more, both values of two; None for one trial.
        method: the weakest method.
        tip: all of it as text.
        limit: what the value is held against; None where there is nothing.
    """

    name: str
    value: float
    bound: tuple[float, float] | None
    spread: tuple[float, float] | None
    method: Method | None
    tip: str
    limit: float | None = None

    @classmethod
    def of(cls, name: str, summary: Summary) -> Dot | None:
        """From a summary; None where it has no value."""
        value = summary.value
        if not isinstance(value, Amount):
            return None
        low, high = summary.bound
        parts = [si(value.value, value.unit), label(summary), f"bound {bound(summary, value.unit)}"]
        over = interval(summary, value.unit)
        return cls(
            name=name,
            value=value.value,
            bound=None if low is None or high is None else (low, high),
            spread=mean_interval(summary.values) or summary.spread,
            method=summary.label,
            tip=f"{name}: {', '.join(parts)}" + (f", trials {over}" if over else ""),
        )

    @property
    def ends(self) -> list[float]:
        """Every value that has to fit on the scale."""
        return [self.value, *(self.bound or ()), *(self.spread or ()), *([] if self.limit is None else [self.limit])]


def shortened(text: str, most: int = _LABEL) -> str:
    """A label that fits above its row."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def intervals(
    dots: Sequence[Dot], unit: str, title: str, *, zero: bool = False, band: tuple[float, float] | None = None
) -> str:
    """A row a value: mark, thick line for the bound, thin line for the trials; a band for what is allowed."""
    height = ROW * len(dots) + 34
    ends = [end for dot in dots for end in dot.ends]
    drawing = Drawing(WIDTH, height, title, "; ".join(dot.tip for dot in dots[:50]))
    scale = Scale.over([*ends, *(band or ())], 12, WIDTH - RIGHT - 8, zero=zero)
    floor = height - 26
    if band is not None:
        drawing.add("rect", "band", x=scale(band[0]), y=2, width=scale(band[1]) - scale(band[0]), height=floor - 2)
    _x_axis(drawing, scale, floor, unit)
    for number, dot in enumerate(dots):
        y = ROW * number + 26
        drawing.text(12, y - 11, shortened(dot.name), "name")
        if dot.bound is not None:
            drawing.line((scale(dot.bound[0]), y, scale(dot.bound[1]), y), "bound")
        if dot.spread is not None:
            _whisker(drawing, scale(dot.spread[0]), scale(dot.spread[1]), y)
        if dot.limit is not None:
            drawing.line((scale(dot.limit), y - 9, scale(dot.limit), y + 9), "limit", f"allowed: {si(dot.limit, unit)}")
        drawing.marker(scale(dot.value), y, dot.method, "front", dot.tip)
    return drawing.markup()


def _whisker(drawing: Drawing, start: float, end: float, y: float) -> None:
    drawing.line((start, y, end, y), "spread")
    drawing.line((start, y - 4, start, y + 4), "spread")
    drawing.line((end, y - 4, end, y + 4), "spread")


def _x_axis(drawing: Drawing, scale: Scale, floor: float, unit: str, top: float = 2) -> None:
    free = 0.0
    for tick in scale.ticks():
        x, text = scale(tick), si(tick, unit)
        drawing.line((x, top, x, floor), "grid")
        half = len(text) * LETTER / 2
        if x - half >= free and x + half <= WIDTH + RIGHT:
            drawing.text(x, floor + 14, text, "tick", "middle")
            free = x + half + LETTER


def _y_axis(drawing: Drawing, scale: Scale, end: float, unit: str) -> None:
    for tick in scale.ticks():
        y = scale(tick)
        drawing.line((LEFT, y, end, y), "grid")
        drawing.text(LEFT - 5, y + 4, si(tick, unit), "tick", "end")


# Cost against latency or quality


@dataclass(frozen=True, slots=True)
class Spot:
    """A point in the plane: its number in the tables, where it lies, and whether it is on the front."""

    number: int
    x: Dot
    y: Dot
    front: bool


def front(spots: Sequence[tuple[Dot, Dot]], *, more_is_better: bool) -> set[int]:
    """Positions of those that no other beats in both: cost (y) the less the better, x as told."""
    sign = -1.0 if more_is_better else 1.0
    order = sorted(range(len(spots)), key=lambda at: (sign * spots[at][0].value, spots[at][1].value))
    best, found = float("inf"), set()
    last: tuple[float, float] | None = None
    for at in order:
        x, y = spots[at]
        if y.value < best or (x.value, y.value) == last:
            found.add(at)
            best, last = min(best, y.value), (x.value, y.value)
    return found


def plane(spots: Sequence[Spot], axes: tuple[tuple[str, str], tuple[str, str]], title: str, says: str) -> str:
    """Costs against another metric with the intervals of both as crosshairs; `axes` are names and units of x and y."""
    (x_name, x_unit), (y_name, y_unit) = axes
    height = 330.0
    drawing = Drawing(WIDTH, height, title, says)
    x = Scale.over([end for spot in spots for end in spot.x.ends], LEFT, WIDTH - RIGHT)
    y = Scale.over([end for spot in spots for end in spot.y.ends], height - 46, 24)
    _x_axis(drawing, x, height - 46, x_unit, 24)
    _y_axis(drawing, y, WIDTH - RIGHT, y_unit)
    drawing.text(LEFT, 14, y_name, "axis")
    drawing.text(WIDTH - RIGHT, height - 8, x_name, "axis", "end")
    best = sorted((spot for spot in spots if spot.front), key=lambda spot: spot.x.value)
    if len(best) > 1:
        steps = " L".join(f"{x(spot.x.value):.1f} {y(spot.y.value):.1f}" for spot in best)
        drawing.add("path", "frontier", d=f"M{steps}")
    for spot in spots:
        _crosshair(drawing, spot, x, y)
    named = len(spots) <= 40
    for spot in spots:
        at, tall = x(spot.x.value), y(spot.y.value)
        tip = f"#{spot.number} {spot.x.tip}; {spot.y.tip.removeprefix(f'{spot.y.name}: ')}"
        drawing.marker(at, tall, spot.y.method, "front" if spot.front else "beaten", tip)
        if named:
            drawing.text(at + 8, tall - 7, str(spot.number), "number")
    return drawing.markup()


def _crosshair(drawing: Drawing, spot: Spot, x: Scale, y: Scale) -> None:
    at, tall = x(spot.x.value), y(spot.y.value)
    for style in ("bound", "spread"):
        across: tuple[float, float] | None = getattr(spot.x, style)
        along: tuple[float, float] | None = getattr(spot.y, style)
        if across is not None and across[0] != across[1]:
            drawing.line((x(across[0]), tall, x(across[1]), tall), style)
        if along is not None and along[0] != along[1]:
            drawing.line((at, y(along[0]), at, y(along[1])), style)


# Parts of a whole


def parts(rows: Mapping[str, Mapping[str, float]], names: Sequence[str], title: str) -> str:
    """A bar a row, divided into the shares of its parts; each part has the colour of its place among the names."""
    height = 40.0 * len(rows) + 4
    said = "; ".join(
        f"{row}: " + ", ".join(f"{name} {share * 100:.3g} %" for name, share in shares.items())
        for row, shares in list(rows.items())[:50]
    )
    drawing = Drawing(WIDTH, height, title, said)
    for number, (row, shares) in enumerate(rows.items()):
        top = 40.0 * number + 16
        drawing.text(0, top - 4, shortened(row), "name")
        at = 0.0
        for name, share in shares.items():
            wide = max(share, 0.0) * WIDTH
            colour = f"fill{names.index(name) % 8}"
            drawing.add(
                "rect", colour, f"{row}: {name} {share * 100:.3g} %", x=at, y=top, width=max(wide - 1, 0.3), height=18
            )
            if wide > 46:
                drawing.text(at + 6, top + 13, f"{share * 100:.3g} %", "inside")
            at += wide
    return drawing.markup()


# Power over time, and distributions


def power(series: Sequence[tuple[int, Sequence[tuple[float, float, float]]]], title: str, says: str) -> str:
    """Watts over the seconds of each window, a stepped line a window; each has the colour number of its scope."""
    height = 150.0
    drawing = Drawing(WIDTH, height, title, says)
    ends = [end for _, steps in series for _, end, _ in steps]
    watts = [watt for _, steps in series for *_, watt in steps]
    x = Scale(0.0, max(ends, default=1.0), LEFT, WIDTH - RIGHT)
    y = Scale.over(watts, height - 24, 10, zero=True)
    _x_axis(drawing, x, height - 24, "s", 10)
    for tick in y.ticks(6):
        drawing.line((LEFT, y(tick), WIDTH - RIGHT, y(tick)), "grid")
        drawing.text(LEFT - 5, y(tick) + 4, si(tick, "W"), "tick", "end")
    for colour, steps in series:
        path = "".join(f"{'M' if not n else 'L'}{x(a):.1f} {y(w):.1f}H{x(b):.1f}" for n, (a, b, w) in enumerate(steps))
        drawing.add("path", f"power line{colour % 8}", d=path)
    return drawing.markup()


@dataclass(frozen=True, slots=True)
class Line:
    """How one trial went: a mark after each window.

    Attributes:
        name: of the point and the trial.
        colour: number of its colour.
        spots: what was spent until then, and the quality.
        reached: which of the spots is the first that reached the target; None where none did, or there is no target.
    """

    name: str
    colour: int
    spots: Sequence[tuple[float, float]]
    reached: int | None = None


def learning(
    lines: Sequence[Line], axes: tuple[tuple[str, str], str], title: str, says: str, target: float | None = None
) -> str:
    """Quality over what was spent for it, a line a trial; the target as a line across, each crossing in a ring.

    Args:
        lines: of the trials.
        axes: name and unit of what was spent, and name of the quality.
        title: of the drawing.
        says: what it shows, for those who do not see it.
        target: of the quality; None where there is none.
    """
    height = 260.0
    drawing = Drawing(WIDTH, height, title, says)
    (x_name, x_unit), y_name = axes
    spots = [spot for line in lines for spot in line.spots]
    x = Scale(0.0, max((spent for spent, _ in spots), default=1.0) or 1.0, LEFT, WIDTH - RIGHT)
    ends = [*(quality for _, quality in spots), *([] if target is None else [target])]
    y = Scale.over(ends, height - 46, 24)
    _x_axis(drawing, x, height - 46, x_unit, 24)
    _y_axis(drawing, y, WIDTH - RIGHT, "")
    drawing.text(LEFT, 14, y_name, "axis")
    drawing.text(WIDTH - RIGHT, height - 8, x_name, "axis", "end")
    if target is not None:
        drawing.line((LEFT, y(target), WIDTH - RIGHT, y(target)), "target", f"target: {y_name} {target:g}")
    for line in lines:
        path = " L".join(f"{x(spent):.1f} {y(quality):.1f}" for spent, quality in line.spots)
        drawing.add("path", f"power line{line.colour % 8}", d=f"M{path}")
    for line in lines:
        for place, (spent, quality) in enumerate(line.spots):
            tip = f"{line.name}: {y_name} {quality:.3g} after {si(spent, x_unit).strip()}"
            drawing.add("circle", f"fill{line.colour % 8}", tip, cx=x(spent), cy=y(quality), r=2.5)
            if place == line.reached:
                drawing.line((x(spent), y(quality), x(spent), height - 46), f"crossing line{line.colour % 8}")
                ring = f"{tip}: the target is reached"
                drawing.add("circle", f"ring line{line.colour % 8}", ring, cx=x(spent), cy=y(quality), r=6.0)
    if target is not None:
        drawing.text(WIDTH - RIGHT, y(target) + 14, f"target {target:g}", "tick", "end")
    return drawing.markup()


def ridges(rows: Sequence[tuple[str, Sequence[float]]], unit: str, title: str) -> str:
    """A histogram a row on one scale, with the median and the 95th percentile as ticks; values in rising order."""
    height = 46.0 * len(rows) + 30
    said = "; ".join(
        f"{name}: {counted(len(values), 'item')}"
        + "".join(
            f", {word} {si(quantile(values, level), unit)}"
            for word, level in (("median", 0.5), ("95th percentile", 0.95))
            if len(values) >= LEAST_ITEMS
        )
        for name, values in rows[:50]
    )
    drawing = Drawing(WIDTH, height, title, said)
    scale = Scale.over([end for _, values in rows for end in (values[0], values[-1])], 12, WIDTH - RIGHT - 8)
    _x_axis(drawing, scale, height - 22, unit)
    for number, (name, values) in enumerate(rows):
        base = 46.0 * number + 44
        drawing.text(12, base - 32, shortened(name), "name")
        drawing.add("path", "ridge", d=_histogram(values, scale, base))
        for level in (0.5, 0.95) if len(values) >= LEAST_ITEMS else ():
            at = scale(quantile(values, level))
            tip = f"{name}: p{level * 100:.0f} {si(quantile(values, level), unit)} of {len(values)} items"
            drawing.line((at, base - 24, at, base + 2), f"p{level * 100:.0f}", tip)
    return drawing.markup()


def _histogram(values: Sequence[float], scale: Scale, base: float, bins: int = 56) -> str:
    wide = (scale.end - scale.start) / bins
    counts = [0] * (bins + 1)
    for value in values:
        counts[min(bins, max(0, int((scale(value) - scale.start) / wide)))] += 1
    most = max(counts)
    first = next(number for number, count in enumerate(counts) if count)
    last = max(number for number, count in enumerate(counts) if count)
    steps = "".join(f"V{base - 24 * count / most:.1f}h{wide:.1f}" for count in counts[first : last + 1])
    return f"M{scale.start + first * wide:.1f} {base:.1f}{steps}V{base:.1f}z"


def quantile(ordered: Sequence[float], level: float) -> float:
    """A quantile of values in rising order, linear between neighbours."""
    place = level * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
