"""Whether a ranking of the points holds: under other embodied tables, at other quality bars, at other pass shares."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.functional_unit import Sweep, per_unit
from harness.quantity import Amount, Unavailable, Value
from harness.records.record import Record, UnitResult
from harness.records.summary import PointReport, RunReport, summarise
from harness.reporting.tables import Section, Table
from harness.statistics.ties import break_even_share, flip_factor, tie_ratio
from harness.units import si

EMBODIED_SPREAD: Final = 47
"""The published embodied tables differ by about so much for an hour of one H100 with its share of the host."""
COSTS: Final = ("carbon_g", "energy_j")
"""What a ranking is by: the first of them that every point has."""


def shares(report: RunReport) -> Section | None:
    """Per point and unit: percent of all measured items that passed, met the time limits, failed each condition."""
    rows = []
    for point in report.points:
        for name in point.units:
            found = [finished.units[name].shares for finished in point.records if name in finished.units]
            if not any(finished.units[name].count.meeting for finished in point.records if name in finished.units):
                continue
            for what in dict.fromkeys(key for each in found for key in each):
                value = summarise([each.get(what, Unavailable("not counted")) for each in found]).value
                rows.append([point.label, name, what, _percent(value)])
    note = "Of all measured items, failed ones among them. A failed item fails every condition."
    table = Table(["point", "unit", "share", "percent"], rows)
    return Section("Shares of items", table, paragraphs=[note]) if rows else None


def _percent(value: Value) -> str:
    return f"{value.value:.4f} %" if isinstance(value, Amount) else value.kind


def _over_trials(point: PointReport, name: str, of: Callable[[Record, UnitResult], Value]) -> float | None:
    """The median over the trials of something per unit; None where a trial lacks it."""
    values = [of(finished, finished.units[name]) for finished in point.records if name in finished.units]
    summary = summarise(values)
    return summary.value.value if isinstance(summary.value, Amount) and summary.n == len(values) else None


def _cost(point: PointReport, name: str, metric: str) -> float | None:
    return _over_trials(point, name, lambda _, unit: unit.costs.get(metric, Unavailable("not read")))


# Embodied tables


def embodied(report: RunReport) -> list[Section]:
    """Per unit: totals under the lowest and the highest table that fits every device, and whether the ranking holds."""
    sections = []
    for name in report.unit_names:
        points = [point for point in report.points if name in point.units]
        parts = {
            point.label: (operational, grams)
            for point in points
            if (operational := _cost(point, name, "carbon_operational_g")) is not None
            and (grams := _cost(point, name, "carbon_embodied_g")) is not None
        }
        if len(parts) < 2:
            continue
        ranked = [point for point in points if point.label in parts]
        tables = {id_ for point in ranked for id_ in embodied_tables(point)}
        title = f"Embodied carbon and the ranking per {name}"
        if len(tables) > 1:
            text = f"Not ranked: two embodied tables in one comparison ({', '.join(sorted(tables))})."
            sections.append(Section(title, paragraphs=[text]))
        else:
            sections.append(_verdict(title, name, ranked, parts))
    return sections


def embodied_tables(point: PointReport) -> set[str]:
    """Ids of the embodied tables that a point's carbon rests on."""
    return {factor.id for finished in point.records for factor in finished.factors if factor.name == "embodied_table"}


def _under(point: PointReport, name: str) -> dict[str, float]:
    """Embodied carbon per unit under each table that fits the point's devices."""
    tables = dict.fromkeys(table for r in point.records for table in r.alternatives.get("carbon_embodied_g", {}))
    found = {}
    for table in tables:
        value = _over_trials(
            point,
            name,
            lambda finished, unit, table=table: per_unit(  # type: ignore[misc]
                finished.alternatives.get("carbon_embodied_g", {}).get(table, Unavailable("no row")), name, unit.count
            ),
        )
        if value is not None:
            found[table] = value
    return found


def _verdict(title: str, name: str, points: Sequence[PointReport], parts: Mapping[str, tuple[float, float]]) -> Section:
    under = {point.label: _under(point, name) for point in points}
    common = set.intersection(*(set(found) for found in under.values()))
    order = sorted(common, key=lambda table: sum(found[table] for found in under.values()))
    ends = (order[0], order[-1]) if len(order) > 1 else ()
    rows = []
    for label, (operational, grams) in parts.items():
        totals = [si(operational + under[label][table], "g") for table in ends]
        rows.append([label, si(operational, "g"), si(grams, "g"), f"{_share(grams, operational):.2g} %", *totals])
    columns = ["point", "operational", "embodied", "embodied share"]
    if ends:
        columns += [f"total, low: {ends[0]}", f"total, high: {ends[1]}"]
        low, high = ([*_ranked({each: parts[each][0] + under[each][table] for each in parts})] for table in ends)
        verdict = "robust: the same at both ends" if low == high else "NOT robust: it differs between the two ends"
        text = f"The ranking is {verdict} ({ends[0]}: {' < '.join(low)})."
    else:
        text = " ".join(["Fewer than two embodied tables have a row for every device compared.", *_flips(parts)])
    return Section(title, Table(columns, rows), paragraphs=[text])


def _share(part: float, other: float) -> float:
    return 100 * part / (part + other) if part + other > 0 else 0.0


def _ranked(costs: Mapping[str, float]) -> list[str]:
    return sorted(costs, key=lambda label: costs[label])


def _flips(parts: Mapping[str, tuple[float, float]]) -> list[str]:
    """For each pair of neighbours in the ranking, the factor on embodied carbon that turns it."""
    order = _ranked({label: sum(both) for label, both in parts.items()})
    texts = []
    for first, second in itertools.pairwise(order):
        factor = flip_factor(*parts[first], *parts[second])
        at = "at no common factor on embodied carbon" if factor is None else f"at embodied carbon x {factor:.3g}"
        texts.append(f"{first} < {second} would turn {at} (published tables differ x {EMBODIED_SPREAD}).")
    return texts


# Bars and pass shares


def sweeps(report: RunReport) -> list[Section]:
    """Per unit with a condition on a scored column: cost per unit at every bar, and where the ranking turns."""
    sections = []
    for name in report.unit_names:
        points = [point for point in report.points if name in point.units]
        for column in dict.fromkeys(
            c for p in points for r in p.records if name in r.units for c in r.units[name].sweeps
        ):
            section = _sweep(name, column, points)
            if section is not None:
                sections.append(section)
    return sections


def at_bar(finished: Record, unit: UnitResult, name: str, sweep: Sweep, limit: float, metric: str) -> Value:
    """The cost of one unit, had the swept condition another limit; Undefined where nothing would meet it."""
    counted = replace(
        unit.count,
        achieved=sweep.achieved(limit),
        qualifying=sweep.qualifying(limit),
        meeting={f"{sweep.column} {sweep.comparison} {limit:g}": sweep.qualifying(limit)},
    )
    return per_unit(finished.totals.get(metric, Unavailable(f"no {metric}")), name, counted)


def _sweep(name: str, column: str, points: Sequence[PointReport]) -> Section | None:
    found = {
        p.label: [s for r in p.records if isinstance(s := r.units[name].sweeps.get(column), Sweep)] for p in points
    }
    bars = sorted({bar for each in found.values() for sweep in each for bar in sweep.bars})
    metric = next(
        (m for m in COSTS if all(isinstance(p.totals[m].value, Amount) for p in points if m in p.totals)), None
    )
    if not bars or metric is None:
        return None
    rows, orders = [], []
    for bar in bars:
        costs = {point.label: _cost_at(point, name, column, bar, metric) for point in points}
        known = {label: cost for label, cost in costs.items() if cost is not None}
        orders.append((bar, _ranked(known)))
        cells = [si(cost, metric.rpartition("_")[2]) if cost is not None else "undefined" for cost in costs.values()]
        rows.append([f"{bar:g}", *cells])
    title = f"{metric} per {name} at other bars of {column}"
    return Section(title, Table([column, *(point.label for point in points)], rows), paragraphs=_turns(column, orders))


def _cost_at(point: PointReport, name: str, column: str, bar: float, metric: str) -> float | None:
    def cost(finished: Record, unit: UnitResult) -> Value:
        sweep = unit.sweeps.get(column, Unavailable("not swept"))
        return sweep if isinstance(sweep, Unavailable) else at_bar(finished, unit, name, sweep, bar, metric)

    return _over_trials(point, name, cost)


def _turns(column: str, orders: Sequence[tuple[float, list[str]]]) -> list[str]:
    """Between which bars the ranking changes, points without a unit left out."""
    texts = []
    for (before, first), (after, second) in itertools.pairwise(orders):
        both = [label for label in first if label in second]
        if both != [label for label in second if label in first]:
            texts.append(f"The ranking turns between {column} {before:g} and {after:g}: then {' < '.join(second)}.")
    return texts or ["The ranking is the same at every bar where it is defined."]


def ties(report: RunReport) -> Section | None:
    """Cheapest point of each unit against every other: at which pass share, and at which ratio of units, they tie."""
    rows = []
    for name in report.unit_names:
        points = [point for point in report.points if name in point.units and _where(point, name)]
        metric = next((m for m in COSTS if sum(_cost(point, name, m) is not None for point in points) > 1), None)
        if metric is None:
            continue
        costs = {point.label: cost for point in points if (cost := _cost(point, name, metric)) is not None}
        best = next(point for point in points if point.label == _ranked(costs)[0])
        rows += [row for point in points if point is not best for row in _tie(name, metric, best, point)]
    columns = ["unit", "cheaper", "than", "by", "pass share now", "break-even pass share", "tie at a ratio of units"]
    note = "Pass share: units that count, of those produced. Below the break-even the other is the cheaper one."
    return Section("Where the ranking turns", Table(columns, rows), paragraphs=[note]) if rows else None


def _where(point: PointReport, name: str) -> bool:
    return any(finished.units[name].count.meeting for finished in point.records if name in finished.units)


def _tie(name: str, metric: str, best: PointReport, rival: PointReport) -> list[list[str]]:
    rival_cost = _cost(rival, name, metric)
    if rival_cost is None:
        return []
    whole, rival_whole = (
        _over_trials(point, name, lambda finished, _: finished.totals[metric]) or 0.0 for point in (best, rival)
    )
    produced, achieved = (
        _over_trials(best, name, lambda _, unit, key=key: _number(getattr(unit.count, key)))  # type: ignore[misc]
        for key in ("produced", "achieved")
    )
    if not produced or achieved is None:
        return []
    share, ratio = break_even_share(whole, produced, rival_cost), tie_ratio(whole, rival_whole)
    now = f"{_share(achieved, produced - achieved):.4g} %"
    even = "none" if share is None else f"{100 * share:.4g} %"
    return [[name, best.label, rival.label, metric, now, even, "none" if ratio is None else f"{ratio:.4g}"]]


def _number(value: object) -> Value:
    return Amount.exact(value, "1") if isinstance(value, float) else Unavailable("not counted")
