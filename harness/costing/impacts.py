"""What impact meters make of a trial's windows, and the sums over them; a measurement can be costed many times."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from harness import functional_unit
from harness.costing.idle import idle_readings
from harness.costing.trace import TraceError
from harness.discovery.guard import expect, naming
from harness.errors import HarnessError, PluginError
from harness.functional_unit import UnitCount, per_unit
from harness.impact import Costed, DeviceUse, EnergyTrace, Factor, Impact, ImpactMeter, ImpactMeterSpec
from harness.planning.point import order_impacts
from harness.quantity import Amount, Method, Unavailable, Undefined, Value, total
from harness.records.metric import POWERS, base_name
from harness.records.record import SIMULATOR, Measurement, Span
from harness.sample import Scope, disjoint

WINDOW: Final = "window"
"""Name of the span that a whole window is."""


@dataclass(frozen=True, slots=True)
class Applied:
    """An impact meter, made with its options; `written` is its name in the suite where that says whose it is."""

    spec: ImpactMeterSpec
    options: Mapping[str, Any]
    meter: ImpactMeter
    written: str = ""

    @property
    def name(self) -> str:
        """As a suite names it."""
        return self.written or self.spec.name


def in_order(applied: Iterable[Applied]) -> tuple[Applied, ...]:
    """Each after those whose readings it needs; raises UsageError as `order_impacts` does."""
    by_spec = {id(each.spec): each for each in applied}
    return tuple(by_spec[id(spec)] for spec in order_impacts([each.spec for each in by_spec.values()]))


@dataclass(frozen=True, slots=True)
class Costs:
    """What a trial cost.

    Attributes:
        totals: reading name -> value over all windows.
        factors: every factor used, once.
        flags: what a reader must know, each once.
        ratios: readings that are never divided by a functional unit.
        alternatives: reading -> published alternative to its factors -> the total with it.
        notes: reading -> what tells it from its like.
    """

    totals: dict[str, Value]
    factors: tuple[Factor, ...]
    flags: tuple[str, ...]
    ratios: frozenset[str]
    alternatives: dict[str, dict[str, Value]]
    notes: dict[str, str]

    def per_unit(self, name: str, counted: UnitCount) -> dict[str, Value]:
        """Each reading divided by what was achieved of a functional unit."""
        return {
            metric: per_unit(value, name, counted)
            for metric, value in self.totals.items()
            if metric not in self.ratios and base_name(metric) not in POWERS and not metric.startswith(SIMULATOR)
        }


@dataclass(slots=True)
class _Kept:
    """What impact meters said beside their readings, over all windows so far."""

    factors: dict[str, Factor] = field(default_factory=dict)
    flags: dict[str, None] = field(default_factory=dict)
    alternatives: dict[tuple[str, str], list[Value]] = field(default_factory=lambda: defaultdict(list))
    scopes: dict[str, Scope] = field(default_factory=dict)
    basis: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, spec: ImpactMeterSpec, impact: Impact) -> None:
        """Keeps what one meter said of one window."""
        self.scopes.update(impact.scopes)
        for what, which in impact.basis.items():
            self.basis[what][spec.name] = which
        self.factors.update({factor.id or f"{factor.name}={factor.value}": factor for factor in impact.factors})
        self.flags.update(dict.fromkeys(f"{spec.name}: {flag}" for flag in impact.flags))
        for reading, named in impact.alternatives.items():
            for name, value in named.items():
                self.alternatives[reading, name].append(value)

    def disagreements(self) -> list[str]:
        """What the impact meters do not agree on: numbers beside each other that speak of different things."""
        found = []
        for what, by_meter in self.basis.items():
            if len(set(by_meter.values())) > 1:
                told = ", ".join(f"{meter} on {which}" for meter, which in by_meter.items())
                found.append(f"impact meters rest on different values of {what}: {told}")
        return found

    def sums(self, windows: int) -> dict[str, dict[str, Value]]:
        """Alternatives summed over the windows; one that a window lacks is none."""
        found: dict[str, dict[str, Value]] = {}
        for (reading, name), values in self.alternatives.items():
            if len(values) == windows:
                found.setdefault(reading, {})[name] = _sum(values)
        return found


@dataclass(slots=True)
class _Window:
    """A window before any impact meter: energy, readings, device rows, and what its modelling took here."""

    span: Span
    energy: dict[str, Value]
    readings: dict[str, Value]
    uses: tuple[DeviceUse, ...]
    simulator: dict[str, Value] = field(default_factory=dict)


class CostedWindows:
    """The windows of one measurement.

    Where the work is modelled, meters and clock saw the model's computation and not the work: what they read stands
    apart, time is the work's own, and nothing is better than `simulated`.

    Only energy and devices that are the work's are charged, as the measurement says it; other scopes stand beside it.

    Args:
        measurement: what the worker saw.
        trace: cumulative joules over time.
        modelled: whether the work of every window is modelled, for measurements that do not say so of their windows.
        span: what is costed: the windows, or spans of another name that lie in them. Device rows are of windows only.
    """

    def __init__(
        self, measurement: Measurement, trace: EnergyTrace, *, modelled: bool = False, span: str = WINDOW
    ) -> None:
        self._measurement = measurement
        self._trace = trace
        self._modelled = modelled
        self._name = span
        self._scopes = measurement.scopes
        self._charged = measurement.charged
        making = measurement.charged_devices
        self._devices = tuple(each for each in measurement.devices if making is None or each.uuid in making)
        found = [each for each in measurement.spans if each.name == span and each.window >= 0]
        spans = [replace(each, modelled=each.modelled or modelled) for each in found]
        counts: Counter[int] = Counter()
        self._windows = []
        for each in spans:
            self._windows.append(self._window(each, counts[each.window]))
            counts[each.window] += 1

    def within(self, span: str) -> CostedWindows:
        """The spans of another name, costed likewise."""
        return CostedWindows(self._measurement, self._trace, modelled=self._modelled, span=span)

    def _charges(self, scope: str) -> bool:
        """Whether a scope's energy is the work's; what an impact meter adds is."""
        return self._charged is None or scope in self._charged or scope not in self._scopes

    def _window(self, span: Span, number: int) -> _Window:
        """A window, or the `number`-th span of its name in its window: readings stand in the order of their spans."""
        seen: dict[str, list[Value]] = defaultdict(list)
        for reading in self._measurement.readings:
            if reading.primary and reading.span == span.name and reading.window == span.window:
                seen[reading.scope].append(reading.value)
        energy = {scope: values[number] for scope, values in seen.items() if number < len(values)}
        whole = self._name == WINDOW
        uses = tuple(row.use for row in self._measurement.uses if whole and row.window == span.window)
        readings: dict[str, Value] = {"duration_s": span.work}
        simulator: dict[str, Value] = {}
        if span.modelled:
            simulator = {f"{SIMULATOR}energy_j:{scope}": value for scope, value in energy.items()}
            simulator = {f"{SIMULATOR}s": Amount.exact(span.duration_s, "s"), **simulator}
            energy = {}
            readings["energy_j"] = Unavailable("the work is modelled, and no impact meter gives its energy")
        else:
            self._add_energy(readings, energy, self._scopes)
        return _Window(span, energy, readings, uses, simulator)

    def cost(self, applied: Sequence[Applied], only: Sequence[str] | None = None) -> Costs:
        """Applies impact meters in their order.

        Args:
            applied: the meters in order.
            only: the readings to sum; all unless given.

        Raises:
            PluginError: a meter breaks its contract.
        """
        ratios = frozenset(name for each in applied for name in each.spec.ratios)
        kept = _Kept()
        if not self._windows and self._name != WINDOW:
            lost = Unavailable(f"the workload marked no span {self._name!r}")
            return Costs({"duration_s": lost, "energy_j": lost}, (), (), ratios, {}, {})
        per_window = [self._applied(window, applied, kept) for window in self._windows]
        totals = _totals(per_window, ratios, only)
        notes: dict[str, str] = {}
        if only is None:
            scopes = {name: scope for name, scope in {**self._scopes, **kept.scopes}.items() if self._charges(name)}
            above, notes = idle_readings(self._measurement, totals, _summed(totals, scopes))
            totals |= above
        return Costs(
            totals,
            tuple(kept.factors.values()),
            (*kept.flags, *kept.disagreements()),
            ratios,
            kept.sums(len(self._windows)),
            notes,
        )

    def _applied(self, window: _Window, applied: Sequence[Applied], kept: _Kept) -> dict[str, Value]:
        energy, readings = dict(window.energy), dict(window.readings)
        modelled = window.span.modelled
        scopes = {} if modelled else dict(self._scopes)
        duration = readings["duration_s"]
        for each in applied:
            spec = each.spec
            summed = disjoint([name for name in energy if name in scopes and self._charges(name)], scopes)
            costed = Costed(
                duration_s=duration.value if isinstance(duration, Amount) else math.nan,
                start_utc_s=window.span.start_utc_s,
                energy={name: energy[name] for name in summed},
                readings=dict(readings),
                devices=self._devices,
                uses=window.uses,
                trace=EnergyTrace() if modelled else self._trace,
                environment=self._measurement.environment,
            )
            impact = _impact(each, costed).labelled
            if modelled:
                impact = impact.as_weak_as(Method.SIMULATED)
            kept.add(spec, impact)
            energy.update(impact.energy)
            scopes.update(impact.scopes)
            if impact.energy:
                self._add_energy(readings, energy, scopes)
            for name in spec.yields:
                if name != "energy_j":
                    readings[name] = impact.readings.get(name, Unavailable(f"meter {spec.name!r} returned no {name}"))
                    if self._charged == ():  # nor is what else this machine costs, such as making it, the work's
                        readings[name] = Unavailable(self._measurement.not_charged)
        return readings | window.simulator

    def _add_energy(self, readings: dict[str, Value], energy: Mapping[str, Value], scopes: Mapping[str, Scope]) -> None:
        """`energy_j` over the scopes that are charged and may be summed, and `energy_j:<scope>` for each one read."""
        known = [name for name in energy if name in scopes]
        for name in known:
            readings[f"energy_j:{name}"] = energy[name]
        summed = disjoint([name for name in known if self._charges(name)], scopes)
        lost = self._measurement.not_charged or "no energy meter reads on this machine"
        readings["energy_j"] = _sum([energy[name] for name in summed]) if summed else Unavailable(lost)


def _impact(applied: Applied, costed: Costed) -> Impact:
    """What a meter makes of a window; input that it refuses costs its own readings, which say why, and no others.

    Raises:
        PluginError: the meter breaks its contract.
    """
    plugin = f"meter {applied.name!r}"
    try:
        with naming(plugin, "apply"):
            impact = expect(applied.meter.apply(costed), Impact, plugin, "apply")
            _check(applied.spec, impact)
    except TraceError:
        raise
    except PluginError:
        if isinstance(costed.duration, Amount):
            raise
        return _nothing(applied.spec, costed.duration.reason)
    except HarnessError as error:
        if isinstance(costed.duration, Amount):
            return _nothing(applied.spec, str(error))
        return _nothing(applied.spec, f"{costed.duration.reason} ({error})")
    return impact


def _nothing(spec: ImpactMeterSpec, reason: str) -> Impact:
    missing = Unavailable(reason)
    flags = (f"no impact: {reason}",)
    return Impact(readings={name: missing for name in spec.yields if name != "energy_j"}, flags=flags)


def _check(spec: ImpactMeterSpec, impact: Impact) -> None:
    undeclared = impact.readings.keys() - spec.yields.keys()
    if undeclared:
        raise PluginError(f"meter {spec.name!r} yielded undeclared readings {sorted(undeclared)}")
    for name, value in {**impact.readings, **impact.energy}.items():
        if not isinstance(value, Amount | Unavailable | Undefined):
            raise PluginError(
                f"meter {spec.name!r} returned {value!r:.60} for {name}", accepted="an Amount, or Unavailable"
            )


def _summed(totals: Mapping[str, Value], scopes: Mapping[str, Scope]) -> list[str]:
    """The scopes that `energy_j` is the sum of."""
    return disjoint([name for name in scopes if f"energy_j:{name}" in totals], scopes)


def _sum(values: Sequence[Value]) -> Value:
    """Sum of all; the first missing one is the reason why there is none."""
    amounts = []
    for value in values:
        if not isinstance(value, Amount):
            return value
        amounts.append(value)
    return total(amounts) if amounts else Unavailable("nothing was read")


def _totals(
    windows: Sequence[Mapping[str, Value]], ratios: frozenset[str], only: Sequence[str] | None
) -> dict[str, Value]:
    totals: dict[str, Value] = {}
    for name in dict.fromkeys(name for window in windows for name in window):
        if only is not None and name not in only:
            continue
        values = [window.get(name, Unavailable("not read in every window")) for window in windows]
        if name in ratios:
            totals[name] = values[0] if len(set(map(str, values))) == 1 else Unavailable("differs between windows")
        else:
            totals[name] = _sum(values)
    if "duration_s" in totals and "energy_j" in totals:
        totals["power_w"] = functional_unit.mean_power(totals["energy_j"], totals["duration_s"])
    return totals
