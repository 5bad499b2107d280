"""Histories: a metric over the runs of the site, a series for each set of values that may follow each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from harness.comparing.history import MetricSeries, series_of
from harness.comparing.run_series import Entry, OfPoint, SeriesKey
from harness.executor import FORK
from harness.publishing.frame import slug
from harness.publishing.leaderboards import title_of
from harness.publishing.parts import Cell, Grid, GridRow, Part, Picture, moment
from harness.records.metric import Metric
from harness.reporting.charts import shortened
from harness.reporting.svg import Drawing, Scale
from harness.reporting.wording import counted
from harness.statistics.change_points import MIN_SIZE
from harness.units import si

WIDTH: Final = 620.0
HEIGHT: Final = 190.0
LETTER: Final = 6.6
"""Width of a letter of a tick at most."""
MARKED: Final = 250
"""Longer series are drawn as a line alone, without a mark and a text for each run."""


def page_of(unit: str, metric: str) -> str:
    """The page of a history."""
    return f"history/{slug(f'{unit} {metric}')}.html"


def gathered(found: Iterable[Sequence[OfPoint]]) -> dict[Metric, list[MetricSeries]]:
    """The series of every metric, the longest first, with their change points.

    Args:
        found: of each run.
    """
    entries: dict[Metric, dict[SeriesKey, list[Entry]]] = {}
    for points in found:
        for point in points:
            for each in point.metrics:
                by_key = entries.setdefault(Metric(each.name, each.per), {})
                for key, entry in each.entries:
                    by_key.setdefault(key, []).append(entry)
    return {
        metric: sorted(
            (series_of(key, values) for key, values in by_key.items()), key=lambda each: (-len(each.entries), each.key)
        )
        for metric, by_key in entries.items()
    }


def parts(
    series: Sequence[MetricSeries], unit: str, metric: str, pages: Mapping[str, str]
) -> Iterator[tuple[Part, str]]:
    """The parts of a history, each with the file of its drawing; series of one run are not drawn.

    Args:
        series: of the metric.
        unit: the functional unit.
        metric: name.
        pages: name of a run -> its page.
    """
    for number, each in enumerate(series, start=1):
        name = f"charts/history-{slug(f'{unit} {metric}')}-{number}.svg"
        yield _part(each, unit, metric, number, pages, name), name


def _part(series: MetricSeries, unit: str, metric: str, number: int, pages: Mapping[str, str], chart: str) -> Part:
    key, entries = series.key, series.entries
    symbol = "" if key.unit == "1" else key.unit
    told = [*key.cards, *(f"driver {driver}" for driver in key.drivers), *key.methods, *key.factors]
    told += ["forked processes"] if key.start == FORK else []
    drawn = _drawn(series, title_of(unit, metric), symbol) if len(entries) > 1 else None
    where = f" on {shortened(', '.join(key.cards))}" if key.cards else ""
    notes = [
        f"Changed with run {entries[change.index].run}: from {si(change.before, symbol)} to {si(change.after, symbol)}"
        + (f" ({change.after / change.before - 1:+.1%})" if change.before > 0 else "")
        + f", p = {change.p_value:.2g}."
        for change in series.changes
    ]
    if not notes:
        few = len(entries) < 2 * MIN_SIZE
        short = f"too short for one: {counted(len(entries), 'run')}, at least {2 * MIN_SIZE} are needed"
        notes = [f"No change point: {short}." if few else "No change point."]
    changed = {change.index for change in series.changes}
    rows = [
        GridRow(
            (
                Cell(moment(entry.started_utc)),
                Cell(entry.run, href=pages.get(entry.run, "")),
                Cell(si(entry.value, symbol), sort=entry.value, flags=["change point"] if at in changed else ()),
                Cell(str(entry.trials), sort=entry.trials),
            )
        )
        for at, entry in reversed(list(enumerate(entries)))
    ]
    return Part(
        anchor=f"series-{number}",
        title=f"{key.point}{where} ({counted(len(entries), 'run')})",
        paragraphs=[f"Of {', '.join(told)}.", *notes],
        links=[("This drawing as SVG", chart)] if drawn else [],
        picture=None
        if drawn is None
        else Picture(
            drawn,
            f"{title_of(unit, metric)} over the runs, oldest left: medians of their trials; thick: the medians between "
            "change points",
        ),
        grid=Grid(
            f"{title_of(unit, metric)} of {key.point}, newest first",
            ("started, UTC", "run", "median", "trials"),
            rows,
            heading=1,
        ),
    )


def _drawn(series: MetricSeries, title: str, unit: str) -> str:
    entries = series.entries
    values = [entry.value for entry in entries]
    said = f"{counted(len(entries), 'run')} from {entries[0].started_utc[:10]} to {entries[-1].started_utc[:10]}, "
    said += f"{si(min(values), unit)} to {si(max(values), unit)}, {counted(len(series.changes), 'change point')}"
    drawing = Drawing(WIDTH, HEIGHT, f"{title}: {series.key.point}", said)
    y = Scale.over(values, HEIGHT - 26, 12)
    ticks = {tick: si(tick, unit) for tick in y.ticks(5)}
    left = max(map(len, ticks.values()), default=0) * LETTER + 12
    x = Scale(0.0, max(len(values) - 1.0, 1.0), left, WIDTH - 14)
    for tick, text in ticks.items():
        drawing.line((left, y(tick), WIDTH - 14, y(tick)), "grid")
        drawing.text(left - 5, y(tick) + 4, text, "tick", "end")
    drawing.text(left, HEIGHT - 8, entries[0].started_utc[:10], "tick")
    drawing.text(WIDTH - 14, HEIGHT - 8, entries[-1].started_utc[:10], "tick", "end")
    edges = [0, *(change.index for change in series.changes), len(values)]
    levels = [series.changes[0].before, *(change.after for change in series.changes)] if series.changes else []
    for start, end, level in zip(edges, edges[1:], levels, strict=False):
        drawing.line((x(start), y(level), x(end - 1), y(level)), "level")
    steps = " L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in enumerate(values))
    drawing.add("path", "line", d=f"M{steps}")
    for change in series.changes:
        at = x(change.index - 0.5)
        drawing.line((at, 8, at, HEIGHT - 26), "limit", f"change point at run {entries[change.index].run}")
    if len(entries) <= MARKED:
        for at, entry in enumerate(entries):
            drawing.marker(x(at), y(entry.value), None, "front", f"{entry.run}: {si(entry.value, unit)}")
    return drawing.markup()
