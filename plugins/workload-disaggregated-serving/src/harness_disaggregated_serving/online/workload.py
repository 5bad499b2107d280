"""Workload `greenllm-online`: profiles are simulated or a user's, then a day is replayed. Every number is simulated.

A window is one day on the simulated clock; its rows are the intervals. Beside them a trial leaves `greenllm-online.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.errors import MeasurementError, UsageError
from harness.quantity import Unavailable, Undefined
from harness.workload import TrialContext, Window, Workload
from harness_disaggregated_serving.carbon.accounting import SECONDS_PER_YEAR, Accounting
from harness_disaggregated_serving.choosing.interval import SavingRange
from harness_disaggregated_serving.choosing.profile_files import read_profiles
from harness_disaggregated_serving.choosing.profile_table import ProfileTable
from harness_disaggregated_serving.choosing.scheduler import Demand, Hysteresis
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.slo import targets
from harness_disaggregated_serving.online.day import Moment, read_day, synthetic
from harness_disaggregated_serving.online.options import OnlineOptions
from harness_disaggregated_serving.online.replay import Interval, Replay, replay
from harness_disaggregated_serving.simulator.grid import profiled
from harness_disaggregated_serving.simulator.setup import LABEL
from harness_disaggregated_serving.traffic import BYTES_PER_S_PER_GBIT_S

TABLE_FILE: Final = "greenllm-online.md"
"""Name of a trial's side-car."""


def profiles_of(options: OnlineOptions) -> ProfileTable:
    """The table that the scheduler decides by."""
    if options.profiles is not None:
        return read_profiles(Path(options.profiles))
    slo = targets(options.slo)
    common: dict[str, Any] = {
        "sizes": options.sizes,
        "link": {"bandwidth_gbit_s": options.bandwidth_gbit_s},
        "slo": {"ttft": slo.ttft_s, "tpot": slo.tpot_s},
        "requests": min(1000, options.requests),
        "most_requests": options.requests,
    }
    devices, kinds = [options.new, *options.old], [Configuration(name) for name in options.configurations]
    return profiled(devices, sorted(options.rates), common, 1, first_seed=options.seed, configurations=kinds)


def day_of(options: OnlineOptions, table: ProfileTable) -> list[Moment]:
    """The day; raises UsageError where its rates lie beyond the profiles."""
    rates = {row.qps for row in table.rows}
    day = synthetic(min(rates), max(rates)) if options.day is None else read_day(Path(options.day))
    beyond = [moment.qps for moment in day if not min(rates) <= moment.qps <= max(rates)]
    if beyond:
        accepted = f"rates within the profiles: {min(rates):g} to {max(rates):g}"
        raise UsageError(f"the day has {beyond[0]:g} requests/s", accepted=accepted)
    return day


def demand_of(options: OnlineOptions) -> Demand:
    """What is to be served, without rate and intensity."""
    return Demand(
        prompt_tokens=1,
        size=options.sizes,
        qps=1.0,
        slo=targets(options.slo),
        bandwidth=options.bandwidth_gbit_s * BYTES_PER_S_PER_GBIT_S,
        intensity=0.0,
        lifetimes_s={"new": options.new_life * SECONDS_PER_YEAR, "old": options.old_life * SECONDS_PER_YEAR},
        accounting=Accounting(options.accounting),
        attainment=options.attainment,
    )


class Online(Workload):
    """One day."""

    def __init__(self, options: OnlineOptions) -> None:
        self._options = options
        self._table: ProfileTable | None = None
        self._day: list[Moment] = []
        self._folder: Path | None = None
        self._replay = Replay()

    def prepare(self, context: TrialContext) -> None:
        """Profiles every configuration; raises MeasurementError where no row has the sizes that are asked for."""
        self._options = self._options.model_copy(update={"seed": self._options.seed + context.seed})
        self._table = profiles_of(self._options)
        named_sizes = {row.size for row in self._table.rows}
        if self._options.sizes not in named_sizes:
            raise MeasurementError(f"no profile of sizes {self._options.sizes!r}", accepted=", ".join(named_sizes))
        self._day = day_of(self._options, self._table)
        self._folder = context.folder

    def step(self, window: Window) -> None:
        """One day."""
        self.run(window)

    def run(self, window: Window) -> None:
        """One day fills a window, however long it takes here."""
        assert self._table is not None
        rules = self._options.hysteresis
        hysteresis = Hysteresis(margin=rules.margin, dwell_s=rules.dwell)
        found = self._replay = replay(self._table, self._day, demand_of(self._options), hysteresis, rules.start_up)
        for number, one in enumerate(found.intervals):
            served = not isinstance(one.carbon_g, Unavailable)
            window.item(f"{number}", status="ok" if served else "failed", **_columns(one))
        length_s = sum(moment.lasts_s for moment in self._day)
        window.simulated_duration(length_s)
        for device in found.devices:
            reserved_s = min(device.reserved_s, length_s)
            busy_s = min(device.busy_s, reserved_s)
            scale = busy_s / device.busy_s if device.busy_s else 0.0
            window.device(
                device.name,
                role=device.role,
                busy_s=busy_s,
                reserved_s=reserved_s,
                stands_for=device.name,
                phases={phase: seconds * scale for phase, seconds in device.phases},
            )
        if window.index >= 0 and self._folder is not None:
            (self._folder / TABLE_FILE).write_text(as_text(found), encoding="utf-8")

    def facts(self) -> Mapping[str, object]:
        """What the day came to."""
        found = self._replay
        return {
            "method": LABEL,
            "switches": found.switches,
            "saving": {name: _fact(found.saving_against(name)) for name in sorted(set(found.terms) - {"online"})},
            "cannot_serve_the_day": dict(found.broken),
            "steps": [one.step.to_json() for one in found.intervals if one.step.switched],
        }


def _fact(saving: SavingRange | Undefined) -> dict[str, object]:
    if isinstance(saving, Undefined):
        return {"undefined": saving.reason}
    return {"value": saving.value, "low": saving.low, "high": saving.high, "depends_on": saving.notes}


def _known(value: float | Unavailable) -> float | None:
    return None if isinstance(value, Unavailable) else value


def _columns(one: Interval) -> dict[str, float | None]:
    return {
        "at_s": one.moment.at_s,
        "offered_qps": one.moment.qps,
        "intensity_g_per_kwh": one.moment.intensity,
        "requests": one.requests,
        "online_g": _known(one.carbon_g),
        "start_up_g": one.start_up_g,
        "standalone_g": _known(one.baseline_g),
        "cheapest_g": _known(one.best_g),
        "switched": float(one.step.switched),
        "infeasible": float(one.step.decision.infeasible),
    }


def as_text(found: Replay) -> str:
    """Markdown: what the day came to, and every change."""
    lines = ["# A day replayed, simulated", "", "| against all day | saving | depends on |", "|---|---|---|"]
    for name in sorted((set(found.terms) | set(found.broken)) - {"online"}):
        saving = found.saving_against(name)
        told = str(saving) if isinstance(saving, SavingRange) else f"undefined: {saving.reason}"
        lines.append(f"| {name} | {told} | {saving.notes if isinstance(saving, SavingRange) else ''} |")
    lines += ["", f"{found.switches} changes after the first choice:", ""]
    lines += ["| hour | QPS | g/kWh | runs | why |", "|---|---|---|---|---|"]
    for one in found.intervals:
        if one.step.switched:
            moment = one.moment
            place = f"{moment.at_s / 3600:.2f} | {moment.qps:.3g} | {moment.intensity:.3g}"
            lines.append(f"| {place} | {one.step.running or 'nothing'} | {one.step.reason} |")
    return "\n".join(lines) + "\n"
