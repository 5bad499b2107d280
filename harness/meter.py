"""The role of a meter (reads hardware) and of an impact meter (turns readings into readings)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from harness.backend import Device
from harness.options import NoOptions, Options
from harness.quantity import Unavailable, Value
from harness.sample import Condition, Scope, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterContext:
    """What a meter may know when it opens.

    Attributes:
        node: prefix of the scopes of this machine, `n0`.
        devices: what the backend took; a meter of devices reads these and no other.
        pid: the process that does the work.
    """

    node: str = "n0"
    devices: tuple[Device, ...] = ()
    pid: int = 0


Answer = TypeVar("Answer")


class Node(Protocol):
    """A machine of a cluster that does part of the work; the core opens the suite's meters there.

    They are read at the edges of this trial's windows, by messages that this machine's clock brackets: of the node's
    own clock nothing is used, and how long a message takes widens the bounds.
    """

    @property
    def name(self) -> str:
        """Prefix of its scopes: `n1`, `n2`, ...; `n0` where it is the node that the trial itself runs on."""

    @property
    def devices(self) -> Sequence[Device]:
        """What it took of that node's devices."""

    @property
    def processes(self) -> Mapping[str, int]:
        """Its processes by role; ids as that node counts them."""

    def call(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Runs a function of an installed module in a process of that node; raises what it raises, and never hangs."""


class Meter(ABC):
    """An opened meter: cumulative joules per scope.

    A meter never synchronises a device and never imports a framework. The core calls `read` at window edges and from
    a sampling thread, one call at a time.
    """

    sample_hz: float = 1.0
    """How often the core must read it between window edges: more often for integrated power and wrapping counters."""

    @abstractmethod
    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Starts counting from zero; says per scope what will be read, or why it will not."""

    def attach(self, processes: Mapping[str, int]) -> Mapping[str, Scope | Unavailable]:  # noqa: ARG002 - most read none
        """Starts to read the work's processes too, by role; says per new scope what will be read. After `open`."""
        return {}

    @abstractmethod
    def read(self) -> Snapshot:
        """Reads every scope now. A failed read is Unavailable for that scope, never 0 and never the old value."""

    def conditions(self) -> Sequence[Condition]:
        """State of the devices right now (throttling, foreign processes); asked for about once a second."""
        return ()

    def facts(self) -> Mapping[str, object]:
        """What belongs into the record: field read, driver, tables and versions used. JSON values only."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Ends counting. May be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSpec:
    """An offer of a meter. Making one imports nothing heavy and touches no device.

    Attributes:
        name: what a suite writes under `meters:`.
        summary: one line for `harness plugins`.
        factory: options -> Meter.
        options: model of the options.
        auto: whether `auto` tries it. Meters that estimate say False: nobody gets an estimate without asking.
        cross_check: its readings are only held against those of other meters: they never count.
    """

    name: str
    summary: str
    factory: Callable[[Any], Meter]
    options: type[Options] = NoOptions
    auto: bool = False
    cross_check: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A number that turns energy into an impact, with where it comes from.

    Attributes:
        name: `grid_intensity`, `pue`, `embodied:gpu:H100`, ...
        value: the number; None where a range or series stands in its place.
        unit: such as `g/kWh`.
        source: publication or data set, and where in it.
        licence: licence of the data.
        date: of the data, or of its retrieval (ISO 8601).
        id: stable identity, so that two records can tell whether they used the same factor.
        lifetime_s: service life over which an embodied factor is spread, in seconds; None where it is no such factor,
            or was recorded before lifetimes were kept.
    """

    name: str
    value: float | None
    unit: str
    source: str
    licence: str = ""
    date: str = ""
    id: str = ""
    lifetime_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """How long a device served a role in a window.

    Attributes:
        device: UUID as the backend reports it.
        role: `target`, `draft`, `prefill`, ...; empty where there is one role.
        busy_s: seconds of work.
        reserved_s: seconds it could serve nobody else; at least `busy_s`.
        stands_for: product that a declared device pretends to be; empty for a device that is what it is.
    """

    device: str
    role: str = ""
    busy_s: float
    reserved_s: float
    stands_for: str = ""


@dataclass(frozen=True, slots=True)
class EnergyTrace:
    """Cumulative joules per scope over UTC time: what costing with a time series interpolates.

    Attributes:
        utc_s: seconds since the Unix epoch, strictly increasing, shape (n,).
        joules: per scope, cumulative joules at those times, shape (n,).
    """

    utc_s: tuple[float, ...] = ()
    joules: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costed:
    """One window, or all windows of a trial, as an impact meter sees it.

    Attributes:
        duration_s: length on the monotonic clock.
        start_utc_s: start, seconds since the Unix epoch; the window ends at `start_utc_s + duration_s`.
        energy: primary energy per scope in J, scopes that may be summed only.
        readings: named readings known so far (`energy_j`, and what earlier impact meters yielded).
        devices: devices the trial used.
        uses: device rows of the workload; empty where it wrote none.
        trace: cumulative joules over time; empty where no meter was sampled.
        environment: the record's description of the machine.
    """

    duration_s: float
    start_utc_s: float
    energy: Mapping[str, Value]
    readings: Mapping[str, Value]
    devices: tuple[Device, ...] = ()
    uses: tuple[DeviceUse, ...] = ()
    trace: EnergyTrace = field(default_factory=EnergyTrace)
    environment: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What an impact meter made of a window.

    Attributes:
        readings: name -> value, for each name in the spec's `yields`.
        energy: energy per scope in J that this meter adds (`declared_power`); with the scopes' description.
        scopes: descriptions of the scopes in `energy`.
        factors: every factor used, with its source.
        flags: what a reader must know (`uniform split`, `incomplete: no cpu energy`).
        alternatives: reading -> published alternative (another embodied table) -> what the reading would be with it.
    """

    readings: Mapping[str, Value] = field(default_factory=dict)
    energy: Mapping[str, Value] = field(default_factory=dict)
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    factors: tuple[Factor, ...] = ()
    flags: tuple[str, ...] = ()
    alternatives: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)


class ImpactMeter(ABC):
    """Turns readings into readings, after the work and outside the measured process. Reads no clock, no device."""

    @abstractmethod
    def apply(self, costed: Costed) -> Impact:
        """The impact of one window or trial. Missing input gives Unavailable readings, never 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpactMeterSpec:
    """An offer of an impact meter.

    Attributes:
        name: what a suite writes under `meters:`.
        summary: one line for `harness plugins`.
        factory: options -> ImpactMeter.
        options: model of the options.
        needs: names of readings it wants, `energy_j` among them; decides the order.
        yields: names of readings it gives, with their units (`carbon_g` -> `g`); `energy_j` for one that adds energy.
        ratios: yielded names that are ratios, which the core never divides by a functional unit.
    """

    name: str
    summary: str
    factory: Callable[[Any], ImpactMeter]
    needs: tuple[str, ...]
    yields: Mapping[str, str]
    ratios: tuple[str, ...] = ()
    options: type[Options] = NoOptions
