"""The stress factor of a window: short, of one month, by the months it covers, or over the years to come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from harness.errors import UsageError
from harness.quantity import Unavailable
from harness_meter_scarf.stress.ratio import (
    BASELINE_YEAR,
    MILESTONES,
    Basin,
    Category,
    Cell,
    NearExhausted,
    Scenario,
    Wsf,
    interpolated,
    long_term,
    of_category,
    ratio,
)

Kind: TypeAlias = Literal["short", "month", "monthly", "long"]
Missing: TypeAlias = Literal["strict", "fallback"]
Years: TypeAlias = Literal["milestones", "yearly"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StressRule:
    """Which stress a window is weighted with, as the options say it.

    Attributes:
        kind: `short` takes the year `t0`, `month` one month for all of the work, `monthly` the months that the window
            covers, `long` the years to come.
        month: the month of kind `month`, 1 to 12.
        scenario: WRI's scenario of the years to come.
        near_exhausted: what WRI's code 9999 stands for.
        missing: `strict` or `fallback`: whether the annual value may stand for a month without one.
        gamma: discount rate per year of kind `long`.
        t0: year of kind `short`, and the present of kind `long`.
        milestones: years of kind `long`.
        years: whether the milestones alone are weighted, or every year between them.
        before_t0: whether milestones before t0 are accepted.
    """

    kind: Kind
    month: int | None = None
    scenario: Scenario = "bau"
    near_exhausted: NearExhausted = "refuse"
    missing: Missing = "strict"
    gamma: float = 0.03
    t0: int = BASELINE_YEAR
    milestones: tuple[int, ...] = MILESTONES
    years: Years = "milestones"
    before_t0: bool = False


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
    basin: Basin | Category, rule: StressRule, months: Callable[[], MonthWeights | Unavailable]
) -> Wsf | Unavailable:
    """The factor by the rule; `months` is asked in mode monthly only."""
    if isinstance(basin, Category):
        return _of_category(basin, rule)
    if rule.kind == "short":
        return _of_year(basin, rule, rule.t0)
    if rule.kind == "long":
        return _long(basin, rule)
    if rule.month is not None:
        found = _of_month(basin, rule, rule.month)
        return found if isinstance(found, Unavailable) else _flagged(found, "monthly baseline")
    weighted = months()
    return weighted if isinstance(weighted, Unavailable) else _monthly(basin, rule, weighted)


def _flagged(wsf: Wsf, *flags: str) -> Wsf:
    return replace(wsf, flags=(*wsf.flags, *flags))


def _of_category(category: Category, rule: StressRule) -> Wsf | Unavailable:
    if category.value is None:
        return Unavailable("no category is known")
    if rule.kind == "long":
        return Unavailable("there are no stress categories for the future: mode long needs a basin")
    bounded = of_category(category.value)
    if rule.kind == "short":
        return bounded
    if rule.missing == "strict":
        return Unavailable("there are no stress categories by month: load a basin, or `missing: fallback`")
    return _flagged(bounded, "partial: category of the month replaced by that of the year")


def _of_year(basin: Basin, rule: StressRule, year: int) -> Wsf | Unavailable:
    known = basin.years.get(rule.scenario, {})
    cell = known.get(year, Cell())
    return ratio(cell, f"{basin.label}, {year}", rule.near_exhausted)


def _of_month(basin: Basin, rule: StressRule, month: int) -> Wsf | Unavailable:
    cell = basin.months[month - 1] if basin.months else Cell()
    found = ratio(cell, f"{basin.label}, month {month}", rule.near_exhausted)
    if rule.missing == "strict" or not isinstance(found, Unavailable) or _is_refused(cell):
        return found
    annual = ratio(basin.baseline, f"{basin.label}, year", rule.near_exhausted)
    if isinstance(annual, Unavailable):
        return Unavailable(f"{found.reason}; {annual.reason}")
    return _flagged(annual, f"partial: month {month} of {basin.label} replaced by the annual value")


def _is_refused(cell: Cell) -> bool:
    """Whether a value is there and the policy for near exhausted supply refuses it: that is not a missing value."""
    return cell.raw is not None and cell.raw > 0


def _monthly(basin: Basin, rule: StressRule, weighted: MonthWeights) -> Wsf | Unavailable:
    """The energy-weighted mean of the months; what follows the clock alone may lie anywhere between them."""
    found: dict[int, Wsf] = {}
    for month in sorted({*weighted.traced, *weighted.clocked}):
        each = _of_month(basin, rule, month)
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


def _long(basin: Basin, rule: StressRule) -> Wsf | Unavailable:
    found: dict[int, Wsf] = {}
    for year in sorted(rule.milestones):
        each = _of_year(basin, rule, year)
        if isinstance(each, Unavailable):
            return each
        found[year] = each
    try:
        value = _over_years({year: wsf.value for year, wsf in found.items()}, rule)
        low = _over_years({year: wsf.low for year, wsf in found.items()}, rule)
        high = _over_years({year: _high(wsf) for year, wsf in found.items()}, rule)
    except UsageError as error:
        return Unavailable(str(error))
    chosen = f"long: {rule.scenario}, gamma {rule.gamma:g}, t0 {rule.t0}, {_years(rule)}"
    flags = (*(flag for wsf in found.values() for flag in wsf.flags), chosen)
    return Wsf(value, min(low, value), max(high, value), flags)


def years_of(basin: Basin, rule: StressRule) -> Mapping[int, float] | Unavailable:
    """The ratio of every year that is weighted, by the rule."""
    found: dict[int, float] = {}
    for year in sorted(rule.milestones):
        each = _of_year(basin, rule, year)
        if isinstance(each, Unavailable):
            return each
        found[year] = each.value
    return interpolated(found, rule.t0) if rule.years == "yearly" else found


def _years(rule: StressRule) -> str:
    listed = ", ".join(map(str, sorted(rule.milestones)))
    return f"milestones {listed}" if rule.years == "milestones" else f"every year, interpolated between {listed}"


def _over_years(stress: Mapping[int, float], rule: StressRule) -> float:
    years = interpolated(stress, rule.t0) if rule.years == "yearly" else stress
    return long_term(years, rule.gamma, rule.t0, before_t0=rule.before_t0)
