"""The page of each run: its report, in several files where one would be too large, with its tables beside it."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.publishing.badges import standalone
from harness.publishing.frame import CRUMBS, PAGE_BYTES, numbered, relative
from harness.publishing.results import Published
from harness.records.summary import RunReport
from harness.reporting import pictures
from harness.reporting.blocks import Block
from harness.reporting.comparison import Runs, section
from harness.reporting.figures import to_csv, to_json
from harness.reporting.overview import overview
from harness.reporting.page import Frame, html
from harness.reporting.tables import Section

FIGURES_CSV: Final = "figures.csv"
FIGURES_JSON: Final = "figures.json"
FIGURE: Final = "figure.svg"
_IMAGE: Final = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')


def changes(before: RunReport | None, report: RunReport) -> Section | None:
    """What changed against the run before, as `harness compare` shows it; None where no point is in both."""
    if before is None or not {point.id for point in report.points} & {point.id for point in before.points}:
        return None
    return section([before, report], ["before", "now"])


def write(
    folder: Path, page: str, report: RunReport, earlier: Published | None = None, changed: Section | None = None
) -> list[str]:
    """Writes a run's pages and tables; returns what a reader should know, such as a page that is too large.

    Args:
        folder: of the site.
        page: the run's page, from there.
        report: of the run.
        earlier: the run before it, of the same suites on the same devices.
        changed: what changed against that one.
    """
    home = (folder / page).parent
    home.mkdir(parents=True)
    (home / FIGURES_CSV).write_text(to_csv([report]), encoding="utf-8")
    (home / FIGURES_JSON).write_text(to_json([replace(report, folder=Path(report.folder.name))]), encoding="utf-8")
    files = [FIGURES_CSV, FIGURES_JSON]
    for number, drawn in enumerate(pictures.leading_charts(Runs([report], ["A"])), start=1):
        name = FIGURE if number == 1 else FIGURE.replace(".", f"-{number}.")
        (home / name).write_text(standalone(drawn.svg), encoding="utf-8")
        files.append(name)
    count = 1
    while True:
        texts = [_with_files(text, home) for text in _rendered(page, report, earlier, changed, files, count)]
        largest = max(len(text.encode()) for text in texts)
        if largest <= PAGE_BYTES or len(texts) == len(report.points):
            break
        count = min(len(report.points), max(count + 1, math.ceil(count * 1.1 * largest / PAGE_BYTES)))
    for number, text in enumerate(texts, start=1):
        (folder / numbered(page, number)).write_text(text, encoding="utf-8")
    if largest > PAGE_BYTES:
        return [f"the page of one point has {largest} bytes, more than {PAGE_BYTES}: {page}"]
    return []


def _rendered(
    page: str,
    report: RunReport,
    earlier: Published | None,
    changed: Section | None,
    beside: Sequence[str],
    count: int,
) -> list[str]:
    """The pages of a run whose points are shared among so many."""
    name = str(report.run.get("run", report.folder.name))
    links = [(relative(page, target), text) for text, target in CRUMBS]
    links += [(relative(page, earlier.page), "the run before")] if earlier else []
    against = [_against(earlier, changed)] if earlier and changed else []
    downloads = [(file, file) for file in beside]
    if count == 1:
        return [html(Runs([report], ["A"]), (), f"Run {name}", Frame(links, downloads, against))]
    size = math.ceil(len(report.points) / count)
    starts = range(0, len(report.points), size)
    files = [numbered(page, number) for number in range(1, len(starts) + 1)]
    whole = overview(report, details=True).findings
    texts = []
    for number, start in enumerate(starts, start=1):
        points = report.points[start : start + size]
        span = f"points {start + 1} to {start + len(points)} of {len(report.points)}"
        first = Block(
            anchor="part",
            title="The whole run",
            findings=whole,
            intro=f"This run has {len(files)} pages. All that follows is about {span}, its tables and drawings too.",
        )
        others = [(relative(page, file), f"page {at}") for at, file in enumerate(files, start=1) if at != number]
        shown = replace(report, points=points)
        if number > 1:
            shown = replace(shown, skipped=(), failures=())
        around = Frame([*links, *others], downloads, against if number == 1 else ())
        texts.append(html(Runs([shown], ["A"]), [first], f"Run {name}, {span}", around))
    return texts


def _against(earlier: Published, changed: Section) -> Block:
    bare = Section("", changed.table, changed.items, changed.paragraphs)
    return Block(anchor="before", title=f"Against the run before, {earlier.name}", sections=[bare])


def _with_files(text: str, home: Path) -> str:
    """A page whose images are files beside it."""

    def filed(found: re.Match[str]) -> str:
        content = base64.b64decode(found[1])
        name = f"image-{hashlib.blake2b(content, digest_size=8).hexdigest()}.png"
        (home / name).write_bytes(content)
        return f'src="{name}"'

    return _IMAGE.sub(filed, text)
