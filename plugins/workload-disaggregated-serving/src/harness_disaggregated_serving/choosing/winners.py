"""For which grid intensities and lifetimes each configuration wins: the lower envelope of straight lines, exactly.

Carbon of a request is a line in the intensity: its slope the energy, its intercept the embodied carbon. So the ranges
are found in closed form from stored profile rows, without a grid of intensities and without another run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.quantity import Unavailable, Undefined
from harness.units import JOULES_PER_KWH, kwh
from harness_disaggregated_serving.carbon.accounting import SECONDS_PER_YEAR, Accounting, BreakEven, break_even, saving
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


@dataclass(frozen=True, slots=True)
class Against:
    """A configuration against standalone.

    Attributes:
        even: on which side of which intensity it pays.
        saving: share of standalone's carbon saved at each of `INTENSITIES`, with its sign.
    """

    even: BreakEven
    saving: tuple[float, ...]

    def __str__(self) -> str:
        side = (
            self.even.pays.value if self.even.intensity is None else f"{self.even.pays.value} {self.even.intensity:.3g}"
        )
        return f"pays {side} ({' / '.join(f'{value:+.1%}' for value in self.saving)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One condition of the sweep.

    Attributes:
        prompt_tokens: size bucket.
        qps: requests per second.
        bandwidth: bytes per second between the devices.
        accounting: which time is charged.
        new_years: lifetime of the new device.
        old_years: lifetime of the old one.
        ranges: who wins where, from 0 g/kWh on; empty where no configuration is feasible.
        published: the same without `spec-local`, which the published comparison does not have.
        against: every other feasible configuration against standalone; empty where that is not feasible.
        rejected: configurations that are not feasible, with the reason.
    """

    prompt_tokens: int
    qps: float
    bandwidth: float
    accounting: Accounting
    new_years: float
    old_years: float
    ranges: tuple[Range, ...]
    published: tuple[Range, ...]
    against: Mapping[str, Against]
    rejected: Mapping[str, str]


INTENSITIES: Final = (17.0, 261.0, 501.0)
"""Grids that savings are told for, in g/kWh; a recollection of the paper's, not verified."""


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


def sweep(table: ProfileTable, slo: Slo, years: Iterable[tuple[float, float]] = YEARS) -> list[Cell]:
    """Every size, rate and bandwidth of the table under both accountings and all lifetimes."""
    sizes = sorted({row.prompt_tokens for row in table.rows})
    rates = sorted({row.qps for row in table.rows})
    links = sorted({row.bandwidth for row in table.rows if row.bandwidth is not None}) or [0.0]
    return [
        _cell(table, slo, size, qps, bandwidth, accounting, pair)
        for size in sizes
        for qps in rates
        for bandwidth in links
        for accounting in (Accounting.RESERVED, Accounting.BUSY)
        for pair in years
    ]


def _cell(
    table: ProfileTable,
    slo: Slo,
    size: int,
    qps: float,
    bandwidth: float,
    accounting: Accounting,
    years: tuple[float, float],
) -> Cell:
    demand = Demand(
        prompt_tokens=size,
        qps=qps,
        slo=slo,
        bandwidth=bandwidth,
        intensity=0.0,
        lifetimes_s={"new": years[0] * SECONDS_PER_YEAR, "old": years[1] * SECONDS_PER_YEAR},
        accounting=accounting,
    )
    found = candidates(table, demand)
    lines = {short(one): line for one in found if not one.rejected and (line := _line(one)) is not None}
    return Cell(
        prompt_tokens=size,
        qps=qps,
        bandwidth=bandwidth,
        accounting=accounting,
        new_years=years[0],
        old_years=years[1],
        ranges=envelope(lines),
        published=envelope({name: line for name, line in lines.items() if name != "spec-local"}),
        against={name: _against(lines[BASELINE], line) for name, line in lines.items() if name != BASELINE}
        if BASELINE in lines
        else {},
        rejected={short(one): one.rejected for one in found if one.rejected},
    )


def _line(one: Candidate) -> tuple[float, float] | None:
    if isinstance(one.energy_j, Unavailable) or isinstance(one.cost, Unavailable):
        return None
    return kwh(one.energy_j), one.cost.embodied_g


def short(one: Candidate) -> str:
    """Configuration, and the old device where one is held."""
    return f"{one.configuration} with {one.old}" if one.old else one.configuration


def _against(base: tuple[float, float], other: tuple[float, float]) -> Against:
    """Both as (kWh, g embodied) of a request."""
    saved_j, added_g = (base[0] - other[0]) * JOULES_PER_KWH, other[1] - base[1]
    savings = []
    for intensity in INTENSITIES:
        found = saving(base[0] * intensity + base[1], other[0] * intensity + other[1])
        assert not isinstance(found, Undefined)
        savings.append(found)
    return Against(break_even(saved_j, added_g), tuple(savings))


def as_text(cells: Sequence[Cell], *, title: str, notes: Sequence[str] = ()) -> str:
    """A Markdown table: who wins where, and each configuration against standalone, with the saving's sign."""
    grids = " / ".join(f"{intensity:g}" for intensity in INTENSITIES)
    lines = [f"# {title}", "", *(f"- {note}" for note in notes)]
    lines += [
        "- wins: the configuration of least carbon, by grid intensity in g/kWh; lifetimes are in years",
        f"- against standalone: on which side of which intensity it pays, and its saving at {grids} g/kWh",
        "",
        "| QPS | Gbit/s | accounting | new, old | wins | wins, spec-local left out | against standalone |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        won = ["; ".join(map(str, ranges)) or "none is feasible" for ranges in (cell.ranges, cell.published)]
        against = "; ".join(f"{name} {found}" for name, found in cell.against.items()) or "not comparable"
        lines.append(
            f"| {cell.qps:g} | {cell.bandwidth * 8 / 1e9:g} | {cell.accounting.value} | "
            f"{cell.new_years:g}, {cell.old_years:g} | {won[0]} | {won[1]} | {against} |"
        )
    reasons = {
        f"- {name} at QPS {cell.qps:g}, {cell.bandwidth * 8 / 1e9:g} Gbit/s: {reason}"
        for cell in cells
        for name, reason in cell.rejected.items()
    }
    if reasons:
        lines += ["", "Not feasible:", "", *sorted(reasons)]
    return "\n".join(lines) + "\n"
