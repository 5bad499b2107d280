"""Water of a generation mix: EWIF per fuel (Macknick et al. 2012, medians of consumption), weighted by shares.

A fuel is written as the table has it (`coal/once-through`) or by its plain name, as EIA, ENTSO-E and Ember publish
generation, in any case of letters. A plain name does not say how plants are cooled: it stands for the commonest form,
and its range is that of the forms that the table has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

from harness import csv_table
from harness.errors import UsageError, did_you_mean
from harness.quantity import Unavailable
from harness_meter_scarf import tables
from harness_meter_scarf.water import Ranged

FILE: Final = tables.DATA / "ewif_fuel.csv"
L_PER_KWH_OF_GAL_PER_MWH: Final = 0.003785411784
"""1 US gallon is 3.785411784 L exactly."""
SUM_TOLERANCE: Final = 0.01
"""Shares may sum to 1 within so much; published ones are rounded."""

DEFAULTS: Final[Mapping[str, str]] = {
    "coal": "coal, generic/tower",
    "gas": "gas, combined cycle/tower",
    "nuclear": "nuclear/tower",
    "hydro": "hydro",
    "run-of-river hydro": "hydro",
    "solar": "solar, PV",
    "wind": "wind",
    "biomass": "biomass, steam/tower",
    "geothermal": "geothermal, flash",
}
"""Plain name -> the row that stands for it: the commonest form, cooled by towers where plants are cooled."""
_VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {"coal": ("coal",), "gas": ("gas",), "nuclear": ("nuclear",)}
"""Plain name -> beginnings of the rows that its range covers; the default's own row for the others."""
_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "coal": ("col", "hard coal", "fossil hard coal", "lignite", "brown coal", "fossil brown coal/lignite"),
    "gas": ("ng", "natural gas", "fossil gas", "natural_gas", "natural gas (ng)", "gas and other fossil"),
    "nuclear": ("nuc",),
    "hydro": ("wat", "hydroelectric", "conventional hydroelectric", "hydropower", "hydro water reservoir", "water"),
    "run-of-river hydro": ("hydro run-of-river and poundage", "hydro run-of-river", "run of river", "run-of-river"),
    "solar": ("sun", "solar pv", "photovoltaic", "pv", "solar photovoltaic"),
    "wind": ("wnd", "wind onshore", "wind offshore", "onshore wind", "offshore wind"),
    "biomass": ("bioenergy", "wood", "wood and wood-derived fuels"),
    "geothermal": ("geo",),
}
"""Other names of the same, in small letters: EIA's words and codes, ENTSO-E's production types, Ember's variables."""
WITHOUT_VALUE: Final = (
    *("oil", "petroleum", "petroleum liquids", "petroleum coke", "fossil oil", "fossil oil shale", "fossil peat"),
    *("fossil coal-derived gas", "other", "oth", "other gases", "other fossil", "other renewable", "other renewables"),
    *("waste", "marine", "unknown", "unk", "imports", "battery", "battery storage", "battery discharge", "storage"),
    *("pumped storage", "hydro pumped storage", "hydro discharge", "energy storage"),
)
"""Names that are known and have no row: left out, and said so."""


@dataclass(frozen=True, slots=True)
class Mix:
    """EWIF of a generation mix.

    Attributes:
        l_per_kwh: weighted mean over the fuels with a known value.
        low: lower end: every plain name at its least form, and what is left out at 0.
        high: upper end: every plain name at its greatest form, what is left out at the greatest of a thermal plant.
        coverage: the known part of the generation, 0..1.
        left_out: fuels without a known value.
        defaults: plain names, each with the row that stands for it.
    """

    l_per_kwh: float
    low: float
    high: float
    coverage: float
    left_out: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()


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


def _beginning(row: str) -> str:
    """`gas` of `gas, combined cycle/tower`."""
    return row.partition("/")[0].partition(",")[0]


@cache
def names() -> Mapping[str, tuple[str, Ranged]]:
    """Every accepted name in small letters -> the row that stands for it, and its value with the range of its forms."""
    known = fuels()
    found: dict[str, tuple[str, Ranged]] = {name.lower(): (name, Ranged.of(value)) for name, value in known.items()}
    for fuel in dict.fromkeys(row.partition("/")[0] for row in known):  # a fuel of the table without its cooling
        forms = [row for row in known if row.partition("/")[0] == fuel]
        chosen = next((row for row in forms if row.endswith("/tower")), forms[0])
        found.setdefault(fuel.lower(), (chosen, _over(chosen, forms)))
    for name, chosen in DEFAULTS.items():
        forms = [row for row in known if _beginning(row) in _VARIANTS.get(name, ())]
        value = _over(chosen, [*forms, chosen])
        if name == "run-of-river hydro":
            value = Ranged.of(value.value, 0.0)  # the row is that of all hydropower, reservoirs included
        for alias in (name, *_ALIASES[name]):
            found[alias] = (chosen, value)
    return MappingProxyType(found)


def _over(chosen: str, forms: list[str]) -> Ranged:
    values = [fuels()[row] for row in forms]
    return Ranged.of(fuels()[chosen], min(values), max(values))


def _greatest_thermal() -> float:
    return max(value for name, value in fuels().items() if name != "hydro")


def of_mix(generation: Mapping[str, float], *, in_mwh: bool = False) -> Mix | Unavailable:
    """`sum(g_k * EWIF_k) / sum(g_k)` over the fuels with a known EWIF.

    Args:
        generation: shares by fuel, or MWh; names in any case of letters.
        in_mwh: whether `generation` is in MWh, which need not sum to 1.

    Raises:
        UsageError: a share that is negative or not finite, a name that is not known, or shares that do not sum to 1.
    """
    accepted = f"{', '.join(DEFAULTS)}, a row of {FILE.name} such as coal/once-through, or other, which has no value"
    known: dict[str, tuple[str, Ranged]] = {}
    for fuel, share in generation.items():
        if not (math.isfinite(share) and share >= 0):
            raise UsageError(f"the share of {fuel!r} is {share}", accepted="a finite number, at least 0")
        name = " ".join(fuel.lower().split())
        if name in names():
            known[fuel] = names()[name]
        elif name not in WITHOUT_VALUE:
            hint = did_you_mean(name, [*names(), *WITHOUT_VALUE])
            raise UsageError(f"there is no fuel {fuel!r}", accepted=accepted, hint=hint)
    whole = math.fsum(generation.values())
    if not in_mwh and abs(whole - 1.0) > SUM_TOLERANCE * (1 + 1e-9):
        raise UsageError(
            f"the shares of the mix sum to {whole:.4g}",
            accepted=f"1 within {SUM_TOLERANCE:.0%}, the rest as `other`, or `unit: MWh`",
        )
    covered = math.fsum(generation[fuel] for fuel in known)
    if covered == 0:
        return Unavailable(f"no fuel of the mix has a known EWIF: {', '.join(generation) or 'the mix is empty'}")
    value, low, high = (
        math.fsum(generation[fuel] * end for fuel, end in ends.items())
        for ends in (
            {fuel: found.value for fuel, (_, found) in known.items()},
            {fuel: found.low for fuel, (_, found) in known.items()},
            {fuel: found.high for fuel, (_, found) in known.items()},
        )
    )
    unknown = whole - covered
    mean = value / covered
    defaults = tuple(f"{fuel} as {row}" for fuel, (row, found) in known.items() if fuel.lower() != row.lower())
    return Mix(
        mean,
        min(mean, low / whole),
        max(mean, (high + unknown * _greatest_thermal()) / whole),
        covered / whole,
        tuple(fuel for fuel in generation if fuel not in known),
        defaults,
    )
