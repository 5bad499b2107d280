"""Which kind a file is, and its carbon intensity; each file is read once in a process as long as it does not change."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Final

from harness import csv_table
from harness.csv_table import CsvTable
from harness.errors import UsageError
from harness_meter_fuel import series
from harness_meter_fuel.files import electricity_maps, generation, signals, tables
from harness_meter_fuel.files.found import Choice, CsvKind, Found, JsonKind
from harness_meter_fuel.series import Series

OWN: Final = CsvKind(
    name="own series",
    wanted=", ".join(series.COLUMNS),
    fits=lambda table: set(series.COLUMNS) <= set(table.columns),
    load=lambda table, choice: Found(kind="own series", intervals=_own(table, choice)),
)
CSV_KINDS: Final = (OWN, electricity_maps.CSV, *signals.CSV, *generation.CSV, *tables.CSV)
JSON_KINDS: Final = (electricity_maps.JSON, *signals.JSON, generation.JSON)
_LARGEST_JSON: Final = 512 * 1024 * 1024


def _own(table: CsvTable, choice: Choice) -> tuple[series.Interval, ...]:
    if choice.zone or choice.emissions:
        raise UsageError("is an own series of one place", where=table.name, accepted="neither `zone` nor `emissions`")
    return series.of_table(table)


@lru_cache(maxsize=64)
def _load(path: Path, choice: Choice, _changed_ns: int, _size: int) -> tuple[Found, Series | None, str]:
    found, digest = _read(path, choice)
    value = found.g_per_kwh
    if value is not None and not 0 <= value <= series.HIGHEST_G_PER_KWH:
        raise UsageError(
            f"the intensity of {found.label} is {value:g} g/kWh",
            where=str(path),
            accepted=f"0 to {series.HIGHEST_G_PER_KWH:g} g/kWh: is it in another unit?",
        )
    return found, Series(found.intervals, digest) if found.intervals else None, digest


def load(path: Path, choice: Choice) -> tuple[Found, Series | None, str]:
    """What a file holds, as a series where it is one, and the SHA-256 of the file.

    Raises:
        UsageError: not a file of a known kind: names the columns found and, for each kind, those wanted; or a row that
            its kind does not have, with file, line and column.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from error
    return _load(path, choice, state.st_mtime_ns, state.st_size)


def _read(path: Path, choice: Choice) -> tuple[Found, str]:
    digest, encoding = csv_table.inspected(path)
    with path.open(encoding=encoding) as stream:
        begin = next((char for char in stream.read(4096) if not char.isspace()), "")
    if begin in {"{", "["}:
        return _read_json(path, encoding, choice), digest
    if begin == "<":
        raise UsageError("is a page of the web or XML", where=str(path), accepted="CSV or JSON")
    with csv_table.opened(path) as table:
        kind = next((kind for kind in CSV_KINDS if kind.fits(table)), None)
        if kind is None:
            raise UsageError(
                f"is no known kind of file with an intensity: it has the columns {table.found()}",
                where=str(path),
                accepted=_wanted(CSV_KINDS),
                hint=_elsewhere(set(table.columns)),
            )
        return kind.load(table, choice), digest


def _read_json(path: Path, encoding: str, choice: Choice) -> Found:
    if path.stat().st_size > _LARGEST_JSON:
        raise UsageError("is too large for JSON", where=str(path), accepted="at most 512 MiB, or the publisher's CSV")
    try:
        value = json.loads(path.read_text(encoding=encoding))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is not JSON: {error}", where=str(path)) from error
    kind = next((kind for kind in JSON_KINDS if kind.fits(value)), None)
    if kind is None:
        keys = ", ".join(map(str, list(value)[:12])) if isinstance(value, dict) else f"a list of {len(value)}"
        raise UsageError(
            f"is no known kind of file: it has {keys or 'no keys'}", where=str(path), accepted=_wanted(JSON_KINDS)
        )
    return kind.load(value, str(path), choice)


def _elsewhere(columns: set[str]) -> str:
    """What a file is that holds something else, and where it is taken."""
    if {"emissions", "energy_consumed", "duration"} <= columns:
        return "codecarbon's own results: `harness codecarbon-import`"
    if {"name", "gwp_total"} <= columns or {"type", "additional_memory"} <= columns:
        return "embodied carbon of devices: `embodied: {NAME: {file: ..., product: ...}}`"
    return ""


def _wanted(kinds: tuple[CsvKind, ...] | tuple[JsonKind, ...]) -> str:
    return "; ".join(f"{kind.name} ({kind.wanted})" for kind in kinds)
