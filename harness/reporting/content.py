"""What a report says, section by section, before it is laid out: tables and lists of plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.quantity import Amount
from harness.records.metric import ABOVE_IDLE, QUANTILES, RATE, base_name
from harness.records.summary import PointReport, RunReport, Summary
from harness.reporting import absent, by_class, circumstances, heat, idle, pareto, power_curve, quality, ranking
from harness.reporting.crossings import sections as questions
from harness.reporting.same_work import each_kind
from harness.reporting.tables import Section, Table
from harness.reporting.wording import (
    LEAST_ITEMS,
    SPREAD_EXPLAINED,
    Footnotes,
    base_unit,
    bound,
    counted,
    interval,
    label,
)
from harness.units import number, si

MAIN = (RATE, "energy_j", "carbon_operational_g", "carbon_embodied_g")
"""Metrics of the first table of a functional unit."""
HEADINGS = {
    RATE: "{}/s",
    "energy_j": "J/{}",
    "carbon_operational_g": "gCO2e/{} operational",
    "carbon_embodied_g": "gCO2e/{} embodied",
}


FEW: Final = f"no quantile of fewer than {LEAST_ITEMS} items"


@dataclass(frozen=True, slots=True)
class Content:
    """A report in order: title, header lines, sections."""

    title: str
    header: Sequence[tuple[str, str]]
    sections: Sequence[Section] = field(default=())


def build(report: RunReport) -> Content:
    """All sections of a report; those with nothing to say are left out."""
    sections = [
        *questions.sections(report),
        *each_kind(report, lambda part: (_unit_section(part, name) for name in part.unit_names)),
        *each_kind(report, pareto.sections),
        *power_curve.sections(report),
        *by_class.sections(report),
        idle.section(report),
        further(report),
        ranking.shares(report),
        *each_kind(report, ranking.embodied),
        *each_kind(report, ranking.sweeps),
        *each_kind(report, lambda part: [ranking.ties(part)]),
        work_items(report),
        absent.section(report),
        circumstances.coverage(report),
        circumstances.checks(report),
        circumstances.load(report),
        circumstances.conditions(report),
        heat.section(report),
        circumstances.factors(report),
    ]
    return Content(
        f"Run {report.run.get('run', report.folder.name)}",
        circumstances.header(report),
        [section for section in sections if section is not None],
    )


def cell(summary: Summary | None, name: str, notes: Footnotes) -> str:
    """A metric in a table: value, label, bound and spread, one a line; or what it lacks, with a mark."""
    if summary is None:
        return f"unavailable {notes.mark('not among the results of this point')}"
    value = summary.value
    if not isinstance(value, Amount):
        return f"{value.kind} {notes.mark(value.reason)}"
    unit = base_unit(value, name)
    lines = [si(value.value, unit), label(summary), bound(summary, unit), interval(summary, unit)]
    if summary.n < summary.trials:
        reasons = " ".join(notes.mark(reason) for reason in summary.missing)
        lines.append(f"{summary.n} of {counted(summary.trials, 'trial')} {reasons}")
    return "\n".join(line for line in lines if line)


def _title(point: PointReport) -> str:
    marks = [mark for mark, holds in (("short", point.short), ("NOT VALID", not point.valid)) if holds]
    return "\n".join([point.label, *marks])


def ordered(points: Iterable[PointReport], name: str) -> list[PointReport]:
    """Points in the order of the plan; those that lack a main metric last, the more they lack the later."""

    def lacking(point: PointReport) -> int:
        found = [point.units[name].get(metric) for metric in MAIN]
        return sum(summary is None or not isinstance(summary.value, Amount) for summary in found)

    return sorted((point for point in points if name in point.units), key=lacking)


def _unit_section(report: RunReport, name: str) -> Section:
    points = ordered(report.points, name)
    notes = Footnotes()
    metrics = [metric for metric in MAIN if any(metric in point.units[name] for point in points)]
    qualities = quality.columns(points)
    rows = [
        [
            _title(point),
            str(len(point.records)),
            *(cell(quality.of(point, column), name, notes) for column in qualities),
            *(cell(point.units[name].get(metric), name, notes) for metric in metrics),
        ]
        for point in points
    ]
    columns = ["point", "n", *qualities, *(HEADINGS[metric].format(name) for metric in metrics)]
    definition = points[0].definitions[name]
    paragraphs = [*notes.texts(), *_compositions(points, name), *mixed(points, name)]
    if lacking := [metric for metric in MAIN if metric not in metrics]:
        paragraphs.append(f"Not among the results of any point: {', '.join(lacking)} (no meter of the suite gives it).")
    if any(point.short for point in points):
        paragraphs.append("short: the windows are shorter than an energy result needs; never gated.")
    if not all(point.valid for point in points):
        paragraphs.append("NOT VALID: no trial of the point passed the checks of its measurement; see below.")
    paragraphs.append(
        f"Each cell: median of n trials, weakest method, bound of the instrument, then {SPREAD_EXPLAINED}."
    )
    return Section(
        f"Per {name}" + (f" ({definition})" if definition != name else ""), Table(columns, rows), paragraphs=paragraphs
    )


def _compositions(points: Sequence[PointReport], name: str) -> list[str]:
    """Of each metric that more than one method gave."""
    return [
        f"{point.label}, {metric}: {summary.composition}"
        for point in points
        for metric, summary in point.units[name].items()
        if summary.composition and base_name(metric) == metric
    ]


def mixed(points: Sequence[PointReport], name: str) -> list[str]:
    """A warning for each metric whose points were obtained in different ways."""
    found = []
    definitions = sorted({point.definitions[name] for point in points})
    if len(definitions) > 1:
        found.append(
            f"{name} is defined in {len(definitions)} ways ({'; '.join(definitions)}): do not compare these rows."
        )
    for metric in MAIN:
        labels = {label(summary) for point in points if (summary := point.units[name].get(metric)) and label(summary)}
        if len(labels) > 1:
            found.append(f"{metric} is {' in some rows, '.join(sorted(labels))} in others: do not compare these rows.")
    return found


def _row(summary: Summary, name: str, notes: Footnotes) -> list[str]:
    """Value, method, bound, spread and n in cells of their own."""
    value = summary.value
    if not isinstance(value, Amount):
        return [f"{value.kind} {notes.mark(value.reason)}", "", "", "", f"0 of {summary.trials}"]
    unit = base_unit(value, name) if name else "" if value.unit == "1" else value.unit
    n = str(summary.n) if summary.n == summary.trials else f"{summary.n} of {summary.trials}"
    return [si(value.value, unit), label(summary), bound(summary, unit), interval(summary, unit), n]


def _noted(text: str, note: str | None) -> str:
    return f"{text} ({note})" if note else text


def further(report: RunReport) -> Section | None:
    """Costs per unit that the first tables do not show: water, total carbon, ..."""
    notes = Footnotes()
    rows = [
        [point.label, _noted(f"{metric} per {name}", point.notes.get(metric)), *_row(summary, name, notes)]
        for point in report.points
        for name, metrics in point.units.items()
        for metric, summary in metrics.items()
        if metric not in {*MAIN, "duration_s"} and base_name(metric) == metric
        if metric != ABOVE_IDLE or idle.measured(point)
    ]
    columns = ["point", "cost", "median", "method", "bound", "mean", "n"]
    return Section("Further costs", Table(columns, rows), paragraphs=notes.texts()) if rows else None


def work_items(report: RunReport) -> Section | None:
    """What the workload and the scorers wrote for each item."""
    notes = Footnotes()
    statistics = list(dict.fromkeys(s for p in report.points for column in p.columns.values() for s in column))
    rows = []
    for point in report.points:
        items, few = fewest_items(point)
        for column, found in point.columns.items():
            summaries = [found.get(statistic) for statistic in statistics]
            if all(summary is None or not isinstance(summary.value, Amount) for summary in summaries):
                continue
            method = next(text for summary in summaries if summary and (text := label(summary)))
            cells = [
                notes.mark(FEW) if few and statistic in QUANTILES else _short(summary, notes)
                for statistic, summary in zip(statistics, summaries, strict=True)
            ]
            rows.append([point.label, column, method, items, *cells])
    if not rows:
        return None
    paragraphs = [
        "Medians over trials of each trial's statistic; completed items only, counted in the trial with the fewest.",
        *notes.texts(),
    ]
    return Section(
        "Work items", Table(["point", "column", "method", "items", *statistics], rows), paragraphs=paragraphs
    )


def fewest_items(point: PointReport) -> tuple[str, bool]:
    """How many items the trial with the fewest completed, and whether that is too few for a quantile."""
    counts = [max(u.count.items - u.count.failed for u in r.units.values()) for r in point.records if r.units]
    if not counts:
        return "not known", False
    return number(min(counts), 12), min(counts) < LEAST_ITEMS


def _short(summary: Summary | None, notes: Footnotes) -> str:
    if summary is None:
        return ""
    value = summary.value
    if not isinstance(value, Amount):
        return f"{value.kind} {notes.mark(value.reason)}"
    return si(value.value, "" if value.unit == "1" else value.unit)
