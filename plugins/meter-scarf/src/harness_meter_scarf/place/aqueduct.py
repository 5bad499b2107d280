"""From WRI's Aqueduct 4.0 water-risk-atlas CSV files, which the user has fetched, to one small CSV of basins.

Licence of the data: CC BY 4.0. Cite Kuzma et al. 2023, doi 10.46830/writn.23.00061.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final, Literal, TypeAlias

from harness import csv_table
from harness.csv_table import CsvTable, Row
from harness.errors import UsageError
from harness_meter_scarf.place.basins import FUTURE_YEARS, MONTHS, PFAF
from harness_meter_scarf.stress.ratio import Scenario, checked_raw

Sheet: TypeAlias = Literal["annual", "monthly", "future"]

_MARKS: Final[Mapping[Sheet, str]] = {
    "annual": "baseline_annual",
    "monthly": "baseline_monthly",
    "future": "future_annual",
}
"""What a file's name holds, as in `Aqueduct40_baseline_annual_y2023m07d05.csv`."""
_MONTH_RAW: Final = tuple(f"bws_{month:02d}_raw" for month in MONTHS)
_MONTH_CATEGORY: Final = tuple(f"bws_{month:02d}_cat" for month in MONTHS)
_ANNUAL: Final = ("pfaf_id", "gid_0", "gid_1", "name_0", "name_1", "bws_raw", "bws_score", "bws_cat")


@dataclass(slots=True)
class Extract:
    """What was taken out of the files.

    Attributes:
        values: `pfaf_id` -> column -> text as found.
        digests: file name -> SHA-256.
        skipped: file name -> rows without a six-digit code.
        columns: columns of the output, beside `site` and `pfaf_id`.
    """

    values: dict[str, dict[str, str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)


def sheet_of(path: Path) -> Sheet:
    """Which of WRI's tables a file is, by its name; raises UsageError."""
    for sheet, mark in _MARKS.items():
        if mark in path.name:
            return sheet
    marks = ", ".join(f"Aqueduct40_{mark}_*.csv" for mark in _MARKS.values())
    raise UsageError("is not named like any of the tables", where=str(path), accepted=marks)


def extract(paths: Sequence[Path], wanted: Iterable[str], scenarios: Sequence[Scenario] = ("bau",)) -> Extract:
    """The values of the wanted basins from WRI's files; codes such as -9999 and 9999 are kept as found.

    Args:
        paths: the annual file, and the monthly and the future one where they are wanted.
        wanted: `pfaf_id` of each basin, six digits.
        scenarios: of the future file.

    Raises:
        UsageError: an unreadable file, a missing column, a broken value, a basin without a row, or rows of one basin
            that differ; each names file, row and field.
    """
    codes = set(wanted)
    result = Extract()
    sheets = {sheet_of(path): path for path in paths}
    if len(sheets) < len(paths):
        raise UsageError("two files are named like the same table", accepted="one file of each table")
    if "annual" not in sheets:
        raise UsageError("the annual table is missing", accepted="Aqueduct40_baseline_annual_*.csv among the files")
    for sheet, path in sheets.items():
        raw = [column for scenario in scenarios for column in (f"{scenario}{year}_ws_x_r" for year in FUTURE_YEARS)]
        required = {"annual": _ANNUAL, "monthly": ("pfaf_id", *_MONTH_RAW), "future": ("pfaf_id", *raw)}[sheet]
        kept = {"annual": ("bws_raw", "bws_cat"), "monthly": (*_MONTH_RAW, *_MONTH_CATEGORY), "future": tuple(raw)}
        _read(path, codes, required, kept[sheet], result)
    without = sorted(code for code in codes if "bws_raw" not in result.values.get(code, {}))
    if without:
        raise UsageError(f"no row for basin {', '.join(without)}", where=str(sheets["annual"]))
    return result


def _read(path: Path, codes: set[str], required: Sequence[str], kept: Sequence[str], result: Extract) -> None:
    """Reads one file line by line: the download is large."""
    with csv_table.opened(path) as table:
        table.require(required)
        columns = [column for column in kept if column in table.index]
        result.columns += columns
        result.skipped[path.name] = _take(table, codes, columns, result.values)
        result.digests[path.name] = table.digest


def _take(table: CsvTable, codes: set[str], columns: Sequence[str], values: dict[str, dict[str, str]]) -> int:
    skipped = 0
    for row in table:
        code = _code(row["pfaf_id"])
        if not code:
            skipped += 1
            continue
        if code not in codes:
            continue
        taken = {column: _text(row, column) for column in columns}
        before = values.setdefault(code, {})
        for column, text in taken.items():
            if column in before and not _same(before[column], text):
                raise UsageError(
                    f"rows of basin {code} differ in {column}: {before[column]} and {text}", where=row.where
                )
        before.update(taken)
    return skipped


def _code(text: str) -> str:
    """A six-digit code; also from `171050.0`, as spreadsheets write it; empty for anything else."""
    trimmed = text.removesuffix(".0")
    return trimmed if PFAF.fullmatch(trimmed) else ""


def _text(row: Row, column: str) -> str:
    text, where = row[column], row.where
    if not text:
        return ""
    value = row.number(column)
    if value is None:
        value = math.nan
    if not column.endswith("_cat"):
        try:
            checked_raw(value)
        except UsageError as error:
            raise UsageError(f"{column}: {error.message}", where=where, accepted=error.accepted) from None
    return text if "," not in text else repr(value)


def _same(one: str, other: str) -> bool:
    return one == other or (bool(one) and bool(other) and float(one) == float(other))


def written(sites: Mapping[str, str], extracted: Extract, on: date) -> str:
    """The small CSV as text: a header with source, licence, changes and digests, then one row a site.

    Args:
        sites: site -> `pfaf_id`.
        extracted: what `extract` found.
        on: date of the extraction.
    """
    out = io.StringIO()
    for key, value in _header(extracted, on):
        out.write(f"# {key}: {value}\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("site", "pfaf_id", *extracted.columns))
    for site, code in sites.items():
        values = extracted.values[code]
        writer.writerow((site, code, *(values.get(column, "") for column in extracted.columns)))
    return out.getvalue()


def _header(extracted: Extract, on: date) -> Iterator[tuple[str, str]]:
    yield "source", "World Resources Institute, Aqueduct 4.0 water risk atlas"
    yield "release", ", ".join(extracted.digests)
    yield "citation", "Kuzma et al. 2023, doi 10.46830/writn.23.00061"
    yield "licence", "CC BY 4.0"
    skipped = sum(extracted.skipped.values())
    yield "changes", f"basins and columns selected, de-duplicated on pfaf_id, {skipped} rows without a code skipped"
    yield "date", on.isoformat()
    for name, digest in extracted.digests.items():
        yield f"sha256 {name}", digest


def parse_basins(texts: Iterable[str]) -> dict[str, str]:
    """Site -> `pfaf_id` from `SITE=PFAF` texts, several of which may stand in one with commas; raises UsageError."""
    found: dict[str, str] = {}
    for text in (part for each in texts for part in each.split(",")):
        site, equals, code = (part.strip() for part in text.partition("="))
        if not (equals and site and PFAF.fullmatch(code)) or site in found:
            raise UsageError(
                f"{text!r} does not name a basin",
                accepted="SITE=PFAF_ID with six digits, each site once, such as dc1=171050",
            )
        found[site] = code
    if not found:
        raise UsageError("no basin is asked for", accepted="--basins SITE=PFAF_ID")
    return found
