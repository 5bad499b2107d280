"""Embodied carbon of devices: tables with provenance, matched to product names conservatively.

The tables are data (`data/embodied.csv`), opaque constants that disagree by a factor of about 47; the meter's result
carries that spread. Table `estimate` computes the rows of accelerators and processors (`estimator.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from harness.quantity import Unavailable
from harness_meter_fuel.carbon import SECONDS_PER_YEAR
from harness_meter_fuel.hardware import devices, estimator
from harness_meter_fuel.hardware.naming import same_product
from harness_meter_fuel.packaged import packaged

WITHDRAWN: Final = {
    "act": "ACT has no row for HBM and GDDR, so that it prices no accelerator: take `embodied_table: estimate`, which "
    "uses its dies, or its formula for one device: `embodied: {gpu: {act: {...}, source: ...}}`",
    "ecologits": "there are two of them: ecologits-0.9.1, ecologits-0.11.3",
}
"""Names that are no table, and what to write instead."""
ESTIMATE: Final = "estimate"
"""The table whose figures of accelerators and processors are published ones, or estimates as intervals."""
_WHOLE_KINDS: Final = frozenset({"dram", "ssd", "server"})
"""Kinds of which a table has one row, whatever the product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodiedRow:
    """One row of an embodied table.

    Attributes:
        device: product name, `DRAM` or `server`.
        kind: `gpu`, `cpu`, `dram`, `ssd`, `part` (of a host) or `server` (a host without its accelerators).
        kg: embodied carbon in kg CO2e, per `per`.
        low_kg: lower end of its interval; None where the table gives none.
        high_kg: upper end of it.
        per: `device`, `GB`, `8 GPUs` (a server for so many) or `device with host`.
        lifetime_s: the table's lifetime; None where it leaves that to the user.
        table: name of the table.
        source: where the figure was read.
        confidence: how well that is known.
        licence_note: under which terms it stands here.
        estimated: whether no figure of the product is published, so that it was estimated.
    """

    device: str
    kind: str
    kg: float
    low_kg: float | None = None
    high_kg: float | None = None
    per: str
    lifetime_s: float | None
    table: str
    source: str
    confidence: str = ""
    licence_note: str = ""
    estimated: bool = False

    @property
    def id(self) -> str:
        """Stable identity of the figure."""
        return f"{self.table}:{self.device}:{self.kg!r}"


@cache
def tables() -> Mapping[str, tuple[EmbodiedRow, ...]]:
    """All packaged tables by name."""
    found: dict[str, tuple[EmbodiedRow, ...]] = {}
    for entry in packaged("embodied"):
        years = entry["lifetime_years"]
        row = EmbodiedRow(
            device=entry["device"],
            kind=entry["kind"],
            kg=float(entry["kg"]),
            low_kg=float(entry["low_kg"]) if entry["low_kg"] else None,
            high_kg=float(entry["high_kg"]) if entry["high_kg"] else None,
            per=entry["per"],
            lifetime_s=float(years) * SECONDS_PER_YEAR if years else None,
            table=entry["table"],
            source=entry["source"],
            confidence=entry["confidence"],
            licence_note=entry["licence_note"],
        )
        found[row.table] = (*found.get(row.table, ()), row)
    return found


@cache
def find(table: str, kind: str, product: str) -> EmbodiedRow | None:
    """The table's row for a product; None where it has none. Unknown tables raise KeyError."""
    for row in tables()[table]:
        if row.kind != kind:
            continue
        everything = kind in _WHOLE_KINDS or row.device.startswith("any ")
        if everything or same_product(row.device, product):
            return row
    found = _estimated(kind, product) if table == ESTIMATE else None
    return found if isinstance(found, EmbodiedRow) else None


def _estimated(kind: str, product: str) -> EmbodiedRow | Unavailable:
    """The figure of an accelerator or a processor as a row of table `estimate`."""
    if kind not in {"gpu", "cpu"}:
        return Unavailable(f"no figure for {kind} {product!r}")
    found = estimator.figure(kind, product)
    if isinstance(found, Unavailable):
        return found
    facts = devices.find(kind, product)
    assert facts is not None
    return EmbodiedRow(
        device=next((name for name in facts.names if same_product(name, product)), facts.name),
        kind=kind,
        kg=found.kg,
        low_kg=found.low_kg,
        high_kg=found.high_kg,
        per="device with host" if facts.kind == devices.SOC else "device",
        lifetime_s=None,
        table=ESTIMATE,
        source=found.source,
        confidence=found.confidence,
        licence_note="own estimate from factors with their sources" if found.estimated else "single figure restated",
        estimated=found.estimated,
    )


def missing(table: str, kind: str, product: str) -> str:
    """Why a table has no row for a product."""
    reason = f"embodied table {table!r} has no row for {kind} {product!r}"
    if table != ESTIMATE:
        return reason
    if kind == "ssd":
        return (
            f"{reason}: published figures of drives lie between 0.004 kg/GB (Seagate Nytro 1551, in ACT) and "
            "0.16 kg/GB (mean of 94 drives, Tannu and Nair 2022), too far apart for an interval; give the drive's own "
            "under `embodied: {ssd: ...}`"
        )
    if kind == "part":
        return f"{reason}; it has {', '.join(row.device for row in tables()[table] if row.kind == kind)}"
    found = _estimated(kind, product)
    return f"{reason}: {found.reason}" if isinstance(found, Unavailable) else reason


def products(table: str) -> list[str]:
    """Every product name that a table knows, also under its other names."""
    named = [row.device for row in tables()[table]]
    if table == ESTIMATE:
        named += [name for facts in devices.known() for name in facts.names]
    return named
