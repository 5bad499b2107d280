"""Tables as lines of text: columns side by side where they fit, cells wrapped at spaces, else a list a row.

No word is ever broken: an identifier that was cut cannot be searched for, copied or compared. Where there is no width
(a pipe, a file) nothing is wrapped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from rich.cells import cell_len

from harness.reporting.tables import Table
from harness.reporting.wording import clean

GAP: Final = 2
"""Spaces between columns."""
RULE: Final = "─"
WEIGHED: Final = 40
"""In tables of no more rows, columns are narrowed so that rows stay low."""
TALL: Final = 2
"""Rows of more lines are set apart by an empty one."""
_ASCII: Final = str.maketrans({"±": "+-", "µ": "u", "─": "-", "·": "-", "…": "...", "≤": "<=", "≥": ">=", "°": ""})


def ascii_only(text: str) -> str:
    """Text for a terminal or a log that knows ASCII alone; what has no likeness becomes `?`."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


def wrapped(text: str, width: int | None) -> list[str]:
    """A paragraph as lines of at most so many columns, or longer where a word alone is longer."""
    if width is None:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def table_lines(table: Table, width: int | None) -> Iterator[str]:
    """A table's lines: its headings, a rule, its rows."""
    head = [clean(name) for name in table.columns]
    rows = [[[clean(line) for line in cell.split("\n")] for cell in row] for row in table.rows]
    widths = _widths(head, rows, width)
    if widths is None:
        yield from _listed(head, rows, width)
        return
    numeric = [all(_is_number(row[place]) for row in rows) and bool(rows) for place in range(len(head))]
    headings = [wrapped(name, wide) for name, wide in zip(head, widths, strict=True)]
    yield from _row(headings, widths, numeric)
    yield RULE * (sum(widths) + GAP * (len(widths) - 1))
    tall = False
    for row in rows:
        cells = [
            [part for line in cell for part in wrapped(line, wide)] for cell, wide in zip(row, widths, strict=True)
        ]
        if tall:
            yield ""
        tall = any(len(cell) > TALL for cell in cells)
        yield from _row(cells, widths, numeric)


def _is_number(cell: Sequence[str]) -> bool:
    return len(cell) == 1 and cell[0].replace(",", "").replace(".", "", 1).isdigit()


def _row(cells: Sequence[Sequence[str]], widths: Sequence[int], numeric: Sequence[bool]) -> Iterator[str]:
    for number in range(max(map(len, cells), default=0)):
        parts = []
        for cell, wide, right in zip(cells, widths, numeric, strict=True):
            text = cell[number] if number < len(cell) else ""
            pad = " " * (wide - cell_len(text))
            parts.append(pad + text if right else text + pad)
        yield (" " * GAP).join(parts).rstrip()


def _widths(head: Sequence[str], rows: Sequence[Sequence[Sequence[str]]], width: int | None) -> list[int] | None:
    """The columns' widths; None where not even wrapped cells fit side by side."""
    columns = [[[name], *(row[place] for row in rows)] for place, name in enumerate(head)]
    natural = [max((cell_len(line) for cell in column for line in cell), default=0) for column in columns]
    if width is None:
        return natural
    least = [
        max((cell_len(word) for cell in column for line in cell for word in line.split()), default=0)
        for column in columns
    ]
    room = width - GAP * (len(head) - 1)
    if sum(least) > room:
        return None
    widths = list(natural)
    weighed = len(rows) <= WEIGHED

    def cost(place: int) -> tuple[int, int]:
        """Lines of the tallest cell of a column that gives up one more; of equal ones, the widest column gives."""
        lines = [_height(cell, widths[place] - 1) for cell in columns[place]] if weighed else [0]
        return max(lines, default=0), -widths[place]

    while sum(widths) > room:
        widths[min((place for place in range(len(widths)) if widths[place] > least[place]), key=cost)] -= 1
    return widths


def _height(cell: Sequence[str], width: int) -> int:
    return sum(len(wrapped(line, width)) for line in cell)


def _listed(head: Sequence[str], rows: Sequence[Sequence[Sequence[str]]], width: int | None) -> Iterator[str]:
    """Each row under its first cell, a line a column."""
    wide = max(map(cell_len, head[1:]), default=0)
    inner = None if width is None else max(20, width - wide - 4)
    for row in rows:
        yield from wrapped(" ".join(row[0]), width)
        for name, cell in zip(head[1:], row[1:], strict=True):
            lines = [part for line in cell for part in wrapped(line, inner)]
            for number, line in enumerate(lines):
                label = name if number == 0 else ""
                yield f"  {label}{' ' * (wide - cell_len(label))}  {line}".rstrip()
