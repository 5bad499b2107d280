"""Embodied carbon of devices: tables with provenance, matched to product names conservatively.

The tables are data (`data/embodied.csv`), opaque constants that disagree by a factor of about 47; the meter's result
carries that spread.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from harness_meter_fuel.carbon import SECONDS_PER_YEAR

_MARKS: Final = re.compile(r"\((?:R|TM|C)\)|\b\d+-CORE PROCESSOR\b")
_TOKEN: Final = re.compile(r"[A-Z0-9.]+\+?")
_DECORATION: Final = re.compile(r"NVIDIA|TESLA|SXM\d?|HBM\d?[A-Z]?|\d+GB|CPU|\d+\.\d+GHZ")
"""Words that a driver adds to a product name without changing the product. PCIE is none: those are other boards."""
_PCIE_TOO: Final = frozenset({"A100", "V100", "T4", "L40"})
"""Rows that do not name a board form, so that the PCIe form matches them too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodiedRow:
    """One row of an embodied table.

    Attributes:
        device: product name, `DRAM` or `server`.
        kind: `gpu`, `cpu`, `dram` or `server` (a host without its accelerators).
        kg: embodied carbon in kg CO2e, per `per`.
        per: `device`, `GB`, `8 GPUs` (a server for so many) or `device with host`.
        lifetime_s: the table's lifetime; None where it leaves that to the user.
        table: name of the table.
        source: where the figure was read.
        confidence: how well that is known.
        licence_note: under which terms it stands here.
    """

    device: str
    kind: str
    kg: float
    per: str
    lifetime_s: float | None
    table: str
    source: str
    confidence: str = ""
    licence_note: str = ""

    @property
    def id(self) -> str:
        """Stable identity of the figure."""
        return f"{self.table}:{self.device}:{self.kg!r}"


@cache
def tables() -> Mapping[str, tuple[EmbodiedRow, ...]]:
    """All packaged tables by name."""
    text = files("harness_meter_fuel").joinpath("data/embodied.csv").read_text(encoding="utf-8")
    found: dict[str, tuple[EmbodiedRow, ...]] = {}
    for entry in csv.DictReader(text.splitlines()):
        years = entry["lifetime_years"]
        row = EmbodiedRow(
            device=entry["device"],
            kind=entry["kind"],
            kg=float(entry["kg"]),
            per=entry["per"],
            lifetime_s=float(years) * SECONDS_PER_YEAR if years else None,
            table=entry["table"],
            source=entry["source"],
            confidence=entry["confidence"],
            licence_note=entry["licence_note"],
        )
        found[row.table] = (*found.get(row.table, ()), row)
    return found


def _tokens(name: str) -> list[str]:
    return _TOKEN.findall(_MARKS.sub(" ", name.upper()))


def same_product(row_name: str, product: str) -> bool:
    """Whether a product name is the row's, once the driver's decoration is taken off.

    `NVIDIA H100 80GB HBM3` is `H100`; `L40S`, `H100 NVL`, `H100 PCIe`, a MIG slice and `EPYC 7443P` are not in their
    neighbours' rows. A row's own words must stand together and in order.
    """
    wanted, given = _tokens(row_name), _tokens(product)
    for start in range(len(given) - len(wanted) + 1):
        if given[start : start + len(wanted)] == wanted:
            rest = given[:start] + given[start + len(wanted) :]
            return all(_DECORATION.fullmatch(word) or (word == "PCIE" and row_name in _PCIE_TOO) for word in rest)
    return False


def find(table: str, kind: str, product: str) -> EmbodiedRow | None:
    """The table's row for a product; None where it has none. Unknown tables raise KeyError."""
    for row in tables()[table]:
        if row.kind != kind:
            continue
        if kind in {"dram", "server"} or same_product(row.device, product):
            return row
    return None
