"""The layout for a terminal, and for what reads one: a pipe gets whole lines, no boxes, no colours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.records.summary import RunReport, load
from harness.reporting.content import Content, build
from harness.reporting.layout import ascii_only, table_lines, wrapped
from harness.reporting.tables import Section
from harness.reporting.wording import clean


def render_terminal(console: Console, run_folder: Path, *, details: bool = False) -> None:
    """Prints a run's report. Raises MeasurementError as `load` does."""
    print_report(console, load(run_folder), details=details)


def print_report(console: Console, report: RunReport, *, details: bool = False) -> None:
    """Prints a report: what was found, or with `details` all that is known; nothing in it is taken for markup."""
    from harness.reporting.overview import overview

    seen = overview(report, details=details)
    _print(console, [seen.title], "bold")
    for text in seen.findings:
        print_paragraph(console, text)
    for section in seen.sections:
        print_line(console)
        print_section(console, section)
    if details:
        _print_details(console, build(report))


def _print_details(console: Console, content: Content) -> None:
    wide = max(len(name) for name, _ in content.header)
    print_line(console)
    for name, text in content.header:
        _print(console, _hanging(f"{name:{wide}}  ", clean(text), _width(console)))
    for section in content.sections:
        print_line(console)
        print_section(console, section)


def print_section(console: Console, section: Section) -> None:
    """Prints a section: title, table, items, paragraphs."""
    width = _width(console)
    if section.title:
        print_paragraph(console, section.title, "bold")
    if section.table:
        _print(console, table_lines(section.table, width))
    for item in section.items:
        _print(console, _hanging("- ", clean(f"{item.what}: {item.text}"), width))
        _print(console, [f"    {clean(line)}" for line in item.lines], "dim")
    for paragraph in section.paragraphs:
        print_paragraph(console, paragraph, "dim")


def print_paragraph(console: Console, text: str, style: str = "") -> None:
    """Prints a text, wrapped at spaces on a terminal; control characters are left out."""
    _print(console, wrapped(clean(text), _width(console)), style)


def print_line(console: Console) -> None:
    """Prints an empty line."""
    _print(console, [""])


def plain(content: str, style: str = "") -> Text:
    """Text that rich prints as it is: no markup, no control characters."""
    return Text(clean(content), style=style)


def _width(console: Console) -> int | None:
    return console.width if console.is_terminal else None


def _hanging(mark: str, text: str, width: int | None) -> list[str]:
    lines = wrapped(text, None if width is None else max(20, width - len(mark)))
    return [f"{mark if number == 0 else ' ' * len(mark)}{line}" for number, line in enumerate(lines)]


def _print(console: Console, lines: Iterable[str], style: str = "") -> None:
    narrow = not console.encoding.lower().startswith("utf")
    for line in lines:
        text = Text(ascii_only(line) if narrow else line, style=style)
        console.print(text, soft_wrap=True, no_wrap=True, overflow="ignore", crop=False)
