"""The layout for a terminal, from 80 columns on."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from harness.records.summary import RunReport, load
from harness.reporting.content import build
from harness.reporting.tables import Section, Table
from harness.reporting.wording import clean


def render_terminal(console: Console, run_folder: Path) -> None:
    """Prints a run's report. Raises MeasurementError as `load` does."""
    print_report(console, load(run_folder))


def print_report(console: Console, report: RunReport) -> None:
    """Prints a report; nothing in it is taken for markup."""
    content = build(report)
    console.print(plain(content.title, "bold"))
    header = Grid.grid(padding=(0, 2))
    header.add_column(no_wrap=True)
    header.add_column(overflow="fold")
    for name, text in content.header:
        header.add_row(plain(name, "dim"), plain(text))
    console.print(header)
    for section in content.sections:
        console.print()
        print_section(console, section)


def print_section(console: Console, section: Section) -> None:
    """Prints a section: title, table, items, paragraphs."""
    console.print(plain(section.title, "bold"))
    if section.table:
        console.print(_grid(section.table))
    for item in section.items:
        console.print(Text.assemble("- ", plain(item.what, "bold"), ": ", plain(item.text), overflow="fold"))
        for line in item.lines:
            console.print(Padding(plain(line, "dim"), (0, 0, 0, 4)))
    for paragraph in section.paragraphs:
        console.print(plain(paragraph, "dim"))


def _grid(table: Table) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in table.columns:
        grid.add_column(plain(name), overflow="fold", vertical="top")
    for number, row in enumerate(table.rows):
        tall = any("\n" in cell for cell in row)
        grid.add_row(*map(_cell, row), end_section=tall and number < len(table.rows) - 1)
    return grid


def _cell(content: str) -> Text:
    return Text("\n", overflow="fold").join(plain(line) for line in content.split("\n"))


def plain(content: str, style: str = "") -> Text:
    """Text that rich prints as it is: no markup, no control characters, long words folded."""
    return Text(clean(content), style=style, overflow="fold")
