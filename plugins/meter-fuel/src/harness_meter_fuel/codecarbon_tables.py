"""Grid intensities from the tables that codecarbon packages, read as data: codecarbon itself is never imported.

Checked against codecarbon 3.3's own functions by a contract test. Where those answer with the mean of the world or of
the country for a name they do not know, these refuse.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from harness import csv_table
from harness.errors import UsageError, did_you_mean
from harness.quantity import Unavailable
from harness_meter_fuel import zones

EXTRA: Final = "joule-harness-meter-fuel[grid]"
LICENCE: Final = "MIT (codecarbon's package); the publisher's terms hold for the figures"
_LB_PER_MWH_IN_G_PER_KWH: Final = 0.45359237
"""1 lb = 453.59237 g exactly; 1 MWh = 1000 kWh."""
_CANADA_G_PER_KWH: Final = {"coal": 995.725971, "petroleum": 816.6885263, "naturalGas": 743.8415916}
"""As in codecarbon's code, from github.com/responsibleproblemsolving/energy-usage; other fuels count 0 there."""
_CALLED: Final = {"hydro": "hydroelectricity"}
"""Sources that the mix of a province and the factors by source name differently."""
_NORDIC: Final = {"SE": "SWE", "NO": "NOR", "FI": "FIN"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the tables.

    Attributes:
        g_per_kwh: intensity, in gCO2e/kWh.
        source: who published it, and for which year.
        year: the year; empty where the table states none.
        id: stable name.
        high: upper end, in gCO2e/kWh, where the table counts sources as 0 that are not; None where it does not.
        notes: what a reader must know.
    """

    g_per_kwh: float
    source: str
    year: str
    id: str
    high: float | None = None
    notes: tuple[str, ...] = ()


class TablesMissing(Exception):  # noqa: N818 - it is a state of the installation, turned into Unavailable
    """codecarbon is not installed, or its tables are not where version 3.3 has them."""

    def unavailable(self) -> Unavailable:
        """The same as a value."""
        return Unavailable(str(self))


@cache
def _folder() -> Path:
    spec = importlib.util.find_spec("codecarbon")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "data"
        if folder.is_dir():
            return folder
    raise TablesMissing(
        f"the grid tables by country are codecarbon's, which is not installed: pip install '{EXTRA}', "
        "or give the grid intensity as a number of g/kWh"
    )


@cache
def version() -> str:
    """Version of the installed codecarbon."""
    try:
        return importlib.metadata.version("codecarbon")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@cache
def _json(path: str) -> dict[str, Any]:
    try:
        loaded = json.loads((_folder() / path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TablesMissing(f"codecarbon {version()} has no readable table {path}: {error}") from error
    if not isinstance(loaded, dict):
        raise TablesMissing(f"codecarbon {version()}: {path} is not a table")
    return loaded


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise TablesMissing(f"codecarbon {version()}: {what} has no number but {value!r}")
    return float(value)


def _row(
    g_per_kwh: float, source: str, year: object, key: str, high: float | None = None, notes: tuple[str, ...] = ()
) -> Row:
    packaged = f"codecarbon-{version()}"
    dated = source if year and str(year) in source else f"{source}, {year or 'year not stated'}"
    return Row(g_per_kwh, f"{dated}; as packaged in {packaged}", str(year or ""), f"{packaged}:{key}", high, notes)


def _newest(name: str) -> tuple[str, str]:
    """Path and year of a yearly table, of the newest year that is packaged."""
    years = (each.name for each in (_folder() / "private_infra").iterdir() if each.name.isdecimal())
    for year in sorted(years, key=int, reverse=True):
        if (_folder() / "private_infra" / year / name).is_file():
            return f"private_infra/{year}/{name}", year
    raise TablesMissing(f"codecarbon {version()} has no table {name} of any year")


def _high(mix: dict[str, Any], whole: float, fossil: float) -> float | None:
    """The intensity with the other sources at the factors that codecarbon packages for them; None where those are 0."""
    factors = _json("private_infra/carbon_intensity_per_source.json")
    added = 0.0
    for name, part in mix.items():
        grams = factors.get(_CALLED.get(name, name))
        if name not in _CANADA_G_PER_KWH and isinstance(grams, int | float):
            added += _number(part, name) * grams / whole
    return fossil + added if added else None


def _refuse(kind: str, name: str, known: list[str], accepted: str) -> UsageError:
    return UsageError(f"no grid intensity for {kind} {name!r}", accepted=accepted, hint=did_you_mean(name, known))


@cache
def alpha_3(code: str) -> str:
    """The ISO 3166 alpha-3 code of a country's two-letter or three-letter code, upper case.

    The two-letter codes are pycountry's, which codecarbon brings along. A code that is not known stays as it is.
    """
    if len(code) != 2 or importlib.util.find_spec("pycountry") is None:
        return code.upper()
    found = importlib.import_module("pycountry").countries.get(alpha_2=code.upper())
    return str(found.alpha_3) if found is not None else code.upper()


def country(code: str) -> Row:
    """The mean of a country by its ISO 3166 code; raises UsageError for one without a row."""
    table = _json("private_infra/global_energy_mix.json")
    key = alpha_3(code)
    if key not in table:
        accepted = f"one of {len(table)} country codes such as USA or FRA, or a number of g/kWh"
        raise _refuse("country", code, list(table), accepted)
    entry = table[key]
    year = entry.get("year")
    intensity = _number(entry.get("carbon_intensity"), f"country {key}")
    notes = ("grid intensity of 0: the publisher counts the sources of this country as 0",) if intensity == 0 else ()
    source = f"Our World in Data, carbon intensity of electricity, {key}, {year}"
    return _row(intensity, source, year, key, notes=notes)


def country_names() -> dict[str, str]:
    """Name of each country that has a row, by its alpha-3 code."""
    table = _json("private_infra/global_energy_mix.json")
    return {code: str(entry.get("country_name", code)) for code, entry in table.items()}


def region_names(code: str) -> list[str]:
    """Regions of a country that have a row, in small letters; none where the tables have none of it."""
    readers = {"USA": _usa, "CAN": _canada, "SWE": _nordic, "NOR": _nordic, "FIN": _nordic}
    return list(readers[code](code)) if code in readers else []


def cloud_names() -> list[str]:
    """Regions of Google Cloud that have a row."""
    return list(_cloud_rows())


def region(code: str, name: str) -> Row:
    """A state, province or bidding zone of USA, CAN, CHN, SWE, NOR or FIN; raises UsageError for one without a row.

    Args:
        code: ISO 3166 code of the country.
        name: such as `indiana`, `SE3`, or the zone's whole name: `US-CAL-CISO`, `CA-ON`, `DE-LU`.
    """
    key = alpha_3(code)
    whole = country(key)
    if zones.WHOLE_COUNTRY.get(name.upper()) == key:
        return replace(whole, notes=(*whole.notes, f"zone {name.upper()}: mean of {key}"))
    readers = {"USA": _usa, "CAN": _canada, "CHN": _china, "SWE": _nordic, "NOR": _nordic, "FIN": _nordic}
    if key not in readers:
        raise UsageError(
            f"there are no regions of {key} in the tables",
            accepted=f"{key} alone, regions of {', '.join(readers)}, or a number of g/kWh",
        )
    rows = readers[key](key)
    wanted, note = zones.table_name(name) or (" ".join(name.lower().split()), "")
    if note and wanted in rows:
        return replace(rows[wanted], notes=(*rows[wanted].notes, note))
    if wanted not in rows:
        accepted = f"a region of {key} such as {next(iter(rows))!r}, or `fallback: country`"
        raise _refuse(f"region of {key}", name, list(rows), accepted)
    return rows[wanted]


def _usa(_: str) -> dict[str, Row]:
    path, year = _newest("usa_emissions.json")
    table = _json(path)
    origin = table.get("_source", {})
    rows = {}
    for name, entry in table.items():
        if name.startswith("_") or name == "usa":
            continue
        intensity = _number(entry.get("emissions"), f"USA/{name}") * _LB_PER_MWH_IN_G_PER_KWH
        source = f"{origin.get('name', 'EPA eGRID')}, {name}"
        row = _row(intensity, source, origin.get("year") or year, f"USA/{name}")
        rows[name] = row
        rows.setdefault(str(entry.get("regionCode", name)).lower(), row)
    return rows


def _canada(_: str) -> dict[str, Row]:
    rows = {}
    path, year = _newest("canada_energy_mix.json")
    for name, mix in _json(path).items():
        whole = _number(mix.get("total"), f"CAN/{name}")
        if whole == 0:
            continue
        parts = ((_number(mix.get(fuel), f"CAN/{name}"), grams) for fuel, grams in _CANADA_G_PER_KWH.items())
        intensity = sum(part * grams for part, grams in parts) / whole
        high = _high(mix, whole, intensity)
        zeros = f"grid intensity of {name}: hydro, nuclear, wind, solar and biomass count as 0 in it"
        notes = () if high is None else (f"{zeros}; {high:.4g} g/kWh with codecarbon's factors for them",)
        source = f"energy mix of {name} x fuel factors of github.com/responsibleproblemsolving/energy-usage, {year}"
        rows[name] = _row(intensity, source, year, f"CAN/{name}", high, notes)
    return rows


def _china(_: str) -> dict[str, Row]:
    rows = {}
    path, year = _newest("china_provincial_emissions.json")
    for key, entry in _json(path)["data"].items():
        source = f"MEE/NBS of China, provincial factor of {entry.get('description', key)} (CO2 only, not CO2e)"
        row = _row(_number(entry.get("emission_factor"), key), source, entry.get("year") or year, f"CHN/{key}")
        for name in (*entry.get("names", ()), key.lower()):
            rows[name] = row
    return rows


def _nordic(code: str) -> dict[str, Row]:
    rows = {}
    for zone, entry in _json("private_infra/nordic_emissions.json")["data"].items():
        if _NORDIC.get(zone[:2]) == code:
            source = f"generation mix of bidding zone {zone}, {entry.get('coverage', 'coverage not stated')}"
            intensity = _number(entry.get("emission_factor"), zone)
            rows[zone.lower()] = _row(intensity, source, entry.get("year"), f"{code}/{zone}")
    return rows


def cloud(provider: str, name: str) -> Row:
    """A region of Google Cloud; raises UsageError for other providers, for which the tables have no row."""
    if provider.lower() != "gcp":
        raise UsageError(
            f"the tables have no row for regions of {provider!r}",
            accepted="gcp/REGION, the country of the region, or a number of g/kWh",
        )
    rows = _cloud_rows()
    if name.lower() not in rows:
        raise _refuse("region of gcp", name, list(rows), f"one of {len(rows)} regions such as gcp/us-central1")
    return rows[name.lower()]


@cache
def _cloud_rows() -> dict[str, Row]:
    path = "cloud/impact.csv"
    try:
        table = csv_table.read(_folder() / path, path)
        listed = [entry for entry in table if entry["provider"] == "gcp" and entry["impact"]]
        source = "Google Cloud, carbon data across regions"
        return {
            entry["region"]: _row(
                _number(float(entry["impact"]), entry["region"]),
                f"{source}, {entry['region']} ({entry.get('source') or 'no address'})",
                "",
                f"gcp/{entry['region']}",
            )
            for entry in listed
        }
    except (UsageError, ValueError, KeyError) as error:
        raise TablesMissing(f"codecarbon {version()} has no readable table {path}: {error}") from error
