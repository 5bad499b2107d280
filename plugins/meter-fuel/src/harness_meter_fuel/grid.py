"""Where a carbon intensity comes from: a number, a row of a published table, or a series."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.errors import UsageError
from harness.impact import Factor
from harness.options import Intensity
from harness.place import Place
from harness.quantity import Unavailable
from harness.units import parse_intensity
from harness_meter_fuel import codecarbon_tables, series
from harness_meter_fuel.files import grid_file


def _end(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_intensity(value)
    except UsageError as error:
        raise ValueError(str(error)) from None


_CLOUDS: Final = ("gcp", "aws", "azure")
IntensityEnd = Annotated[float, BeforeValidator(_end, json_schema_input_type=float | str)]
"""An end of a range: as an intensity, however small."""
_ZONE: Final = re.compile(r"[A-Za-z]{2}(?:-[A-Za-z0-9]+)+")
"""Electricity Maps' names of zones, and ISO 3166-2."""
Source = Annotated[str, Field(min_length=1, pattern=r"\S")]


class GridOptions(grid_file.FileOptions):
    """A carbon intensity: one of `g_per_kwh`, `country` (with `region`), `cloud` with `region`, `file`, `series`.

    Attributes:
        g_per_kwh: CI, carbon intensity of the electricity: gCO2e/kWh, or a number with its unit, such as
            `0.518 kg/kWh`; one that no grid has is refused.
        low: lower end of the range of `g_per_kwh`; gCO2e/kWh; no range if not given.
        high: upper end of the range of `g_per_kwh`; gCO2e/kWh; no range if not given.
        country: ISO 3166 code of two or three letters, such as `FR` or `USA`: the country's mean in codecarbon's
            tables (extra `grid`).
        cloud: cloud provider whose region is meant; only `gcp` has rows in codecarbon's tables.
        region: state, province or bidding zone of `country`, such as `indiana`, or region of `cloud`, such as
            `us-central1`.
        fallback: `country` takes the country's mean, with a flag, where its region has no row; without it that is
            an error.
        kind: whether the intensity is the mean of the grid (`average`) or that of one more kWh (`marginal`); kept
            with the factor, changes no number.
        basis: `location` for the grid where the work runs, `market` for bought contracts; with `market` there is no
            SCI score.
        source: who published the intensity, and where; kept with the factor.
        licence: licence of the data; kept with the factor.
        date: ISO 8601 date of the data or of its retrieval; kept with the factor.
        id: name that tells this factor from others when results are compared; made from the number or the file if
            empty.
    """

    g_per_kwh: Annotated[Intensity, Field(ge=0, allow_inf_nan=False)] | None = None
    low: Annotated[IntensityEnd, Field(ge=0, allow_inf_nan=False)] | None = None
    high: Annotated[IntensityEnd, Field(ge=0, allow_inf_nan=False)] | None = None
    country: str | None = Field(None, pattern=r"^[A-Za-z]{2,3}$")
    cloud: str | None = None
    region: Source | None = None
    fallback: Literal["country"] | None = None
    kind: Literal["average", "marginal"] = "average"
    basis: Literal["location", "market"] = "location"
    source: str = ""
    licence: str = ""
    date: str = ""
    id: str = ""

    @model_validator(mode="after")
    def _one_of(self) -> GridOptions:
        named = [
            name for name in ("g_per_kwh", "country", "cloud", "file", "series") if getattr(self, name) is not None
        ]
        if len(named) != 1:
            raise ValueError(
                f"give exactly one of g_per_kwh, country, cloud, file, series; found {', '.join(named) or 'none'}"
            )
        if self.region is not None and named[0] not in {"country", "cloud"}:
            raise ValueError("`region` goes with `country` or `cloud`")
        if self.cloud is not None and self.region is None:
            raise ValueError("`cloud` needs a `region`, such as us-central1")
        if self.fallback is not None and (self.country is None or self.region is None):
            raise ValueError("`fallback` goes with `country` and `region`")
        if self.series is not None and not self.source.strip():
            raise ValueError("a series needs its `source`: who published it, and when")
        if (self.low is not None or self.high is not None) and self.g_per_kwh is None:
            raise ValueError("`low` and `high` go with `g_per_kwh`")
        if self.g_per_kwh is not None:
            low = self.g_per_kwh if self.low is None else self.low
            high = self.g_per_kwh if self.high is None else self.high
            if not low <= self.g_per_kwh <= high:
                raise ValueError(f"the range {low:g}..{high:g} does not hold g_per_kwh {self.g_per_kwh:g}")
        return self


def _short_grid(value: object) -> object:
    """`369.5`, `USA`, `USA/indiana`, `gcp/us-central1`, `hours.csv` as the mapping they stand for."""
    if isinstance(value, bool):
        raise ValueError("true/false is no grid; quote a name that YAML reads so")  # noqa: TRY004 - pydantic's contract
    if isinstance(value, int | float):
        return {"g_per_kwh": value}
    if not isinstance(value, str):
        return value
    if value.strip().lower().endswith(grid_file.ENDINGS):
        return {"file": value.strip()}
    if value.strip()[:1].isdigit() or value.strip().startswith("."):
        return {"g_per_kwh": value}
    place, slash, region = value.strip().partition("/")
    if place.lower() in _CLOUDS:
        return {"cloud": place.lower(), "region": region or None}
    if _ZONE.fullmatch(value.strip()):
        return {"country": value.strip()[:2].upper(), "region": value.strip().upper()}
    if not re.fullmatch(r"[A-Za-z]{2,3}", place) or (slash and not region.strip()):
        raise ValueError(
            f"{value!r} does not name a grid; accepted: a number of g/kWh or with its unit, such as 0.518 kg/kWh, "
            "a country code such as USA or FR, "
            "COUNTRY/REGION such as USA/indiana, a zone such as CA-ON, gcp/REGION, "
            "a file such as hours.csv, or a mapping"
        )
    return {"country": place.upper(), "region": region.strip() if slash else None}


GridOption = Annotated[GridOptions, BeforeValidator(_short_grid, json_schema_input_type=float | str | GridOptions)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A carbon intensity, ready to use.

    Attributes:
        factor: the intensity in gCO2e/kWh with its source; its value is None for a series.
        low: lower end of its own range; None where it has none.
        high: upper end of it.
        series: the series, where the intensity changes over time.
        flags: what a reader must know.
        pue: power usage effectiveness that the source gives beside the intensity; None where it gives none.
        wue_l_per_kwh: water usage effectiveness that the source gives beside, for people; costs no carbon.
    """

    factor: Factor
    low: float | None = None
    high: float | None = None
    series: series.Series | None = None
    flags: tuple[str, ...] = ()
    pue: float | None = None
    wue_l_per_kwh: float | None = None


def _labelled(source: str, options: GridOptions) -> str:
    return f"{source}; {options.kind}, {options.basis}-based"


def _flags(options: GridOptions) -> tuple[str, ...]:
    return ("market-based grid intensity: not to be called SCI",) if options.basis == "market" else ()


def _declared(options: GridOptions, value: float) -> Grid:
    factor = Factor(
        name="grid_intensity",
        value=value,
        unit="g/kWh",
        source=_labelled(options.source or "declared in the suite, no source given", options),
        licence=options.licence,
        date=options.date,
        id=options.id or f"declared:{value!r}",
        low=options.low,
        high=options.high,
    )
    return Grid(factor=factor, low=options.low, high=options.high, flags=_flags(options))


def _of_file(options: GridOptions) -> Grid:
    file = grid_file.read(options)
    kind = "marginal" if file.marginal else options.kind
    factor = Factor(
        name="grid_intensity",
        value=file.g_per_kwh,
        unit="g/kWh",
        source=f"{file.source}; {kind}, {options.basis}-based",
        licence=options.licence or file.licence,
        date=options.date or file.date,
        id=options.id or file.id,
    )
    return Grid(
        factor=factor,
        low=file.low,
        high=file.high,
        series=file.series,
        flags=(*_flags(options), *file.flags),
        pue=file.pue,
        wue_l_per_kwh=file.wue_l_per_kwh,
    )


def _of_table(options: GridOptions) -> Grid:
    flags = _flags(options)
    if options.cloud is not None:
        row = codecarbon_tables.cloud(options.cloud, options.region or "")
    elif options.region is None:
        row = codecarbon_tables.country(options.country or "")
    else:
        try:
            row = codecarbon_tables.region(options.country or "", options.region)
        except UsageError:
            if options.fallback != "country":
                raise
            row = codecarbon_tables.country(options.country or "")
            flags += (f"grid intensity: no row for {options.region!r}, mean of {options.country} instead",)
    factor = Factor(
        name="grid_intensity",
        value=row.g_per_kwh,
        unit="g/kWh",
        source=_labelled(row.source, options),
        licence=codecarbon_tables.LICENCE,
        date=row.year,
        id=row.id,
    )
    low = None if row.high is None else row.g_per_kwh
    return Grid(factor=factor, low=low, high=row.high, flags=(*flags, *row.notes))


def of_place(place: Place) -> Grid | Unavailable:
    """The intensity of a place; Unavailable where none is known."""
    grid = place.grid
    if grid is None:
        return Unavailable(f"no grid intensity is known for {place.label}: give fuel's `grid`")
    factor = Factor(
        name="grid_intensity",
        value=grid.value,
        unit="g/kWh",
        source=f"{grid.source}; average, location-based",
        licence=grid.licence,
        date=grid.date,
        id=grid.id or f"declared:{grid.value!r}",
        low=grid.low,
        high=grid.high,
    )
    return Grid(factor=factor, low=grid.low, high=grid.high, flags=place.flags)


def resolve(options: GridOptions) -> Grid | Unavailable:
    """The intensity that the options name.

    Unavailable where the tables are not installed. Raises UsageError for a name without a row (never the mean of the
    world in its place) and for a malformed series.
    """
    if options.g_per_kwh is not None:
        return _declared(options, options.g_per_kwh)
    if options.path is not None:
        return _of_file(options)
    try:
        return _of_table(options)
    except codecarbon_tables.TablesMissing as error:
        return error.unavailable()
