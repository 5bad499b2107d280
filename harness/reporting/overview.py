"""What a report says first: what was found, each point in a table, and notes; up to ten points fit a screen."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.quantity import Amount, weakest
from harness.records.metric import RATE
from harness.records.summary import PointReport, RunReport, Summary
from harness.reporting import circumstances, heat, quality
from harness.reporting.absent import skipped_by_reason
from harness.reporting.content import HEADINGS, MAIN, ordered
from harness.reporting.crossings import sections as questions
from harness.reporting.finding import finding
from harness.reporting.same_work import apart, titled
from harness.reporting.tables import Section, Table
from harness.reporting.wording import Footnotes, base_unit, bound, counted, label, listed, ranged
from harness.statistics.intervals import NAME
from harness.units import number, si

FACTORS: Final = 3
"""So many factors are told in footnotes; the details number all of them."""
REASONS: Final = 2
"""So many reasons of one kind are told; the details tell all of them."""
OTHER_UNITS: Final = 2
"""So many further functional units have a sentence of their own, even where every point stands in another table."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The first screen of a report.

    Attributes:
        title: which run, how large, on what.
        findings: a sentence about the first functional unit, then about the next ones.
        sections: a table of the first functional unit with its notes, others of points that lack it, then what the
            experiment took as a whole.
    """

    title: str
    findings: Sequence[str]
    sections: Sequence[Section]


def overview(report: RunReport, *, details: bool = False) -> Overview:
    """The overview of a run.

    Args:
        report: of the run.
        details: whether the details follow, so that no note need point to them.
    """
    findings: list[str] = []
    sections: list[Section] = []
    kinds = apart(report)
    others = OTHER_UNITS if len(kinds) == 1 else 1
    for kind, part in kinds:
        tables = _covering(part)
        told = [name for place, name in enumerate(part.unit_names) if place <= others or name in tables]
        found = {name: finding(part, name) for name in told}
        texts = {name: each.text for name, each in found.items()}
        findings += [f"{kind}: {text}" for text in _alike(texts)] if kind else texts.values()
        sections += [_table(part, name, found[name].notes, kind) for name in tables]
    notes = [*_troubles(report), *total(report)]
    if not details:
        notes.append(f"More: harness report {shlex.quote(str(report.folder))} --details, or --format html")
    return Overview(
        _title(report), [*questions.sentences(report), *findings], [*sections, Section("", paragraphs=notes)]
    )


def _alike(texts: Mapping[str, str]) -> list[str]:
    """The sentences about several functional units; those that say the same of two of them are one."""
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text.replace(f"per {name}", "per {}"), []).append(name)
    return [text.replace("per {}", f"per {' and per '.join(named)}") for text, named in names.items()]


def _covering(report: RunReport) -> list[str]:
    """The first functional units whose tables show every point: cases may count different things."""
    names: list[str] = []
    for point in report.points:
        if point.units and not point.units.keys() & set(names):
            names.append(next(iter(point.units)))
    return names


def _title(report: RunReport) -> str:
    points, trials = counted(len(report.points), "point"), counted(len(report.records), "trial")
    status = report.run.get("status", "")
    parts = [f"Run {report.run.get('run', report.folder.name)}", f"{points}, {trials}", str(status)]
    return ": ".join([parts[0], ", ".join(part for part in parts[1:] if part)])


def _table(report: RunReport, name: str, remarks: Sequence[str], kind: str) -> Section:
    points = ordered(report.points, name)
    notes = Footnotes()
    metrics = [metric for metric in MAIN if any(metric in point.units[name] for point in points)]
    lacking = {metric: why for metric in metrics if (why := _missing_alike(points, name, metric))}
    metrics = [metric for metric in metrics if metric not in lacking]
    qualities = quality.columns(points)
    columns = ["point", "n", *qualities, *(HEADINGS[metric].format(name) for metric in metrics)]
    marks = _factor_marks(report, notes)
    columns = [f"{each} {marks}" if marks and each.startswith("gCO2e") else each for each in columns]
    read = [_instrument(point.units[name].get("energy_j"), name) for point in points]
    differ = len(set(read)) > 1
    if differ:
        columns.append("meters")
    rows = []
    for point, meters in zip(points, read, strict=True):
        row = [" ".join([point.label, *_doubts(point, notes)]), str(len(point.records))]
        row += [_middle(quality.of(point, column)) for column in qualities]
        row += [_cell(point.units[name].get(metric), name, metric, notes) for metric in metrics]
        rows.append([*row, meters] if differ else row)
    intervals = any(len(point.records) > 2 for point in points)
    legend = f"Medians of n trials{f' [{NAME}]' if intervals else ''}; "
    known = read[0] or _method_of_totals(points) or "not read"  # where no unit was achieved, there is no cost of one
    legend += "meters: weakest method, bound of the instrument." if differ else f"energy: {known}."
    definition = points[0].definitions[name]
    title = titled(f"Per {name}" + (f" ({definition})" if definition != name else ""), kind)
    absent = [f"{HEADINGS[metric].format(name)}: {why}" for metric, why in lacking.items()]
    return Section(title, Table(columns, rows), paragraphs=[legend, *absent, *notes.texts(), *remarks])


def _method_of_totals(points: Sequence[PointReport]) -> str:
    """The weakest method of the energy of all trials; empty where none was read."""
    totals = [each.totals.get("energy_j") for point in points for each in point.records]
    methods = [total.label for total in totals if isinstance(total, Amount)]
    return weakest(*methods).value if methods else ""


def _missing_alike(points: Sequence[PointReport], name: str, metric: str) -> str:
    """Why no point has a metric, where it is one reason: a note then, and no column; empty where it is not."""
    said = set()
    for point in points:
        summary = point.units[name].get(metric)
        if summary is None or isinstance(summary.value, Amount):
            return ""
        said.add(f"{summary.value.kind}, {summary.value.reason}")
    return said.pop() if len(said) == 1 else ""


def _doubts(point: PointReport, notes: Footnotes) -> list[str]:
    doubts = []
    if not point.valid:
        doubts.append(notes.mark("NOT VALID: no trial passed the checks of its measurement."))
    if point.short:
        doubts.append(notes.mark("short: the windows are shorter than an energy result needs; never gated."))
    return doubts


def _cell(summary: Summary | None, name: str, metric: str, notes: Footnotes) -> str:
    if summary is None:
        return f"unavailable {notes.mark('not among the results of this point')}"
    if not isinstance(summary.value, Amount):
        return f"{summary.value.kind} {notes.mark(summary.value.reason)}"
    unit = base_unit(summary.value, name)
    text = ranged(summary, "" if metric == RATE and unit == "/s" else unit)
    if summary.n < summary.trials:
        text += f" {notes.mark(f'{summary.n} of {summary.trials} trials: ' + '; '.join(summary.missing))}"
    return text


def _middle(summary: Summary | None) -> str:
    """A quality's median alone: costs are what the first screen has room to tell the intervals of."""
    if summary is None or not isinstance(summary.value, Amount):
        return "unavailable"
    return si(summary.value.value, "")


def _instrument(summary: Summary | None, name: str) -> str:
    if summary is None or not isinstance(summary.value, Amount):
        return ""
    return f"{label(summary)} {bound(summary, base_unit(summary.value, name))}"


def _factor_marks(report: RunReport, notes: Footnotes) -> str:
    factors = circumstances.factors_of(report)
    shown = factors if len(factors) <= FACTORS else factors[: FACTORS - 1]
    texts = [circumstances.factor_text(factor) for factor in shown]
    if len(shown) < len(factors):
        texts.append(f"and {counted(len(factors) - len(shown), 'further factor')}, in the details")
    return "".join(notes.mark(text) for text in texts)


def _troubles(report: RunReport) -> Iterator[str]:
    """What went wrong, was left out or seen, in a line a kind."""
    if report.failures:
        reasons = list(dict.fromkeys(failure.reason for failure in report.failures))
        yield f"Failed or missing: {len(report.failures)} ({listed(reasons, REASONS)})"
    left_out = sum(len(point.left_out) for point in report.points)
    if left_out:
        yield f"Left out as not valid: {counted(left_out, 'trial')}"
    skipped = skipped_by_reason(report)
    if skipped:
        told = [f"{counted(len(points), 'point')}: {reason}" for reason, points in skipped.items()]
        yield f"Skipped: {listed(told, REASONS)}"
    seen: Counter[str] = Counter()
    for finished in report.records:
        kinds = {condition.kind for condition in finished.measurement.conditions}
        seen.update(kinds | {flag for flag in circumstances.flags(finished) if ":" not in flag})
    if seen:
        trials = len(report.records)
        told = [f"{kind} in {'all' if count == trials else f'{count} of {trials}'}" for kind, count in seen.items()]
        yield f"Seen in trials: {', '.join(sorted(told))}"
    if drifts := [f"{each.what}, {each.where}: {each}" for each in heat.drifts(report)]:
        yield f"Drift over trials: {listed(drifts, REASONS)}"
    warned = [row for row in circumstances.check_rows(report) if row[-1].startswith("WARNING")]
    if warned:
        told = [f"{row[2]} lies {row[3]} from {row[1]} on {row[0]}" for row in warned]
        yield f"Meters disagree: {listed(told, REASONS)}"


TOTALS: Final = {"energy_j": "J", "carbon_g": "gCO2e", "water_l": "L"}
"""What an experiment is charged with as a whole, and its unit as it is shown."""


def total(report: RunReport) -> list[str]:
    """What all trials took together, each sum with its weakest method; the time, and what is not covered."""
    records = report.records
    modelled = [finished for finished in records if finished.modelled]
    real = [finished for finished in records if not finished.modelled]
    if not real:
        return ["The experiment: no machine did the work, so that it is charged with nothing."]
    told = []
    for metric, unit in TOTALS.items():
        names = (metric, "carbon_operational_g") if metric == "carbon_g" else (metric,)
        for name in names:
            values = [value for finished in real if isinstance(value := finished.totals.get(name), Amount)]
            if values:
                part = "" if len(values) == len(real) else f", {len(values)} of {len(real)} trials"
                word = " operational" if name == "carbon_operational_g" else ""
                whole, method = math.fsum(each.value for each in values), weakest(*(each.label for each in values))
                told.append(f"{si(whole, unit)}{word} ({method.value}{part})")
                break
        else:
            told += ["energy not read"] if metric == "energy_j" else []
    windows_s = math.fsum(span.duration_s for finished in real for span in finished.measurement.windows)
    warm_s = math.fsum(finished.measurement.warm_up.seconds for finished in real)
    text = (
        f"The experiment: {', '.join(told)} in the windows of {counted(len(real), 'trial')} ({hours(windows_s)}); "
        f"not metered: warm-up of {hours(warm_s)}, loading, and trials without a record."
    )
    return [text + (f" {counted(len(modelled), 'modelled trial')} not counted." if modelled else "")]


def hours(duration_s: float) -> str:
    """A duration in hours, or in seconds below a tenth of one."""
    return f"{number(duration_s / 3600)} h" if duration_s >= 360 else f"{number(duration_s)} s"
