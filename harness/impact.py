"""The role of an impact meter: turns readings into readings, with the factors it used."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.backend import Device
from harness.errors import MeasurementError
from harness.options import NoOptions, Options
from harness.quantity import Amount, Method, Value
from harness.sample import Scope


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
        method: how the number was obtained, and so the strongest method of what it multiplies: `estimated` for a
            published or declared one, since it is no measurement of this machine and moment.
        low: lower end of the factor's own range; None where none is known.
        high: upper end of it.
    """

    name: str
    value: float | None
    unit: str
    source: str
    licence: str = ""
    date: str = ""
    id: str = ""
    lifetime_s: float | None = None
    method: Method = Method.ESTIMATED
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """How long a device served a role in a window.

    Attributes:
        device: UUID as the backend reports it.
        role: `target`, `draft`, `prefill`, ...; empty where there is one role.
        busy_s: seconds of work.
        reserved_s: seconds it could serve nobody else; at least `busy_s`.
        stands_for: product that a declared device pretends to be; empty for a device that is what it is.
        phases: seconds of `busy_s` by what the device did, such as `prefill` or `decode@8` (a phase at a load); empty
            where the work does not tell.
    """

    device: str
    role: str = ""
    busy_s: float
    reserved_s: float
    stands_for: str = ""
    phases: Mapping[str, float] = field(default_factory=dict, hash=False)


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
        duration_s: length of the work: on the monotonic clock, or on its own where it is modelled; NaN where modelled
            work has none, so that nothing finite comes of it. `duration` says how it was obtained, or what is missing.
        start_utc_s: start, seconds since the Unix epoch; the window ends at `start_utc_s + duration_s`.
        energy: primary energy per scope in J, scopes that may be summed only.
        readings: named readings known so far (`energy_j`, and what earlier impact meters yielded).
        devices: devices the trial used.
        uses: device rows of the workload; empty where it wrote none.
        trace: cumulative joules over time; empty where no meter was sampled, or the work is modelled.
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

    @property
    def duration(self) -> Value:
        """The length of the work with its method, or why there is none."""
        known = self.readings.get("duration_s")
        if known is None and not math.isfinite(self.duration_s):
            raise MeasurementError(f"duration is {self.duration_s} s", accepted="a finite duration")
        return known or Amount.exact(self.duration_s, "s")


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
        basis: what its numbers rest on, `place`, `country`, `pue` or `time` -> which; a record whose impact meters rest
            on different ones is flagged.
    """

    readings: Mapping[str, Value] = field(default_factory=dict)
    energy: Mapping[str, Value] = field(default_factory=dict)
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    factors: tuple[Factor, ...] = ()
    flags: tuple[str, ...] = ()
    alternatives: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    basis: Mapping[str, str] = field(default_factory=dict)

    def as_weak_as(self, method: Method) -> Impact:
        """The same numbers with no part of a stronger method than this one."""
        return replace(
            self,
            readings=_weak(self.readings, method),
            energy=_weak(self.energy, method),
            alternatives={reading: _weak(named, method) for reading, named in self.alternatives.items()},
        )

    @property
    def labelled(self) -> Impact:
        """What the core keeps: whatever a meter said of its numbers, none is stronger than its strongest factor."""
        if not self.factors:
            return self
        return self.as_weak_as(min((factor.method for factor in self.factors), key=lambda method: method.weakness))


def _weak(values: Mapping[str, Value], method: Method) -> dict[str, Value]:
    return {name: value.as_weak_as(method) if isinstance(value, Amount) else value for name, value in values.items()}


class ImpactMeter(ABC):
    """Turns readings into readings, after the work and outside the measured process. Reads no clock, no device."""

    @abstractmethod
    def apply(self, costed: Costed) -> Impact:
        """The impact of one window or trial. Missing input gives Unavailable readings, never 0."""

    def equal_at(
        self,
        option: str,  # noqa: ARG002 - for those that know a formula
        reading: str,  # noqa: ARG002
        readings: tuple[Mapping[str, float], Mapping[str, float]],  # noqa: ARG002
        other: ImpactMeter,  # noqa: ARG002
        within: tuple[float, float],  # noqa: ARG002
    ) -> tuple[float, ...] | None:
        """Every value of a numeric option at which this meter and another give one reading; None without a formula.

        Without one, reports find such values by bisection, and see no two that lie between two places of a sweep.

        Args:
            option: of the meter, such as `gamma`.
            reading: that is to be equal.
            readings: what either meter gives for its work, per functional unit, at any one value of the option.
            other: the same kind of meter with other options.
            within: least and greatest value of the option.
        """
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpactMeterSpec:
    """The plugin spec of an impact meter.

    Attributes:
        name: what a suite writes under `meters:`.
        summary: one line for `harness plugins`.
        factory: options -> ImpactMeter.
        options: model of the options.
        needs: names of readings it wants, `energy_j` among them; decides the order.
        yields: names of readings it gives, with their units (`carbon_g` -> `g`); `energy_j` for one that adds energy.
        ratios: yielded names that are ratios, which the core never divides by a functional unit.
        placed: options that its option `place` stands in for where they are not set; not empty for a meter that has
            an option `place` of type `harness.place.PlaceOption`.
    """

    name: str
    summary: str
    factory: Callable[[Any], ImpactMeter]
    needs: tuple[str, ...]
    yields: Mapping[str, str]
    ratios: tuple[str, ...] = ()
    placed: tuple[str, ...] = ()
    options: type[Options] = NoOptions
