"""Embodied carbon of devices: a table with provenance, rows of the user's own, and an ACT-style estimator.

Device profiles weigh what table `fuel` of impact meter `fuel` says, so that a choice and a record of the same devices
agree; the low end of those figures is the estimator's. The estimator's constants come from
github.com/TianyaoShi/BIRDS, die sizes from github.com/TianyaoShi/FABRIC, both at second hand. Neither is the table of
the GreenLLM paper, which was not read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Final

from harness.errors import UsageError, did_you_mean
from harness.quantity import Unavailable

GRAMS_PER_KG: Final = 1000.0
FAB_INTENSITY_G_PER_KWH: Final = 447.5
YIELD: Final = 0.875
MATERIALS_G_PER_CM2: Final = 500.0
PACKAGE_G: Final = 150.0
MEMORY_G_PER_GB: Final = 65.0
PACKAGED_GB: Final = 8
"""Memory counts one more package per so many GB."""


class Node(StrEnum):
    """A process node of the estimator."""

    NM14 = "14 nm"
    NM12 = "12 nm"
    NM7 = "7 nm"
    NM7_EUV = "7 nm EUV"


_ENERGY_KWH_PER_CM2: Final = {Node.NM14: 1.2, Node.NM12: 1.2, Node.NM7: 1.52, Node.NM7_EUV: 2.15}
_GASES_G_PER_CM2: Final = {Node.NM14: 162.5, Node.NM12: 162.5, Node.NM7: 300.0, Node.NM7_EUV: 275.0}


def estimate_kg(die_cm2: float, node: Node, memory_gb: float) -> float:
    """Embodied carbon of a board in kg: die / yield x (energy x fab intensity + gases + materials) + packages + memory.

    12 nm takes the constants of 14 nm.
    """
    per_cm2 = _ENERGY_KWH_PER_CM2[node] * FAB_INTENSITY_G_PER_KWH + _GASES_G_PER_CM2[node] + MATERIALS_G_PER_CM2
    memory_g = memory_gb * MEMORY_G_PER_GB + memory_gb / PACKAGED_GB * PACKAGE_G
    return (die_cm2 / YIELD * per_cm2 + PACKAGE_G + memory_g) / GRAMS_PER_KG


class Provenance(StrEnum):
    """Where a figure comes from."""

    PUBLISHED = "published"
    DERIVED = "derived"
    USER = "user"
    UNVERIFIED = "unverified"
    """Never a default: it must be named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodiedRow:
    """Embodied carbon of one device.

    Attributes:
        id: what a suite names.
        device: product.
        kg: the figure, in kg CO2e per device.
        low_kg: lower end; equal to `kg` where none is known.
        high_kg: upper end; likewise.
        provenance: published, derived, user or unverified.
        source: where it was read; a row without one is refused.
        licence: of the data.
        date: of its retrieval.
    """

    id: str
    device: str
    kg: float
    low_kg: float
    high_kg: float
    provenance: Provenance
    source: str
    licence: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise UsageError(f"embodied row {self.id!r} has no source", accepted="who published the figure, and where")
        if not 0 <= self.low_kg <= self.kg <= self.high_kg < float("inf"):
            raise UsageError(
                f"embodied row {self.id!r}: {self.low_kg} <= {self.kg} <= {self.high_kg} kg does not hold",
                accepted="low, value and high in this order, none negative",
            )

    @property
    def grams(self) -> float:
        """The figure in g."""
        return self.kg * GRAMS_PER_KG


@cache
def table() -> Mapping[str, EmbodiedRow]:
    """The packaged rows by id."""
    text = files("harness_disaggregated_serving").joinpath("data/embodied.csv").read_text(encoding="utf-8")
    return {
        row["id"]: EmbodiedRow(
            id=row["id"],
            device=row["device"],
            kg=float(row["kg"]),
            low_kg=float(row["low_kg"]),
            high_kg=float(row["high_kg"]),
            provenance=Provenance(row["provenance"]),
            source=row["source"],
            licence=row["licence"],
            date=row["date"],
        )
        for row in csv.DictReader(text.splitlines())
    }


def with_user_rows(rows: Iterable[EmbodiedRow]) -> dict[str, EmbodiedRow]:
    """The packaged rows and a user's; an id that is taken is refused, so that no packaged row changes its meaning."""
    merged = dict(table())
    for row in rows:
        if row.id in merged:
            raise UsageError(f"embodied id {row.id!r} is taken", accepted="an id of your own")
        merged[row.id] = row
    return merged


def find(embodied_id: str, rows: Mapping[str, EmbodiedRow] | None = None) -> EmbodiedRow | Unavailable:
    """The row of an id; Unavailable for an empty one. Raises UsageError for an unknown one."""
    known = table() if rows is None else rows
    if not embodied_id:
        return Unavailable("no embodied row is named for this device")
    if embodied_id not in known:
        raise UsageError(
            f"no embodied row {embodied_id!r}", accepted=", ".join(known), hint=did_you_mean(embodied_id, known)
        )
    return known[embodied_id]
