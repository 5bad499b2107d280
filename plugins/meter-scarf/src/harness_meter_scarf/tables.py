"""Reading of CSV tables: every fault names file, row and field."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import UsageError

DATA: Final = Path(__file__).parent / "data"
"""Folder of the tables that this package carries."""


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file as text.

    Attributes:
        name: the file, for messages.
        columns: as found.
        rows: line number and fields.
        notes: `key: value` of its leading `#` lines.
        digest: SHA-256 of the bytes.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]
    notes: Mapping[str, str]
    digest: str

    def require(self, columns: Sequence[str]) -> None:
        """Raises UsageError, with the columns found, if one is missing."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise UsageError(
                f"column {', '.join(missing)} is missing",
                where=self.name,
                accepted=f"{', '.join(columns)}; found {', '.join(self.columns[:20]) or 'none'}",
            )


def read(path: Path, name: str = "") -> Table:
    """A table from a file with one header row, after any `# key: value` lines; raises UsageError."""
    shown = name or str(path)
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=shown) from error
    lines = list(io.StringIO(text, newline=""))  # ends at CR, LF and CRLF alone
    skipped = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    notes = dict(_note(line) for line in lines[:skipped])
    reader = csv.reader(lines[skipped:], strict=True)
    try:
        columns = tuple(next(reader, ()))
        repeated = {column for column in columns if columns.count(column) > 1}
        if repeated:
            raise UsageError(f"column {', '.join(sorted(repeated))} appears twice", where=shown)
        rows = tuple(_rows(reader, columns, skipped, shown))
    except csv.Error as error:
        raise UsageError(f"is not CSV: {error}", where=f"{shown}:{skipped + reader.line_num}") from error
    return Table(shown, columns, rows, notes, hashlib.sha256(raw).hexdigest())


def _note(line: str) -> tuple[str, str]:
    key, _, value = line.lstrip("#").partition(":")
    return key.strip(), value.strip()


def _rows(
    reader: Iterator[list[str]], columns: Sequence[str], skipped: int, name: str
) -> Iterator[tuple[int, dict[str, str]]]:
    for fields in reader:
        if not fields:
            continue
        line = skipped + int(getattr(reader, "line_num", 0))
        if len(fields) != len(columns):
            raise UsageError(f"row has {len(fields)} fields", where=f"{name}:{line}", accepted=f"{len(columns)} fields")
        yield line, dict(zip(columns, fields, strict=True))


def number(row: Mapping[str, str], field: str, where: str) -> float | None:
    """A field as a finite number, None where it is empty or absent; raises UsageError naming place and field."""
    text = row.get(field, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{field} is {text!r}", where=where, accepted="a finite number, or empty")
    return value
