"""Which configuration to run: the least carbon among those that meet the latency targets and fit the bandwidth.

Pure functions of a profile table and a demand, and an online form that is told the time and keeps what it decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness.errors import UsageError
from harness.quantity import Unavailable
from harness.units import kwh
from harness_disaggregated_serving.carbon.accounting import Accounting, Footprint
from harness_disaggregated_serving.choosing.interval import Terms
from harness_disaggregated_serving.choosing.interval import mixed as mixed_terms
from harness_disaggregated_serving.choosing.pooling import a_request, added, scaled
from harness_disaggregated_serving.choosing.profile_table import ProfiledDevice, ProfileRow, ProfileTable
from harness_disaggregated_serving.load.slo import Slo

BASELINE: Final = "standalone"
TIE: Final = 1e-12
"""Costs closer than this, relative, are equal: they differ by rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is to be served, and under which conditions.

    Attributes:
        prompt_tokens: input length.
        qps: requests per second.
        slo: latency targets.
        bandwidth: bytes per second available between the devices.
        intensity: of the grid, g/kWh.
        lifetimes_s: by role, `new` and `old`.
        accounting: which time is charged.
        attainment: share of requests that must meet both targets.
        size: name of the size bucket; any that `prompt_tokens` fit into if empty.
    """

    prompt_tokens: int
    qps: float
    slo: Slo
    bandwidth: float
    intensity: float
    lifetimes_s: Mapping[str, float]
    accounting: Accounting = Accounting.RESERVED
    attainment: float = 0.9
    size: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A configuration at a demand, between two QPS points where both are feasible.

    Attributes:
        configuration: its name.
        new: the new device.
        old: the old one, where it is held.
        attainment: served share; 0 where there is no result.
        needed_bandwidth: bytes per second.
        cost: carbon of one request, or why there is none.
        energy_j: energy of one request.
        rejected: why it is not feasible; empty where it is.
        fits: whether the bandwidth suffices.
        settings: what else makes the configuration (`gamma`, `draft`).
        terms: carbon of one request by declared number, of each seed.
        error: half width of the attainment's 95 % interval; NaN where it is not known.
        new_charged_s: seconds of the new device that a request is charged for.
        devices: what each held device does for one request.
    """

    configuration: str
    new: str
    old: str
    attainment: float
    needed_bandwidth: float
    cost: Footprint | Unavailable
    energy_j: float | Unavailable
    rejected: str = ""
    fits: bool = True
    settings: tuple[tuple[str, str], ...] = ()
    terms: tuple[Terms, ...] = ()
    error: float = math.nan
    new_charged_s: float = 0.0
    devices: tuple[ProfiledDevice, ...] = ()

    @property
    def total_g(self) -> float:
        """Carbon of one request; infinite where it is not known, so that it never wins."""
        return math.inf if isinstance(self.cost, Unavailable) else self.cost.total_g

    @property
    def name(self) -> str:
        """Configuration and devices."""
        extras = "".join(f", {name} {value}" for name, value in self.settings)
        return f"{self.configuration} on {self.new}" + (f" and {self.old}" if self.old else "") + extras


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The choice, with every row considered.

    Attributes:
        chosen: what to run; Unavailable beyond the grid.
        infeasible: no row meets the targets; `chosen` is the one with the best attainment.
        considered: all candidates, with their cost or the reason for their rejection.
    """

    chosen: Candidate | Unavailable
    infeasible: bool
    considered: tuple[Candidate, ...]

    def of(self, name: str) -> Candidate | None:
        """The candidate of a name."""
        return next((one for one in self.considered if one.name == name), None)


def decide(table: ProfileTable, demand: Demand) -> Decision:
    """The rules, in order: feasible, cheapest, `standalone` among equals, best attainment where none is feasible.

    Where none is feasible, a row that does not fit the bandwidth comes after all that do: it could not run.
    """
    considered = candidates(table, demand)
    known = [one for one in considered if not math.isnan(one.attainment)]
    if not known:
        reasons = "; ".join(dict.fromkeys(one.rejected for one in considered)) or "the table has no row"
        return Decision(chosen=Unavailable(reasons), infeasible=False, considered=considered)
    feasible = [one for one in known if not one.rejected]
    if feasible:
        least = min(one.total_g for one in feasible)
        equal = [one for one in feasible if one.total_g <= least * (1 + TIE)]
        return Decision(chosen=_first(equal), infeasible=False, considered=considered)
    fitting = [one for one in known if one.fits] or known
    best = max(one.attainment for one in fitting)
    equal = [one for one in fitting if one.attainment == best]
    least = min(one.total_g for one in equal)
    cheapest = [one for one in equal if one.total_g <= least * (1 + TIE)]
    return Decision(chosen=_first(cheapest), infeasible=True, considered=considered)


def _first(equal: list[Candidate]) -> Candidate:
    return min(equal, key=lambda one: (one.configuration != BASELINE, one.name))


def candidates(table: ProfileTable, demand: Demand) -> tuple[Candidate, ...]:
    """Every configuration and pair of devices of the table at a demand."""
    _checked(demand)
    groups: dict[tuple[object, ...], list[ProfileRow]] = {}
    for row in table.rows:
        if not demand.size or row.size == demand.size:
            groups.setdefault((row.configuration, row.new, row.old, row.settings), []).append(row)
    if len({row.conditions for rows in groups.values() for row in rows}) > 1:
        raise UsageError("the table holds rows of several conditions", accepted="`by_conditions`, one at a time")
    return tuple(_at(rows, demand) for rows in groups.values())


def _checked(demand: Demand) -> None:
    rules = (
        ("rate", demand.qps, 0 < demand.qps < math.inf, "requests/s above 0"),
        ("bandwidth", demand.bandwidth, 0 <= demand.bandwidth < math.inf, "B/s, 0 or more"),
        ("grid intensity", demand.intensity, 0 <= demand.intensity < math.inf, "g/kWh, 0 or more"),
        ("attainment", demand.attainment, 0 <= demand.attainment <= 1, "a share of the requests, 0 to 1: 0.9 or 90%"),
        ("prompt", demand.prompt_tokens, demand.prompt_tokens >= 1, "tokens, at least 1"),
    )
    lives = [(f"life of the {role} device", s, 0 < s < math.inf, "s above 0") for role, s in demand.lifetimes_s.items()]
    for what, value, holds, accepted in (*rules, *lives):
        if not holds:
            raise UsageError(f"the {what} is {value:g}", accepted=accepted)


def _at(rows: list[ProfileRow], demand: Demand) -> Candidate:
    """One configuration at a demand: its size bucket, then its QPS points. Never beyond the grid."""
    one = rows[0]
    buckets = sorted({row.prompt_tokens for row in rows if row.prompt_tokens >= demand.prompt_tokens})
    if not buckets:
        longest = max(row.prompt_tokens for row in rows)
        return _nothing(one, f"no profile of {demand.prompt_tokens} prompt tokens: the longest is {longest}")
    bucket = [row for row in rows if row.prompt_tokens == buckets[0]]
    points = sorted({row.qps for row in bucket})
    if not points[0] <= demand.qps <= points[-1]:
        return _nothing(one, f"QPS {demand.qps:g} lies beyond the profile of {points[0]:g} to {points[-1]:g}")
    above = min(point for point in points if point >= demand.qps)
    upper = _cell([row for row in bucket if row.qps == above], demand)
    if above == demand.qps:
        return upper
    below = max(point for point in points if point < demand.qps)
    lower = _cell([row for row in bucket if row.qps == below], demand)
    if lower.rejected or upper.rejected:
        return upper
    return _between(lower, upper, (demand.qps - below) / (above - below))


def _nothing(row: ProfileRow, reason: str) -> Candidate:
    return Candidate(
        configuration=row.configuration,
        new=row.new,
        old=row.old,
        attainment=math.nan,
        needed_bandwidth=0.0,
        cost=Unavailable(reason),
        energy_j=Unavailable(reason),
        rejected=reason,
        settings=row.settings,
    )


def _cell(rows: list[ProfileRow], demand: Demand) -> Candidate:
    """One QPS point: the row that was profiled at the most bandwidth that is there."""
    usable = [row for row in rows if row.bandwidth is None or row.bandwidth <= demand.bandwidth]
    row = max(usable or rows, key=lambda one: (one.bandwidth or 0.0) * (1 if usable else -1))
    if row.failure:
        return _nothing(row, row.failure)
    attainment, error = row.attained_with_error(demand.slo)
    cost = row.cost(demand.intensity, demand.lifetimes_s, demand.accounting)
    reasons = []
    if row.overloaded:
        reasons.append(row.overloaded)
    if attainment < demand.attainment:
        reasons.append(f"{attainment:.4g} of the requests meet the targets, {demand.attainment:g} must")
    fits = bool(usable) and row.needed_bandwidth <= demand.bandwidth
    if not usable:
        reasons.append(f"profiled at {row.bandwidth:g} B/s or more, {demand.bandwidth:g} B/s are there")
    elif not fits:
        reasons.append(f"needs {row.needed_bandwidth:g} B/s, {demand.bandwidth:g} B/s are there")
    if isinstance(cost, Unavailable):
        reasons.append(f"its carbon is not known: {cost.reason}")
    return Candidate(
        configuration=row.configuration,
        new=row.new,
        old=row.old,
        attainment=attainment,
        needed_bandwidth=row.needed_bandwidth,
        cost=cost,
        energy_j=row.energy_per_request_j,
        rejected="; ".join(reasons),
        fits=fits,
        settings=row.settings,
        terms=row.terms(demand.intensity, demand.lifetimes_s, demand.accounting),
        error=error,
        new_charged_s=row.charged_s("new", demand.accounting),
        devices=a_request(row),
    )


def _between(lower: Candidate, upper: Candidate, weight: float) -> Candidate:
    """A feasible candidate between two feasible ones, linear in QPS."""
    assert isinstance(lower.cost, Footprint)
    assert isinstance(upper.cost, Footprint)
    assert not isinstance(lower.energy_j, Unavailable)
    assert not isinstance(upper.energy_j, Unavailable)

    def mixed(one: float, two: float) -> float:
        return one + (two - one) * weight

    return Candidate(
        configuration=upper.configuration,
        new=upper.new,
        old=upper.old,
        attainment=mixed(lower.attainment, upper.attainment),
        needed_bandwidth=mixed(lower.needed_bandwidth, upper.needed_bandwidth),
        cost=Footprint(
            operational_g=mixed(lower.cost.operational_g, upper.cost.operational_g),
            embodied_g=mixed(lower.cost.embodied_g, upper.cost.embodied_g),
            accounting=upper.cost.accounting,
        ),
        energy_j=mixed(lower.energy_j, upper.energy_j),
        settings=upper.settings,
        terms=mixed_terms(lower.terms, upper.terms, weight),
        error=max(lower.error, upper.error),
        new_charged_s=mixed(lower.new_charged_s, upper.new_charged_s),
        devices=added(scaled(lower.devices, 1 - weight), scaled(upper.devices, weight)),
    )


def flip_intensity(one: Candidate, two: Candidate) -> float | None:
    """Intensity at which two candidates cost the same: embodied difference over energy difference; None where none."""
    if isinstance(one.cost, Unavailable) or isinstance(two.cost, Unavailable):
        return None
    if isinstance(one.energy_j, Unavailable) or isinstance(two.energy_j, Unavailable) or one.energy_j == two.energy_j:
        return None
    found = (two.cost.embodied_g - one.cost.embodied_g) / kwh(one.energy_j - two.energy_j)
    return found if found >= 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hysteresis:
    """How much better another configuration must be before a running one is left.

    Attributes:
        margin: share of the running configuration's carbon that must be saved.
        dwell_s: shortest time between two changes for the sake of carbon. Missed targets are left at once.
    """

    margin: float = 0.05
    dwell_s: float = 300.0

    def __post_init__(self) -> None:
        if not (0 <= self.margin < 1 and self.dwell_s >= 0):
            raise UsageError(
                f"the hysteresis is {self.margin} and {self.dwell_s} s", accepted="a share below 1, and 0 s or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One observation of the online scheduler.

    Attributes:
        at_s: when, on the caller's clock.
        demand: what it was told.
        decision: what the rules say.
        running: name of what runs from now on; empty where nothing does yet.
        switched: whether that is a change.
        reason: why it was changed or kept.
    """

    at_s: float
    demand: Demand
    decision: Decision
    running: str
    switched: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """JSON values for a record; what is not a number is None."""
        chosen = self.decision.chosen
        return {
            "at_s": self.at_s,
            "qps": self.demand.qps,
            "intensity_g_per_kwh": self.demand.intensity,
            "bandwidth_bytes_per_s": self.demand.bandwidth,
            "accounting": self.demand.accounting.value,
            "chosen": chosen.name if isinstance(chosen, Candidate) else None,
            "unavailable": chosen.reason if isinstance(chosen, Unavailable) else "",
            "infeasible": self.decision.infeasible,
            "running": self.running,
            "switched": self.switched,
            "reason": self.reason,
            "considered": [
                {
                    "name": one.name,
                    "attainment": None if math.isnan(one.attainment) else one.attainment,
                    "needed_bandwidth": one.needed_bandwidth,
                    "carbon_g": None if isinstance(one.cost, Unavailable) else one.cost.total_g,
                    "rejected": one.rejected,
                }
                for one in self.decision.considered
            ],
        }


class OnlineScheduler:
    """Decides again whenever it is told of another load, intensity or bandwidth; reads no clock."""

    def __init__(self, table: ProfileTable, hysteresis: Hysteresis | None = None) -> None:
        self._table = table
        self._hysteresis = hysteresis or Hysteresis()
        self._running = ""
        self._changed_s = -math.inf
        self.steps: list[Step] = []
        """Every observation, in order."""

    def observe(self, at_s: float, demand: Demand) -> Step:
        """Takes a demand in and says what runs from now on; raises UsageError where time goes back."""
        if self.steps and at_s < self.steps[-1].at_s:
            raise UsageError(f"an observation at {at_s} s after one at {self.steps[-1].at_s} s", accepted="later times")
        decision = decide(self._table, demand)
        wanted, reason = self._wanted(at_s, decision)
        switched = wanted != self._running
        if switched:
            self._running, self._changed_s = wanted, at_s
        step = Step(at_s=at_s, demand=demand, decision=decision, running=wanted, switched=switched, reason=reason)
        self.steps.append(step)
        return step

    def _wanted(self, at_s: float, decision: Decision) -> tuple[str, str]:
        chosen = decision.chosen
        if isinstance(chosen, Unavailable):
            return self._running, f"kept: {chosen.reason}"
        running = decision.of(self._running)
        if running is None:
            return chosen.name, "nothing of the table was running"
        if chosen.name == running.name:
            return running.name, "kept: the rules choose it"
        if running.rejected:
            return chosen.name, f"left at once: {running.rejected}"
        saved = 1 - chosen.total_g / running.total_g if running.total_g > 0 else 0.0
        if saved <= self._hysteresis.margin:
            return (
                running.name,
                f"kept: {chosen.name} saves {saved:.2%}, no more than the margin",
            )
        stayed_s = at_s - self._changed_s
        if stayed_s < self._hysteresis.dwell_s:
            return running.name, f"kept: it has run for {stayed_s:g} s of at least {self._hysteresis.dwell_s:g} s"
        return chosen.name, f"saves {saved:.2%}"
