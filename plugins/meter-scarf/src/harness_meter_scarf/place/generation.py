"""Water of a generation mix: EWIF per fuel (Macknick et al. 2012, medians of consumption), weighted by shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

from harness import csv_table
from harness.errors import UsageError
from harness.quantity import Unavailable
from harness_meter_scarf import tables

FILE: Final = tables.DATA / "ewif_fuel.csv"
L_PER_KWH_OF_GAL_PER_MWH: Final = 0.003785411784
"""1 US gallon is 3.785411784 L exactly."""


@dataclass(frozen=True, slots=True)
class Mix:
    """EWIF of a generation mix.

    Attributes:
        l_per_kwh: weighted mean over the fuels with a known value.
        coverage: the known part of the generation, 0..1.
        left_out: fuels without a known value.
    """

    l_per_kwh: float
    coverage: float
    left_out: tuple[str, ...]


@cache
def fuels() -> Mapping[str, float]:
    """L/kWh by fuel, named `fuel/cooling` or, where the table states no cooling, `fuel`; from the gallons published."""
    table = csv_table.read(FILE, FILE.name)
    table.require(("fuel", "cooling", "ewif_gal_per_mwh", "source"))
    found = {}
    for row in table:
        gallons = row.number("ewif_gal_per_mwh")
        name = f"{row['fuel']}/{row['cooling']}" if row["cooling"] else row["fuel"]
        if gallons is not None:
            found[name] = gallons * L_PER_KWH_OF_GAL_PER_MWH
    return MappingProxyType(found)


def of_mix(generation: Mapping[str, float], known: Mapping[str, float], *, in_mwh: bool = False) -> Mix | Unavailable:
    """`sum(g_k * EWIF_k) / sum(g_k)` over the fuels with a known EWIF.

    Args:
        generation: shares by fuel, or MWh.
        known: L/kWh by fuel.
        in_mwh: whether `generation` is in MWh; then coverage is known over total, else the sum of the known shares.

    Raises:
        UsageError: a share that is negative or not finite, or a fuel whose cooling is not stated.
    """
    for fuel, share in generation.items():
        if not (math.isfinite(share) and share >= 0):
            raise UsageError(f"the share of {fuel!r} is {share}", accepted="a finite number, at least 0")
        variants = [name for name in known if name.partition("/")[0] == fuel]
        if fuel not in known and variants:
            raise UsageError(f"the cooling of {fuel!r} is not stated", accepted=", ".join(variants))
    covered = math.fsum(share for fuel, share in generation.items() if fuel in known)
    if covered == 0:
        return Unavailable(f"no fuel of the mix has a known EWIF: {', '.join(generation) or 'the mix is empty'}")
    water = math.fsum(share * known[fuel] for fuel, share in generation.items() if fuel in known)
    whole = math.fsum(generation.values()) if in_mwh else 1.0
    left_out = tuple(fuel for fuel in generation if fuel not in known)
    return Mix(water / covered, covered / whole, left_out)
