"""What is kept of a trial: a measurement (raw, by the worker) and a record (scored, costed, per functional unit)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from harness.backend import Device
from harness.functional_unit import Sweep, UnitCount
from harness.impact import DeviceUse, Factor
from harness.quantity import Amount, Method, Unavailable, Undefined, Value
from harness.sample import Scope

SCHEMA_VERSION: Final = 1
"""Grows when a reader of older records must do something different."""

IDLE: Final = "idle"
"""Span of an idle stretch before the workload is loaded."""
LOADED_IDLE: Final = "loaded_idle"
"""Span of an idle stretch with the workload loaded and no work."""
SETTINGS: Final = "settings"
"""Key of a measurement's `backend`: what was set on devices for the trial, such as a power limit."""
FOREIGN_LOAD: Final = "foreign_load"
"""Kind of the condition that other processes, or a hypervisor, had more of the processor time than they may."""

SIMULATOR: Final = "simulator_"
"""Prefix of the totals that say what the computation of modelled work took on this machine; no unit is charged."""

NO_SIMULATED_DURATION: Final = "modelled work that gave no simulated duration: the clock timed the model alone"
"""Why there is no duration, rate or power of a modelled window."""

AnyValue = Annotated[Amount | Unavailable | Undefined, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An interval whose energy was read: a `window`, or a nested one such as `steady` or `role:draft`.

    Attributes:
        name: `window`, `idle`, `loaded_idle`, or the name a workload marked.
        window: index of the window it lies in; -1 outside of any.
        start_ns: monotonic clock, nanoseconds.
        end_ns: likewise.
        start_utc_s: wall clock at the start, derived from the one anchor; a label, never a duration.
        iterations: iterations finished in it.
        flags: `short`, ...
        modelled: whether no machine did the work: then start, end and readings are those of the model's computation.
        simulated_s: how long modelled work takes on its own clock; None where the workload did not say.
        celsius: scope -> its temperature right before the opening and right after the closing edge, in °C.
    """

    name: str
    window: int
    start_ns: int
    end_ns: int
    start_utc_s: float
    iterations: int = 0
    flags: tuple[str, ...] = ()
    modelled: bool = False
    simulated_s: float | None = None
    celsius: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """Length on the monotonic clock, in seconds."""
        return (self.end_ns - self.start_ns) * 1e-9

    @property
    def work(self) -> Value:
        """How long the work took: the clock's seconds, or what modelled work says of itself, never the model's own."""
        if not self.modelled:
            return Amount.exact(self.duration_s, "s")
        if self.simulated_s is None:
            return Unavailable(NO_SIMULATED_DURATION)
        return Amount.of(self.simulated_s, "s", Method.SIMULATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Energy of one scope by one meter over one span.

    Attributes:
        span: name of the span.
        window: index of its window.
        meter: name of the meter.
        scope: what the joules were spent in.
        primary: whether this meter counts for the scope; the others are cross-checks.
        value: joules, or why there are none.
        coverage: share of the span with valid data.
        whole: what was read of the whole machine, where `value` is the work's share of it by processor time.
        flags: `not aligned`, `counter reset`, `low coverage`, `implausible readings`, `power above limit`, ...
    """

    span: str
    window: int
    meter: str
    scope: str
    primary: bool
    value: AnyValue
    coverage: float | None = None
    whole: AnyValue | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLoad:
    """Processor time of the worker's machine over a window: all logical CPUs together, in seconds.

    Attributes:
        window: its index.
        own_s: what the work's processes spent, ended ones included.
        others_s: what all others spent.
        stolen_s: what a hypervisor gave to others.
        machine_s: all of it, waiting included.
        resolution_s: how well the differences are known.
        unknown: why there are no numbers; empty where there are.
    """

    window: int
    own_s: float | None = None
    others_s: float | None = None
    stolen_s: float | None = None
    machine_s: float | None = None
    resolution_s: float | None = None
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterReport:
    """What a meter reads in this trial.

    Attributes:
        name: of the meter.
        asked: whether the suite named it, rather than `auto`.
        scopes: per scope what it reads.
        missing: per scope, or for `*` as a whole, why it does not read.
        facts: fields, drivers, tables and versions used.
    """

    name: str
    asked: bool
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCondition:
    """A condition of a device, with how often it was seen."""

    kind: str
    scope: str
    detail: str
    fails: bool
    count: int
    first_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """How the warm-up went.

    Attributes:
        iterations: how many were run.
        seconds: how long they took.
        converged: whether the last five varied by less than the tolerance.
        duration_cv: coefficient of variation of the last five durations; None if fewer ran.
        power_cv: likewise of their mean power; None where no meter resolves an iteration.
    """

    iterations: int
    seconds: float
    converged: bool
    duration_cv: float | None = None
    power_cv: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """How a trial cooled down before its warm-up.

    Attributes:
        waited_s: how long it rested.
        to_celsius: the temperature that was awaited, in °C; None for a plain pause.
        celsius: scope -> temperature at the end, in °C; empty where no meter reads one.
        cooled: whether all were at most `to_celsius`; None where that cannot be said.
    """

    waited_s: float
    to_celsius: float | None = None
    celsius: Mapping[str, float] = field(default_factory=dict)
    cooled: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowUse:
    """A device row of a window."""

    window: int
    use: DeviceUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one trial's worker saw; everything later is computed from it and its side-cars.

    `side_cars` holds the bytes of each side-car, as they lay on the disk before this was written; `rest` is None where
    the suite asks for no `cool_down`; `charged` are the scopes whose energy is the work's, None for all, and
    `not_charged` why there are none; `charged_devices` are the UUIDs of the devices whose making is the work's, None
    for all.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schema: int = SCHEMA_VERSION
    run: str
    trial_id: str
    trial: int
    point: Mapping[str, Any]
    started_utc: str
    environment: Mapping[str, Any]
    backend: Mapping[str, Any]
    devices: tuple[Device, ...]
    plugins: Mapping[str, str]
    workload: Mapping[str, Any]
    warm_up: WarmUp
    spans: tuple[Span, ...]
    readings: tuple[Reading, ...]
    uses: tuple[WindowUse, ...]
    meters: tuple[MeterReport, ...]
    conditions: tuple[SeenCondition, ...]
    validation: tuple[Mapping[str, float], ...] = ()
    why_zero: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    side_cars: Mapping[str, int] = field(default_factory=dict)
    rest: Rest | None = None
    loads: tuple[WindowLoad, ...] = ()
    charged: tuple[str, ...] | None = None
    not_charged: str = ""
    charged_devices: tuple[str, ...] | None = None

    @property
    def windows(self) -> tuple[Span, ...]:
        """The measured windows in order."""
        return tuple(span for span in self.spans if span.name == "window")

    @property
    def invalid(self) -> tuple[str, ...]:
        """Why the trial's measurement is not valid; empty when it is."""
        return tuple(
            f"{seen.kind} on {seen.scope}: {seen.detail} (seen {seen.count} times)"
            for seen in self.conditions
            if seen.fails
        )

    @property
    def foreign_load(self) -> dict[str, str]:
        """Scope that was read with what other processes spent -> how much they worked; such energy is not gated."""
        read = {reading.scope for reading in self.readings}
        return {
            seen.scope: f"{seen.kind} on {seen.scope}: {seen.detail}"
            for seen in self.conditions
            if seen.kind == FOREIGN_LOAD and seen.scope in read
        }

    @property
    def scopes(self) -> dict[str, Scope]:
        """Description of each scope by its primary meter."""
        by_meter = {report.name: report.scopes for report in self.meters}
        return {
            reading.scope: by_meter[reading.meter][reading.scope]
            for reading in self.readings
            if reading.primary and reading.scope in by_meter.get(reading.meter, {})
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """What one functional unit cost.

    Attributes:
        unit: the definition, as text.
        count: how much of it was achieved.
        costs: reading name -> value per unit (`energy_j` -> J/token).
        rate: units per second of window.
        shares: `pass_share`, `slo_attainment`, `failed`, `failing <condition>`: percent of all measured items.
        sweeps: column that a scorer filled -> the unit's condition on it as an axis.
    """

    unit: str
    count: UnitCount
    costs: Mapping[str, AnyValue]
    rate: AnyValue
    shares: Mapping[str, AnyValue] = field(default_factory=dict)
    sweeps: Mapping[str, Sweep | Unavailable] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A finished trial: the measurement, its quality, its impacts, its cost per functional unit.

    Attributes:
        measurement: as the worker wrote it; in the file of the record stands its digest alone.
        totals: reading name -> value over all windows: `duration_s`, `energy_j`, `energy_j:<scope>`, `carbon_g`, ...;
            of modelled work also `simulator_s` and `simulator_energy_j:<scope>`, what its computation took here.
        units: functional unit -> what it cost.
        columns: column -> summary statistic (`mean`, `p50`, `p95`) -> value, over completed items.
        impacts: the impact meters applied, in order, with their options.
        factors: every factor used.
        scorers: what the scorers say of themselves.
        parent: id of the record this one was costed from; empty for the first.
        alternatives: reading -> published alternative to its factors -> the total with it.
        qualities: column that a scorer filled and that has a direction -> whether higher is better.
        notes: reading -> what tells it from its like, `above loaded_idle`; for what idle power has a part in.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    measurement: Measurement
    totals: Mapping[str, AnyValue]
    units: Mapping[str, UnitResult]
    columns: Mapping[str, Mapping[str, AnyValue]]
    impacts: tuple[Mapping[str, Any], ...] = ()
    factors: tuple[Factor, ...] = ()
    scorers: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    parent: str = ""
    alternatives: Mapping[str, Mapping[str, AnyValue]] = field(default_factory=dict)
    qualities: Mapping[str, bool] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def modelled(self) -> bool:
        """Whether no machine did the work.

        Older records do not say it of their windows; all columns of their workload are `simulated`.
        """
        methods = {
            value.label
            for column, statistics in self.columns.items()
            for value in statistics.values()
            if isinstance(value, Amount) and column not in self.qualities
        }
        return methods == {Method.SIMULATED} or any(span.modelled for span in self.measurement.windows)
