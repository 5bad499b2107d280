"""What the HTML page draws: results, costs against latency and quality, parts of a joule, traces, distributions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from harness.functional_unit import Where
from harness.quantity import Amount
from harness.records.cross_checks import cross_checks
from harness.records.metric import RATE
from harness.records.summary import PointReport, RunReport, Summary
from harness.reporting import charts, quality
from harness.reporting.blocks import Block, Chart, FigureCell, Result, Results
from harness.reporting.charts import Dot, Spot
from harness.reporting.circumstances import CHECK_LIMIT
from harness.reporting.comparison import Runs
from harness.reporting.content import HEADINGS, MAIN, fewest_items, mixed, ordered
from harness.reporting.finding import METRICS as RANKED
from harness.reporting.same_work import apart, titled
from harness.reporting.sidecars import Steps, durations, power_steps
from harness.reporting.wording import counted, listed

COSTS: Final = ("energy_j", "carbon_g", "carbon_operational_g", "water_l")
"""What is drawn against latency and quality, where a run has it."""
FOLD: Final = 24
"""More charts than these, or more rows in one, are folded away."""
MANY, FINE, COARSE = 100, 80, 24
"""Beyond so many points a trace is drawn in fewer steps, which keeps the page small."""
TIMES: Final = ("latency_s", "ttft_s", "tpot_s")
"""Columns that are latencies, first the one that is preferred as an axis."""
_HEADINGS: Final = {**HEADINGS, "water_l": "L water/{}"}
_LIMITS: Final = ("<=", "<", "==")


def numbers(report: RunReport) -> dict[str, int]:
    """Label of a point -> its number in tables and charts."""
    return {point.label: number for number, point in enumerate(report.points, start=1)}


def units(runs: Runs) -> Iterator[Block]:
    """Per functional unit: the tables of results, one for each kind of points, and charts of the energy."""
    report = runs.whole
    number = numbers(report)
    for name in report.unit_names:
        tables: list[Results] = []
        drawn: list[Chart] = []
        for kind, part in apart(report):
            points = ordered(part.points, name)
            if points:
                tables.append(_results(points, name, kind, number))
                drawn += _unit_charts(points, name, kind, leading=name == report.unit_names[0])
        points = [point for point in report.points if name in point.units]
        definitions = list(dict.fromkeys(point.definitions[name] for point in points))
        yield Block(
            anchor=f"unit-{name}",
            title=f"Per {name}",
            intro="" if definitions == [name] else f"{name}: {'; '.join(definitions)}.",
            results=tables,
            charts=drawn,
            folded=len(points) > FOLD,
        )


def _results(points: Sequence[PointReport], name: str, kind: str, number: Mapping[str, int]) -> Results:
    metrics = [m for m in (*MAIN, "water_l") if any(m in point.units[name] for point in points)]
    qualities = quality.columns(points)
    rows = [
        Result(
            number[point.label],
            point.label,
            _marks(point),
            len(point.records),
            [
                *(FigureCell.of(quality.of(point, column), name) for column in qualities),
                *(FigureCell.of(point.units[name].get(metric), name) for metric in metrics),
            ],
        )
        for point in points
    ]
    notes = mixed(points, name)
    if lacking := [metric for metric in MAIN if metric not in metrics]:
        notes.append(f"Not among the results of any point: {', '.join(lacking)} (no meter of the suite gives it).")
    headings = [_HEADINGS[metric].format(name) for metric in metrics]
    return Results(titled(f"Cost per {name}: median over n trials", kind), [*qualities, *headings], rows, notes, kind)


def _unit_charts(points: Sequence[PointReport], name: str, kind: str, *, leading: bool) -> Iterator[Chart]:
    """Energy and rate; not what the leading functional unit's figure shows already."""
    for metric in ("energy_j", RATE):
        if not (leading and metric in RANKED) and (found := _dots(points, name, metric)) is not None:
            what = titled(_HEADINGS[metric].format(name), kind)
            yield Chart(charts.intervals(*found, what, zero=True), what)


def leading_charts(runs: Runs) -> Iterator[Chart]:
    """For each kind of points its first functional unit's costs by which they are ranked, a row a point."""
    for kind, part in apart(runs.whole):
        for name in part.unit_names[:1]:
            points = ordered(part.points, name)
            found = ((metric, _dots(points, name, metric)) for metric in RANKED)
            metric, dots = next(((metric, dots) for metric, dots in found if dots is not None), ("", None))
            if dots is not None:
                what = f"{metric} per {name}: median, bound of the instrument (thick), 95 % interval (thin)"
                yield Chart(charts.intervals(*dots, titled(what, kind), zero=True), titled(what, kind))


def _marks(point: PointReport) -> list[str]:
    return [mark for mark, holds in (("short", point.short), ("NOT VALID", not point.valid)) if holds]


def _dots(points: Sequence[PointReport], name: str, metric: str) -> tuple[list[Dot], str] | None:
    """Dots of the points that have a value, and the unit; None where no point has one."""
    summaries = {point.label: point.units[name][metric] for point in points if metric in point.units[name]}
    dots = [dot for label, summary in summaries.items() if (dot := Dot.of(label, summary))]
    found = [summary.value.unit for summary in summaries.values() if isinstance(summary.value, Amount)]
    return (dots, found[0].partition("/")[0] if metric != RATE else "/s") if dots else None


# Cost against latency and quality


def planes(runs: Runs) -> Block | None:
    """Per functional unit: each cost against latency, rate and quality, with the front of those that none beats."""
    report = runs.whole
    number = numbers(report)
    drawn = [
        chart
        for kind, part in apart(report)
        for name in part.unit_names
        for metric in _costs(part, name)
        for axis, statistic, better in _axes(part, name)
        if (chart := _plane(part, number, name, metric, (axis, statistic), kind, more_is_better=better)) is not None
    ]
    if not drawn:
        return None
    return Block(
        anchor="front",
        title="Cost against latency and quality",
        intro=(
            "Filled marks joined by a line: no other point is better in both. Crosshairs: thick for the instrument's "
            "bound, thin for the interval of the trials' mean. Numbers are those of the tables. Points whose "
            "crosshairs overlap are not told apart by their medians."
        ),
        charts=drawn,
        folded=len(drawn) > 12,
    )


def _costs(report: RunReport, name: str) -> list[str]:
    found = [cost for cost in COSTS if any(_has(point.units.get(name, {}).get(cost)) for point in report.points)]
    return [cost for cost in found if cost != "carbon_operational_g" or "carbon_g" not in found]


def _has(summary: Summary | None) -> bool:
    return summary is not None and isinstance(summary.value, Amount)


def _axes(report: RunReport, name: str) -> list[tuple[str, str, bool]]:
    """(column or rate, statistic, whether more is better): one latency, the rate where there is none, all qualities."""
    filled = [
        column for column in _columns(report) if any(_has(p.columns.get(column, {}).get("p50")) for p in report.points)
    ]
    times = [column for column in TIMES if column in filled]
    floors = [
        column
        for point in report.points
        for finished in point.records
        if name in finished.units
        for column in finished.units[name].sweeps
    ]
    floors += [column for point in report.points for column in _floors(point, name)]
    qualities = [column for column in dict.fromkeys((*floors, *quality.USUAL)) if column in filled]
    few = any(fewest_items(point)[1] for point in report.points)
    return [
        *((column, "mean" if few else "p95", False) for column in times[:1]),
        *([] if times else [(RATE, "", True)]),
        *((column, "mean", True) for column in qualities),
    ]


def _columns(report: RunReport) -> list[str]:
    return list(dict.fromkeys(column for point in report.points for column in point.columns))


def _floors(point: PointReport, name: str) -> Iterator[str]:
    """Columns that a condition of the unit wants to be large."""
    units_ = point.records[0].measurement.point.get("functional_units", {})
    for column, text in (units_.get(name, {}).get("where") or {}).items():
        if Where.parse(column, str(text)).comparison not in _LIMITS:
            yield column


def _plane(
    report: RunReport,
    number: Mapping[str, int],
    name: str,
    metric: str,
    axis: tuple[str, str],
    kind: str,
    *,
    more_is_better: bool,
) -> Chart | None:
    column, statistic = axis
    pairs: list[tuple[str, Dot, Dot]] = []
    symbols = ("", "")
    for point in report.points:
        cost = point.units.get(name, {}).get(metric)
        other = point.units.get(name, {}).get(RATE) if column == RATE else point.columns.get(column, {}).get(statistic)
        if cost is None or other is None or not point.valid:
            continue
        x, y = Dot.of(point.label, other), Dot.of(point.label, cost)
        if x and y and isinstance(other.value, Amount) and isinstance(cost.value, Amount):
            pairs.append((point.label, x, y))
            unit = "/s" if column == RATE else other.value.unit.removeprefix("1")
            symbols = (unit, cost.value.unit.partition("/")[0])
    if len(pairs) < 2:
        return None
    methods = sorted({y.method.value for _, _, y in pairs if y.method})
    best = charts.front([(x, y) for _, x, y in pairs], more_is_better=more_is_better) if len(methods) == 1 else set()
    spots = [Spot(number[label], x, y, at in best) for at, (label, x, y) in enumerate(pairs)]
    what = f"{name}/s" if column == RATE else f"{column} ({statistic})"
    better = "more is better" if more_is_better else "less is better"
    if best:
        names = listed([f"#{spot.number} {spot.x.name}" for spot in spots if spot.front], 8)
        says = f"No other point is better in both: {names}."
    else:
        says = f"No front is drawn: the costs were obtained in different ways ({', '.join(methods)})."
    title = titled(f"{metric} per {name} against {what}", kind)
    drawing = charts.plane(
        spots, ((f"{what}, {better}", symbols[0]), (f"{metric} per {name}", symbols[1])), title, says
    )
    return Chart(drawing, f"{title}. {says}")


# Where each joule went


def joules(runs: Runs) -> Block | None:
    """Shares of scopes and roles in the energy, of embodied in the carbon, of on-site in the water."""
    report = runs.whole
    kinds = {
        "Energy by scope": _totals(report, "energy_j:", ()),
        "Energy by role and span": _spans(report),
        "Carbon: operational and embodied": _totals(report, "", ("carbon_operational_g", "carbon_embodied_g")),
        "Water: on-site and off-site": _totals(report, "", ("water_onsite_l", "water_offsite_l")),
    }
    drawn: list[Chart] = []
    for title, rows in kinds.items():
        if rows:
            names = list(dict.fromkeys(name for shares in rows.values() for name in shares))
            legend = [(f"fill{number % 8}", name) for number, name in enumerate(names)]
            drawn.append(Chart(charts.parts(rows, names, title), f"{title}, percent of each point's total.", legend))
    if not drawn:
        return None
    return Block(
        anchor="joules",
        title="Where each joule went",
        intro="Shares of the medians over trials. Scopes that contain each other are never added up; spans may nest.",
        charts=drawn,
        folded=len(report.points) > FOLD,
    )


def _totals(report: RunReport, prefix: str, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Point -> part -> share, where all wanted parts have a value and their sum is positive."""
    found: dict[str, dict[str, float]] = {}
    for point in report.points:
        wanted = names or [name for name in point.totals if name.startswith(prefix)]
        values = {
            name.removeprefix(prefix): summary.value.value
            for name in wanted
            if (summary := point.totals.get(name)) is not None and isinstance(summary.value, Amount)
        }
        whole = math.fsum(values.values())
        if values and whole > 0 and len(values) == len(wanted):
            found[point.label] = {name: value / whole for name, value in values.items()}
    return found


def _spans(report: RunReport) -> dict[str, dict[str, float]]:
    """Point -> `role:draft` or another marked span -> share of the windows' energy; what no role took is the rest."""
    found: dict[str, dict[str, float]] = {}
    for point in report.points:
        spent: dict[str, float] = {}
        whole = 0.0
        for finished in (each for each in point.records if not each.modelled):
            for reading in finished.measurement.readings:
                if not reading.primary or reading.window < 0 or not isinstance(reading.value, Amount):
                    continue
                if reading.span == "window":
                    whole += reading.value.value
                elif reading.span.startswith("role:"):
                    spent[reading.span] = spent.get(reading.span, 0.0) + reading.value.value
        rest = whole - math.fsum(spent.values())
        if spent and whole > 0 and rest >= 0:
            found[point.label] = {name: value / whole for name, value in (*spent.items(), ("no role", rest))}
    return found


# Traces, distributions, agreement, images


def traces(runs: Runs) -> Block | None:
    """The power trace of every window of a point in one chart."""
    drawn = []
    scopes: dict[str, int] = {}
    steps_most = FINE if len(runs.whole.points) <= MANY else COARSE
    for number, point in enumerate(runs.whole.points, start=1):
        series: list[tuple[int, Steps]] = []
        for finished in point.records:
            for scope, windows in power_steps(runs.folder(finished), finished, steps_most).items():
                colour = scopes.setdefault(scope, len(scopes))
                series += [(colour, steps) for steps in windows]
        if series:
            peak = max(watts for _, steps in series for *_, watts in steps)
            says = f"{counted(len(series), 'trace')}, at most {peak:.4g} W"
            title = f"#{number} {point.label}"
            drawn.append(Chart(charts.power(series, f"Power of {title}", says), f"{title}: {says}."))
    if not drawn:
        return None
    return Block(
        anchor="power",
        title="Power in each window",
        intro="Mean watts between readings of the primary meter, one line a window, all trials of a point together.",
        charts=drawn,
        legend=[(f"fill{number % 8}", scope) for scope, number in scopes.items()],
        folded=len(drawn) > FOLD,
    )


def distributions(runs: Runs) -> Block | None:
    """Per latency column a histogram for each point, all items of its trials together."""
    report = runs.whole
    columns = [column for column in _columns(report) if column in TIMES]
    rows: dict[str, list[tuple[str, list[float]]]] = {column: [] for column in columns}
    for number, point in enumerate(report.points, start=1):
        folders = [runs.folder(finished) for finished in point.records]
        for column, values in durations(folders, columns).items():
            rows[column].append((f"#{number} {point.label} ({counted(len(values), 'item')})", values))
    drawn = [
        Chart(
            charts.ridges(found, "s", f"Distribution of {column}"), f"{column} of completed items, all trials together."
        )
        for column, found in rows.items()
        if found
    ]
    if not drawn:
        return None
    return Block(
        anchor="latency",
        title="Latency distributions",
        intro="Heights are relative to the fullest bin of a row. Solid tick: median; dashed tick: 95th percentile.",
        charts=drawn,
        folded=len(report.points) > FOLD,
    )


def meters(runs: Runs) -> list[Chart]:
    """How far second meters are from the primary one of their scope."""
    dots = [
        Dot(
            name=f"{check.scope}: {check.check} against {check.primary}",
            value=check.difference * 100,
            bound=None,
            spread=(check.spread[0] * 100, check.spread[1] * 100) if check.spread and check.n > 1 else None,
            method=None,
            tip=f"{check.check} against {check.primary} on {check.scope}: {check.difference * 100:+.1f} %, n {check.n}",
        )
        for check in cross_checks(runs.whole.records)
        if check.difference is not None
    ]
    if not dots:
        return []
    limit = CHECK_LIMIT * 100
    drawing = charts.intervals(dots, "%", "Difference of meters", band=(-limit, limit))
    return [Chart(drawing, f"Difference from the primary meter; the band is ± {limit:.0f} %.")]
