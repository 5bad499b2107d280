"""The parts that every layout knows: sections, tables, items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
