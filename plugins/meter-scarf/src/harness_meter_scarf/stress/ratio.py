"""Water stress: WRI's ratio and its codes, scores and categories, and the factor over years.

Values are raw ratios of withdrawal to supply, never WRI's scores of 0 to 5. Codes and bins are documented with WRI's
Aqueduct 4.0 (Kuzma et al. 2023, doi 10.46830/writn.23.00061).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from harness.errors import UsageError
from harness.quantity import Unavailable

NO_DATA: Final = -9999.0
NEAR_EXHAUSTED: Final = 9999.0
ARID: Final = -1
"""Category of arid basins with low water use; WRI sets their raw ratio to 1."""
BASELINE_YEAR: Final = 2019
MILESTONES: Final = (2019, 2030, 2050, 2080)
"""Years that Aqueduct 4.0 has values for; which of them the paper used is not stated."""
BINS: Final[Mapping[int, tuple[float, float | None]]] = {
    ARID: (1.0, 1.0),
    0: (0.0, 0.1),
    1: (0.1, 0.2),
    2: (0.2, 0.4),
    3: (0.4, 0.8),
    4: (0.8, None),
}
"""Raw ratios of each category; the last has no upper end."""

Scenario: TypeAlias = Literal["bau", "opt", "pes"]
NearExhausted: TypeAlias = Literal["refuse", "wri-average", "score-cap"]
_EXHAUSTED_MONTHS: Final = 6
"""With so many months at 9999 WRI sets the year to 9999."""
_SUBSTITUTES: Final[Mapping[str, float]] = {"wri-average": 2.0, "score-cap": 1.6}


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a stress table as found, codes kept.

    Attributes:
        raw: the ratio or a code; None where the table has no such value.
        category: WRI's category beside it; None where there is none.
        low: lower end of the ratio's own range; None where none is given.
        high: upper end of it.
    """

    raw: float | None = None
    category: int | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Basin:
    """Stress of one basin.

    Attributes:
        label: for messages: the site or the basin's code.
        years: year -> value, per scenario; the baseline year stands in each.
        baseline: annual value of the baseline year.
        months: twelve values of the baseline; empty where there are none.
        source: where the values come from, with citation.
        licence: of the data.
        date: of the data or of its retrieval.
        id: stable identity.
        simulated: whether the basin is made up.
    """

    label: str
    baseline: Cell = field(default_factory=Cell)
    months: tuple[Cell, ...] = ()
    years: Mapping[str, Mapping[int, Cell]] = field(default_factory=dict)
    source: str = ""
    licence: str = ""
    date: str = ""
    id: str = ""
    simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """WRI's stress category of a province, with where it comes from; `None` where none is known."""

    value: int | None
    source: str
    confidence: str


NOT_KNOWN: Final = Category(value=None, source="", confidence="")


@dataclass(frozen=True, slots=True)
class Wsf:
    """A water stress factor, ready to multiply.

    Attributes:
        value: the factor; the lower end where only an interval is known.
        low: lower end.
        high: upper end; None where there is none.
        flags: what a reader must know.
        point: whether `value` is an estimate; False where it is nothing but the interval's lower end.
    """

    value: float
    low: float
    high: float | None
    flags: tuple[str, ...] = ()
    point: bool = True


def checked_raw(raw: float) -> float:
    """The raw value, if it is a ratio or one of WRI's two codes; otherwise raises UsageError."""
    if not math.isfinite(raw) or (raw < 0 and raw != NO_DATA):
        raise UsageError(
            f"{raw:g} is not a stress ratio",
            accepted="a finite ratio of at least 0, -9999 for no data, 9999 for near exhausted; no category, no score",
        )
    return raw


def ratio(cell: Cell, where: str, near_exhausted: NearExhausted = "refuse") -> Wsf | Unavailable:
    """The ratio that a cell stands for, by WRI's codes and the policy; Unavailable with `where` in its reason.

    Raises UsageError for a value that is neither a ratio nor a code.
    """
    if cell.raw is None or checked_raw(cell.raw) == NO_DATA:
        return Unavailable(f"no water stress for {where}")
    if cell.raw == NEAR_EXHAUSTED:
        substitute = _SUBSTITUTES.get(near_exhausted)
        if substitute is None:
            return Unavailable(f"water stress for {where}: supply nearly used up (9999), near_exhausted is refuse")
        flag = f"near exhausted ({where}): {substitute:g} by policy {near_exhausted}"
        return Wsf(substitute, substitute, substitute, (flag,))
    flags = (f"arid, low use ({where}): raw is set, not computed",) if cell.category == ARID else ()
    low = cell.raw if cell.low is None else cell.low
    high = cell.raw if cell.high is None else cell.high
    return Wsf(cell.raw, low, high, flags)


def annual(monthly: Sequence[Cell], demand: Sequence[float]) -> Cell:
    """WRI's annual value from months: their mean weighted by monthly gross demand, which is not the plain mean.

    A month with the code 9999 counts as 2, as WRI has it; with six or more of them the year itself is 9999, and with a
    month without data it has none.

    Args:
        monthly: twelve values.
        demand: gross demand of each month, in any one unit.

    Raises:
        UsageError: not twelve of each, or a demand that is negative, not finite, or 0 all year.
    """
    if len(monthly) != 12 or len(demand) != 12:
        raise UsageError(f"{len(monthly)} months and {len(demand)} demands", accepted="12 of each")
    whole = math.fsum(demand)
    if not all(math.isfinite(each) and each >= 0 for each in demand) or whole <= 0:
        raise UsageError("the monthly demand is not an amount of water", accepted="12 numbers of at least 0, not all 0")
    if any(cell.raw is None or checked_raw(cell.raw) == NO_DATA for cell in monthly):
        return Cell()
    exhausted = sum(cell.raw == NEAR_EXHAUSTED for cell in monthly)
    if exhausted >= _EXHAUSTED_MONTHS:
        return Cell(NEAR_EXHAUSTED)
    substitute = _SUBSTITUTES["wri-average"]
    ends = ("low", "raw", "high")
    low, raw, high = (
        math.fsum(
            weight * (substitute if cell.raw == NEAR_EXHAUSTED else _end(cell, end))
            for cell, weight in zip(monthly, demand, strict=True)
        )
        / whole
        for end in ends
    )
    ranged = any(cell.low is not None or cell.high is not None for cell in monthly)
    return Cell(raw, None, min(low, raw) if ranged else None, max(high, raw) if ranged else None)


def _end(cell: Cell, name: str) -> float:
    given = getattr(cell, name)
    assert cell.raw is not None
    return cell.raw if given is None else float(given)


def of_category(category: int) -> Wsf:
    """The interval of a province's category: no point value is known, so the value is the lower end."""
    if category not in BINS:
        raise UsageError(f"{category} is not a stress category", accepted=", ".join(map(str, BINS)))
    low, high = BINS[category]
    flags: tuple[str, ...] = ("category-bounded (province): an interval without a point value, shown at its lower end",)
    if category == ARID:
        flags += ("arid, low use: raw is set, not computed",)
    return Wsf(low, low, high, flags, point=False)


def score(raw: float) -> float:
    """WRI's score of a ratio: `clamp(log2(raw / 0.1) + 1, 0, 5)`."""
    checked_raw(raw)
    if raw in (NO_DATA, NEAR_EXHAUSTED):
        raise UsageError(f"{raw:g} is a code, not a ratio", accepted="a finite ratio of at least 0")
    return 0.0 if raw == 0 else min(5.0, max(0.0, math.log2(raw / 0.1) + 1))


def category(score_value: float) -> int:
    """WRI's category of a score: its floor, 5 counts as 4."""
    if not 0 <= score_value <= 5:
        raise UsageError(f"{score_value} is not a score", accepted="0 to 5")
    return min(4, math.floor(score_value))


def raw_of_score(score_value: float) -> float:
    """The ratio of a score: `0.1 * 2^(score - 1)`; approximate for a score that is itself an aggregate.

    Raises UsageError for 0 and 5, which are open-ended.
    """
    if not 0 < score_value < 5:
        raise UsageError(f"score {score_value} has no ratio", accepted="above 0 and below 5; the ends are open-ended")
    return float(0.1 * 2.0 ** (score_value - 1))


def weights(years: Sequence[int], gamma: float, t0: int = BASELINE_YEAR, *, before_t0: bool = False) -> list[float]:
    """`w_t`, proportional to `(1 + gamma)^-(t - t0)`, summing to 1.

    Args:
        years: T, each year once.
        gamma: above -1; low: the future counts more; high: only the first year counts.
        t0: the present of the weighting.
        before_t0: accept years before t0.

    Raises:
        UsageError: an empty T, a repeated year, a year before t0 without opt-in, or a gamma of -1 or less.
    """
    if not years:
        raise UsageError("there are no years to weight", accepted="at least one year")
    if len(set(years)) < len(years):
        raise UsageError(f"a year appears twice in {list(years)}")
    if not (math.isfinite(gamma) and gamma > -1):
        raise UsageError(f"gamma is {gamma}", accepted="a finite number above -1")
    early = [year for year in years if year < t0]
    if early and not before_t0:
        raise UsageError(f"year {early[0]} lies before t0 {t0}", accepted="years from t0 on, or before_t0: true")
    exponents = [-(year - t0) * math.log1p(gamma) for year in years]
    greatest = max(exponents)  # taken out, so that neither a huge gamma nor one near -1 overflows
    unscaled = [math.exp(exponent - greatest) for exponent in exponents]
    whole = math.fsum(unscaled)
    return [each / whole for each in unscaled]


def interpolated(stress: Mapping[int, float], t0: int) -> dict[int, float]:
    """Every year from t0 to the last milestone, linearly between milestones; raises UsageError if t0 lies outside."""
    known = sorted(stress)
    if not known or not known[0] <= t0 <= known[-1]:
        raise UsageError(f"no stress value at or before t0 {t0}", accepted=f"one of {known}")
    filled = {}
    for year in range(t0, known[-1] + 1):
        before = max(each for each in known if each <= year)
        after = min(each for each in known if each >= year)
        share = (year - before) / (after - before) if after > before else 0.0
        filled[year] = stress[before] * (1 - share) + stress[after] * share
    return filled


def long_term(stress: Mapping[int, float], gamma: float, t0: int = BASELINE_YEAR, *, before_t0: bool = False) -> float:
    """`WSF_long`: the weighted mean of the stress of the given years; lies between their least and greatest."""
    shares = weights(list(stress), gamma, t0, before_t0=before_t0)
    for value in stress.values():
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"stress is {value}", accepted="a finite ratio of at least 0")
    mean = math.fsum(share * value for share, value in zip(shares, stress.values(), strict=True))
    return min(max(mean, min(stress.values())), max(stress.values()))  # rounding never leaves the range
