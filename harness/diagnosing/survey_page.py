"""The survey of a machine for people: its meters in one table, and the commands that the others need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rich.console import Console

from harness.diagnosing.survey import FACT, FAILED, NEEDS_OPTIONS, OFFERED, READS, UNAVAILABLE, Row
from harness.reporting.tables import Item, Section, Table
from harness.reporting.terminal import print_section

COLUMNS: Final = ("meter", "scope", "reads", "how well", "remark, or what it needs")
_COMMAND: Final = re.compile(r"`([^`\s]+\s[^`]+)`")
"""What a remedy sets in backquotes is a command where it has several words, and else a name."""


def render(console: Console, rows: Sequence[Row]) -> None:
    """Prints the survey; nothing in it is taken for markup."""
    for number, section in enumerate(sections(rows)):
        if number:
            console.print()
        print_section(console, section)


def sections(rows: Sequence[Row]) -> list[Section]:
    """The survey as sections: machine, backends, meters, their cards, then what else is not available, and why."""
    facts = [Item(row.name, row.detail) for row in rows if row.status == FACT]
    backends = [[row.name, row.detail] for row in rows if row.kind == "backend" and row.status == READS]
    cards = [Item(f"{row.name} on {row.scope}", row.card) for row in rows if row.card and row.status == READS]
    impacts = [[row.name, row.detail] for row in rows if row.status == OFFERED]
    rest = [
        Item(_what(row), f"{row.detail}" + (f" - remedy: {row.remedy}" if row.remedy else ""))
        for row in rows
        if row.kind != "meter" and row.status in {UNAVAILABLE, FAILED, NEEDS_OPTIONS}
    ]
    found = [Section("This machine", items=facts)]
    if backends:
        found.append(Section("Backends", Table(["backend", "devices"], backends)))
    found.append(meters([row for row in rows if row.kind == "meter"]))
    if cards:
        found.append(Section("Meter cards", items=cards))
    if impacts:
        found.append(Section("Impact meters", Table(["meter", "turns"], impacts)))
    if rest:
        found.append(Section("Not available, and why", items=rest))
    return found


def meters(rows: Sequence[Row]) -> Section:
    """Every energy meter in one table, those that read first; commands are numbered and stand below, to be copied."""
    commands: dict[str, int] = {}
    cells = []
    for row in sorted(rows, key=lambda each: each.status != READS):
        if row.status == READS:
            cells.append([row.name, row.scope, row.method, f"{row.resolution}; gain {row.gain}", row.detail])
        else:
            why = f"{row.status}: {row.detail}" if row.status == FAILED else row.detail
            needs = _numbered(row.remedy, commands)
            cells.append([row.name, row.scope, "no", "", why + (f" - {needs}" if needs else "")])
    none = () if any(row.status == READS for row in rows) else ("none: no energy can be measured here",)
    return Section(
        "Energy meters",
        Table(COLUMNS, cells) if cells else None,
        items=[Item(f"[{number}]", command) for command, number in commands.items()],
        paragraphs=none,
    )


def _numbered(remedy: str, commands: dict[str, int]) -> str:
    """A remedy with its commands as numbers, `[1]`; the same command has the same number."""
    return _COMMAND.sub(lambda match: f"[{commands.setdefault(match[1], len(commands) + 1)}]", remedy)


def _what(row: Row) -> str:
    scope = f" on {row.scope}" if row.scope else ""
    failed = f" ({row.status})" if row.status == FAILED else ""
    return f"{row.kind} {row.name}{scope}{failed}"
