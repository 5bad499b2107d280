"""Basins: the small CSV that `scarf-aqueduct` writes and the meter reads, with WRI's codes kept as found.

Columns carry WRI's own names (Aqueduct 4.0): `bws_raw` and `bws_cat` for the baseline year, `bws_01_raw` to
`bws_12_raw` by month, `bau30_ws_x_r` and the like for 2030, 2050 and 2080.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from harness import csv_table
from harness.csv_table import CsvTable, Row
from harness.errors import UsageError, did_you_mean
from harness_meter_scarf import tables
from harness_meter_scarf.stress.ratio import BASELINE_YEAR, BINS, Basin, Cell, checked_raw

MADE_UP: Final = "made-up"
"""Name of the shipped table of invented basins, for tests and examples; what rests on it is marked `simulated`."""
_MADE_UP_FILE: Final = tables.DATA / "made_up_basins.csv"
MONTHS: Final = range(1, 13)
PFAF: Final = re.compile(r"\d{6}")
FUTURE_YEARS: Final[Mapping[str, int]] = {"30": 2030, "50": 2050, "80": 2080}
"""Aqueduct's windows 2015-45, 2035-65, 2065-95 stand for these years."""
_RATIO_HINT: Final = "raw ratios (bws_raw), not scores (bws_score) or categories (bws_cat)"


@dataclass(frozen=True, slots=True)
class Basins:
    """The basins of a file, by site and by code."""

    name: str
    by_site: Mapping[str, Basin]
    by_pfaf: Mapping[str, Basin]

    def find(self, name: str) -> Basin:
        """A basin by site or by `pfaf_id`; raises UsageError for one without a row."""
        found = self.by_site.get(name) or self.by_pfaf.get(name)
        if found is None:
            known = [*self.by_site, *self.by_pfaf]
            accepted = ", ".join(known[:20]) or "none: the file is empty"
            raise UsageError(f"no basin {name!r}", where=self.name, accepted=accepted, hint=did_you_mean(name, known))
        return found


def load(path: Path | str) -> Basins:
    """The basins of a file, or the made-up ones; read once as long as the file does not change. Raises UsageError."""
    if str(path) == MADE_UP:
        return _load(_MADE_UP_FILE, _MADE_UP_FILE.name, 0, 0)
    file = Path(path)
    try:
        state = file.stat()
    except OSError as error:
        raise UsageError(f"cannot be read: {error}", where=str(file)) from error
    return _load(file, str(file), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _load(path: Path, name: str, _changed_ns: int, _size: int) -> Basins:
    table = csv_table.read(path, name)
    if "bws_raw" not in table.columns and {"bws_score", "bws_cat"} & set(table.columns):
        raise UsageError("there are scores or categories and no ratios", where=name, accepted=_RATIO_HINT)
    table.require(("site", "pfaf_id", "bws_raw"))
    by_site: dict[str, Basin] = {}
    by_pfaf: dict[str, Basin] = {}
    for row in table:
        where = row.where
        site, pfaf = row["site"], row["pfaf_id"]
        if pfaf and not PFAF.fullmatch(pfaf):
            raise UsageError(f"pfaf_id is {pfaf!r}", where=where, accepted="six digits, or empty")
        if not (site or pfaf) or site in by_site:
            raise UsageError(f"site is {site!r}", where=where, accepted="a site that no other row has")
        basin = _basin(row, table, site or pfaf)
        if site:
            by_site[site] = basin
        if pfaf:
            by_pfaf.setdefault(pfaf, basin)
    return Basins(table.name, MappingProxyType(by_site), MappingProxyType(by_pfaf))


def _basin(row: Row, table: CsvTable, label: str) -> Basin:
    baseline = _cell(row, "bws_raw", "bws_cat")
    months = tuple(_cell(row, f"bws_{month:02d}_raw", f"bws_{month:02d}_cat") for month in MONTHS)
    years = {
        scenario: {BASELINE_YEAR: baseline}
        | {
            year: _cell(row, f"{scenario}{short}_ws_x_r", "")
            for short, year in FUTURE_YEARS.items()
            if row.get(f"{scenario}{short}_ws_x_r")
        }
        for scenario in ("bau", "opt", "pes")
    }
    simulated = table.notes.get("simulated", "").lower() == "true"
    citation = "; ".join(table.notes[key] for key in ("source", "release", "citation", "changes") if key in table.notes)
    return Basin(
        label=label,
        baseline=baseline,
        months=months,
        years=MappingProxyType(years),
        source=citation or f"{Path(table.name).name}, source not stated in the file",
        licence=table.notes.get("licence", ""),
        date=table.notes.get("date", ""),
        id=f"sha256:{table.digest[:16]}:{label}",
        simulated=simulated,
    )


def _cell(row: Row, raw_field: str, category_field: str) -> Cell:
    where = row.where
    raw = row.number(raw_field)
    category = row.number(category_field)
    if raw is not None:
        try:
            checked_raw(raw)
        except UsageError as error:
            raise UsageError(f"{raw_field}: {error.message}", where=where, accepted=error.accepted) from None
    if category is not None and category not in (*BINS, -9999):
        raise UsageError(
            f"{category_field} is {category:g}", where=where, accepted=", ".join(map(str, (*BINS, "-9999")))
        )
    return Cell(raw, None if category is None else int(category))
