"""CSV files as other programs write them, read strictly: a value is read as its file means it, or refused by name.

Separators are comma, semicolon and tab, found in the file. `103,42` is 103.42 where semicolons or tabs separate, is
refused where commas do, and is never 103; a number that could be two numbers is refused. A missing value is None and
never 0.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TextIO, TypeAlias

from harness.errors import UsageError

_SEPARATORS: Final = {"\t": "tab", ";": "semicolon", ",": "comma"}
_SAMPLE: Final = 1000
"""Rows that separators and decimal commas are judged by."""
_CHUNK: Final = 1 << 20
_MISSING: Final = frozenset({"", "na", "n/a", "n/e", "nan", "null", "none", "-", "--"})
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED: Final = (
    (b"\x1f\x8b", "is compressed with gzip"),
    (b"PK\x03\x04", "is a ZIP archive or a spreadsheet"),
    (b"\xd0\xcf\x11\xe0", "is a spreadsheet of the old Excel"),
    (b"PAR1", "is a Parquet file"),
    (b"BZh", "is compressed with bzip2"),
)
_PLAIN: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_COMMA_DECIMAL: Final = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_COMMA_GROUPS: Final = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")
_POINT_GROUP: Final = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")
_DOT_GROUPS: Final = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+,\d*")
_SEPARATOR_LINE: Final = re.compile(r"sep=(.)\s*", re.IGNORECASE)

Decimal: TypeAlias = Literal["dot", "comma", "unknown", "both"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        table: the table it belongs to.
        line: line of the file that it ends on, from 1.
        fields: as found, one per column.
    """

    table: CsvTable
    line: int
    fields: Sequence[str]

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.table.name}:{self.line}"

    def __getitem__(self, column: str) -> str:
        return self.fields[self.table.index[column]].strip()

    def get(self, column: str, default: str = "") -> str:
        """The field of a column without the blanks around it; the default where there is no such column."""
        at = self.table.index.get(column)
        return default if at is None else self.fields[at].strip()

    def number(self, column: str) -> float | None:
        """The field of a column as a finite number; None where it is missing or there is no such column.

        Raises:
            UsageError: it is something else, or could be two numbers.
        """
        text = self.get(column)
        if ("." not in text or self.table.points) and _PLAIN.fullmatch(text):
            value = float(text)
            if math.isfinite(value):
                return value
        return self.table.number(text, column, self.where)


@dataclass(slots=True)
class CsvTable:
    """A CSV file whose rows are read once, in order; `opened` gives one, `read` one that holds its rows.

    Attributes:
        name: the file, for messages.
        columns: headings as found; a column without one is `column 3`, counted from 1.
        notes: `key: value` of its `#` lines before the headings.
        digest: SHA-256 of the bytes.
        separator: between fields.
        encoding: of the text, as Python names it.
        index: column -> place of its field, from 0.
        points: whether none of the first rows holds a decimal comma, so that `1.234` is one number.
        sample: the first rows; `rows`: all of them, to be gone through once.
    """

    name: str
    columns: tuple[str, ...]
    notes: Mapping[str, str]
    digest: str
    separator: str
    encoding: str
    index: Mapping[str, int]
    points: bool = True
    sample: tuple[Row, ...] = ()
    rows: Iterable[Row] = ()
    _decimals: dict[str, Decimal] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Row]:
        yield from self.rows

    def require(self, wanted: Sequence[str]) -> None:
        """Raises UsageError, with the columns found, if one is missing."""
        missing = [column for column in wanted if column not in self.index]
        if missing:
            raise UsageError(
                f"column {', '.join(missing)} is missing",
                where=self.name,
                accepted=f"{', '.join(wanted)}; found {self.found()}",
            )

    def found(self) -> str:
        """The columns found, as messages name them; the first 20 of many, and none of what may be no table."""
        if len(self.columns) < 2 or any(mark in name for name in self.columns for mark in ":="):
            return "(not shown: the first line does not look like headings)"  # it may be a password
        return ", ".join(self.columns[:20]) + (f" and {more} more" if (more := len(self.columns) - 20) > 0 else "")

    def number(self, text: str, column: str, where: str) -> float | None:
        """A text of a column as a finite number, by the rules of this module; None for a missing value."""
        if text.lower() in _MISSING:
            return None
        value = self._number(text, column, where)
        if value is None or not math.isfinite(value):
            accepted = "a finite number, or empty for a missing value"
            if self.separator == "," and "," in text:
                accepted += ", with a decimal point: commas separate the fields"
            raise UsageError(f"{column} is {text!r}", where=where, accepted=accepted)
        return value

    def _number(self, text: str, column: str, where: str) -> float | None:
        if _PLAIN.fullmatch(text):
            if self._decimal(column) == "comma" and _POINT_GROUP.fullmatch(text):
                raise _two_numbers(text, column, where, f"the column {column!r} has decimal commas")
            return float(text)
        if _DOT_GROUPS.fullmatch(text):
            return float(text.replace(".", "").replace(",", "."))
        grouped, decimal = bool(_COMMA_GROUPS.fullmatch(text)), bool(_COMMA_DECIMAL.fullmatch(text))
        if not grouped and (not decimal or self.separator == ","):
            return None
        if grouped and (not decimal or self._means_groups(column, text, where)):
            return float(text.replace(",", ""))
        return float(text.replace(",", "."))

    def _means_groups(self, column: str, text: str, where: str) -> bool:
        """Whether the comma of `1,234` sets thousands apart, by the other numbers of the column, then of the file."""
        style = self._decimal(column)
        if style == "unknown" and self.separator == ",":
            style = "dot"
        elif style == "unknown":
            others = {self._decimal(each) for each in self.columns} - {"unknown"}
            style = "comma" if others == {"comma"} else "both"
        if style == "both":
            raise _two_numbers(text, column, where, "the file does not show which")
        return style == "dot"

    def _decimal(self, column: str) -> Decimal:
        """What a column's numbers show about its decimal sign, as far as the first rows tell."""
        if column not in self._decimals:
            at = self.index[column]
            shown = {_shows(row.fields[at].strip()) for row in self.sample} - {"unknown"}
            self._decimals[column] = "both" if len(shown) > 1 else next(iter(shown)) if shown else "unknown"
        return self._decimals[column]


def _two_numbers(text: str, column: str, where: str, reason: str) -> UsageError:
    plain = f"{text.replace(',', '.')} or {text.replace(',', '').replace('.', '')}"
    return UsageError(
        f"{column} is {text!r}, which could be {plain}: {reason}",
        where=where,
        accepted="numbers with a decimal point and without thousands separators",
    )


def _shows(text: str) -> Decimal:
    """What one field shows: `0,5` a decimal comma, `0.5` and `1,234.5` a decimal point, `1,234` and `7` nothing."""
    if _DOT_GROUPS.fullmatch(text):
        return "comma"
    if _COMMA_DECIMAL.fullmatch(text):
        return "unknown" if _COMMA_GROUPS.fullmatch(text) else "comma"
    if _COMMA_GROUPS.fullmatch(text):
        return "dot" if "." in text or text.count(",") > 1 else "unknown"
    return "dot" if "." in text and _PLAIN.fullmatch(text) and not _POINT_GROUP.fullmatch(text) else "unknown"


def read(path: Path, name: str = "") -> CsvTable:
    r"""A table that holds all its rows, which may be gone through more than once; raises UsageError as `opened` does.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.csv"
        >>> _ = file.write_text("zone;g_per_kwh\nES;103,42\n")
        >>> [row.number("g_per_kwh") for row in read(file)]
        [103.42]
    """
    with opened(path, name) as table:
        table.rows = tuple(table.rows)
    return table


@contextmanager
def opened(path: Path, name: str = "") -> Iterator[CsvTable]:
    """A table whose rows are read while they are gone through: a file may be larger than memory.

    The encoding is that of the byte order mark, else UTF-8, else UTF-16 where every other byte is 0, else Windows-1252,
    which holds Latin-1. Lines that begin with `#` are comments. A row has a field for each heading; empty fields
    beyond them are dropped, unless they may come of a decimal comma.

    Args:
        path: the file.
        name: for messages; the path if not given.

    Raises:
        UsageError: not readable, not text, no heading, a repeated heading, a row with another number of fields; says
            file, line, what was found and what was wanted. While rows are gone through as well.
    """
    shown = name or str(path)
    digest, encoding = inspected(path, shown)
    try:
        with path.open(encoding=encoding, newline=None) as stream:
            yield _table(stream, shown, digest, encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"is not text in {encoding}: {error.reason}", where=shown) from error
    except csv.Error as error:
        raise UsageError(f"is not CSV: {error}", where=shown) from error


def inspected(path: Path, name: str = "") -> tuple[str, str]:
    """SHA-256 and encoding of a text file; raises UsageError for a folder, an unreadable, packed or binary file."""
    shown = name or str(path)
    if path.is_dir():
        raise UsageError("is a folder", where=shown, accepted="a file")
    digest, utf8, head, valid = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")(), b"", True
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                if not head:
                    head = chunk[:4096]
                    _refuse_packed(head, shown)
                digest.update(chunk)
                valid = valid and _decodes(utf8, chunk)
    except OSError as error:
        raise UsageError(f"cannot be read: {error}", where=shown) from error
    return digest.hexdigest(), _encoding(head, valid and _decodes(utf8, b"", final=True), shown)


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool = False) -> bool:
    try:
        return decoder.decode(chunk, final) is not None
    except UnicodeDecodeError:
        return False


def _refuse_packed(head: bytes, name: str) -> None:
    for mark, says in _PACKED:
        if head.startswith(mark):
            raise UsageError(says, where=name, accepted="a text file: unpack it, or save it as CSV")


def _encoding(head: bytes, utf8: bool, name: str) -> str:
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    if b"\x00" not in head:
        return "utf-8" if utf8 else "cp1252"
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if min(even, odd) == 0 and max(even, odd) > len(head) // 4:
        return "utf-16-be" if even else "utf-16-le"
    raise UsageError("is not text: it holds zero bytes", where=name, accepted="a text file")


def _table(stream: TextIO, name: str, digest: str, encoding: str) -> CsvTable:
    lines = _Lines(stream)
    first = next(lines, "")
    told = _SEPARATOR_LINE.fullmatch(first.rstrip("\n"))
    first = next(lines, "") if told else first
    ahead = [first, *itertools.islice(lines, _SAMPLE)]
    if not first.strip():
        raise UsageError("is empty" if not lines.notes else "holds comments only", where=name, accepted="a CSV file")
    separator = told.group(1) if told else _separator(ahead, name)
    reader = csv.reader(itertools.chain(ahead, lines), delimiter=separator, strict=True)
    heads = [head.strip() for head in next(reader)]
    headed = len(heads)
    while len(heads) > 1 and not heads[-1]:
        heads.pop()
    columns = tuple(head or f"column {place}" for place, head in enumerate(heads, start=1))
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise UsageError(f"column {', '.join(repeated)} appears twice", where=name, accepted="each heading once")
    index = {column: place for place, column in enumerate(columns)}
    table = CsvTable(name, columns, lines.notes, digest, separator, encoding, index)
    rows = _rows(reader, table, lines, headed)
    table.sample = tuple(itertools.islice(rows, _SAMPLE))
    table.points = all(_shows(each.strip()) != "comma" for row in table.sample for each in row.fields if "," in each)
    table.rows = itertools.chain(table.sample, rows)
    return table


class _Lines:
    """The lines of a file without comments and blank lines, as csv wants them; knows the number of each."""

    def __init__(self, stream: TextIO) -> None:
        self.notes: dict[str, str] = {}
        self.numbers: list[int] = []
        self._stream = enumerate(stream, start=1)
        self._quoted = False
        self._headed = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            number, line = next(self._stream)
            if not self._quoted:
                if line.startswith("#"):
                    if not self._headed:
                        key, _, value = line.lstrip("#").partition(":")
                        self.notes[key.strip()] = value.strip()
                    continue
                if not line.strip():
                    continue
            self._headed = True
            if line.count('"') % 2:
                self._quoted = not self._quoted
            self.numbers.append(number)
            return line


def _separator(lines: Sequence[str], name: str) -> str:
    """The separator that gives each of the first rows as many fields as there are headings; raises for two such."""
    whole: dict[str, int] = {}
    partly: dict[str, int] = {}
    for separator in _SEPARATORS:
        try:
            rows = list(csv.reader(lines, delimiter=separator))
        except csv.Error:
            continue
        count = max((place for place, head in enumerate(rows[0], start=1) if head.strip()), default=1)
        if count > 1:
            partly[separator] = count
            if all(_fits(row, count, len(rows[0])) for row in rows[1:50]):
                whole[separator] = count
    if len(whole) > 1 and len(set(whole.values())) == 1:
        both = " and ".join(_SEPARATORS[each] for each in whole)
        raise UsageError(f"could be separated by {both}", where=name, accepted="one of them in the headings")
    fitting = whole or partly
    return max(fitting, key=lambda each: fitting[each]) if fitting else ","


def _fits(fields: list[str], count: int, headed: int) -> bool:
    """Whether a row has its fields, with nothing but empty ones beyond; of `headed` headings, empty ones included.

    One field more than that may be a decimal comma before an empty last field: then no two may look like its halves.
    """
    if len(fields) < count or any(each.strip() for each in fields[count:]):
        return False
    pairs = itertools.pairwise(fields)
    return len(fields) <= headed or not any(_PLAIN.fullmatch(one) and two.isdigit() for one, two in pairs)


def _rows(reader: Iterator[list[str]], table: CsvTable, lines: _Lines, headed: int) -> Iterator[Row]:
    count = len(table.columns)
    try:
        for fields in reader:
            line = lines.numbers[int(getattr(reader, "line_num", 1)) - 1]
            if len(fields) != count and not _fits(fields, count, headed):
                raise UsageError(
                    f"row has {len(fields)} fields",
                    where=f"{table.name}:{line}",
                    accepted=f"{count} fields, separated by {_SEPARATORS.get(table.separator, table.separator)}: "
                    f"{table.found()}",
                    hint="a decimal comma in a comma-separated file?" if len(fields) > count else "",
                )
            yield Row(table, line, fields[:count])
    except csv.Error as error:
        line = lines.numbers[-1] if lines.numbers else 0
        raise UsageError(f"is not CSV: {error}", where=f"{table.name}:{line}") from error
