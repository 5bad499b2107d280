"""The HTML page: one file without scripts or addresses, in the order in which a reader asks."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from harness.errors import UsageError
from harness.reporting import (
    absent,
    by_class,
    circumstances,
    comparison,
    content,
    heat,
    idle,
    learning_curve,
    pictures,
    power_picture,
    ranking,
)
from harness.reporting.blocks import Block
from harness.reporting.comparison import Runs
from harness.reporting.crossings import block as questions
from harness.reporting.figures import compact, figures, to_csv
from harness.reporting.overview import overview
from harness.reporting.same_work import each_kind
from harness.reporting.tables import Item, Section, Table
from harness.reporting.wording import clean, counted
from harness.reporting.workload_images import workload_images

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

DOWNLOAD_BYTES: Final = 200_000
"""A larger table is not carried a second time by the page, which has its figures as data."""
FACTS_LETTERS: Final = 6000
"""Longer descriptions are cut; the record has all of it."""
METHODS: Final = (
    ("counter", "a hardware energy counter"),
    ("wall", "an external meter"),
    ("measured", "times and counts"),
    ("integrated", "sampled power, integrated"),
    ("estimated", "a model of this machine"),
    ("simulated", "no machine did the work"),
)


@dataclass(frozen=True, slots=True)
class Frame:
    """The site that a page is part of; a page alone has none.

    Attributes:
        links: (address, text) of other pages of the site.
        downloads: (file name, address) of the files beside the page; it carries no figures itself then.
        changes: what changed against another run of the site, behind the results.
    """

    links: Sequence[tuple[str, str]]
    downloads: Sequence[tuple[str, str]]
    changes: Sequence[Block] = ()


def html(runs: Runs, first: Sequence[Block] = (), title: str = "", frame: Frame | None = None) -> str:
    """The page of some runs; raises UsageError where jinja2 is missing.

    Args:
        runs: what it is about.
        first: blocks before those of the runs, such as a gate's verdict.
        title: of the page; the runs' names where there is none.
        frame: of a page in a site, which does not say where the records lie on this machine.
    """
    blocks = [*first, *_blocks(runs, frame)]
    shown = runs.reports if frame is None else ()
    packed = compact(figure for report in shown for figure in figures(report))
    return (
        environment("an HTML report")
        .get_template("page.html")
        .render(
            title=title or f"Run {runs.whole.run.get('run', runs.whole.folder.name)}",
            frame=frame,
            header=[_header(runs, number, frame) for number in range(len(runs.reports))],
            blocks=blocks,
            methods=METHODS,
            # "<" could end the element that the data stand in, or begin a comment there.
            data=json.dumps(packed, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        )
    )


@cache
def environment(what: str, *more: str) -> Environment:
    """The templates of pages, and those of further packages.

    Args:
        what: needs them, for the message where jinja2 is missing.
        more: packages whose own templates stand before those of the reports.

    Raises:
        UsageError: jinja2 is missing.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise UsageError(f"{what} needs jinja2", accepted="pip install 'joule-harness[report]'") from None
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates") for package in (*more, "harness.reporting")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["lines"] = _lines
    made.globals["clean"] = clean
    return made


def _lines(text: str) -> Markup:
    """A cell of several lines; a macro would take most of the time of a long table."""
    from markupsafe import Markup, escape

    if "\n" not in text:
        return escape(clean(text))
    return Markup("<br>").join(escape(clean(line)) for line in text.split("\n"))


def _header(runs: Runs, number: int, frame: Frame | None) -> tuple[str, list[tuple[str, str]]]:
    several = len(runs.reports) > 1
    rows = circumstances.header(runs.reports[number])
    shown = rows if frame is None else [row for row in rows if row[0] != circumstances.WHERE]
    return (f"Run {runs.names[number]}" if several else "", shown)


def _blocks(runs: Runs, frame: Frame | None) -> Iterator[Block]:
    report = runs.whole
    if not runs.reports:
        return
    yield _found(runs, frame)
    for each in runs.reports:
        yield from questions.blocks(each)
    yield from pictures.units(runs)
    if (changes := comparison.section(runs.reports, runs.names)) is not None:
        yield _plain("differences", [changes])
    yield from frame.changes if frame is not None else ()
    yield from _present(pictures.planes(runs))
    yield from _present(power_picture.block(report))
    yield from _present(learning_curve.block(report))
    if classes := by_class.sections(report):
        yield Block(anchor="classes", title="Quality by class", sections=classes)
    yield from _present(pictures.joules(runs))
    yield from _present(pictures.traces(runs))
    yield from _present(pictures.distributions(runs))
    yield from _present(workload_images(runs))
    found = [
        idle.section(report),
        content.further(report),
        ranking.shares(report),
        *each_kind(report, ranking.embodied),
        *each_kind(report, ranking.sweeps),
        *each_kind(report, lambda part: [ranking.ties(part)]),
        content.work_items(report),
    ]
    if sections := [section for section in found if section is not None]:
        yield Block(anchor="further", title="Further results", sections=sections)
    covered = [circumstances.coverage(report), circumstances.checks(report)]
    if sections := [section for section in covered if section is not None]:
        drawn = pictures.meters(runs)
        intro = (
            "" if drawn else "No second meter read what a primary one reads: there is nothing to check them against."
        )
        yield Block(
            anchor="meters", title="The meters and their agreement", intro=intro, charts=drawn, sections=sections
        )
    for anchor, section in (
        ("missing", absent.section(report)),
        ("load", circumstances.load(report)),
        ("conditions", circumstances.conditions(report)),
        ("heat", heat.section(report)),
        ("factors", circumstances.factors(report)),
    ):
        if section is not None:
            yield _plain(anchor, [section])
    yield Block(anchor="environment", title="Environment, suite and command", sections=list(_origins(runs)))


def _found(runs: Runs, frame: Frame | None) -> Block:
    """What was found, what the experiment took, and the figures to be saved."""
    seen = overview(runs.whole, details=True)
    notes = list(seen.sections[-1].paragraphs)
    saved = _carried(runs) if frame is None else frame.downloads
    if not saved:
        notes.append("The table of all figures is too large for this page: harness report RUN --format csv.")
    return Block(
        anchor="finding",
        title="What was found",
        findings=seen.findings,
        charts=list(pictures.leading_charts(runs)),
        folded=len(runs.whole.points) > pictures.FOLD,
        downloads=saved,
        sections=[Section("", paragraphs=notes)],
    )


def _carried(runs: Runs) -> list[tuple[str, str]]:
    """The table of all figures as an address that holds it; none where it is too large."""
    table = to_csv(runs.reports).encode()
    if len(table) > DOWNLOAD_BYTES:
        return []
    return [("figures.csv", f"data:text/csv;base64,{base64.b64encode(table).decode()}")]


def _present(block: Block | None) -> Iterator[Block]:
    if block is not None:
        yield block


def _plain(anchor: str, sections: Sequence[Section]) -> Block:
    """A block of one section, whose title is the block's."""
    (section,) = sections
    bare = Section("", section.table, section.items, section.paragraphs)
    return Block(anchor=anchor, title=section.title, sections=[bare])


def _origins(runs: Runs) -> Iterator[Section]:
    """How to repeat the runs, and all that they depended on."""
    commands = [
        Item(
            f"to repeat run {name}" if len(runs.reports) > 1 else "to repeat it",
            "recorded command" if report.run.get("command") else "no command was recorded",
            [shlex.join(map(str, report.run["command"]))] if report.run.get("command") else [],
        )
        for name, report in zip(runs.names, runs.reports, strict=True)
    ]
    yield Section("Command", items=commands)
    yield Section("Suite", items=[_suite_item(runs, number) for number in range(len(runs.reports))])
    environments: dict[str, list[str]] = {}
    for finished in runs.whole.records:
        flat = dict(_flat(finished.measurement.environment))
        flat |= {f"plugin {name}": version for name, version in finished.measurement.plugins.items()}
        for key, value in flat.items():
            if key != "load_1min" and value not in environments.setdefault(key, []):
                environments[key].append(value)
    rows = [[key, "; ".join(values)] for key, values in environments.items()]
    yield Section(
        "Environment", Table(["what", "value"], rows), paragraphs=["Several values: the trials differ in it."]
    )
    yield Section("Points and what they ran", items=list(_described(runs)))


def _suite_item(runs: Runs, number: int) -> Item:
    report = runs.reports[number]
    files = [str(path) for path in report.run.get("suite_files", ())]
    planned = len(report.run.get("points", ())) or len(report.points)
    seed = report.run.get("seed")
    told = [counted(planned, "point"), f"seed {seed}" if seed is not None else ""]
    return Item(", ".join(files) or "suite", ", ".join(text for text in told if text))


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} ")
        elif value not in (None, ""):
            yield name, str(value)


def _described(runs: Runs) -> Iterator[Item]:
    """Options, backend and workload of the points; equal descriptions once."""
    for point in runs.whole.points:
        measurement = point.records[0].measurement
        wanted = ("workload", "options", "matrix", "backend", "meters", "windows", "functional_units")
        told = {key: measurement.point[key] for key in wanted if key in measurement.point}
        told |= {"found backend": dict(measurement.backend), "workload says": dict(measurement.workload)}
        text = json.dumps(told, indent=1, default=str)
        cut = text[:FACTS_LETTERS] + ("\n… cut: the record has all of it" if len(text) > FACTS_LETTERS else "")
        yield Item(point.label, f"point {point.id}", cut.splitlines())
