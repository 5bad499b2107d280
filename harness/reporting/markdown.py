"""The layout for GitHub: the same content as in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness.records.summary import RunReport, load
from harness.reporting.content import build
from harness.reporting.tables import Item, Section, Table
from harness.reporting.wording import clean

_SPECIAL: Final = re.compile(r"([\\`*_\[\]|~#$])")


def markdown(run_folder: Path) -> str:
    """A run's report in GitHub's Markdown, every text escaped. Raises MeasurementError as `load` does."""
    return text(load(run_folder))


def text(report: RunReport) -> str:
    """A report in GitHub's Markdown."""
    content = build(report)
    lines = [f"# {escape(content.title)}", ""]
    lines += [f"- **{escape(name)}**: {escape(text)}" for name, text in content.header]
    for section in content.sections:
        lines += ["", *_section(section)]
    return "\n".join(lines) + "\n"


def section_text(section: Section) -> str:
    """One section in GitHub's Markdown."""
    return "\n".join(_section(section)) + "\n"


def escape(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line, also inside a table cell."""
    plain = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    return _SPECIAL.sub(r"\\\1", plain)


def _section(section: Section) -> Iterator[str]:
    yield f"## {escape(section.title)}"
    yield ""
    if section.table:
        yield from _table(section.table)
        yield ""
    for item in section.items:
        yield from _item(item)
    if section.items:
        yield ""
    for paragraph in section.paragraphs:
        yield escape(paragraph)
        yield ""


def _item(item: Item) -> Iterator[str]:
    yield f"- **{escape(item.what)}**: {escape(item.text)}"
    if item.lines:
        # A fence longer than any run of backticks inside cannot be closed from inside.
        longest = max((len(run) for line in item.lines for run in re.findall("`+", line)), default=0)
        fence = "`" * max(3, longest + 1)
        yield ""
        yield f"  {fence}text"
        for line in item.lines:
            yield f"  {clean(line)}"
        yield f"  {fence}"
        yield ""


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(map(_cell, table.columns))} |"
    yield f"|{' --- |' * len(table.columns)}"
    for row in table.rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(content: str) -> str:
    return "<br>".join(escape(line) for line in content.split("\n"))
