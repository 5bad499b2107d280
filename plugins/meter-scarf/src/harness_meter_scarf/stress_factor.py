"""The stress factor of a window: short, of one month, by the months it covers, or over the years to come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.errors import UsageError
from harness.quantity import Unavailable
from harness_meter_scarf.basins import Basin
from harness_meter_scarf.options import ScarfOptions
from harness_meter_scarf.sites import Category
from harness_meter_scarf.stress import Cell, Wsf, interpolated, long_term, of_category, ratio


@dataclass(frozen=True, slots=True)
class MonthWeights:
    """How the energy of a window lies over local months; all shares together sum to 1.

    Attributes:
        traced: month -> share of the energy that a trace places there.
        clocked: month -> share placed in proportion to time, because no trace says when it was spent.
    """

    traced: Mapping[int, float]
    clocked: Mapping[int, float]


def stress_factor(
    basin: Basin | Category, options: ScarfOptions, months: Callable[[], MonthWeights | Unavailable]
) -> Wsf | Unavailable:
    """The factor by the options' mode; `months` is asked in mode monthly only."""
    if isinstance(basin, Category):
        return _of_category(basin, options)
    if options.kind == "short":
        return _of_year(basin, options, options.t0)
    if options.kind == "long":
        return _long(basin, options)
    if options.month is not None:
        found = _of_month(basin, options, options.month)
        return found if isinstance(found, Unavailable) else _flagged(found, "monthly baseline")
    weighted = months()
    return weighted if isinstance(weighted, Unavailable) else _monthly(basin, options, weighted)


def _flagged(wsf: Wsf, *flags: str) -> Wsf:
    return replace(wsf, flags=(*wsf.flags, *flags))


def _of_category(category: Category, options: ScarfOptions) -> Wsf | Unavailable:
    if category.value is None:
        return Unavailable("no category is known")
    if options.kind == "long":
        return Unavailable("there are no stress categories for the future: mode long needs a basin")
    bounded = of_category(category.value)
    if options.kind == "short":
        return bounded
    if options.missing == "strict":
        return Unavailable("there are no stress categories by month: load a basin, or `missing: fallback`")
    return _flagged(bounded, "partial: category of the month replaced by that of the year")


def _of_year(basin: Basin, options: ScarfOptions, year: int) -> Wsf | Unavailable:
    known = basin.years.get(options.scenario, {})
    cell = known.get(year, Cell())
    return ratio(cell, f"{basin.label}, {year}", options.near_exhausted)


def _of_month(basin: Basin, options: ScarfOptions, month: int) -> Wsf | Unavailable:
    cell = basin.months[month - 1] if basin.months else Cell()
    found = ratio(cell, f"{basin.label}, month {month}", options.near_exhausted)
    if options.missing == "strict" or not isinstance(found, Unavailable) or _is_refused(cell):
        return found
    annual = ratio(basin.baseline, f"{basin.label}, year", options.near_exhausted)
    if isinstance(annual, Unavailable):
        return Unavailable(f"{found.reason}; {annual.reason}")
    return _flagged(annual, f"partial: month {month} of {basin.label} replaced by the annual value")


def _is_refused(cell: Cell) -> bool:
    """Whether a value is there and the policy for near exhausted supply refuses it: that is not a missing value."""
    return cell.raw is not None and cell.raw > 0


def _monthly(basin: Basin, options: ScarfOptions, weighted: MonthWeights) -> Wsf | Unavailable:
    """The energy-weighted mean of the months; what follows the clock alone may lie anywhere between them."""
    found: dict[int, Wsf] = {}
    for month in sorted({*weighted.traced, *weighted.clocked}):
        each = _of_month(basin, options, month)
        if isinstance(each, Unavailable):
            return each
        found[month] = each
    placed = [(share, found[month]) for month, share in (*weighted.traced.items(), *weighted.clocked.items())]
    value = _mean([(share, wsf.value) for share, wsf in placed])
    low = _mean([(share, wsf.low) for share, wsf in placed])
    high = _mean([(share, _high(wsf)) for share, wsf in placed])
    flags = [flag for wsf in found.values() for flag in wsf.flags]
    if len(found) > 1 and weighted.clocked:
        traced = [(share, found[month]) for month, share in weighted.traced.items()]
        open_share = math.fsum(weighted.clocked.values())
        least, most = min(wsf.low for wsf in found.values()), max(map(_high, found.values()))
        low = math.fsum(share * wsf.low for share, wsf in traced) + open_share * least
        high = math.fsum(share * _high(wsf) for share, wsf in traced) + open_share * most
        flags.append("uniform split: energy over the months in proportion to time")
    return Wsf(value, min(low, value), max(high, value), (*flags, "monthly baseline"))


def _high(wsf: Wsf) -> float:
    """The upper end of a ratio; only a category is without one."""
    return wsf.value if wsf.high is None else wsf.high


def _mean(parts: Sequence[tuple[float, float]]) -> float:
    mean = math.fsum(share * value for share, value in parts)
    values = [value for _, value in parts]
    return min(max(mean, min(values)), max(values))


def _long(basin: Basin, options: ScarfOptions) -> Wsf | Unavailable:
    found: dict[int, Wsf] = {}
    for year in sorted(options.milestones):
        each = _of_year(basin, options, year)
        if isinstance(each, Unavailable):
            return each
        found[year] = each
    try:
        value = _over_years({year: wsf.value for year, wsf in found.items()}, options)
        low = _over_years({year: wsf.low for year, wsf in found.items()}, options)
        high = _over_years({year: _high(wsf) for year, wsf in found.items()}, options)
    except UsageError as error:
        return Unavailable(str(error))
    chosen = f"long: {options.scenario}, gamma {options.gamma:g}, t0 {options.t0}, {_years(options)}"
    flags = (*(flag for wsf in found.values() for flag in wsf.flags), chosen)
    return Wsf(value, min(low, value), max(high, value), flags)


def _years(options: ScarfOptions) -> str:
    listed = ", ".join(map(str, sorted(options.milestones)))
    return f"milestones {listed}" if options.years == "milestones" else f"every year, interpolated between {listed}"


def _over_years(stress: Mapping[int, float], options: ScarfOptions) -> float:
    years = interpolated(stress, options.t0) if options.years == "yearly" else stress
    return long_term(years, options.gamma, options.t0, before_t0=options.before_t0)
