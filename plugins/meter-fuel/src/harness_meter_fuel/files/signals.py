"""WattTime's marginal rates and the carbon intensity of Great Britain, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from harness.csv_table import CsvTable
from harness.errors import UsageError
from harness_meter_fuel.files.electricity_maps import json_number
from harness_meter_fuel.files.found import Choice, CsvKind, Found, JsonKind, chosen_zone, headings
from harness_meter_fuel.files.times import Point, intervals, iso_utc

LB_PER_MWH_IN_G_PER_KWH: Final = 0.45359237
"""1 lb = 453.59237 g exactly; 1 MWh = 1000 kWh."""
_UNITS: Final = {
    "lbsco2permwh": LB_PER_MWH_IN_G_PER_KWH,
    "lbspermwh": LB_PER_MWH_IN_G_PER_KWH,
    "lbs/mwh": LB_PER_MWH_IN_G_PER_KWH,
    "lb/mwh": LB_PER_MWH_IN_G_PER_KWH,
    "kg/mwh": 1.0,
    "kgco2permwh": 1.0,
    "g/kwh": 1.0,
    "gco2/kwh": 1.0,
}
_WATTTIME: Final = "WattTime marginal emissions"
_BRITAIN: Final = "UK Carbon Intensity"
_POINT: Final = ("pointtime", "timestamp")


def _unit(text: str, where: str) -> float:
    """g/kWh of one of the unit; WattTime's own where none is stated."""
    factor = _UNITS.get(text.strip().lower().replace("_", "") or "lbspermwh")
    if factor is None:
        raise UsageError(
            f"the unit is {text!r}", where=where, accepted="lbs_co2_per_mwh: a rate, not an index or a health damage"
        )
    return factor


def _watttime_columns(table: CsvTable) -> tuple[str, str] | None:
    found = headings(table)
    time = next((found[name] for name in _POINT if name in found), None)
    value = found.get("moer") or (found.get("value") if "pointtime" in found else None)
    return (time, value) if time and value else None


def _load_watttime(table: CsvTable, choice: Choice) -> Found:
    columns = _watttime_columns(table)
    assert columns is not None
    time, value = columns
    _not_average(choice, table.name)
    found = headings(table)
    unit = next((found[name] for name in ("units", "unit") if name in found), "")
    points = []
    for row in table:
        rate = row.number(value)
        factor = _unit(row.get(unit), row.where)
        points.append(Point(iso_utc(row[time], row.where), None if rate is None else rate * factor))
    parts, notes = intervals(points, table.name)
    return Found(kind=f"{_WATTTIME} CSV", marginal=True, intervals=parts, notes=notes, licence="WattTime's terms")


def _not_average(choice: Choice, where: str) -> None:
    if choice.emissions is not None:
        raise UsageError(
            f"does not tell {choice.emissions} emissions from others", where=where, accepted="no `emissions`"
        )


def _watttime_rows(value: object) -> list[dict[str, Any]]:
    rows = value.get("data", value.get("forecast")) if isinstance(value, dict) else value
    if not isinstance(rows, list):
        return []
    kept = [row for row in rows if isinstance(row, dict) and "point_time" in row and "value" in row]
    return kept if len(kept) == len(rows) else []


def _load_watttime_json(value: object, name: str, choice: Choice) -> Found:
    _not_average(choice, name)
    meta = value.get("meta") if isinstance(value, dict) else None
    stated = meta if isinstance(meta, dict) else {}
    signal = str(stated.get("signal_type") or "co2_moer")
    if signal not in {"co2_moer", "co2_aoer"}:
        raise UsageError(f"holds {signal}", where=name, accepted="co2_moer or co2_aoer")
    factor = _unit(str(stated.get("units") or ""), name)
    points = []
    for place, row in enumerate(_watttime_rows(value), start=1):
        where = f"{name}, row {place}"
        rate = json_number(row["value"], "value", where)
        points.append(Point(iso_utc(str(row["point_time"]), where), None if rate is None else rate * factor))
    parts, notes = intervals(points, name)
    return Found(
        kind=f"{_WATTTIME} JSON" if signal == "co2_moer" else "WattTime average emissions JSON",
        zone=str(stated.get("region") or ""),
        marginal=signal == "co2_moer",
        intervals=parts,
        notes=notes,
        licence="WattTime's terms",
    )


# Great Britain

_HalfHour: TypeAlias = tuple[float, float | None, tuple[float | None, float | None]]
"""Start, end where it is stated, and the measured and the forecast intensity."""

_ACTUAL: Final = ("actualcarbonintensitygco2kwh", "actual", "carbonintensity")
_FORECAST: Final = ("forecastcarbonintensitygco2kwh", "forecast")


def _britain_columns(table: CsvTable) -> tuple[str, str, str] | None:
    """Time, measured, forecast; the last two empty where there is no such column."""
    found = headings(table)
    time = next((found[name] for name in ("datetimeutc", "datetime", "from") if name in found), "")
    actual = next((found[name] for name in _ACTUAL if name in found), "")
    forecast = next((found[name] for name in _FORECAST if name in found), "")
    mix = "gas" in found and "nuclear" in found
    return (time, actual, forecast) if time and ((actual and (forecast or mix)) or forecast) else None


def _load_britain(table: CsvTable, choice: Choice) -> Found:
    columns = _britain_columns(table)
    assert columns is not None
    time, actual, forecast = columns
    rows = []
    for row in table:
        both = (row.number(actual) if actual else None, row.number(forecast) if forecast else None)
        rows.append((iso_utc(row[time], row.where), None, both))
    return _britain(rows, table.name, choice, "CSV", "")


def _britain_rows(value: object) -> tuple[list[dict[str, Any]], list[str]]:
    """Half hours, and the names of their regions; a regional answer has its rows one level deeper."""
    data = value.get("data") if isinstance(value, dict) else None
    outer = data if isinstance(data, list) else [data] if isinstance(data, dict) else []
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    for each in outer:
        inner = each.get("data") if isinstance(each, dict) else None
        if isinstance(inner, list):
            names.append(str(each.get("shortname") or each.get("regionid") or ""))
            rows += [{**row, "region": names[-1]} for row in inner if isinstance(row, dict)]
        elif isinstance(each, dict):
            rows.append(each)
    kept = [row for row in rows if isinstance(row.get("intensity"), dict) and "from" in row and "to" in row]
    return (kept, names) if kept and len(kept) == len(rows) else ([], [])


def _load_britain_json(value: object, name: str, choice: Choice) -> Found:
    kept, regions = _britain_rows(value)
    region = ""
    if regions:
        region = chosen_zone(choice.zone, {each: each for each in regions}, name, "region")
        kept = [row for row in kept if row["region"] == region]
    rows = []
    for place, row in enumerate(kept, start=1):
        where = f"{name}, row {place}"
        both = tuple(json_number(row["intensity"].get(key), key, where) for key in ("actual", "forecast"))
        rows.append((iso_utc(str(row["from"]), where), iso_utc(str(row["to"]), where), (both[0], both[1])))
    return _britain(rows, name, choice, "JSON", region)


def _britain(rows: Sequence[_HalfHour], name: str, choice: Choice, form: str, region: str) -> Found:
    if choice.emissions == "lifecycle":
        raise UsageError("holds direct emissions", where=name, accepted="`emissions: direct`, or none")
    points, stood_in = [], 0
    for start_s, end_s, (actual, forecast) in rows:
        value = forecast if choice.values == "forecast" else actual
        if value is None and choice.values == "actual" and forecast is not None:
            value, stood_in = forecast, stood_in + 1
        points.append(Point(start_s, value, end_s))
    parts, notes = intervals(points, name)
    if choice.values == "forecast":
        notes += ("forecasts",)
    if stood_in:
        notes += (f"{stood_in} of {len(points)} half hours without a measured value: their forecast stands in",)
    return Found(
        kind=f"{_BRITAIN} {form}",
        zone=region or "Great Britain",
        emissions="direct",
        intervals=parts,
        notes=notes,
        licence="CC BY 4.0 (National Energy System Operator)",
    )


CSV: Final = (
    CsvKind(
        name=f"{_WATTTIME} CSV",
        wanted="timestamp and MOER, or point_time and value; lbs/MWh",
        fits=lambda table: _watttime_columns(table) is not None,
        load=_load_watttime,
    ),
    CsvKind(
        name=f"{_BRITAIN} CSV",
        wanted="Datetime (UTC), and Actual or Forecast Carbon Intensity (gCO2/kWh)",
        fits=lambda table: _britain_columns(table) is not None,
        load=_load_britain,
    ),
)
JSON: Final = (
    JsonKind(
        name=f"{_WATTTIME} JSON",
        wanted="`data` with point_time and value",
        fits=lambda value: bool(_watttime_rows(value)),
        load=_load_watttime_json,
    ),
    JsonKind(
        name=f"{_BRITAIN} JSON",
        wanted="`data` with from, to and intensity",
        fits=lambda value: bool(_britain_rows(value)[0]),
        load=_load_britain_json,
    ),
)
