"""A point: one combination of a case's matrix, ready to be run; and the plan that holds them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import psutil
from pydantic import BeforeValidator, ConfigDict, ValidationError

from harness.backend import Device
from harness.errors import UsageError
from harness.impact import ImpactMeterSpec
from harness.planning.trial_rules import CoolDown, ForeignLoad, Limits, Precision, WarmUpRule, Windows
from harness.records.files import adapter


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend, meter or scorer with its validated options; `auto` if the suite did not name it."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    auto: bool = False


def _by_field(kind: type[Limits | CoolDown]) -> BeforeValidator:
    """Reads a rule by the names of its fields, which carry units; a suite's shorter keys are aliases of them."""
    return BeforeValidator(lambda found: kind(**found) if isinstance(found, Mapping) else found)


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
        trials: how many fresh processes; at most so many where there is a precision.
        precision: at which fewer trials do, with its metric; None where their number is fixed.
        seed: of the suite.
        windows: how long is measured.
        warm_up: how long is warmed up.
        cool_down: how long a trial rests before its warm-up.
        idle_seconds: how long idle power is read.
        limits: when a trial is ended.
        functional_units: name -> `{"sum": column, "where": {column: condition}}`.
        requires: what the machine must have.
        power_cap: `expected` where a power cap does not fail a trial.
        foreign_load: how much other processes may work beside it.
        devices: what the backend's probe found, as JSON; empty before probing.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

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
    precision: Precision | None = None
    seed: int = 0
    windows: Windows = field(default_factory=Windows)
    warm_up: WarmUpRule = field(default_factory=WarmUpRule)
    cool_down: Annotated[CoolDown | None, _by_field(CoolDown)] = None
    idle_seconds: float = 0.0
    limits: Annotated[Limits, _by_field(Limits)] = field(default_factory=Limits)
    functional_units: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    power_cap: str = "unexpected"
    foreign_load: ForeignLoad = field(default_factory=ForeignLoad)
    devices: tuple[Mapping[str, Any], ...] = ()

    @property
    def at_least(self) -> int:
        """How many trials there are in any case."""
        return self.trials if self.precision is None else self.precision.at_least

    def to_json(self) -> dict[str, Any]:
        """This point as JSON values; without `cool_down` where there is none.

        A gate hands points to the workers of a base, whose older harness refuses a key that it does not know.
        """
        written = dict(adapter(Point).dump_python(self, mode="json"))
        if self.cool_down is None:
            del written["cool_down"]
        return written

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | str) -> Point:
        """A point from what `to_json` gave, or from that as text; raises ValueError for what is no point."""
        validator = adapter(Point)
        try:
            return validator.validate_json(raw) if isinstance(raw, str) else validator.validate_python(raw)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"no point: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A point that cannot run here, and why.

    Attributes:
        point: as planned.
        reason: in words.
        failed: whether that is not known, since what was asked did not answer in time: no skip but a failure.
    """

    point: Point
    reason: str
    failed: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON values: what a run's description says of it."""
        return {"label": self.point.label, "reason": self.reason, **({"failed": True} if self.failed else {})}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    points: list[Point]
    skipped: list[Skipped]


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(value: object) -> str:
    """JSON that is the same for equal values; raises ValueError or TypeError for what JSON does not know."""
    return _ENCODER.encode(value)


def identity(point: Point) -> Callable[[Mapping[str, Any]], str]:
    """Options -> the id of this point with those options."""
    shared = [
        point.suite,
        point.workload,
        [point.backend.name, point.backend.options],
        [[meter.name, meter.options] for meter in point.meters],
        dataclasses.asdict(point.windows),
    ]
    digest = hashlib.sha256(canonical(shared).encode())

    def of(options: Mapping[str, Any]) -> str:
        own = digest.copy()
        own.update(canonical(options).encode())
        return own.hexdigest()[:12]

    return of


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


def unmet(devices: Sequence[Device], requires: Mapping[str, Any]) -> str:
    """Why this machine and its devices do not meet what a case requires; empty if they do."""
    for words in ("labels", "resources"):
        if requires.get(words):
            return f"requires {words} {', '.join(sorted(requires[words]))}, which only a cluster has"
    cores = psutil.cpu_count(logical=True) or 1
    if requires.get("cpu", 0) > cores:
        return f"requires {requires['cpu']} processors, the host has {cores}"
    gpus = [device for device in devices if device.kind == "gpu"]
    model = requires.get("accelerator", "")
    if model:
        others = ", ".join(device.name for device in gpus) or "no GPU"
        gpus = [device for device in gpus if model.casefold() in device.name.casefold()]
        if not gpus:
            return f"requires the accelerator {model}, the backend has {others}"
    wanted = requires.get("gpu", 0)
    if len(gpus) < wanted:
        return f"requires {wanted} GPU, the backend has {len(gpus)}"
    memory = requires.get("memory")
    return "" if memory is None else _too_little(memory, gpus if wanted or model else None)


def _too_little(memory: int, gpus: Sequence[Device] | None) -> str:
    if gpus is None:
        found, what = psutil.virtual_memory().total, "the host"
    else:
        sizes = [device.memory_bytes for device in gpus]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return "requires GPU memory, and a GPU does not say how much it has"
        found, what = min(known), "the smallest GPU"
    return "" if found >= memory else f"requires {memory / 1e9:g} GB of memory, {what} has {found / 1e9:.1f} GB"
