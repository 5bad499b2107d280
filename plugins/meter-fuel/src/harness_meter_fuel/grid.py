"""Where a carbon intensity comes from: a number, a row of a published table, or a series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.impact import Factor
from harness.quantity import Unavailable
from harness_meter_fuel import codecarbon_tables, series

if TYPE_CHECKING:
    from harness_meter_fuel.options import GridOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A carbon intensity, ready to use.

    Attributes:
        factor: the intensity in gCO2e/kWh with its source; its value is None for a series.
        low: lower end of its own range; None where it has none.
        high: upper end of it.
        series: the series, where the intensity changes over time.
        flags: what a reader must know.
    """

    factor: Factor
    low: float | None = None
    high: float | None = None
    series: series.Series | None = None
    flags: tuple[str, ...] = ()


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
    )
    return Grid(factor=factor, low=options.low, high=options.high, flags=_flags(options))


def _of_series(options: GridOptions) -> Grid:
    assert options.series is not None
    read = series.read(options.series)
    factor = Factor(
        name="grid_intensity",
        value=None,
        unit="g/kWh",
        source=_labelled(f"{options.source} ({options.series.name})", options),
        licence=options.licence,
        date=options.date,
        id=options.id or f"sha256:{read.digest}",
    )
    return Grid(factor=factor, series=read, flags=_flags(options))


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
    return Grid(factor=factor, flags=flags)


def resolve(options: GridOptions) -> Grid | Unavailable:
    """The intensity that the options name.

    Unavailable where the tables are not installed. Raises UsageError for a name without a row (never the mean of the
    world in its place) and for a malformed series.
    """
    if options.g_per_kwh is not None:
        return _declared(options, options.g_per_kwh)
    if options.series is not None:
        return _of_series(options)
    try:
        return _of_table(options)
    except codecarbon_tables.TablesMissing as error:
        return error.unavailable()
