"""Carbon intensity from generation by source: ENTSO-E's tables and EIA-930, with the factors of `data/generation.csv`.

Intensity of an hour: `sum(MW_k * factor_k) / sum(MW_k)` over the sources that have a factor. Pumped storage and
batteries are left out both ways, since what they give back was generated, and counted, before; exchanges are left out,
so that the result is that of generation inside the zone. Sources without a factor are left out and named with their
share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from harness.csv_table import CsvTable, Row
from harness.errors import UsageError
from harness_meter_fuel.files.electricity_maps import json_number
from harness_meter_fuel.files.found import Choice, CsvKind, Found, JsonKind, chosen_zone, headings, plain
from harness_meter_fuel.files.times import HOUR_S, Point, american_utc, european, intervals, iso_utc
from harness_meter_fuel.packaged import packaged

_ENTSOE: Final = "ENTSO-E generation"
_EIA: Final = "EIA-930 generation"
_STORAGE: Final = frozenset(
    map(plain, ("hydro pumped storage", "pumped storage", "battery storage", "energy storage", "other energy storage"))
) | frozenset(map(plain, ("unknown energy storage", "PS", "BAT", "OES", "UES")))
_UNKNOWN: Final = frozenset(
    map(plain, ("other", "other renewable", "waste", "unknown", "other fuel sources", "unknown fuel sources", "OTH"))
) | frozenset(map(plain, ("UNK", "marine other", "fossil other")))
_EXCHANGE: Final = re.compile(r"[A-Z]{2}(?:[-_]?[A-Z0-9]{1,4})?")
_EIA_COLUMN: Final = re.compile(r"Net Generation \(MW\) from (.+?)(?: \((Adjusted|Imputed)\))?")


@cache
def factors() -> Mapping[str, tuple[str, float]]:
    """Plain name of a source, under every name that ENTSO-E and EIA give it -> its name here and its g/kWh."""
    known: dict[str, tuple[str, float]] = {}
    for row in packaged("generation"):
        value = row.number("g_per_kwh")
        assert value is not None
        names = (row["source"], *row["also"].split("|"))
        known |= {plain(name): (row["source"], value) for name in names if name}
    return known


@dataclass(slots=True)
class Hours:
    """Generation of one zone as it is read: time -> MWh by source, and what was left out."""

    mixes: dict[tuple[float, float | None], dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    negative: int = 0
    repeated: int = 0

    def row(self, start_s: float, end_s: float | None) -> None:
        """Begins a row that holds all sources of its time."""
        self.repeated += (start_s, end_s) in self.mixes
        self.mixes.setdefault((start_s, end_s), {})

    def add(self, start_s: float, end_s: float | None, source: str, megawatts: float | None) -> None:
        """Takes one number; a missing one adds nothing, a negative one of a generator counts as none."""
        mix = self.mixes.setdefault((start_s, end_s), {})
        name = plain(source)
        if name in _STORAGE:
            return
        seen = self.missing if megawatts is None else self.read
        seen[source] = seen.get(source, 0) + 1
        if megawatts is None:
            return
        if megawatts < 0:
            self.negative += 1
            megawatts = 0.0
        known = factors().get(name)
        if known is None:
            self.left_out[source] = self.left_out.get(source, 0.0) + megawatts
        else:
            mix[known[0]] = mix.get(known[0], 0.0) + megawatts

    def found(self, kind: str, zone: str, where: str, notes: Iterable[str]) -> Found:
        """The intensity of every hour; an hour in which nothing with a factor was generated has none."""
        points = [Point(start_s, _intensity(mix), end_s) for (start_s, end_s), mix in self.mixes.items()]
        parts, told = intervals(points, where)
        counted = math.fsum(value for mix in self.mixes.values() for value in mix.values())
        whole = counted + math.fsum(self.left_out.values())
        shares = [f"{name} ({value / whole:.1%})" for name, value in self.left_out.items() if value]
        said = [
            "generation inside the zone x factors of IPCC AR5 and SRREN as others restate them",
            "storage and exchanges left out",
            *notes,
        ]
        if shares:
            said.append(f"no factor for {', '.join(shares)} of generation: left out")
        gone = [f"{name} ({count})" for name, count in self.missing.items() if name in self.read]
        if gone:
            said.append(f"without a number in some rows, which then count without it: {', '.join(gone)}")
        if self.repeated:
            said.append(f"{self.repeated} rows of a time that another row has: their generation is taken together")
        if self.negative:
            said.append(f"{self.negative} negative numbers of generators counted as 0")
        return Found(
            kind=kind,
            zone=zone,
            emissions="lifecycle",
            intervals=parts,
            notes=(*told, *said),
            licence="ENTSO-E, EIA: free",
        )


def _intensity(mix: Mapping[str, float]) -> float | None:
    whole = math.fsum(mix.values())
    if whole <= 0:
        return None
    return math.fsum(value * factors()[plain(name)][1] for name, value in mix.items()) / whole


def _known(name: str) -> bool:
    return plain(name) in factors() or plain(name) in _STORAGE or plain(name) in _UNKNOWN


def _life_cycle(choice: Choice, where: str) -> None:
    if choice.emissions == "direct":
        raise UsageError(
            "holds generation, and its factors are of the life cycle",
            where=where,
            accepted="`emissions: lifecycle`, or none",
        )


# ENTSO-E: one column a source, or one row a source

_SUFFIX: Final = re.compile(r"\s*-?\s*(Actual Aggregated|Actual Consumption)?\s*(\[MW\])?\s*$")
_TIMES: Final = ("mtu", "column1", "datetime", "datetimeutc", "time", "timestamp", "date", "start", "unnamed0")


def _source_columns(table: CsvTable) -> dict[str, str]:
    """Column -> source, for columns of generation; those of consumption are storage and are left out."""
    return {
        column: _SUFFIX.sub("", column)
        for column in table.columns
        if "Actual Consumption" not in column and _known(_SUFFIX.sub("", column))
    }


def _time_column(table: CsvTable) -> str:
    for column in table.columns:
        if plain(re.sub(r"\(.*\)|\[.*\]", "", column)) in _TIMES or plain(column) in _TIMES:
            return column
    return ""


def _local_zone(column: str) -> str:
    """The time zone of a heading such as `MTU (CET/CEST)`; UTC where none is stated."""
    stated = re.search(r"[(\[]([A-Z/]+)[)\]]", column)
    return "Europe/Brussels" if stated and stated.group(1).startswith(("CET", "CEST")) else "UTC"


def _clock(column: str) -> Callable[[Row], tuple[float, float | None]]:
    """Reads the times of a table; of an hour that the clock shows twice the second showing is the later one."""
    zone = _local_zone(column)
    last: list[float] = []

    def read(row: Row) -> tuple[float, float | None]:
        start, dash, end = row[column].partition(" - ")
        first, second = european(start, row.where, zone)
        begin = second if second > first and last and last[-1] >= first else first
        last[:] = [begin]
        if not dash:
            return begin, None
        early, late = european(end, row.where, zone)
        return begin, early if early > begin else late

    return read


def _fits_wide(table: CsvTable) -> bool:
    sources = _source_columns(table).values()
    return bool(_time_column(table)) and sum(plain(name) in factors() for name in sources) >= 2


def _load_wide(table: CsvTable, choice: Choice) -> Found:
    _life_cycle(choice, table.name)
    columns, time = _source_columns(table), _time_column(table)
    area = next((column for column in table.columns if plain(column) == "area"), "")
    rest = [column for column in table.columns if column not in columns and column not in (time, area)]
    rest = [column for column in rest if "Actual Consumption" not in column]
    exchanges = [column for column in rest if _EXCHANGE.fullmatch(column)]
    unknown = [column for column in rest if column not in exchanges and column != "column 1"]
    if unknown:
        raise UsageError(
            f"column {', '.join(unknown)} is no source of generation",
            where=table.name,
            accepted="sources as ENTSO-E names them, and exchanges by country code such as DE",
        )
    clock = _clock(time)
    zones: dict[str, Hours] = {}
    for row in table:
        start_s, end_s = clock(row)
        hours = zones.setdefault(row.get(area), Hours())
        hours.row(start_s, end_s)
        for column, source in columns.items():
            hours.add(start_s, end_s, source, row.number(column))
    zone = chosen_zone(choice.zone, {each: each for each in zones}, table.name, "area")
    notes = [f"exchanges with {', '.join(exchanges)} left out"] if exchanges else []
    return zones[zone].found(_ENTSOE, zone, table.name, notes)


def _long_columns(table: CsvTable) -> tuple[str, str, str] | None:
    found = headings(table)
    source = found.get("productiontype", "")
    value = next((found[name] for name in found if name.startswith(("actualgenerationoutput", "generationmw"))), "")
    time = _time_column(table)
    return (time, source, value) if time and source and value else None


def _load_long(table: CsvTable, choice: Choice) -> Found:
    _life_cycle(choice, table.name)
    columns = _long_columns(table)
    assert columns is not None
    time, source, value = columns
    found = headings(table)
    areas = [found[name] for name in ("mapcode", "areamapcode", "areacode", "areaname", "area") if name in found]
    zones: dict[str, Hours] = {}
    names: dict[str, str] = {}
    zone_of_time = _local_zone(time)
    for row in table:
        zone = next((row[name] for name in areas if row[name]), "")
        names.update({row[name]: zone for name in areas if row[name]})
        names.setdefault(zone, zone)
        if not _known(row[source]):
            raise UsageError(f"{source} is {row[source]!r}", where=row.where, accepted="a source as ENTSO-E names it")
        start, dash, end = row[time].partition(" - ")
        start_s = european(start, row.where, zone_of_time)[0]
        end_s = european(end, row.where, zone_of_time)[1] if dash else None
        zones.setdefault(zone, Hours()).add(start_s, end_s, row[source], row.number(value))
    zone = chosen_zone(choice.zone, names, table.name, "area")
    return zones[zone].found(_ENTSOE, zone, table.name, ())


# EIA-930


def _eia_columns(table: CsvTable) -> dict[str, str]:
    """Column -> source; adjusted numbers where there are any."""
    plainly: dict[str, str] = {}
    adjusted: dict[str, str] = {}
    for column in table.columns:
        match = _EIA_COLUMN.fullmatch(column)
        if match and match.group(2) != "Imputed":
            source = match.group(1).replace(
                " witho Integrated", " without Integrated"
            )  # as some of EIA's files have it
            (adjusted if match.group(2) else plainly)[source] = column
    return {column: source for source, column in {**plainly, **adjusted}.items()}


_PARTS: Final = {
    "Solar": ("Solar without Integrated Battery Storage", "Solar with Integrated Battery Storage"),
    "Wind": ("Wind without Integrated Battery Storage", "Wind with Integrated Battery Storage"),
    "Hydropower and Pumped Storage": ("Hydropower Excluding Pumped Storage",),
}


def _eia_mix(row: Row, columns: Mapping[str, str]) -> dict[str, float | None]:
    """Source -> MW; of a total and its parts those that the row has, the total where it has both."""
    mix = {source: row.number(column) for column, source in columns.items()}
    for whole, parts in _PARTS.items():
        if whole in mix and any(part in mix for part in parts):
            for source in (whole,) if mix[whole] is None else parts:
                mix.pop(source, None)
    return mix


def _load_eia(table: CsvTable, choice: Choice) -> Found:
    _life_cycle(choice, table.name)
    columns = _eia_columns(table)
    unknown = [name for name in columns.values() if not _known(name)]
    if unknown:
        raise UsageError(f"{', '.join(unknown)} is no source of generation", where=table.name, accepted="EIA's names")
    zones: dict[str, Hours] = {}
    for row in table:
        zone = row["Balancing Authority"]
        end_s = american_utc(row["UTC Time at End of Hour"], row.where)
        if choice.zone and plain(choice.zone) != plain(zone):
            zones.setdefault(zone, Hours())
            continue
        hours = zones.setdefault(zone, Hours())
        hours.row(end_s - HOUR_S, end_s)
        for source, megawatts in _eia_mix(row, columns).items():
            hours.add(end_s - HOUR_S, end_s, source, megawatts)
    zone = chosen_zone(choice.zone, {each: each for each in zones}, table.name, "balancing authority")
    return zones[zone].found(f"{_EIA} CSV", zone, table.name, ())


def _eia_rows(value: object) -> list[dict[str, Any]]:
    answer = value.get("response") if isinstance(value, dict) else None
    rows = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, dict) and {"period", "respondent", "fueltype"} <= row.keys()]


def _load_eia_json(value: object, name: str, choice: Choice) -> Found:
    _life_cycle(choice, name)
    zones: dict[str, Hours] = {}
    names: dict[str, str] = {}
    for place, row in enumerate(_eia_rows(value), start=1):
        where = f"{name}, row {place}"
        zone, source = str(row["respondent"]), str(row["fueltype"])
        names |= {zone: zone, str(row.get("respondent-name") or zone): zone}
        if not _known(source):
            raise UsageError(f"fueltype is {source!r}", where=where, accepted="EIA's codes, such as COL, NG, NUC, SUN")
        period = str(row["period"])
        end_s = iso_utc(f"{period}:00" if len(period) == 13 else period, where)
        number = json_number(row.get("value"), "value", where)
        zones.setdefault(zone, Hours()).add(end_s - HOUR_S, end_s, source, number)
    zone = chosen_zone(choice.zone, names, name, "respondent")
    return zones[zone].found(f"{_EIA} JSON", zone, name, ())


CSV: Final = (
    CsvKind(
        name=f"{_EIA} CSV",
        wanted="Balancing Authority, UTC Time at End of Hour, Net Generation (MW) from ...",
        fits=lambda table: (
            {"Balancing Authority", "UTC Time at End of Hour"} <= set(table.columns) and len(_eia_columns(table)) > 1
        ),
        load=_load_eia,
    ),
    CsvKind(
        name=f"{_ENTSOE}, one row a source",
        wanted="MTU or DateTime (UTC), ProductionType, ActualGenerationOutput",
        fits=lambda table: _long_columns(table) is not None,
        load=_load_long,
    ),
    CsvKind(
        name=f"{_ENTSOE}, one column a source",
        wanted="MTU or an unnamed first column, and MW of sources such as Fossil Gas, Nuclear",
        fits=_fits_wide,
        load=_load_wide,
    ),
)
JSON: Final = JsonKind(
    name=f"{_EIA} JSON",
    wanted="`response.data` with period, respondent, fueltype and value",
    fits=lambda value: bool(_eia_rows(value)),
    load=_load_eia_json,
)
