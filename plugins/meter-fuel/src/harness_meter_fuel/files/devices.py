"""Embodied carbon of devices out of files: Boavizta's footprints of products and Cloud Carbon Footprint's instances."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from harness import csv_table
from harness.csv_table import CsvTable, Row
from harness.errors import UsageError, did_you_mean
from harness_meter_fuel.files.found import headings, plain

_BOAVIZTA: Final = "Boavizta device footprints"
_CCF: Final = "Cloud Carbon Footprint embodied coefficients"
_WANTED: Final = (
    f"{_BOAVIZTA} (name, gwp_total, gwp_use_ratio; or Name, Total (kgCO2eq), Use (%)); {_CCF} (type, total)"
)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Embodied carbon of a product: of making, transport and end of life, without use.

    Attributes:
        kg: embodied carbon; kg CO2e per device.
        source: kind of file, product, file and digest.
    """

    kg: float
    source: str


def footprint(path: Path, product: str) -> Footprint:
    """The embodied carbon of a product in a file, known by its columns; a file is read once as long as it stays.

    Args:
        path: the file.
        product: as the file names it, with or without its manufacturer, in any case.

    Raises:
        UsageError: no file of a known kind, no such product, several that differ, or one without a share of use.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from error
    kind, digest, known = _read(path, state.st_mtime_ns, state.st_size)
    wanted = plain(product)
    if wanted not in known:
        hint = did_you_mean(product.lower(), [name.lower() for names in known.values() for name, _ in names])
        raise UsageError(
            f"has no product {product!r}", where=str(path), accepted=f"one of {len(known)} names in it", hint=hint
        )
    found = known[wanted]
    figures = {kg for _, kg in found}
    if len(figures) > 1 or isinstance(found[0][1], str):
        said = ", ".join(sorted({f"{kg:g} kg" if isinstance(kg, float) else kg for kg in figures}))
        raise UsageError(
            f"{product!r} has {said}", where=str(path), accepted="a name with one figure, or the figure as `kg`"
        )
    name, kg = found[0]
    assert isinstance(kg, float)
    return Footprint(kg, f"{kind}, {name}, {path.name}, sha256 {digest[:12]}")


_Known = dict[str, list[tuple[str, float | str]]]


@lru_cache(maxsize=16)
def _read(path: Path, _changed_ns: int, _size: int) -> tuple[str, str, _Known]:
    """Kind, digest, and plain name -> each row's name with its kg, or with the reason why it has none."""
    with csv_table.opened(path) as table:
        found = headings(table)
        if {"name", "gwptotal", "gwpuseratio"} <= found.keys() or {"name", "totalkgco2eq", "use"} <= found.keys():
            return _BOAVIZTA, table.digest, _products(table, _boavizta(found), ("manufacturer", "name"), found)
        if {"type", "total"} <= found.keys() and any(name.startswith("additional") for name in found):
            return _CCF, table.digest, _products(table, lambda row: _ccf(row, found["total"]), ("type",), found)
        raise UsageError(
            f"is no known kind of file: it has the columns {table.found()}", where=str(path), accepted=_WANTED
        )


def _products(
    table: CsvTable, kg: Callable[[Row], float | str], names: tuple[str, ...], found: dict[str, str]
) -> _Known:
    known: _Known = {}
    columns = [found[name] for name in names if name in found]
    for row in table:
        figure = kg(row)
        whole = " ".join(row[column] for column in columns if row[column])
        for name in {plain(whole), plain(row[columns[-1]])} - {""}:
            known.setdefault(name, []).append((whole, figure))
    return known


def _ccf(row: Row, column: str) -> float | str:
    number = row.number(column)
    return "no number" if number is None else number


def _boavizta(found: dict[str, str]) -> Callable[[Row], float | str]:
    total = found.get("gwptotal") or found["totalkgco2eq"]
    use = found.get("gwpuseratio") or found["use"]

    def read(row: Row) -> float | str:
        whole, share = row.number(total), _share(row, use)
        if whole is None or whole < 0:
            return "no total"
        return "a total with no share of use" if share is None else whole * (1 - share)

    return read


_PERCENT: Final = re.compile(r"(.+?)\s*%")


def _share(row: Row, column: str) -> float | None:
    """A share, written `0,15`, `0.15` or `15.00%`; raises UsageError outside of 0 to 1."""
    percent = _PERCENT.fullmatch(row[column])
    number = row.table.number(percent.group(1), column, row.where) if percent else row.number(column)
    share = None if number is None else number / 100 if percent else number
    if share is not None and not 0 <= share <= 1:
        raise UsageError(f"{column} is {row[column]!r}", where=row.where, accepted="a share of 0 to 1, or a percentage")
    return share
