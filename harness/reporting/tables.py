"""The parts that every layout knows: sections, tables, items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.errors import printable


@dataclass(frozen=True, slots=True)
class Table:
    """Column headings and rows of cells; a cell may have several lines."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Item:
    """An entry of a list: what, what about it, and lines to be shown as they are."""

    what: str
    text: str
    lines: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A title with a table, then items, then paragraphs; each may be missing."""

    title: str
    table: Table | None = None
    items: Sequence[Item] = ()
    paragraphs: Sequence[str] = ()


_FORMULA: Final = ("=", "+", "-", "@")
"""How a cell begins that a spreadsheet works out: it may open a program or send what stands beside it."""


def csv_cells(row: Iterable[object]) -> list[object]:
    """The cells of a CSV row: a text that a spreadsheet would work out begins with an apostrophe; numbers stay.

    Examples:
        >>> csv_cells(["=1+1", "@a", "-", -3.5, None])
        ["'=1+1", "'@a", '-', -3.5, None]
    """
    return [_cell(printable(cell)) if isinstance(cell, str) else cell for cell in row]


def _cell(text: str) -> str:
    return f"'{text}" if len(text) > 1 and not text[0].isalnum() and text.lstrip().startswith(_FORMULA) else text
