"""Electricity Maps: its CSV exports of every granularity and generation, and the answers of its API as JSON."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from harness.csv_table import CsvTable
from harness.errors import UsageError
from harness_meter_fuel.files.found import Choice, CsvKind, Emissions, Found, JsonKind, chosen_zone, headings
from harness_meter_fuel.files.times import Point, intervals, iso_utc

_NAME: Final = "Electricity Maps"
_LICENCE: Final = "Electricity Maps' terms; its free data sets ODbL"
_DIRECT: Final = ("carbonintensitygco2eqkwhdirect",)
_LIFE_CYCLE: Final = ("carbonintensitygco2eqkwhlca", "carbonintensitygco2eqkwhlifecycle", "carbonintensityavg")
_TIME: Final = ("datetimeutc", "datetime", "timestamp")
_ZONE: Final = ("zoneid", "zonename", "country", "zone")


def _fits(table: CsvTable) -> bool:
    found = headings(table)
    return any(name in found for name in _TIME) and any(name in found for name in (*_DIRECT, *_LIFE_CYCLE))


def _column(table: CsvTable, choice: Choice) -> tuple[str, Emissions]:
    """The column of the intensity that is wanted: life cycle unless direct emissions are asked for."""
    found = headings(table)
    wanted: Emissions = choice.emissions or "lifecycle"
    for name in _DIRECT if wanted == "direct" else _LIFE_CYCLE:
        if name in found:
            return found[name], wanted
    raise UsageError(
        f"has no column of {'direct' if wanted == 'direct' else 'life-cycle'} emissions",
        where=table.name,
        accepted=f"`emissions: {'lifecycle' if wanted == 'direct' else 'direct'}`, or such a column; "
        f"found {table.found()}",
    )


def _load(table: CsvTable, choice: Choice) -> Found:
    found = headings(table)
    column, emissions = _column(table, choice)
    time = next(found[name] for name in _TIME if name in found)
    zones = [found[name] for name in _ZONE if name in found]
    points: dict[str, list[Point]] = {}
    known: dict[str, str] = {}
    estimated: dict[str, int] = {}
    mark = found.get("dataestimated", "")
    seen: dict[tuple[str, ...], str] = {}
    for row in table:
        names = tuple(row[each] for each in zones)
        if names not in seen:
            seen[names] = next(filter(None, names), "")
            known.update({name: seen[names] for name in names if name} or {"": ""})
        zone = seen[names]
        points.setdefault(zone, []).append(Point(iso_utc(row[time], row.where), row.number(column)))
        if mark and row[mark].lower() == "true":
            estimated[zone] = estimated.get(zone, 0) + 1
    zone = chosen_zone(choice.zone, known, table.name, "zone")
    rows, notes = intervals(points[zone], table.name)
    if zone in estimated:
        notes += (f"{estimated[zone]} of {len(points[zone])} rows are estimates of {_NAME}",)
    return Found(kind=f"{_NAME} CSV", zone=zone, emissions=emissions, intervals=rows, notes=notes, licence=_LICENCE)


def _answers(value: object) -> list[dict[str, Any]]:
    """The rows of an answer: of `history`, `data` or `forecast`, or the one of `latest`; empty for another value."""
    if isinstance(value, list):
        rows = value
    elif isinstance(value, dict):
        nested = next((value[key] for key in ("history", "data", "forecast") if isinstance(value.get(key), list)), None)
        rows = nested if nested is not None else [value.get("data") if isinstance(value.get("data"), dict) else value]
    else:
        return []
    kept = [row for row in rows if isinstance(row, dict) and "carbonIntensity" in row and "datetime" in row]
    return kept if len(kept) == len(rows) else []


def _load_json(value: object, name: str, choice: Choice) -> Found:
    rows = _answers(value)
    kinds = {str(row.get("emissionFactorType") or "") for row in rows}
    if len(kinds) > 1:
        raise UsageError(f"mixes emission factors: {', '.join(sorted(kinds))}", where=name, accepted="one of them")
    stated = next(iter(kinds), "")
    emissions: Emissions = "direct" if stated == "direct" else "lifecycle"
    if choice.emissions not in (None, emissions):
        raise UsageError(f"holds {emissions} emissions", where=name, accepted=f"`emissions: {emissions}`, or none")
    whole = str(value.get("zone") or "") if isinstance(value, dict) else ""
    points: dict[str, list[Point]] = {}
    estimated = 0
    for place, row in enumerate(rows, start=1):
        where = f"{name}, row {place}"
        points.setdefault(str(row.get("zone") or whole), []).append(
            Point(iso_utc(str(row["datetime"]), where), json_number(row["carbonIntensity"], "carbonIntensity", where))
        )
        estimated += bool(row.get("isEstimated"))
    zone = chosen_zone(choice.zone, {each: each for each in points}, name, "zone")
    parts, notes = intervals(points[zone], name)
    if estimated:
        notes += (f"{estimated} of {len(rows)} rows are estimates of {_NAME}",)
    if isinstance(value, dict) and "forecast" in value:
        notes += ("a forecast",)
    return Found(kind=f"{_NAME} JSON", zone=zone, emissions=emissions, intervals=parts, notes=notes, licence=_LICENCE)


def json_number(value: object, what: str, where: str) -> float | None:
    """A number of JSON, None for null; raises UsageError for anything else."""
    if value is None:
        return None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{what} is {value!r}", where=where, accepted="a number, or null")
    return float(value)


CSV: Final = CsvKind(
    name=f"{_NAME} CSV",
    wanted="Datetime (UTC), and Carbon intensity gCO2eq/kWh (direct), (LCA) or (Life cycle)",
    fits=_fits,
    load=_load,
)
JSON: Final = JsonKind(
    name=f"{_NAME} JSON",
    wanted="carbonIntensity and datetime, alone or in `history`, `data` or `forecast`",
    fits=lambda value: bool(_answers(value)),
    load=_load_json,
)
