"""What a run of workload `greenllm` says per configuration: attainment, energy by role, carbon, saving. Reads records.

Savings compare carbon per finished request with `standalone` of the same requests, trial by trial; they may be negative
and are never clipped. Both ways of charging hardware stand side by side: `reserved` as `fuel` recorded it, and `busy`.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import load_items, load_record, recorded_trials
from harness.impact import DeviceUse, Factor
from harness.quantity import Amount, Method, Unavailable, Undefined, Value, total, weakest
from harness_disaggregated_serving.choosing.interval import half_width

TABLE_FILE: Final = "greenllm-table.md"
"""Name of a run's side-car."""
BESIDE: Final = ("configuration", "old", "link", "gamma", "wire", "row_dtype", "first_token")
"""Options in which a configuration may differ from the `standalone` that it is compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCost:
    """A trial of a point.

    Attributes:
        label: of the point.
        configuration: of the pair.
        family: what must be equal for two points to be compared.
        trial: number; equal numbers served the same requests.
        arrived: requests.
        finished: of which so many were served to the end.
        meeting: of which so many met both latency targets.
        energy: joules by role.
        operational: carbon of the energy.
        embodied: carbon of the hardware, charged for the whole window.
        embodied_busy: charged for busy time only.
    """

    label: str
    configuration: str
    family: str
    trial: int
    arrived: int
    finished: int
    meeting: float
    energy: Mapping[str, Value]
    operational: Value
    embodied: Value
    embodied_busy: Value

    def method(self, *, busy: bool = False) -> Method:
        """The weakest by which its carbon was obtained."""
        parts = (self.operational, self.embodied_busy if busy else self.embodied)
        return weakest(Method.MEASURED, *(part.label for part in parts if isinstance(part, Amount)))

    def carbon_per_request_g(self, *, busy: bool = False) -> float | Unavailable | Undefined:
        """Operational and embodied carbon over finished requests."""
        hardware = self.embodied_busy if busy else self.embodied
        for part in (self.operational, hardware):
            if not isinstance(part, Amount):
                return part
        assert isinstance(self.operational, Amount)
        assert isinstance(hardware, Amount)
        if not self.finished:
            return Undefined("no request finished")
        return (self.operational.value + hardware.value) / self.finished


@dataclass(frozen=True, slots=True)
class Saving:
    """Mean share of the baseline's carbon saved over trials, with its 95 % interval where there are two or more.

    `method` is the weakest of all that it was made of.
    """

    mean: float
    half_width: float | None
    trials: int
    method: Method

    def __str__(self) -> str:
        if self.half_width is None:
            return f"{self.mean:+.1%} ({self.method}, one trial, no interval)"
        return f"{self.mean:+.1%} ± {self.half_width:.1%} ({self.method})"


def role_energy(totals: Mapping[str, Value], uses: Iterable[DeviceUse]) -> dict[str, Value]:
    """Joules of each role: of its declared device, of its process where that is all its device, or of its own GPU."""
    devices = {use.role: use.device for use in uses}
    found: dict[str, Value] = {}
    for role, device in devices.items():
        of_process = device.startswith(f"{role}:")
        scopes = [f"declared:{device}", *([f"process:{role}"] if of_process else [f"gpu:{device}", f"module:{device}"])]
        sharing = [other for other, its in devices.items() if its == device and other != role]
        if sharing:
            found[role] = Unavailable(f"shares {device} with role {sharing[0]!r}: its joules belong to no one role")
            continue
        names = [name for scope in scopes for name in totals if _is_scope(name, scope)]
        found[role] = totals[names[0]] if names else Unavailable(f"no meter read {device!r} or its process")
    return found


def _is_scope(total: str, device: str) -> bool:
    """Whether a total is the energy of a device, on whichever node."""
    kind, _, scope = total.partition(":")
    return kind == "energy_j" and scope.partition("/")[2] == device


def busy_embodied(factors: Iterable[Factor], uses: Iterable[DeviceUse]) -> Value:
    """Embodied carbon for busy time, from the figures and lifetimes that `fuel` recorded for the declared devices."""
    figures: dict[str, Factor] = {}
    for factor in factors:
        kind, _, device = factor.name.removeprefix("embodied:").partition(":")
        if factor.name.startswith("embodied:") and kind == "gpu":
            figures[device] = factor
    grams = []
    for use in uses:
        figure = figures.get(use.stands_for)
        if figure is None or figure.value is None:
            return Unavailable(f"no embodied figure was recorded for what {use.device!r} stands for")
        if figure.lifetime_s is None:
            return Unavailable(f"the record does not say over which lifetime {use.stands_for!r} is written off")
        grams.append(1000 * figure.value * use.busy_s / figure.lifetime_s)
    return Amount.of(math.fsum(grams), "g", Method.SIMULATED) if grams else Unavailable("no device rows")


def trial_cost(folder: Path) -> TrialCost | None:
    """The numbers of a trial with a record; None where its workload is another."""
    record = load_record(folder)
    point = record.measurement.point
    if point["workload"] != "greenllm":
        return None
    uses = [row.use for row in record.measurement.uses]
    rows = list(load_items(folder))
    same = {name: value for name, value in point["options"].items() if name not in BESIDE}
    missing = Unavailable("meter `fuel` was not asked for")
    return TrialCost(
        label=point["label"],
        configuration=point["options"]["configuration"],
        family=json.dumps(same, sort_keys=True),
        trial=record.measurement.trial,
        arrived=len(rows),
        finished=sum(row["status"] == "ok" for row in rows),
        meeting=math.fsum(row.get("meets_slo") or 0.0 for row in rows),
        energy=role_energy(record.totals, uses),
        operational=record.totals.get("carbon_operational_g", missing),
        embodied=record.totals.get("carbon_embodied_g", missing),
        embodied_busy=busy_embodied(record.factors, uses),
    )


def saving(
    candidate: Sequence[TrialCost], baseline: Sequence[TrialCost], *, busy: bool = False
) -> Saving | Unavailable | Undefined:
    """Share of the baseline's carbon per request that a candidate saves, over the trials that both have."""
    by_trial = {one.trial: one for one in baseline}
    shares, methods = [], [Method.MEASURED]
    for one in candidate:
        if one.trial in by_trial:
            mine, its = (each.carbon_per_request_g(busy=busy) for each in (one, by_trial[one.trial]))
            for found in (mine, its):
                if not isinstance(found, float):
                    return found
            assert isinstance(mine, float)
            assert isinstance(its, float)
            if its <= 0:
                return Undefined("standalone emits nothing, so a share of it says nothing")
            shares.append(1 - mine / its)
            methods += [each.method(busy=busy) for each in (one, by_trial[one.trial])]
    if not shares:
        return Unavailable("no standalone trial of the same requests in this run")
    return Saving(statistics.fmean(shares), half_width(shares), len(shares), weakest(*methods))


def mean_of(values: Sequence[Value]) -> Value:
    """Mean over trials; the first missing value is the reason why there is none."""
    amounts = [value for value in values if isinstance(value, Amount)]
    if len(amounts) < len(values):
        return next(value for value in values if not isinstance(value, Amount))
    summed = total(amounts)
    return summed.times(1 / len(amounts), summed.unit, method=Method.MEASURED)


def _shown(value: Value, scale: float = 1.0) -> str:
    if not isinstance(value, Amount):
        return f"{value.kind}: {value.reason}"
    return f"{value.value * scale:.4g} ({value.label.value})"


def _saved(found: Saving | Unavailable | Undefined) -> str:
    return str(found) if isinstance(found, Saving) else f"{found.kind}: {found.reason}"


_HEAD: Final = (
    "# Configurations of disaggregated serving",
    "",
    "Means over trials. Savings: carbon per finished request against `standalone` with the same requests, with its",
    "95 % interval over trials; negative where it costs more. `reserved` charges hardware for the whole window, `busy`",
    "for its busy time. Host processors and memory count only where the meters listed charge them.",
    "",
)
_COLUMNS: Final = (
    "configuration",
    "attainment",
    "energy by role, J",
    "operational, mg",
    "embodied reserved, mg",
    "embodied busy, mg",
    "saving reserved",
    "saving busy",
)


def as_text(trials: Sequence[TrialCost]) -> str:
    """The table as Markdown, points in the order of their labels with `standalone` first."""
    points: dict[tuple[str, str], list[TrialCost]] = {}
    for one in trials:
        points.setdefault((one.label, one.family), []).append(one)
    lines = [*_HEAD, f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for (label, family), held in sorted(
        points.items(), key=lambda item: (item[1][0].configuration != "standalone", item[0])
    ):
        baseline = [one for one in trials if one.family == family and one.configuration == "standalone"]
        arrived = sum(one.arrived for one in held)
        met = math.fsum(one.meeting for one in held)
        energy = "; ".join(f"{role} {_shown(mean_of([one.energy[role] for one in held]))}" for role in held[0].energy)
        is_baseline = held[0].configuration == "standalone"
        savings = (
            ["baseline"] * 2 if is_baseline else [_saved(saving(held, baseline, busy=busy)) for busy in (False, True)]
        )
        cells = [
            label,
            f"{met:g} of {arrived} ({met / arrived:.1%})" if arrived else "undefined: no request arrived",
            energy or "unavailable: no device rows",
            _shown(mean_of([one.operational for one in held]), 1000),
            _shown(mean_of([one.embodied for one in held]), 1000),
            _shown(mean_of([one.embodied_busy for one in held]), 1000),
            *savings,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def trials_of(run: Path) -> list[TrialCost]:
    """All finished `greenllm` trials of a run's folder."""
    found = [trial_cost(folder) for folder in recorded_trials(run)]
    return [one for one in found if one is not None]


def write_table(run: Path) -> str | None:
    """Writes the comparison of a run's configurations into its folder; None where it ran none."""
    trials = trials_of(run)
    if not trials:
        return None
    text = as_text(trials)
    (run / TABLE_FILE).write_text(text, encoding="utf-8")
    return text
