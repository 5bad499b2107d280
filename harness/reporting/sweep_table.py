"""The table of a sweep, row by row, as CSV, Markdown, JSON or for a terminal."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from harness.costing.recost import Columns, Row
from harness.costing.settings import Combinations, shown
from harness.quantity import Amount, Value
from harness.records.files import replaced
from harness.reporting.markdown import escape
from harness.reporting.tables import Section, Table, csv_cells
from harness.reporting.wording import Footnotes
from harness.units import si

TERMINAL_ROWS: Final = 40
"""What a terminal shows of a table; a file holds all of it."""


class SweepTable(ABC):
    """Takes rows as they come and keeps none of them.

    Args:
        stream: where the table goes.
        combinations: of the sweep.
        columns: readings and functional units.
    """

    def __init__(self, stream: IO[str], combinations: Combinations, columns: Columns) -> None:
        self.stream = stream
        self.combinations = combinations
        self.columns = columns
        self.started()

    @abstractmethod
    def started(self) -> None:
        """Writes what comes before the first row."""

    @abstractmethod
    def add(self, row: Row) -> None:
        """Writes one row."""

    @abstractmethod
    def finish(self, ranking: Sequence[str]) -> None:
        """Writes what comes after the last row."""

    def cells(self, row: Row) -> Iterator[tuple[str, Value | None]]:
        """Heading and value of each reading: of the trial, then per functional unit; None where the point has none."""
        for metric in self.columns.metrics:
            yield metric, row.totals.get(metric)
        for unit in self.columns.units:
            for metric in self.columns.metrics:
                if metric not in self.columns.ratios:
                    yield f"{metric}/{unit}", row.units.get(unit, {}).get(metric)

    def swept(self, row: Row) -> list[str]:
        """The row's value of each swept option."""
        return [shown(value) for value in self.combinations.values[row.combination]]


def _doubts(row: Row) -> list[str]:
    return [*(f"NOT VALID: {reason}" for reason in row.invalid), *row.flags]


class CsvTable(SweepTable):
    """Four columns a reading: value, `.low`, `.high`, `.method`; the reasons of empty ones stand in `missing`."""

    def started(self) -> None:
        """Writes the headings."""
        nothing = Row(
            run="",
            trial_id="",
            point="",
            label="",
            combination=0,
            totals={},
            units={},
            factors={},
            flags=(),
            invalid=(),
        )
        self._writer = csv.writer(self.stream, lineterminator="\n")
        names = [
            text for name, _ in self.cells(nothing) for text in (name, f"{name}.low", f"{name}.high", f"{name}.method")
        ]
        headings = ["run", "trial", "point", *self.combinations.keys, *names, "missing", "flags"]
        self._writer.writerow(csv_cells(headings))

    def add(self, row: Row) -> None:
        """Writes one line."""
        numbers: list[object] = []
        missing: dict[str, list[str]] = {}
        for name, value in self.cells(row):
            if isinstance(value, Amount):
                ends = ["" if end is None else end for end in (value.low, value.high)]
                numbers += [value.value, *ends, value.label.value]
            else:
                numbers += ["", "", "", ""]
                if value is not None:
                    missing.setdefault(value.reason, []).append(name)
        why = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in missing.items())
        cells = [row.run, row.trial_id, row.label, *self.swept(row), *numbers, why, "; ".join(_doubts(row))]
        self._writer.writerow(csv_cells(cells))

    def finish(self, ranking: Sequence[str]) -> None:
        """Writes nothing: the file holds rows and headings only."""


class JsonTable(SweepTable):
    """One document: the swept options, the rows with full values, the ranking."""

    def started(self) -> None:
        """Opens the document."""
        self._comma = ""
        sweep = {setting.key: list(setting.values) for setting in self.combinations.swept}
        fixed = {setting.key: setting.values[0] for setting in self.combinations.fixed}
        self.stream.write(f'{{"sweep": {json.dumps(sweep)},\n "set": {json.dumps(fixed)},\n "rows": [')

    def add(self, row: Row) -> None:
        """Writes one element of `rows`."""
        values = self.combinations.values[row.combination]
        content = {
            "run": row.run,
            "trial": row.trial_id,
            "point": row.label,
            "set": dict(zip(self.combinations.keys, values, strict=True)),
            "totals": {name: _plain(value) for name, value in row.totals.items()},
            "units": {
                unit: {name: _plain(value) for name, value in readings.items()} for unit, readings in row.units.items()
            },
            "flags": _doubts(row),
        }
        self.stream.write(f"{self._comma}\n  {json.dumps(content)}")
        self._comma = ","

    def finish(self, ranking: Sequence[str]) -> None:
        """Closes the document."""
        self.stream.write(f'\n ],\n "ranking": {json.dumps(list(ranking), indent=1)}\n}}\n')


def _plain(value: Value) -> Mapping[str, Any]:
    if not isinstance(value, Amount):
        return {"kind": value.kind, "reason": value.reason}
    parts = {method.value: part for method, part in value.composition.items()}
    return {
        "kind": "amount", "value": value.value, "unit": value.unit, "low": value.low, "high": value.high,
        "method": value.label.value, "composition": parts,
    }  # fmt: skip


class _TextTable(SweepTable):
    """A table for people: costs per functional unit, or of the whole trial where a run has none."""

    def started(self) -> None:
        """Prepares the notes."""
        self.notes = Footnotes()
        wanted = [metric for metric in self.columns.metrics if metric not in self.columns.ratios]
        self._shown = [(unit, metric) for unit in self.columns.units or ("",) for metric in wanted]

    def headings(self) -> list[str]:
        """Of all columns."""
        costs = [f"{metric} per {unit}" if unit else metric for unit, metric in self._shown]
        return ["point", "trial", *self.combinations.keys, *costs]

    def texts(self, row: Row) -> list[str]:
        """One row."""
        found = []
        for unit, metric in self._shown:
            value = row.units.get(unit, {}).get(metric) if unit else row.totals.get(metric)
            found.append("" if value is None else self._text(value, unit))
        marks = "".join(f" {self.notes.mark(text)}" for text in _doubts(row))
        return [row.label, f"{row.trial_id}{marks}", *self.swept(row), *found]

    def _text(self, value: Value, unit: str) -> str:
        if not isinstance(value, Amount):
            return f"{value.kind} {self.notes.mark(value.reason)}"
        symbol = value.unit.removesuffix(f"/{unit}")
        low, high = (si(end, symbol) if end is not None else "?" for end in (value.low, value.high))
        within = "bound not known" if low == high == "?" else f"{low} to {high}"
        return f"{si(value.value, symbol)} ({within}), {value.label.value}"


class MarkdownTable(_TextTable):
    """A pipe table, its notes and the ranking."""

    def started(self) -> None:
        """Writes the headings."""
        super().started()
        names = self.headings()
        self.stream.write(f"| {' | '.join(map(escape, names))} |\n|{'---|' * len(names)}\n")

    def add(self, row: Row) -> None:
        """Writes one line."""
        self.stream.write(f"| {' | '.join(map(escape, self.texts(row)))} |\n")

    def finish(self, ranking: Sequence[str]) -> None:
        """Writes the notes and the ranking."""
        for text in self.notes.texts():
            self.stream.write(f"\n{escape(text)}\n")
        for text in ranking:
            self.stream.write(f"\n- {escape(text)}\n")


class TerminalTable(_TextTable):
    """The first rows, and the columns that differ and fit; what is left out is said."""

    def started(self) -> None:
        """Prepares the rows."""
        super().started()
        if not self.columns.chosen:
            self._shown = [each for each in self._shown if each[0] == self._shown[0][0]]
        self._rows: list[Row] = []
        self._more = 0

    def add(self, row: Row) -> None:
        """Keeps a row, as long as a terminal shows it."""
        if len(self._rows) < TERMINAL_ROWS:
            self._rows.append(row)
        else:
            self._more += 1

    def finish(self, ranking: Sequence[str]) -> None:
        """Prints all of it."""
        from rich.console import Console

        from harness.reporting.terminal import print_section

        console = Console(file=self.stream)
        everywhere = [text for text in _doubts(self._rows[0]) if self._in_all(text)] if self._rows else []
        names = ["point", "trial", *self.combinations.keys]
        heads = [self._head(row, everywhere) for row in self._rows]
        columns, left_out = self._differing()
        fixed = sum(max(map(len, cells)) + 2 for cells in zip(names, *heads, strict=True))
        fitting = _fitting(columns, (console.width if console.is_terminal else _NO_LIMIT) - fixed)
        if len(fitting) < len(columns):
            names_left = ", ".join(column[0] for column in columns[len(fitting) :])
            left_out.append(f"no room for {names_left}: choose columns with --metric and --per")
        cells = [[*head, *(column[1 + number] for column in fitting)] for number, head in enumerate(heads)]
        more = [f"and {self._more} more rows: --format csv --output FILE holds all"] if self._more else []
        notes = [*(f"in every row: {text}" for text in everywhere), *self.notes.texts()]
        print_section(
            console,
            Section(
                "Costed again",
                Table([*names, *(column[0] for column in fitting)], cells),
                paragraphs=[*more, *ranking, *left_out, *notes],
            ),
        )

    def _in_all(self, text: str) -> bool:
        return all(text in _doubts(row) for row in self._rows)

    def _head(self, row: Row, everywhere: Sequence[str]) -> list[str]:
        marks = "".join(f" {self.notes.mark(text)}" for text in _doubts(row) if text not in everywhere)
        return [row.label, f"{row.trial_id.rpartition('-')[2]}{marks}", *self.swept(row)]

    def _differing(self) -> tuple[list[list[str]], list[str]]:
        """Columns, each with its heading first; and what is said of those that no row has or that are alike."""
        columns: list[list[str]] = []
        said: list[str] = []
        for unit, metric in self._shown:
            values = [row.units.get(unit, {}).get(metric) if unit else row.totals.get(metric) for row in self._rows]
            heading = f"{metric} per {unit}" if unit else metric
            known = [value for value in values if isinstance(value, Amount)]
            if not known and not self.columns.chosen:
                reasons = dict.fromkeys(
                    value.reason for value in values if value is not None and not isinstance(value, Amount)
                )
                said.append(f"{heading}: {'; '.join(reasons) or 'no row has it'}")
            elif len(known) == len(values) > 1 and len(set(map(str, values))) == 1 and not self.columns.chosen:
                said.append(f"{heading}: {_brief(known[0], unit)} in every row, {known[0].label.value}")
            else:
                methods = sorted({value.label.value for value in known})
                said += [f"{heading}: {methods[0]}"] if len(methods) == 1 else []
                columns.append([heading, *(self._cell(value, unit, methods) for value in values)])
        return columns, said

    def _cell(self, value: Value | None, unit: str, methods: Sequence[str]) -> str:
        if value is None:
            return ""
        if not isinstance(value, Amount):
            return f"{value.kind} {self.notes.mark(value.reason)}"
        return _brief(value, unit) + (f", {value.label.value}" if len(methods) > 1 else "")


_NO_LIMIT: Final = 10_000


def _brief(value: Amount, unit: str) -> str:
    """A value with its bound; an interval without a point in it alone."""
    symbol = value.unit.removesuffix(f"/{unit}")
    if value.low is None and value.high is None:
        return si(value.value, symbol)
    ends = tuple(si(end, symbol) if end is not None else "?" for end in (value.low, value.high))
    if value.low == value.value and value.low != value.high:
        return f"{ends[0]} to {ends[1]}" if value.high is not None else f"{ends[0]} or more"
    return si(value.value, symbol) if ends[0] == ends[1] else f"{si(value.value, symbol)} ({ends[0]} to {ends[1]})"


def _fitting(columns: Sequence[Sequence[str]], room: int) -> list[Sequence[str]]:
    """As many columns, in order, as fit; one at least."""
    found: list[Sequence[str]] = []
    for column in columns:
        room -= max(map(len, column)) + 2
        if room < 0 and found:
            break
        found.append(column)
    return found


FORMATS: Final[Mapping[str, type[SweepTable]]] = {
    "terminal": TerminalTable,
    "csv": CsvTable,
    "md": MarkdownTable,
    "json": JsonTable,
}


@contextmanager
def opened(output: Path | None, otherwise: IO[str]) -> Iterator[IO[str]]:
    """The file that a table goes to, whole or not at all; the other stream where no file is named."""
    if output is None:
        yield otherwise
        return
    file = replaced(output)
    if file is None:  # a device or a pipe
        with output.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        return
    partial = file.with_name(f".{file.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
