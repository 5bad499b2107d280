"""Tables by place and year: Ember, Our World in Data, Green Software Foundation, Cloud Carbon Footprint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from harness.csv_table import CsvTable, Row
from harness.errors import UsageError
from harness_meter_fuel.files.found import Choice, CsvKind, Found, chosen_zone, headings, plain
from harness_meter_fuel.files.times import Point, intervals, iso_utc

_EMBER: Final = "Ember electricity data"
_OWID: Final = "Our World in Data, carbon intensity of electricity"
_GSF: Final = "Green Software Foundation cloud region metadata"
_CCF: Final = "Cloud Carbon Footprint grid coefficients"
_G_PER_METRIC_TON: Final = 1e6


@dataclass(frozen=True, slots=True)
class _Yearly:
    """One row of a table by place and year."""

    year: str
    g_per_kwh: float
    pue: float | None = None
    wue: float | None = None
    note: str = ""


def _newest(
    rows: dict[str, list[_Yearly]], names: dict[str, str], where: str, choice: Choice, what: str
) -> tuple[str, _Yearly]:
    """The zone that is meant, and its row of the newest year that has a number."""
    zone = chosen_zone(choice.zone, names, where, what)
    return zone, max(rows[zone], key=lambda row: row.year)


# Ember: long (Variable, Unit, Value) until 2026, then one column a quantity; by year or by month


def _ember_columns(table: CsvTable) -> tuple[str, str, str] | None:
    """Columns of area, time and value, where the table is Ember's."""
    found = headings(table)
    area = next((found[name] for name in ("area", "countryorregion") if name in found), "")
    time = next((found[name] for name in ("year", "date") if name in found), "")
    wide = next((found[name] for name in found if name.startswith("emissionsintensitygco2")), "")
    long = found.get("value", "") if {"variable", "unit", "value"} <= found.keys() else ""
    value = wide if "electricitysource" in found else long
    return (area, time, value) if area and time and value else None


def _is_intensity(row: Row, found: dict[str, str]) -> bool:
    if "electricitysource" in found:
        return plain(row[found["electricitysource"]]) == "totalgeneration"
    return plain(row[found["variable"]]) == "co2intensity" and plain(row[found["unit"]]) in {"gco2kwh", "gco2ekwh"}


_NOT_ISO: Final = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")


def _month(text: str, where: str) -> float:
    """The start of a month, written `2024-03-01`, `2024-03` or with its day, the first, before it: `01/03/2024`."""
    match = _NOT_ISO.fullmatch(text)
    if match is None:
        return iso_utc(f"{text}-01" if len(text) == 7 else text, where)
    day, month, year = map(int, match.groups())
    if day != 1 or not 1 <= month <= 12:
        raise UsageError(f"{text!r} is not a month", where=where, accepted="its first day, such as 01/03/2024")
    return datetime(year, month, 1, tzinfo=UTC).timestamp()


def _load_ember(table: CsvTable, choice: Choice) -> Found:
    columns = _ember_columns(table)
    assert columns is not None
    area, time, value = columns
    if choice.emissions == "direct":
        raise UsageError("holds life-cycle emissions", where=table.name, accepted="`emissions: lifecycle`, or none")
    found = headings(table)
    codes = [found[name] for name in ("iso3code", "countrycode") if name in found]
    monthly = plain(time) == "date"
    years: dict[str, list[_Yearly]] = {}
    months: dict[str, list[Point]] = {}
    names: dict[str, str] = {}
    for row in table:
        if not _is_intensity(row, found):
            continue
        number, zone = row.number(value), row[area]
        if number is None:
            continue
        names.update({name: zone for name in (zone, *(row[code] for code in codes)) if name})
        if monthly:
            months.setdefault(zone, []).append(Point(_month(row[time], row.where), number))
        else:
            years.setdefault(zone, []).append(_Yearly(_year(row[time], row.where), number))
    licence = "CC BY 4.0 (Ember)"
    if monthly:
        zone = chosen_zone(choice.zone, names, table.name, "area")
        parts, notes = intervals(months[zone], table.name)
        kind = f"{_EMBER}, monthly"
        return Found(kind=kind, zone=zone, emissions="lifecycle", intervals=parts, notes=notes, licence=licence)
    zone, newest = _newest(years, names, table.name, choice, "area")
    return Found(
        kind=f"{_EMBER}, yearly",
        zone=zone,
        emissions="lifecycle",
        g_per_kwh=newest.g_per_kwh,
        date=newest.year,
        licence=licence,
    )


def _year(text: str, where: str) -> str:
    match = re.fullmatch(r"(\d{4})(\.0)?", text)
    if match is None:
        raise UsageError(f"{text!r} is not a year", where=where, accepted="four digits")
    return match.group(1)


def _owid_value(table: CsvTable) -> str:
    found = headings(table)
    marks = ("carbonintensity", "co2intensity")
    names = [found[name] for name in found if name.startswith(marks)]
    return names[0] if len(names) == 1 and {"entity", "year"} <= found.keys() else ""


def _load_owid(table: CsvTable, choice: Choice) -> Found:
    found, value = headings(table), _owid_value(table)
    years: dict[str, list[_Yearly]] = {}
    names: dict[str, str] = {}
    for row in table:
        number, zone = row.number(value), row[found["entity"]]
        if number is None:
            continue
        names.update({name: zone for name in (zone, row.get(found.get("code", ""))) if name})
        years.setdefault(zone, []).append(_Yearly(_year(row[found["year"]], row.where), number))
    zone, newest = _newest(years, names, table.name, choice, "entity")
    return Found(
        kind=_OWID,
        zone=zone,
        emissions="lifecycle",
        g_per_kwh=newest.g_per_kwh,
        date=newest.year,
        licence="CC BY 4.0 (Ember; Energy Institute)",
    )


# Cloud regions

_CLOUDS: Final = {"amazonwebservices": "aws", "googlecloud": "gcp", "microsoftazure": "azure"}
_GSF_INTENSITY: Final = (
    ("grid-carbon-intensity-average-consumption-annual", "mean of consumption"),
    ("grid-carbon-intensity-average-production-annual", "mean of production"),
    ("grid-carbon-intensity", "mean, production or consumption not stated"),
    ("provider-carbon-intensity-average-consumption-hourly", "mean of consumption, as the provider states it"),
)
_GSF_KEYS: Final = ("year", "cloud-provider", "cloud-region")


def _load_gsf(table: CsvTable, choice: Choice) -> Found:
    """The newest year of a region; which of the file's intensities it has is noted. Market-based ones are not taken."""
    if choice.emissions == "direct":
        raise UsageError("does not tell direct emissions from others", where=table.name, accepted="no `emissions`")
    years: dict[str, list[_Yearly]] = {}
    names: dict[str, str] = {}
    bare: dict[str, set[str]] = {}
    for row in table:
        provider = _CLOUDS.get(plain(row["cloud-provider"]), row["cloud-provider"].lower())
        zone = f"{provider}/{row['cloud-region']}"
        bare.setdefault(row["cloud-region"], set()).add(zone)
        pue, wue = row.number("power-usage-effectiveness"), row.number("water-usage-effectiveness")
        for column, note in _GSF_INTENSITY:
            number = row.number(column)
            if number is not None:
                names |= {zone: zone, f"{row['cloud-provider']}/{row['cloud-region']}": zone}
                year = _Yearly(_year(row["year"], row.where), number, pue, wue, f"{column}: {note}")
                years.setdefault(zone, []).append(year)
                break
    names |= {region: next(iter(zones)) for region, zones in bare.items() if len(zones) == 1 and zones <= years.keys()}
    zone, newest = _newest(years, names, table.name, choice, "cloud region")
    return Found(
        kind=_GSF,
        zone=zone,
        g_per_kwh=newest.g_per_kwh,
        date=newest.year,
        pue=newest.pue,
        wue_l_per_kwh=newest.wue,
        notes=(newest.note,),
        licence="CC BY 4.0 (Green Software Foundation)",
    )


def _ccf_value(table: CsvTable) -> tuple[str, float]:
    """The column of coefficients, and g/kWh of one of its unit."""
    for column in table.columns:
        name = plain(column)
        if name.startswith("co2e") and name.endswith("kwh"):
            if "metricton" in name:
                return column, _G_PER_METRIC_TON
            return (
                (column, 1000.0) if "kg" in name else (column, 1.0) if name in {"co2egkwh", "co2egramskwh"} else ("", 0)
            )
    return "", 0.0


def _load_ccf(table: CsvTable, choice: Choice) -> Found:
    if choice.emissions is not None:
        raise UsageError("does not tell kinds of emissions apart", where=table.name, accepted="no `emissions`")
    column, factor = _ccf_value(table)
    found = headings(table)
    places = [found[name] for name in ("country", "location") if name in found]
    rows: dict[str, tuple[float, str]] = {}
    for row in table:
        number = row.number(column)
        if number is not None:
            where = ", ".join(row[place] for place in places if row[place])
            stated = row.get(found.get("source", ""))
            rows[row[found["region"]]] = (number * factor, f"{where}: {stated}" if stated else where)
    zone = chosen_zone(choice.zone, {name: name for name in rows}, table.name, "region")
    grams, note = rows[zone]
    return Found(
        kind=_CCF,
        zone=zone,
        g_per_kwh=grams,
        notes=(*filter(None, (note,)), "year not stated in the file"),
        licence="Apache-2.0",
    )


CSV: Final = (
    CsvKind(
        name=_EMBER,
        wanted="Area, Year or Date, and Variable, Unit, Value or Electricity source, Emissions intensity (gCO2e/kWh)",
        fits=lambda table: _ember_columns(table) is not None,
        load=_load_ember,
    ),
    CsvKind(
        name=_OWID,
        wanted="Entity, Year, Carbon intensity of electricity - gCO2/kWh",
        fits=lambda table: bool(_owid_value(table)),
        load=_load_owid,
    ),
    CsvKind(
        name=_GSF,
        wanted="year, cloud-provider, cloud-region, grid-carbon-intensity-average-consumption-annual",
        fits=lambda table: (
            set(_GSF_KEYS) <= set(table.columns) and any(column in table.columns for column, _ in _GSF_INTENSITY)
        ),
        load=_load_gsf,
    ),
    CsvKind(
        name=_CCF,
        wanted="Region, CO2e (metric ton/kWh)",
        fits=lambda table: "region" in headings(table) and bool(_ccf_value(table)[0]),
        load=_load_ccf,
    ),
)
