"""A day replayed: what the online scheduler runs and emits, and what each configuration alone would have emitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.quantity import Unavailable, Undefined
from harness.units import kwh
from harness_disaggregated_serving.choosing.interval import Ends, SavingRange, Terms, saving_range
from harness_disaggregated_serving.choosing.pooling import added, scaled
from harness_disaggregated_serving.choosing.profile_table import ProfiledDevice, ProfileTable
from harness_disaggregated_serving.choosing.scheduler import (
    BASELINE,
    Candidate,
    Demand,
    Hysteresis,
    OnlineScheduler,
    Step,
    candidates,
)
from harness_disaggregated_serving.online.day import Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One interval of the day.

    Attributes:
        moment: when, how long, at which rate and intensity.
        step: what the scheduler observed and decided.
        requests: that were due in it.
        carbon_g: of what ran; Unavailable where its carbon is not known.
        start_up_g: of it, what a switch cost.
        baseline_g: of standalone in its place; Unavailable where that cannot hold the load.
        best_g: of the cheapest feasible configuration, without hysteresis and start-up.
    """

    moment: Moment
    step: Step
    requests: float
    carbon_g: float | Unavailable
    start_up_g: float
    baseline_g: float | Unavailable
    best_g: float | Unavailable


@dataclass(slots=True)
class Replay:
    """A whole day.

    Attributes:
        intervals: in order of time.
        terms: carbon of the day by declared number, of each seed, by what ran: `online`, and each configuration alone.
        broken: configurations that could not have served the whole day, with the reason.
        devices: what every device did in what ran.
    """

    intervals: list[Interval] = field(default_factory=list)
    terms: dict[str, tuple[Terms, ...]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    devices: tuple[ProfiledDevice, ...] = ()

    @property
    def switches(self) -> int:
        """Changes of what runs, the first choice left out."""
        return sum(one.step.switched for one in self.intervals[1:])

    def saving_against(self, name: str) -> SavingRange | Undefined:
        """What the scheduler saved against a configuration that runs all day."""
        if name in self.broken:
            return Undefined(f"{name} cannot serve the whole day: {self.broken[name]}")
        if name not in self.terms or "online" not in self.terms:
            return Undefined(f"nothing is known of {name} over the day")
        return saving_range(self.terms["online"], self.terms[name])


def replay(
    table: ProfileTable, day: Sequence[Moment], demand: Demand, hysteresis: Hysteresis, start_up_s: float
) -> Replay:
    """Replays a day; `demand` says everything but rate and intensity.

    Hardware is charged as `demand` says, in proportion to the requests that are due.
    """
    scheduler = OnlineScheduler(table, hysteresis)
    found = Replay()
    for moment in day:
        asked = replace(demand, qps=moment.qps, intensity=moment.intensity)
        step = scheduler.observe(moment.at_s, asked)
        found.intervals.append(_interval(found, moment, step, start_up_s if found.intervals else 0.0))
        for one in candidates(table, asked):
            if one.rejected:
                found.broken.setdefault(one.name, one.rejected)
            else:
                _book(found, one.name, one.terms, moment.qps * moment.lasts_s)
    return found


def _interval(found: Replay, moment: Moment, step: Step, start_up_s: float) -> Interval:
    requests = moment.qps * moment.lasts_s
    running = step.decision.of(step.running)
    extra: dict[str, Ends] = {}
    carbon: float | Unavailable = Unavailable("nothing runs")
    if running is not None and isinstance(running.cost, Unavailable):
        carbon = Unavailable(running.cost.reason)
    elif running is not None:
        found.devices = added(found.devices, scaled(running.devices, requests))
        if step.switched:
            extra = _start_up(running, moment.intensity, start_up_s)
            found.devices = added(found.devices, _waiting(running, start_up_s))
        _book(found, "online", running.terms, requests)
        _book(found, "online", tuple(extra for _ in running.terms), 1.0)
        carbon = running.total_g * requests + sum(ends[1] for ends in extra.values())
    feasible = [one for one in step.decision.considered if not one.rejected]
    base = next((one for one in feasible if one.configuration == BASELINE), None)
    best = min(feasible, key=lambda one: one.total_g, default=None)
    return Interval(
        moment=moment,
        step=step,
        requests=requests,
        carbon_g=carbon,
        start_up_g=sum(ends[1] for ends in extra.values()),
        baseline_g=Unavailable("standalone cannot hold the load") if base is None else base.total_g * requests,
        best_g=Unavailable("nothing can hold the load") if best is None else best.total_g * requests,
    )


def _start_up(running: Candidate, intensity: float, start_up_s: float) -> dict[str, Ends]:
    """Carbon of the devices of a configuration that waits before it serves, by the declared number behind it."""
    scale = kwh(1.0) * intensity * start_up_s
    found: dict[str, Ends] = {}
    for device in running.devices:
        name, (low, value, high) = device.waiting_w()
        found[name] = (low * scale, value * scale, high * scale)
    return found


def _waiting(running: Candidate, start_up_s: float) -> tuple[ProfiledDevice, ...]:
    return tuple(
        replace(
            device,
            energy_busy_j=0.0,
            energy_idle_j=device.waiting_w()[1][1] * start_up_s,
            busy_s=0.0,
            reserved_s=start_up_s,
            phases=(),
        )
        for device in running.devices
    )


def _book(found: Replay, name: str, terms: Sequence[Mapping[str, Ends]], factor: float) -> None:
    """Adds terms to those of a name, of each seed."""
    known = found.terms.get(name) or tuple({} for _ in terms)
    summed = []
    for before, more in zip(known, terms, strict=True):
        both = dict(before)
        for key, (low, value, high) in more.items():
            old = both.get(key, (0.0, 0.0, 0.0))
            both[key] = (old[0] + low * factor, old[1] + value * factor, old[2] + high * factor)
        summed.append(both)
    found.terms[name] = tuple(summed)
