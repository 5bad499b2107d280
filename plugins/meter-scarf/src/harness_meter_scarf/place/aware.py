"""AWARE 2.0 characterisation factors, from the user's file or from the optional package `edges`; none are shipped.

Inverse availability-minus-demand relative to the world mean, 0.1 to 100 (Boulay et al. 2018; AWARE 2.0: Seitfudem et
al. 2025, doi 10.1111/jiec.70023). A second characterisation beside AWI, never mixed with it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from harness import csv_table
from harness.csv_table import CsvTable
from harness.errors import UsageError, did_you_mean
from harness.quantity import Unavailable

RANGE: Final = (0.1, 100.0)
PACKAGE: Final = "edges"
_LICENCE: Final = "unconfirmed (data doi 10.5281/zenodo.15133241)"


@dataclass(frozen=True, slots=True)
class Characterisation:
    """A characterisation factor of a place, in L world-eq per L, with where it comes from."""

    value: float
    source: str
    licence: str
    date: str
    id: str


def checked(value: float) -> float:
    """The factor, if it lies in 0.1..100; otherwise raises UsageError."""
    least, most = RANGE
    if not (math.isfinite(value) and least <= value <= most):
        raise UsageError(f"the AWARE factor is {value}", accepted=f"{least:g} to {most:g}")
    return value


def of_file(path: Path, location: str) -> Characterisation:
    """The factor of a place from a CSV file with the columns `location, cf`; raises UsageError."""
    try:
        state = path.stat()
    except OSError as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from error
    table, known = _file(path, state.st_mtime_ns, state.st_size)
    if location not in known:
        hint = did_you_mean(location, known)
        raise UsageError(f"no AWARE factor for {location!r}", where=str(path), accepted=", ".join(known), hint=hint)
    return Characterisation(
        known[location],
        table.notes.get("source", f"{path.name}, source not stated in the file"),
        table.notes.get("licence", _LICENCE),
        table.notes.get("date", ""),
        f"sha256:{table.digest[:16]}:{location}",
    )


@lru_cache(maxsize=16)
def _file(path: Path, _changed_ns: int, _size: int) -> tuple[CsvTable, dict[str, float]]:
    table = csv_table.read(path)
    table.require(("location", "cf"))
    known: dict[str, float] = {}
    for row in table:
        where, location = row.where, row["location"]
        value = row.number("cf")
        if not location or location in known:
            raise UsageError(f"location is {location!r}", where=where, accepted="a place that no other row has")
        if value is None:
            continue
        try:
            known[location] = checked(value)
        except UsageError as error:
            raise UsageError(f"cf: {error.message}", where=where, accepted=error.accepted) from None
    return table, known


@lru_cache
def of_package(location: str, method: str) -> Characterisation | Unavailable:
    """The factor of a place from the package `edges`, as its documentation describes the files.

    Where inputs and returns stand with opposite signs, the positive one is taken. Unavailable where the package is not
    installed or has no single positive factor for the place.

    Args:
        location: as the package names it, a two-letter country code.
        method: name of the file, such as `AWARE 2.0_Country_all_yearly.json`.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(each) for each in (spec.submodule_search_locations or ())] if spec else []
    if not folders:
        return Unavailable(f"package {PACKAGE!r} is not installed; give an AWARE file or a factor with its source")
    files = sorted(path for folder in folders for path in folder.glob("data/AWARE 2*.json"))
    chosen = next((path for path in files if path.name == method), None)
    version = importlib.metadata.version(PACKAGE)
    if chosen is None:
        listed = ", ".join(path.name for path in files) or "none"
        return Unavailable(f"{PACKAGE} {version} has no file {method!r}; AWARE files found: {listed}")
    try:
        values = set(_positive(json.loads(chosen.read_text(encoding="utf-8")), location))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return Unavailable(f"{PACKAGE} {version}: {method} cannot be read: {error}")
    if len(values) != 1:
        return Unavailable(f"{PACKAGE} {version}: {method} has {len(values)} positive factors for {location!r}")
    source = f"AWARE 2.0, {method} as packaged in {PACKAGE} {version}"
    value = checked(values.pop())
    return Characterisation(value, source, _LICENCE, "", f"{PACKAGE}-{version}:{method}:{location}")


def _positive(content: Any, location: str) -> Iterator[float]:
    exchanges = content.get("exchanges", ()) if isinstance(content, dict) else content
    for exchange in exchanges:
        value = exchange.get("value")
        at = exchange.get("consumer", {}).get("location")
        if at == location and isinstance(value, int | float) and math.isfinite(value) and value > 0:
            yield float(value)
