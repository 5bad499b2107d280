"""The shipped sites: factors of regions with source and confidence of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from harness import csv_table
from harness.csv_table import Row
from harness.errors import UsageError, did_you_mean
from harness_meter_scarf import tables
from harness_meter_scarf.stress.ratio import BINS, NOT_KNOWN, Category
from harness_meter_scarf.water import Ranged, checked_not_negative, checked_pue

FILE: Final = tables.DATA / "sites.csv"
_COLUMNS: Final = (
    *("id", "name", "country", "time_zone", "pue", "pue_source"),
    *("wue_onsite_l_per_kwh", "wue_source", "wue_kind", "wue_confidence"),
    *("ewif_l_per_kwh", "ewif_source", "ewif_confidence"),
    *("stress_category", "stress_source", "stress_confidence", "licence_note"),
)

Kind: TypeAlias = Literal["consumption", "withdrawal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFactor:
    """A number of a site with where it comes from.

    Attributes:
        range: the number and its own range.
        source: publication or operator, and what it counts.
        confidence: H two sources agree or the primary table; M one source; L fallback, design value, area average or
            conflict; empty where none is stated.
        kind: whether it counts water consumed or water withdrawn; empty for PUE.
        licence: of the data.
        date: of the data.
        id: stable identity.
    """

    range: Ranged
    source: str
    confidence: str = ""
    kind: Kind | Literal[""] = ""
    licence: str = ""
    date: str = ""
    id: str = ""

    @property
    def is_world_fallback(self) -> bool:
        """Whether the table itself says that this is not the place's own value but a world figure."""
        return self.source.startswith("fallback:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place that work can be costed at; a missing value is None, never 0.

    Attributes:
        id: as a suite writes it.
        name: for people.
        country: ISO 3166 alpha-3; empty where none is given.
        time_zone: IANA name; empty where the place is not stated.
        pue: facility energy / IT energy.
        wue_onsite: L per kWh of IT energy.
        ewif: L per kWh of electricity.
        category: of the province.
        pfaf_id: HydroBASINS level-6 basin; the shipped table has none.
        pfaf_source: where the basin comes from.
        licence: what is unconfirmed about the data.
        grid: g per kWh of electricity.
    """

    id: str
    name: str = ""
    country: str = ""
    time_zone: str = ""
    pue: SiteFactor | None = None
    wue_onsite: SiteFactor | None = None
    ewif: SiteFactor | None = None
    category: Category = NOT_KNOWN
    pfaf_id: str = ""
    pfaf_source: str = ""
    licence: str = ""
    grid: SiteFactor | None = None


ALIASES: Final = tables.DATA / "site_names.csv"


@cache
def aliases() -> Mapping[str, str]:
    """Name that a cloud gives a region -> id of the site."""
    table = csv_table.read(ALIASES, ALIASES.name)
    table.require(("name", "site"))
    return MappingProxyType({row["name"]: row["site"] for row in table})


def named(name: str) -> Site | None:
    """A shipped site by its id or by the name of a cloud's region (`us-east-1`, `azure/eastus`), in any case."""
    key = name.strip().lower()
    known = shipped()
    if key in known:
        return known[key]
    provider, slash, region = key.partition("/")
    alias = aliases().get(region if slash else provider, "")
    if not alias or (slash and not alias.startswith((provider, "mixed", "microsoft"))):
        return None
    return known[alias]


def find(name: str) -> Site:
    """A shipped site by id or a cloud's name, or by the place alone where one has it (`ireland` for `aws-ireland`).

    Raises:
        UsageError: there is no such row; names the nearest.
    """
    known = shipped()
    exact = named(name)
    if exact is not None:
        return exact
    placed = [site for site in known if site.partition("-")[2] == name]
    if len(placed) == 1:
        return known[placed[0]]
    inside = [site for site in known if name.lower() in site]
    hint = (
        f"did you mean {' or '.join(map(repr, inside[:4]))}?"
        if name and inside
        else did_you_mean(name, [*known, *aliases()])
    )
    raise UsageError(
        f"no site {name!r}", accepted=f"one of {len(known)} that `harness sites` lists, or a mapping", hint=hint
    )


@cache
def shipped() -> Mapping[str, Site]:
    """The rows of `sites.csv` by id, in the file's order."""
    return read(FILE, FILE.name)


def read(path: Path, name: str = "") -> Mapping[str, Site]:
    """Sites from a file of the same columns; raises UsageError naming file, row and field."""
    table = csv_table.read(path, name)
    table.require(_COLUMNS)
    found: dict[str, Site] = {}
    for row in table:
        where = row.where
        site = _site(row)
        if not site.id or site.id in found:
            raise UsageError(f"id is {site.id!r}", where=where, accepted="an id that no other row has")
        found[site.id] = site
    return MappingProxyType(found)


def _site(row: Row) -> Site:
    where = row.where
    kind = row["wue_kind"]
    if kind not in ("consumption", "withdrawal", ""):
        raise UsageError(f"wue_kind is {kind!r}", where=where, accepted="consumption, withdrawal, or empty")
    wue_kind: Kind = "withdrawal" if kind == "withdrawal" else "consumption"
    return Site(
        id=row["id"],
        name=row["name"],
        country=row["country"],
        time_zone=row["time_zone"],
        pue=_factor(row, ("pue", "pue_source", ""), "", checked_pue),
        wue_onsite=_factor(row, ("wue_onsite_l_per_kwh", "wue_source", "wue_confidence"), wue_kind, _volume),
        ewif=_factor(row, ("ewif_l_per_kwh", "ewif_source", "ewif_confidence"), "consumption", _volume),
        category=Category(value=_category(row), source=row["stress_source"], confidence=row["stress_confidence"]),
        licence=row["licence_note"],
        grid=_factor(row, ("grid_gco2e_per_kwh", "grid_source", ""), "", _intensity),
    )


def _intensity(value: float) -> float:
    return checked_not_negative(value, "value", "g/kWh")


def _volume(value: float) -> float:
    return checked_not_negative(value, "value", "L/kWh")


def _factor(
    row: Row,
    columns: tuple[str, str, str],
    kind: Kind | Literal[""],
    check: Callable[[float], float],
) -> SiteFactor | None:
    field, source, confidence = columns
    value = row.number(field)
    if value is None:
        return None
    try:
        check(value)
    except UsageError as error:
        raise UsageError(f"{field}: {error.message}", where=row.where, accepted=error.accepted) from None
    if not row[source]:
        raise UsageError(
            f"{source} is empty beside a value of {field}", where=row.where, accepted="where it comes from"
        )
    return SiteFactor(
        range=Ranged.of(value),
        source=row[source],
        confidence=row.get(confidence, ""),
        kind=kind,
        licence=row["licence_note"],
        id=f"sites.csv:{row['id']}:{field}={value!r}",
    )


def _category(row: Row) -> int | None:
    value = row.number("stress_category")
    if value is None:
        return None
    if value not in BINS:
        raise UsageError(f"stress_category is {value:g}", where=row.where, accepted=", ".join(map(str, BINS)))
    return int(value)
