"""For which grid intensities and lifetimes each configuration emits least, and what it saves, from stored rows.

Carbon of a request is a line in the intensity: its slope the energy, its intercept the embodied carbon. So the ranges
are found in closed form from stored profile rows, without a grid of intensities and without another run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from harness.quantity import Unavailable, Undefined
from harness.units import JOULES_PER_KWH, kwh
from harness_disaggregated_serving.carbon.accounting import SECONDS_PER_YEAR, Accounting, BreakEven, break_even
from harness_disaggregated_serving.choosing.interval import SavingRange, saving_range
from harness_disaggregated_serving.choosing.pooling import by_conditions
from harness_disaggregated_serving.choosing.profile_table import ProfileTable
from harness_disaggregated_serving.choosing.scheduler import BASELINE, Candidate, Demand, candidates
from harness_disaggregated_serving.load.slo import Slo

YEARS: Final = ((5.0, 3.0), (5.0, 5.0), (5.0, 7.0), (5.0, 10.0), (3.0, 10.0), (10.0, 10.0))
"""Lifetimes in years, of the new device and of the old one."""


@dataclass(frozen=True, slots=True)
class Range:
    """Intensities, in g/kWh, from `low` to `high`, in which a configuration emits least."""

    low: float
    high: float
    configuration: str

    def __str__(self) -> str:
        if self.low == 0 and math.isinf(self.high):
            return f"{self.configuration} always"
        if self.low == 0:
            return f"{self.configuration} below {self.high:.4g}"
        if math.isinf(self.high):
            return f"{self.configuration} above {self.low:.4g}"
        return f"{self.configuration} from {self.low:.4g} to {self.high:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """A configuration against standalone.

    Attributes:
        even: on which side of which intensity it pays, at the declared values.
        savings: share of standalone's carbon saved at each of `INTENSITIES`, with its interval.
    """

    even: BreakEven
    savings: tuple[SavingRange | Undefined, ...]

    @property
    def pays(self) -> str:
        """Where it pays, for people."""
        return self.even.pays.value + ("" if self.even.intensity is None else f" {self.even.intensity:.3g}")

    @property
    def depends(self) -> str:
        """What its saving at the middle intensity depends on."""
        middle = self.savings[len(self.savings) // 2]
        return middle.notes if isinstance(middle, SavingRange) else ""

    def __str__(self) -> str:
        return f"pays {self.pays} ({' / '.join(map(str, self.savings))})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One condition of the sweep.

    Attributes:
        size: name of the size bucket.
        prompt_tokens: its longest prompt.
        qps: requests per second.
        bandwidth: bytes per second between the devices.
        conditions: what else was varied for all configurations alike.
        slo: latency targets that requests had to meet.
        accounting: which time is charged.
        new_years: lifetime of the new device.
        old_years: lifetime of the old one.
        ranges: which emits least where, from 0 g/kWh on, at the declared values; empty where none is feasible.
        published: the same without `spec-local`, which the published comparison does not have.
        against: every other feasible configuration against standalone; empty where that is not feasible.
        considered: every configuration, with its attainment, or the reason why it is not feasible.
    """

    size: str
    prompt_tokens: int
    qps: float
    bandwidth: float
    conditions: tuple[tuple[str, str], ...]
    slo: Slo
    accounting: Accounting
    new_years: float
    old_years: float
    ranges: tuple[Range, ...]
    published: tuple[Range, ...]
    against: Mapping[str, Against]
    considered: Mapping[str, Candidate]

    @property
    def rejected(self) -> dict[str, str]:
        """Configurations that are not feasible, with the reason."""
        return {name: one.rejected for name, one in self.considered.items() if one.rejected}


INTENSITIES: Final = (17.0, 261.0, 501.0)
"""Grids that savings are told for, in g/kWh; a recollection of the paper's, not verified."""
FALLBACK: Final = Slo(15.0, 0.15)
"""Latency targets of rows that were stored without any: those that serving papers take for LongBench."""


def envelope(lines: Mapping[str, tuple[float, float]]) -> tuple[Range, ...]:
    """The least of lines slope x + intercept, for x from 0 on; among equals `standalone`, then the name decides.

    Args:
        lines: (slope, intercept) by name.
    """
    if not lines:
        return ()

    def rank(name: str) -> tuple[float, float, bool, str]:
        slope, intercept = lines[name]
        return intercept, slope, name != BASELINE, name

    here = min(lines, key=rank)
    low = 0.0
    found: list[Range] = []
    while True:
        slope, intercept = lines[here]
        crossings = [
            ((other[1] - intercept) / (slope - other[0]), other[0], name != BASELINE, name)
            for name, other in lines.items()
            if other[0] < slope
        ]
        if not crossings:
            return (*found, Range(low, math.inf, here))
        high, _, _, following = min(crossings)
        high = max(high, low)
        if high > low:
            found.append(Range(low, high, here))
        low, here = high, following


def sweep(table: ProfileTable, slo: Slo | None = None, years: Iterable[tuple[float, float]] = YEARS) -> list[Cell]:
    """Every condition, size, rate and bandwidth of the table under both accountings and all lifetimes.

    The latency targets are those that each row was made for, unless `slo` says others.
    """
    lifetimes = tuple(years)
    found = []
    for conditions, part in by_conditions(table).items():
        stored = next((row.slo for row in part.rows if row.slo is not None), None)
        targets = slo or (Slo(*stored) if stored is not None else FALLBACK)
        for longest, size, qps in sorted({(row.prompt_tokens, row.size, row.qps) for row in part.rows}):
            rows = [row for row in part.rows if (row.size, row.qps) == (size, qps)]
            for bandwidth in sorted({row.bandwidth for row in rows if row.bandwidth is not None}) or [0.0]:
                demand = Demand(
                    prompt_tokens=longest,
                    size=size,
                    qps=qps,
                    slo=targets,
                    bandwidth=bandwidth,
                    intensity=0.0,
                    lifetimes_s={},
                )
                here = ProfileTable(part.key, tuple(row for row in rows if row.bandwidth in {None, bandwidth}))
                found += [
                    _cell(here, demand, conditions, accounting, pair)
                    for accounting in (Accounting.RESERVED, Accounting.BUSY)
                    for pair in lifetimes
                ]
    return found


def _cell(
    table: ProfileTable,
    demand: Demand,
    conditions: tuple[tuple[str, str], ...],
    accounting: Accounting,
    years: tuple[float, float],
) -> Cell:
    lifetimes_s = {"new": years[0] * SECONDS_PER_YEAR, "old": years[1] * SECONDS_PER_YEAR}
    demand = replace(demand, lifetimes_s=lifetimes_s, accounting=accounting)
    found = {short(one): one for one in candidates(table, demand)}
    lines = {name: line for name, one in found.items() if not one.rejected and (line := line_of(one)) is not None}
    return Cell(
        size=demand.size,
        prompt_tokens=demand.prompt_tokens,
        qps=demand.qps,
        bandwidth=demand.bandwidth,
        conditions=conditions,
        slo=demand.slo,
        accounting=accounting,
        new_years=years[0],
        old_years=years[1],
        ranges=envelope(lines),
        published=envelope({name: line for name, line in lines.items() if not name.startswith("spec-local")}),
        against=_all_against(table, demand, lines) if BASELINE in lines else {},
        considered=found,
    )


def _all_against(table: ProfileTable, demand: Demand, lines: Mapping[str, tuple[float, float]]) -> dict[str, Against]:
    savings: dict[str, list[SavingRange | Undefined]] = {name: [] for name in lines if name != BASELINE}
    for intensity in INTENSITIES:
        at = {short(one): one for one in candidates(table, replace(demand, intensity=intensity))}
        for name, told in savings.items():
            told.append(saving_range(at[name].terms, at[BASELINE].terms))
    return {name: Against(even=_even(lines[BASELINE], lines[name]), savings=tuple(savings[name])) for name in savings}


def line_of(one: Candidate) -> tuple[float, float] | None:
    """Energy of a request in kWh and its embodied carbon in g: carbon as a line over the intensity."""
    if isinstance(one.energy_j, Unavailable) or isinstance(one.cost, Unavailable):
        return None
    return kwh(one.energy_j), one.cost.embodied_g


def short(one: Candidate) -> str:
    """Configuration, the old device where one is held, and what else makes it."""
    held = f"{one.configuration} with {one.old}" if one.old else one.configuration
    return ", ".join([held, *(f"{name} {value}" for name, value in one.settings)])


def _even(base: tuple[float, float], other: tuple[float, float]) -> BreakEven:
    """Both as (kWh, g embodied) of a request."""
    return break_even((base[0] - other[0]) * JOULES_PER_KWH, other[1] - base[1])
