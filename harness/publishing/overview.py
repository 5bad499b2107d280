"""The pages that list: the overview, the runs, what changed last in each suite, the badges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from harness.comparing.history import MetricSeries
from harness.publishing import histories, leaderboards
from harness.publishing.parts import Badge, Cell, Grid, GridRow, Part, moment
from harness.publishing.results import METRICS, Published, Result
from harness.publishing.tables import CSV, PARQUET
from harness.records.metric import Metric
from harness.reporting.tables import Section
from harness.reporting.wording import counted, listed
from harness.units import si

NEWEST: Final = 15
"""Runs on the overview; the others stand in the list of all."""
TOLD: Final = 20
"""So many change points, and runs that were not read, are told on the overview."""
RUN_COLUMNS: Final = ("run", "started, UTC", "suites", "points", "trials", "device", "status")


def run_rows(runs: Sequence[Published]) -> list[GridRow]:
    """A row a run."""
    return [
        GridRow(
            (
                Cell(run.name, href=run.page, flags=["costed again"] if run.recosted else ()),
                Cell(moment(run.started_utc) or "-"),
                Cell(", ".join(run.suites) or "-"),
                Cell(listed(run.labels, 3) or "-", sort=float(len(run.labels))),
                Cell(str(run.trials), sort=run.trials, small=[f"{run.lost} failed or missing"] if run.lost else ()),
                Cell(", ".join(run.devices) or "-"),
                Cell(run.status or "-"),
            )
        )
        for run in runs
    ]


def runs_part(runs: Sequence[Published]) -> Part:
    """The list of all runs, newest first."""
    return Part(
        anchor="runs",
        title=counted(len(runs), "run"),
        grid=Grid("Runs, newest first", RUN_COLUMNS, run_rows(runs)),
    )


def overview_parts(
    runs: Sequence[Published], boards: Sequence[tuple[str, str, int]], series: Mapping[Metric, Sequence[MetricSeries]]
) -> Iterator[Part]:
    """The parts of the first page.

    Args:
        runs: newest first.
        boards: functional unit and metric of each leaderboard, and how many results it shows.
        series: of the histories.
    """
    rows = []
    for unit, metric, count in boards:
        followed = max((len(each.entries) for each in series.get(Metric(metric, unit), ())), default=0)
        past = histories.page_of(unit, metric) if followed else ""
        rows.append(
            GridRow(
                (
                    Cell(leaderboards.title_of(unit, metric), href=leaderboards.page_of(unit, metric)),
                    Cell(str(count), sort=count),
                    Cell(f"history of up to {counted(followed, 'run')}" if past else "-", href=past),
                )
            )
        )
    yield Part(
        anchor="leaderboards",
        title="Leaderboards and histories",
        grid=Grid("Costs and rates per functional unit", ("leaderboard", "results", "history"), rows),
    )
    yield Part(
        anchor="newest",
        title="Newest runs",
        grid=Grid("Newest runs", RUN_COLUMNS, run_rows(runs[:NEWEST])),
        links=[(f"All {counted(len(runs), 'run')}", "runs.html")],
    )
    if changes := _change_rows(series, {run.name: run.page for run in runs}):
        yield Part(
            anchor="change-points",
            title="Newest change points",
            grid=Grid("Newest change points", ("run", "what", "of", "before", "after"), changes[:TOLD]),
            notes=[f"{len(changes) - TOLD} earlier ones stand in the histories."] if len(changes) > TOLD else (),
        )
    unread = [f"{run.name}: {run.status}" for run in runs if not run.page]
    if unread:
        more = [f"and {len(unread) - TOLD} more, in the list of all runs"] if len(unread) > TOLD else []
        yield Part(anchor="unread", title="Not read and left out", notes=[*unread[:TOLD], *more])
    yield Part(
        anchor="data",
        title="All figures",
        paragraphs=[
            "Costs and rates per functional unit as CSV, every figure as Parquet; each run's page has its own."
        ],
        links=[("units.csv", CSV), ("figures.parquet", PARQUET)],
    )


def _change_rows(series: Mapping[Metric, Sequence[MetricSeries]], pages: Mapping[str, str]) -> list[GridRow]:
    found = []
    for metric, each in series.items():
        for one in each:
            unit = "" if one.key.unit == "1" else one.key.unit
            for change in one.changes:
                entry = one.entries[change.index]
                name = leaderboards.title_of(str(metric.per), metric.name)
                cells = (
                    Cell(entry.run, href=pages.get(entry.run, "")),
                    Cell(name, href=histories.page_of(str(metric.per), metric.name)),
                    Cell(one.key.point),
                    Cell(si(change.before, unit), sort=change.before),
                    Cell(si(change.after, unit), sort=change.after),
                )
                found.append(((entry.started_utc, entry.run, name, one.key.point), GridRow(cells)))
    return [row for _, row in sorted(found, key=lambda each: each[0], reverse=True)]


def boards_of(found: Sequence[Result]) -> list[tuple[str, str]]:
    """Functional unit and metric of each leaderboard; the unit of most results first."""
    counts: dict[str, dict[str, int]] = {}
    for result in found:
        for metric in METRICS:
            if result.summary(metric) is not None:
                of_unit = counts.setdefault(result.unit, {})
                of_unit[metric] = of_unit.get(metric, 0) + 1
    units = sorted(counts, key=lambda unit: (-max(counts[unit].values()), unit))
    return [(unit, metric) for unit in units for metric in METRICS if metric in counts[unit]]


def changes_part(number: int, before: Published, now: Published, changed: Section) -> Part:
    """The newest run of some suites on some devices against the one before it."""
    what = f"{', '.join(now.suites)} on {', '.join(now.devices)}"
    rows = [GridRow(tuple(map(Cell, row))) for row in changed.table.rows] if changed.table else []
    return Part(
        anchor=f"suite-{number}",
        title=f"{what}: {now.name} against {before.name}",
        links=[("The newer run", now.page)],
        grid=Grid(f"Changes in {what}", changed.table.columns, rows) if changed.table else None,
        notes=changed.paragraphs,
    )


def badge_parts(found: Sequence[tuple[str, str, Badge, str]]) -> Iterator[Part]:
    """The badges of each point."""
    by_point: dict[str, list[Badge]] = {}
    for heading, _, shown, _ in found:
        by_point.setdefault(heading, []).append(shown)
    for number, (heading, alike) in enumerate(by_point.items(), start=1):
        yield Part(anchor=f"badges-{number}", title=heading, badges=alike)
