"""Grid intensity of a place by any name that people have for it: a country, a state, a zone, a region of a cloud.

The figures are codecarbon's tables; `data/cloud_regions.csv` says in which country or state a region of AWS or Azure
lies. Zones as ElectricityMaps writes them stand for the state or country that holds them, and are flagged so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

from harness.errors import UsageError
from harness.place import GridFactor, Place
from harness_meter_fuel import codecarbon_tables
from harness_meter_fuel.codecarbon_tables import Row, TablesMissing
from harness_meter_fuel.packaged import packaged

_COUNTRIES: Final = {
    "UK": "GBR",
    "GREAT BRITAIN": "GBR",
    "ENGLAND": "GBR",
    "US": "USA",
    "AMERICA": "USA",
    "SOUTH KOREA": "KOR",
    "RUSSIA": "RUS",
    "CZECHIA": "CZE",
    "TURKEY": "TUR",
    "EIRE": "IRL",
}
"""Names that ISO 3166 does not have and people write."""
_PART_OF_COUNTRY: Final = re.compile(
    r"US-(?:CAL|CAR|CENT|FLA|MIDA|MIDW|NE|NW|NY|SE|SW|TEN|TEX)-[A-Z]{2,5}"
    r"|IT-(?:NO|CNO|CSO|SO|SIC|SAR)|DK-(?:DK1|DK2|BHM)|AU-(?:NSW|QLD|VIC|SA|TAS|NT|WA)|BR-(?:CS|N|NE|S)"
    r"|JP-(?:CB|CG|HKD|HR|KN|KY|ON|SK|TH|TK)|IN-(?:EA|NE|NO|SO|WE)|GB-(?:NIR|ORK|ZET)|FR-COR|ES-(?:CE|ML|CN|IB)-?[A-Z]*"
)
"""Zones as Electricity Maps has them that the tables have nothing nearer for than their country."""
_ZONES: Final = ("US-CAL-CISO", "US-TEX-ERCO", "US-NY-NYIS", "DE-LU", "SE-SE3", "NO-NO1", "CA-ON")
"""Some zones, for did-you-mean."""


@cache
def cloud_regions() -> Mapping[str, tuple[str, str]]:
    """Region of AWS or Azure -> its country, and its state or zone where one is known."""
    return {row["name"]: (row["country"], row["region"]) for row in packaged("cloud_regions")}


@cache
def _countries() -> Mapping[str, str]:
    """Name in capitals -> alpha-3 code, of the countries that have a row."""
    table = codecarbon_tables.country_names()
    found = {name.upper(): code for code, name in table.items()}
    return {**found, **{code: code for code in table}, **{k: v for k, v in _COUNTRIES.items() if v in table}}


def _country_of(name: str) -> str:
    """The alpha-3 code of a country that has a row; empty where the name is none."""
    key = name.upper()
    code = _countries().get(key) or codecarbon_tables.alpha_3(key)
    return code if code in codecarbon_tables.country_names() else ""


def _place(name: str, row: Row, country: str, found_as: str, *flags: str) -> Place:
    high = None if row.high is None else max(row.high, row.g_per_kwh)
    grid = GridFactor(
        value=row.g_per_kwh,
        low=None if high is None else row.g_per_kwh,
        high=high,
        source=row.source,
        licence=codecarbon_tables.LICENCE,
        date=row.year,
        id=row.id,
    )
    return Place(name=name, row=found_as, country=country, grid=grid, flags=(*row.notes, *flags))


def _region(name: str, country: str, region: str, *flags: str) -> Place:
    return _place(name, codecarbon_tables.region(country, region), country, f"{country}/{region.lower()}", *flags)


def _mean(name: str, country: str, *flags: str) -> Place:
    return _place(name, codecarbon_tables.country(country), country, country, *flags)


def _of_state(name: str) -> Place | None:
    """A state or province by its own name, as `Texas` or `Ontario`, where only one country has it."""
    key = name.lower()
    found = [code for code in ("USA", "CAN") if len(key) > 2 and key in codecarbon_tables.region_names(code)]
    return _region(name, found[0], key) if len(found) == 1 else None


def _of_zone(name: str) -> Place | None:
    """A zone as Electricity Maps and ISO 3166-2 have them; its country's mean where the tables have nothing nearer."""
    key = name.upper()
    head, _, tail = key.partition("-")
    country = _country_of(head) if len(head) == 2 else ""
    if not (country and tail):
        return None
    try:
        return _region(name, country, key)
    except UsageError:
        if not _PART_OF_COUNTRY.fullmatch(key):
            return None
        return _mean(name, country, f"grid intensity: zone {key} costed as the mean of {country}")


def _of_cloud(name: str) -> Place | None:
    """A region of a cloud, alone or after `aws/`, `azure/` or `gcp/`."""
    provider, slash, region = name.lower().rpartition("/")
    if provider in ("", "gcp") and region in codecarbon_tables.cloud_names():
        return _place(name, codecarbon_tables.cloud("gcp", region), "", f"gcp/{region}")
    if (slash and provider not in ("aws", "azure")) or region not in cloud_regions():
        return None
    country, state = cloud_regions()[region]
    where = f"{country}/{state}" if state else country
    flag = f"grid intensity: cloud region {region} costed as {where}"
    return _region(name, country, state, flag) if state else _mean(name, country, flag)


def find(name: str, known: Place | None) -> Place | None:
    """A place by its name, or the mean of its country for one that another table found without a grid intensity."""
    try:
        if known is not None:
            return _added(known)
        return _found(name)
    except TablesMissing:
        return None


def _added(known: Place) -> Place | None:
    if known.grid is not None or not _country_of(known.country):
        return None
    flag = f"grid intensity: none is known for {known.label}, mean of {known.country} instead"
    return _mean(known.name, known.country, flag)


def _found(name: str) -> Place | None:
    country, slash, region = name.partition("/")
    code = _country_of(country)
    if slash and code:
        try:
            return _region(name, code, region.strip())
        except UsageError:
            return None
    state = _of_state(name)
    if code and state is not None:
        raise UsageError(f"{name!r} is two places", accepted=f"the country {code}, or the state {state.row}")
    return _mean(name, code) if code else _of_cloud(name) or state or _of_zone(name)


def names() -> Iterable[str]:
    """Countries by code and name, states, and regions of clouds."""
    try:
        states = [name for code in ("USA", "CAN") for name in codecarbon_tables.region_names(code) if len(name) > 2]
        return [*_countries(), *map(str.title, states), *codecarbon_tables.cloud_names(), *cloud_regions(), *_ZONES]
    except TablesMissing:
        return []
