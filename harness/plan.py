"""From suites to points: every combination of every case, its options validated, or skipped with the reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from harness import matrix
from harness.backend import Device
from harness.errors import PluginError, UsageError, did_you_mean
from harness.functional_unit import FunctionalUnit
from harness.meter import ImpactMeterSpec, MeterSpec
from harness.quantity import Unavailable
from harness.registry import Offer, Registry
from harness.suite import CHOICE_KEYS, FREE_KEYS, Case, Limits, Named, Suite, WarmUp, Windows
from harness.suite_faults import Place, faults, real_path
from harness.suite_yaml import Keys, raise_all, unset_in
from harness.workload import COMMON_COLUMNS, WorkloadSpec

LIMIT_POINTS: Final = 100_000
_LIMIT_COMPARISONS: Final = 10_000_000
_LIMIT_ERRORS: Final = 200

AUTO: Final = "auto"
"""Under `meters:` it stands for every meter that offers itself."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend, meter or scorer with its validated options; `auto` if the suite did not name it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    auto: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one or more trials measure.

    Attributes:
        id: 12 hex digits of what is measured: suite's name, workload, options, backend, meters, windows.
        suite: name of the suite.
        suite_file: its file, as the user named it.
        case: number of its case, from 0.
        label: for people, `sss · draft_tokens=2, mode=exact`.
        workload: name of the workload.
        options: validated, as JSON values, defaults included.
        matrix: the values that this point of the matrix has.
        backend: where it runs.
        meters: meters and impact meters in the suite's order, `auto` expanded.
        scorers: run after the windows.
        trials: how many fresh processes.
        seed: of the suite.
        windows: how long is measured.
        warm_up: how long is warmed up.
        idle_seconds: how long idle power is read.
        limits: when a trial is ended.
        functional_units: name -> `{"sum": column, "where": {column: condition}}`.
        requires: what the machine must have.
        power_cap: `expected` where a power cap does not fail a trial.
        devices: what the backend's probe found, as JSON; empty before probing.
    """

    id: str
    suite: str
    suite_file: str = ""
    case: int = 0
    label: str
    workload: str
    options: Mapping[str, Any] = field(default_factory=dict)
    matrix: Mapping[str, Any] = field(default_factory=dict)
    backend: Choice
    meters: tuple[Choice, ...] = ()
    scorers: tuple[Choice, ...] = ()
    trials: int = 3
    seed: int = 0
    windows: Windows = field(default_factory=Windows)
    warm_up: WarmUp = field(default_factory=WarmUp)
    idle_seconds: float = 0.0
    limits: Limits = field(default_factory=Limits)
    functional_units: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    requires: Mapping[str, int] = field(default_factory=dict)
    power_cap: str = "unexpected"
    devices: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """This point as JSON values."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | str) -> Point:
        """A point from what `to_json` gave, or from that as text."""
        data = dict(json.loads(raw)) if isinstance(raw, str) else dict(raw)
        data["backend"] = Choice(**data["backend"])
        for key in ("meters", "scorers"):
            data[key] = tuple(Choice(**each) for each in data[key])
        data["windows"] = Windows(**data["windows"])
        data["warm_up"] = WarmUp(**data["warm_up"])
        data["limits"] = Limits(**data["limits"])
        data["devices"] = tuple(data["devices"])
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A point that cannot run here, and why."""

    point: Point
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    points: list[Point]
    skipped: list[Skipped]


Probes = Callable[[Choice], Sequence[Device] | Unavailable]


def expand(suites: Sequence[Suite], registry: Registry, probes: Probes | None = None) -> Plan:
    """The points of suites.

    Args:
        suites: as loaded.
        registry: the plugins.
        probes: choice of a backend -> its devices, or why there are none; without it nothing is skipped for the machine.

    Raises:
        UsageError: with every fault found, each at its place.
        PluginError: several plugins offer a name that is used, or a plugin's option model is broken.
    """
    total = sum(matrix.size(case.matrix, case.include) for suite in suites for case in suite.cases)
    if total > LIMIT_POINTS:
        files = ", ".join(suite.file for suite in suites)
        raise UsageError(f"the matrices span {total} points", where=files, accepted=f"at most {LIMIT_POINTS} in all")
    planner = _Planner(registry, probes)
    for suite in suites:
        planner.suite(suite)
    if planner.errors:
        raise_all(planner.errors)
    return planner.plan


def order_impacts(specs: Sequence[ImpactMeterSpec]) -> list[ImpactMeterSpec]:
    """Impact meters so that each comes after those that yield what it needs, else in the order given.

    Raises:
        UsageError: there is a cycle, or two yield one reading (`energy_j` apart, which adds up).
    """
    yielding: dict[str, str] = {}
    for spec in specs:
        for name in spec.yields:
            if name != "energy_j" and name in yielding:
                raise UsageError(f"the impact meters {yielding[name]!r} and {spec.name!r} both yield {name!r}")
            yielding[name] = spec.name
    waiting, ordered = list(specs), []
    while waiting:
        for spec in waiting:
            if not any(set(other.yields) & set(spec.needs) for other in waiting if other is not spec):
                break
        else:
            cycle = " <- ".join(_cycle(waiting))
            raise UsageError(f"impact meters need each other's readings: {cycle}", hint="leave one of them out")
        waiting.remove(spec)
        ordered.append(spec)
    return ordered


def _cycle(waiting: Sequence[ImpactMeterSpec]) -> list[str]:
    path = [waiting[0]]
    while True:
        spec = next(each for each in waiting if each is not path[-1] and set(each.yields) & set(path[-1].needs))
        names = [each.name for each in path]
        if spec.name in names:
            return [*names[names.index(spec.name) :], spec.name]
        path.append(spec)
