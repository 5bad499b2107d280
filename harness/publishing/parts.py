"""What a page of the site is made of: titled parts with a table, a drawing, links; several parts a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

ROWS: Final = 150
"""Rows of a table at most; a longer one goes on in another part."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it says.
        href: page that the text leads to, from the site's folder; empty for plain text.
        sort: what the column is sorted by; the text where it is None.
        method: how a value was obtained, shown as a mark.
        small: lines below.
        flags: warnings beside the text.
    """

    text: str
    href: str = ""
    sort: float | None = None
    method: str = ""
    small: Sequence[str] = ()
    flags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class GridRow:
    """A row of a table.

    Attributes:
        cells: one a column.
        facets: what a filter may look for: `device` -> name.
        qualities: what a bar may be set for: `reward, at least` -> number.
    """

    cells: Sequence[Cell]
    facets: Mapping[str, str] = field(default_factory=dict)
    qualities: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; `heading` is the column whose cells are the headings of their rows."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[GridRow]
    heading: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing of its own file, shown in the page too."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Badge:
    """A badge with the line of Markdown that shows it elsewhere."""

    file: str
    alt: str
    snippet: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A titled part of a page.

    Attributes:
        anchor: its name in addresses.
        title: its heading.
        paragraphs: sentences before everything else.
        links: (text, page or file from the site's folder).
        picture: a drawing.
        grid: a table.
        badges: badges.
        notes: sentences after everything else.
    """

    anchor: str
    title: str
    paragraphs: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()
    picture: Picture | None = None
    grid: Grid | None = None
    badges: Sequence[Badge] = ()
    notes: Sequence[str] = ()


def moment(text: str) -> str:
    """An ISO 8601 time for people, to the minute.

    Example:
        >>> moment("2026-01-02T03:04:05+00:00")
        '2026-01-02 03:04'
    """
    return text[:16].replace("T", " ")


def divided(part: Part, rows: int = ROWS) -> Iterator[Part]:
    """A part as it is, or as several where its table or its badges are too long for one."""
    grid = part.grid
    count = len(grid.rows) if grid else len(part.badges)
    if count <= rows:
        yield part
        return
    for start in range(0, count, rows):
        span = f"{start + 1} to {min(start + rows, count)} of {count}"
        shown = replace(grid, rows=grid.rows[start : start + rows], caption=f"{grid.caption}, {span}") if grid else None
        badges = part.badges if grid else part.badges[start : start + rows]
        if start == 0:
            yield replace(part, grid=shown, badges=badges)
        else:
            yield Part(
                anchor=f"{part.anchor}-{start + 1}",
                title=f"{part.title} ({span})",
                grid=shown,
                badges=() if grid else badges,
            )
