"""Makes a site of some runs: one reading of each run, then the pages that are about all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from harness import __version__
from harness.comparing.history import MetricSeries
from harness.comparing.run_series import OfPoint
from harness.errors import HarnessError
from harness.publishing import badges, folder, frame, histories, inputs, leaderboards, overview, run_pages
from harness.publishing.parts import Part
from harness.publishing.results import Published, Result, cards_of, device_of, of_history, results
from harness.publishing.tables import Tables
from harness.records.metric import Metric
from harness.records.paths import RUN
from harness.records.summary import RunReport, load
from harness.reporting.wording import counted
from harness.storing.views import database

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Made:
    """A site that was made.

    Attributes:
        folder: where it lies.
        runs: how many runs it shows.
        unread: how many are named in it and could not be read.
        pages: how many pages it has.
        bytes: of all its files.
    """

    folder: Path
    runs: int
    unread: int
    pages: int
    bytes: int


_Series = tuple[tuple[str, ...], tuple[str, ...]]
"""Suites and identities of devices of runs that follow each other."""


@dataclass(slots=True)
class _Gathered:
    """What the pages about all runs are made of."""

    runs: list[Published] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    points: list[list[OfPoint]] = field(default_factory=list)
    newest: dict[_Series, tuple[RunReport, Published]] = field(default_factory=dict)
    before: dict[_Series, RunReport] = field(default_factory=dict)


def build(out: Path, places: Sequence[str], *, title: str = "", force: bool = False, tell: Tell = print) -> Made:
    """Makes a site.

    Args:
        out: folder that it goes to: new, empty, or a site.
        places: run folders or stores, or their URLs.
        title: of its first page.
        force: whether it may go into a folder that holds something else.
        tell: is told what was left out, and why.

    Raises:
        UsageError: the folder may not be used, a place is none, or jinja2 or duckdb is missing.
        MeasurementError: the site cannot be written.
    """
    frame.environment()
    database([]).close()
    found = inputs.found_in(places)
    place = folder.checked(out, [*found.runs, *found.stores], force=force)
    for note in found.notes:
        tell(f"left out: {note}")
    gathered = _Gathered()

    def make(home: Path) -> dict[str, Any]:
        _write(home, found.runs, title or "Measured results", gathered, tell)
        return {"version": __version__}

    folder.put(place, make)
    files = [place / name for name in folder.own_files(place) or ()]
    return Made(
        folder=place,
        runs=sum(bool(run.page) for run in gathered.runs),
        unread=sum(not run.page for run in gathered.runs),
        pages=sum(path.suffix == ".html" for path in files),
        bytes=sum(path.stat().st_size for path in files),
    )


def _write(home: Path, runs: Sequence[Path], title: str, gathered: _Gathered, tell: Tell) -> None:
    for name in ("badges", "charts"):
        (home / name).mkdir()
    (home / ".nojekyll").touch()  # GitHub would otherwise leave out what begins with an underscore
    with Tables(home) as tables:
        taken: set[str] = set()
        for run in sorted(runs, key=lambda path: (_started(path), path.name, str(path))):
            _add(home, run, taken, gathered, tables, tell)
    gathered.runs.sort(key=lambda run: run.age, reverse=True)
    _write_shared(home, title, gathered)


TOLD: Final = 5
"""So many trials without a record are named for each run; its page names all of them."""
_ODD: Final = (HarnessError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading or showing records raises that are damaged, or that another program wrote."""


def _add(home: Path, run: Path, taken: set[str], gathered: _Gathered, tables: Tables, tell: Tell) -> None:
    """One run: its page, its figures and its results; what cannot be read is named and costs no other run."""
    page = f"runs/{_free(frame.slug(run.name, run=True), taken)}/index.html"
    try:
        report = _without_paths(load(run))
        of_run = _published(report, page)
        found, points = results(report, of_run), of_history(report)
    except (*_ODD, OSError) as error:
        _leave_out(run, error, gathered, tell)
        return
    cards = {card for finished in report.records for card in cards_of(finished.measurement)}
    series = of_run.suites, tuple(sorted(cards))
    earlier = gathered.newest.get(series)
    before, previous = earlier if earlier is not None else (None, None)
    devices = {point.id: device_of(point.records[0].measurement) for point in report.points}
    try:
        notes = run_pages.write(home, page, report, before, previous.page if previous else "")
        rows = tables.rows(report, of_run.started_utc, devices)
    except _ODD as error:
        shutil.rmtree((home / page).parent, ignore_errors=True)
        _leave_out(run, error, gathered, tell)
        return
    tables.add(rows)
    lost = [f"{run.name}: {each.where}: {each.reason}" for each in report.failures]
    more = [f"{run.name}: and {len(lost) - TOLD} more trials"] if len(lost) > TOLD else []
    for note in [*lost[:TOLD], *more, *notes]:
        tell(note)
    gathered.runs.append(of_run)
    gathered.results += found
    if of_run.recosted:
        return
    gathered.points.append(points)
    if before is not None:
        gathered.before[series] = before
    gathered.newest[series] = report, of_run


def _leave_out(run: Path, error: Exception, gathered: _Gathered, tell: Tell) -> None:
    """Names a run that cannot be read, here and in the site."""
    said = str(error) if isinstance(error, HarnessError | OSError) else f"{type(error).__name__}: {error}"
    why = _shortened(said, run).removeprefix(f"{run.name}: ")
    tell(f"not read: {run}: {why}")
    gathered.runs.append(Published(name=run.name, page="", started_utc="", status=f"not read: {why}"))


def _started(run: Path) -> str:
    """When a run began, by its description; empty where that does not say."""
    try:
        return str(json.loads((run / RUN).read_text(encoding="utf-8"))["started_utc"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _free(name: str, taken: set[str]) -> str:
    """A name that no other run has, on a file system that knows no case either."""
    free, number = name, 2
    while free.lower() in taken:
        free, number = f"{name}-{number}", number + 1
    taken.add(free.lower())
    return free


def _published(report: RunReport, page: str) -> Published:
    records = report.records
    started = min(finished.measurement.started_utc for finished in records)
    return Published(
        name=str(report.run.get("run", report.folder.name)),
        page=page,
        started_utc=str(report.run.get("started_utc") or started),
        status=str(report.run.get("status") or ""),
        suites=tuple(sorted({point.suite for point in report.points})),
        labels=tuple(point.label for point in report.points),
        devices=tuple(sorted({device_of(finished.measurement) for finished in records})),
        trials=len(records),
        lost=len(report.failures),
        recosted=bool(report.run.get("parent")),
    )


def _without_paths(report: RunReport) -> RunReport:
    """A report that does not say where on this machine its records lie."""
    failures = [replace(each, reason=_shortened(each.reason, report.folder)) for each in report.failures]
    return replace(report, failures=tuple(failures))


def _shortened(text: str, run: Path) -> str:
    for folder_ in (run.resolve(), run.absolute(), run):
        text = text.replace(f"{folder_}/", "").replace(str(folder_), run.name)
    return text


def _write_shared(home: Path, title: str, gathered: _Gathered) -> None:
    series = histories.gathered(gathered.points)
    boards: dict[tuple[str, str], int] = {}
    for unit, metric in overview.boards_of(gathered.results):
        made = list(leaderboards.parts(gathered.results, unit, metric))
        boards[unit, metric] = sum(len(part.grid.rows) for part, _ in made if part.grid is not None)
        followed = Metric(metric, unit) in series
        _write_drawn(home, made)
        frame.write_pages(
            home,
            leaderboards.page_of(unit, metric),
            leaderboards.title_of(unit, metric),
            [part for part, _ in made],
            intro=leaderboards.RULES,
            links=[("Its history", histories.page_of(unit, metric))] if followed else [],
            searched=True,
        )
    pages = {run.name: run.page for run in gathered.runs}
    for of, each in series.items():
        key = str(of.per), of.name
        found = list(histories.parts(each, *key, pages))
        _write_drawn(home, found)
        frame.write_pages(
            home,
            histories.page_of(*key),
            f"{leaderboards.title_of(*key)}, over the runs",
            [part for part, _ in found],
            links=[("Its leaderboard", leaderboards.page_of(*key))] if key in boards else [],
            intro=[
                "A series goes on while point, card, driver, method, factors and start of its process stay the same."
            ],
        )
    _write_lists(home, title, gathered, [(*key, count) for key, count in boards.items()], series)


def _write_lists(
    home: Path,
    title: str,
    gathered: _Gathered,
    boards: Sequence[tuple[str, str, int]],
    series: Mapping[Metric, Sequence[MetricSeries]],
) -> None:
    shown = list(badges.badges(gathered.results))
    for _, name, _, svg in shown:
        (home / name).write_text(svg, encoding="utf-8")
    frame.write_pages(
        home,
        "badges.html",
        "Badges",
        list(overview.badge_parts(shown)),
        intro=[
            "Each shows the newest valid value of a point. In the lines of Markdown, SITE is the address of this site."
        ],
    )
    changes = list(_changes(gathered))
    quiet = Part(anchor="none", title="None", notes=["No suite has two runs on one device that share a point."])
    frame.write_pages(
        home,
        "changes.html",
        "What changed last",
        changes or [quiet],
        intro=["The newest run of each suite and device against the one before it; each run's page has the same."],
    )
    frame.write_pages(home, "runs.html", "Runs", [overview.runs_part(gathered.runs)])
    readable = [run for run in gathered.runs if run.page]
    devices = {device for run in readable for device in run.devices}
    trials = sum(run.trials for run in readable)
    size = f"{counted(len(readable), 'run')}, {counted(trials, 'trial')}, {counted(len(devices), 'device')}"
    frame.write_pages(home, "index.html", title, overview.overview_parts(gathered.runs, boards, series), intro=[size])


def _changes(gathered: _Gathered) -> Iterator[Part]:
    """The newest run of each suite and device against the one before it."""
    for number, (series, before) in enumerate(sorted(gathered.before.items(), key=lambda each: each[0]), start=1):
        report, run = gathered.newest[series]
        what = f"{', '.join(run.suites)} on {', '.join(run.devices)}"
        part = overview.changes_part(number, what, before, report, run.page)
        if part is not None:
            yield part


def _write_drawn(home: Path, made: Sequence[tuple[Part, str]]) -> None:
    for part, name in made:
        if part.picture is not None:
            (home / name).write_text(badges.standalone(part.picture.svg), encoding="utf-8")
