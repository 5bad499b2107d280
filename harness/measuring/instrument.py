"""A suite's meters around any code: opened as a worker opens them, with the edges, ticks and bounds of its windows.

A second implementation for code that is no workload would be a second instrument with faults of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError
from harness.impact import Costed, ImpactMeter, ImpactMeterSpec
from harness.measuring.meters import Meters
from harness.measuring.opening import build_backend, open_meters
from harness.measuring.window import shortness
from harness.meter import MeterContext
from harness.planning.point import Choice, order_impacts
from harness.quantity import Amount, Unavailable, Value, total
from harness.sample import disjoint, now_ns
from harness.units import nanoseconds, seconds

LEAD_IN: Final = 0.1
"""Share of the window's length for which the work runs before it, so that a smoothed sensor has settled."""
LONGEST_S: Final = 86_400.0

Named = Sequence[tuple[str, Mapping[str, Any]]]
"""Meters as under `meters:` of a suite: names with their options, `auto` among them."""


@dataclass(frozen=True, slots=True)
class Metered:
    """What one window around some code showed.

    Attributes:
        duration_s: length on the monotonic clock.
        calls: how often the code ran in it.
        readings: `energy_j`, and what the impact meters made of it; ratios are no cost and left out.
        scopes: names of the scopes that `energy_j` sums.
        flags: what a reader must know (`short`, `not aligned`), each once.
    """

    duration_s: float
    calls: int
    readings: Mapping[str, Value]
    scopes: tuple[str, ...]
    flags: tuple[str, ...]


class Instrument:
    """Opened meters, and the impact meters that turn their joules into impacts.

    Args:
        meters: as under `meters:` of a suite.
        backend: name of the backend whose devices are read and synchronised.
        seconds: least length of a window.

    Raises:
        UsageError: a meter, backend or option is unknown, or the length is not positive.
    """

    def __init__(self, meters: Named, *, backend: str = "host", seconds: float = 1.0) -> None:
        if not 0 < seconds < LONGEST_S:
            raise UsageError(f"a window cannot last {seconds} s", accepted="more than 0 and less than a day")
        self.seconds = seconds
        registry = load_plugins()
        choices = choose(meters, registry)
        self._impacts = _impacts(choices, registry)
        self._backend = build_backend(Choice(backend), registry)
        self._devices = tuple(self._backend.open())
        context = MeterContext(devices=self._devices, pid=os.getpid())
        self._reading, self._silent = open_meters(choices, registry, context)

    def close(self) -> None:
        """Closes the meters in reverse order, then the backend."""
        Meters(self._reading).close()
        self._backend.close()

    def measure(self, work: Callable[[], object], batch: int = 1) -> Metered:
        """One window around some code, after a lead-in that is no part of it.

        Args:
            work: called again and again until the window is long enough.
            batch: calls between two readings of the clock, which is part of the window.
        """
        meters = Meters(self._reading)
        meters.start()
        try:
            _repeat(work, batch, self.seconds * LEAD_IN)
            self._backend.synchronize()
            opened = meters.opening(align=True)
            calls = _repeat(work, batch, self.seconds)
            self._backend.synchronize()
            closed = meters.closing(align=True)
        finally:
            meters.stop()
        duration_s = seconds(closed.ns - opened.ns)
        found = {reading.scope: reading for reading in meters.energies(opened, closed) if reading.primary}
        described = {name: channel.scopes[name] for name, channel in meters.primaries().items()}
        energy = {name: found[name].value for name in disjoint(found, described)}
        costed = Costed(
            duration_s=duration_s,
            start_utc_s=meters.utc_s(opened.ns),
            energy=energy,
            readings={"energy_j": self._sum(list(energy.values()))},
            devices=self._devices,
        )
        flags = {flag for reading in found.values() for flag in reading.flags}
        return Metered(
            duration_s=duration_s,
            calls=calls,
            readings={**costed.readings, **self._apply(costed)},
            scopes=tuple(sorted(energy)),
            flags=tuple(sorted(flags | set(shortness(meters, duration_s, calls)))),
        )

    def _sum(self, values: Sequence[Value]) -> Value:
        amounts = []
        for value in values:
            if not isinstance(value, Amount):
                return value
            amounts.append(value)
        if amounts:
            return total(amounts)
        reasons = [f"{channel.name}: {reason}" for channel in self._silent for reason in channel.missing.values()]
        return Unavailable("; ".join(reasons) or "no energy meter is asked for")

    def _apply(self, costed: Costed) -> dict[str, Value]:
        """What the impact meters give, each with what those before it returned."""
        found: dict[str, Value] = {}
        for spec, meter in self._impacts:
            readings = meter.apply(replace(costed, readings={**costed.readings, **found})).labelled.readings
            found |= {name: readings.get(name, Unavailable(f"{spec.name} returned none")) for name in spec.yields}
        ratios = {name for spec, _ in self._impacts for name in spec.ratios}
        return {name: value for name, value in found.items() if name not in ratios}


def _repeat(work: Callable[[], object], batch: int, least_s: float) -> int:
    """Calls `work` until so long has passed; returns how often."""
    end_ns = now_ns() + nanoseconds(least_s)
    calls = 0
    while calls == 0 or now_ns() < end_ns:
        for _ in range(batch):
            work()
        calls += batch
    return calls


def choose(meters: Named, registry: Registry) -> tuple[Choice, ...]:
    """Meters with `auto` expanded; impact meters and cross-checks alone imply it, as in a suite. Raises UsageError."""
    automatic = {
        name: Choice(name, auto=True)
        for name, offer in registry.offers("meter").items()
        if getattr(offer.spec, "auto", False)
    }
    found: dict[str, Choice] = {}
    needy = []
    for name, options in meters:
        if name == "auto":
            found = automatic | found
            needy.append(False)
            continue
        spec = registry.get("meter", name).spec
        try:
            spec.options.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(f"{'.'.join([name, *map(str, first['loc'])])}: {first['msg']}") from None
        found[name] = Choice(name, options)
        needy.append(isinstance(spec, ImpactMeterSpec) or spec.cross_check)
    if needy and all(needy):
        found = automatic | found
    return tuple(found.values())


def _impacts(choices: Sequence[Choice], registry: Registry) -> list[tuple[ImpactMeterSpec, ImpactMeter]]:
    """The impact meters among the choices, each after those whose readings it needs."""
    options = {choice.name: choice.options for choice in choices}
    specs = [spec for name in options if isinstance(spec := registry.get("meter", name).spec, ImpactMeterSpec)]
    for spec in specs:
        if "energy_j" in spec.yields:
            raise UsageError(f"meter {spec.name!r} needs the device rows of a workload", accepted="meters that read")
    return [
        (spec, spec.factory(spec.options.model_validate(dict(options[spec.name])))) for spec in order_impacts(specs)
    ]
