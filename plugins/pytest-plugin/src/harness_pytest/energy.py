"""Energy a call, measured in a window of its own after pytest-benchmark has taken its times.

This module uses the core's steps, which plugins else do not: meters are found by the registry and opened as a worker
opens them, and edges, ticks and bounds are those of a trial's window. A second implementation here would be a second
instrument with faults of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import yaml
from pydantic import ValidationError

from harness import Amount, Costed, ImpactMeter, ImpactMeterSpec, MeterContext, Unavailable, UsageError, Value, now_ns
from harness.discovery.registry import Registry, load_plugins
from harness.measuring.meters import Meters
from harness.measuring.opening import build_backend, open_meters
from harness.measuring.window import shortness
from harness.planning.point import Choice, order_impacts
from harness.quantity import total
from harness.sample import disjoint
from harness.units import nanoseconds, seconds

LEAD_IN: Final = 0.1
"""Share of the window's length for which the work runs before it, so that a smoothed sensor has settled."""
NO_CARBON: Final = Unavailable("no impact meter gives carbon")


class Instrument:
    """The opened meters of a session, and the impact meters that turn their joules into impacts.

    Args:
        meters: as under `meters:` of a suite, one text each.
        backend: name of the backend whose devices are read and synchronised.
        seconds: least length of a window.

    Raises:
        UsageError: a meter, backend or option is unknown, or the length is not positive.
    """

    def __init__(self, meters: Sequence[str], *, backend: str = "host", seconds: float = 1.0) -> None:
        if not 0 < seconds < 86_400:
            raise UsageError(f"a window of {seconds} s", accepted="more than 0 and less than a day")
        self.seconds = seconds
        registry = load_plugins()
        choices = chosen(meters, registry)
        self._impacts = _impacts(choices, registry)
        self._backend = build_backend(Choice(backend), registry)
        self._devices = tuple(self._backend.open())
        context = MeterContext(devices=self._devices, pid=os.getpid())
        self._reading, self._silent = open_meters(choices, registry, context)

    def close(self) -> None:
        """Closes the meters in reverse order, then the backend."""
        Meters(self._reading).close()
        self._backend.close()

    def measure(self, work: Callable[[], object], batch: int = 1) -> dict[str, Any]:
        """What one call of `work` costs, as JSON values for `extra_info`.

        Args:
            work: called again and again until the window is long enough.
            batch: calls between two looks at the clock, which is part of the window.
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
        primary = meters.primaries()
        found = [each for each in meters.energies(opened, closed) if primary.get(each[1]) == each[0].name]
        scopes = {name: channel.scopes[name] for channel, name, *_ in found}
        summed = disjoint(list(scopes), scopes)
        energy = {name: value for _, name, value, _, _ in found if name in summed}
        flags = {flag for *_, marks in found for flag in marks} | set(shortness(meters, duration_s, calls))
        readings: dict[str, Value] = {"energy_j": self._sum(list(energy.values()))}
        costed = Costed(
            duration_s=duration_s,
            start_utc_s=meters.utc_s(opened.ns),
            energy=energy,
            readings=readings,
            devices=self._devices,
        )
        impacts = self._apply(costed)
        readings |= impacts
        return {
            **_described("energy_j", readings["energy_j"], calls),
            **_described("carbon_g", readings.get("carbon_g", NO_CARBON), calls),
            **{key: each for name, value in impacts.items() for key, each in _described(name, value, calls).items()},
            "energy_scopes": sorted(energy),
            "energy_window_s": duration_s,
            "energy_calls": calls,
            "energy_flags": sorted(flags),
        }

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
        """What the impact meters give, each with what those before it gave; ratios are no cost of a call."""
        found: dict[str, Value] = {}
        for spec, meter in self._impacts:
            readings = meter.apply(replace(costed, readings={**costed.readings, **found})).readings
            found |= {name: readings.get(name, Unavailable(f"{spec.name} gave none")) for name in spec.yields}
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


def chosen(meters: Sequence[str], registry: Registry) -> tuple[Choice, ...]:
    """Meters as a suite names them, `auto` expanded; raises UsageError."""
    found: dict[str, Choice] = {}
    for text in meters:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = None
        named = {value: None} if isinstance(value, str) else value
        if not isinstance(named, dict) or len(named) != 1:
            raise UsageError(f"{text!r} is no meter", accepted="a name, or one name with a mapping of its options")
        ((name, options),) = named.items()
        if name == "auto":
            found = _automatic(registry) | found
            continue
        spec = registry.get("meter", str(name)).spec
        try:
            spec.options.model_validate(options or {})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UsageError(f"{name}.{place}: {first['msg']}", where="harness_meters") from None
        found[str(name)] = Choice(str(name), options or {})
    if found and all(isinstance(registry.get("meter", name).spec, ImpactMeterSpec) for name in found):
        found = _automatic(registry) | found  # impacts need energy, as in a suite
    return tuple(found.values())


def _automatic(registry: Registry) -> dict[str, Choice]:
    """The meters that stand for `auto`."""
    offers = registry.offers("meter").items()
    return {name: Choice(name, auto=True) for name, offer in offers if getattr(offer.spec, "auto", False)}


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


def _described(name: str, value: Value, calls: int) -> dict[str, Any]:
    """A reading of the window as that of one call, under its name; without one, null and the reason."""
    if not isinstance(value, Amount):
        return {name: None, f"{name}_unavailable": value.reason}
    one = value.times(1 / calls, value.unit)
    return {
        name: one.value,
        f"{name}_low": one.low,
        f"{name}_high": one.high,
        f"{name}_method": one.label.value,
        f"{name}_composition": {method.value: part for method, part in one.composition.items()},
    }


class EnergyBenchmark:
    """pytest-benchmark's fixture with energy in `extra_info`; everything else is that fixture's.

    Args:
        benchmark: pytest-benchmark's fixture.
        instrument: measures.
    """

    def __init__(self, benchmark: Any, instrument: Instrument) -> None:
        self._benchmark = benchmark
        self._instrument = instrument

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Takes times as pytest-benchmark does, then the energy; returns what the function returns."""
        result = self._benchmark(function, *args, **kwargs)
        self._add(function, args, kwargs)
        return result

    def pedantic(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """As pytest-benchmark's `pedantic`, then the energy; not with set-up or teardown, which would be in it."""
        result = self._benchmark.pedantic(target, args=args, kwargs=kwargs, **options)
        if options.get("setup") or options.get("teardown"):
            missing = Unavailable("a set-up or teardown in each round would be part of the window")
            self._benchmark.extra_info |= {
                **_described("energy_j", missing, 1),
                **_described("carbon_g", missing, 1),
            }
        else:
            self._add(target, args, kwargs or {})
        return result

    def _add(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if self._benchmark.enabled:
            batch = self._benchmark.stats.iterations
            self._benchmark.extra_info |= self._instrument.measure(lambda: function(*args, **kwargs), batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._benchmark, name)
