"""Energy above idle: what a trial drew beyond what its devices draw without work. Shown beside the gross energy.

The gross energy is the result. Net = gross - idle power x duration is a reading of its own, which may be 0 or less and
is never gated. What is subtracted is the power of `loaded_idle` where a trial has that stretch, else that of `idle`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.functional_unit import mean_power
from harness.quantity import Amount, Unavailable, Value, total
from harness.records.metric import ABOVE_IDLE, IDLE_POWER, LOADED_IDLE_POWER
from harness.records.record import IDLE, LOADED_IDLE, Measurement, Span

POWER_OF = {IDLE: IDLE_POWER, LOADED_IDLE: LOADED_IDLE_POWER}
_WHEN = {IDLE: "before the workload is loaded", LOADED_IDLE: "workload loaded, no work"}
NOT_MEASURED = "idle power was not measured (the suite's idle_seconds is 0)"


def idle_readings(
    measurement: Measurement, totals: Mapping[str, Value], summed: Sequence[str]
) -> tuple[dict[str, Value], dict[str, str]]:
    """Idle power and energy above idle, in total and by scope; and what tells each reading from its like.

    Args:
        measurement: of the trial.
        totals: its readings over all windows, `energy_j` and `duration_s` among them.
        summed: the scopes whose energies make up `energy_j`: the same ones count here.
    """
    stretches = {span.name: span for span in measurement.spans if span.name in POWER_OF and span.window < 0}
    gross = totals.get("energy_j", Unavailable("no energy was read"))
    if not stretches:
        lost = gross if not isinstance(gross, Amount) else Unavailable(NOT_MEASURED)
        return {ABOVE_IDLE: lost}, {}
    readings: dict[str, Value] = {}
    notes = {"energy_j": "gross"}
    for name, span in stretches.items():
        powers = {scope: _power(measurement, span, scope) for scope in summed}
        readings[POWER_OF[name]] = _sum(list(powers.values()))
        notes[POWER_OF[name]] = _WHEN[name]
        if len(summed) > 1:
            readings |= {f"{POWER_OF[name]}:{scope}": power for scope, power in powers.items()}
    baseline = LOADED_IDLE if LOADED_IDLE in stretches else IDLE
    duration = totals.get("duration_s", Unavailable("no window was measured"))
    subtracted = POWER_OF[baseline]
    pairs = {ABOVE_IDLE: (gross, readings[subtracted])}
    if len(summed) > 1:
        pairs |= {
            f"{ABOVE_IDLE}:{scope}": (totals[f"energy_j:{scope}"], readings[f"{subtracted}:{scope}"])
            for scope in summed
        }
    for name, (energy, power) in pairs.items():
        readings[name] = net_energy(energy, power, duration)
        notes[name] = f"net: above {baseline}"
    return readings, notes


def net_energy(gross: Value, idle: Value, duration: Value) -> Value:
    """Gross energy less idle power times duration; its bound holds the worst of both, its method is the weaker one."""
    for value in (gross, idle, duration):
        if not isinstance(value, Amount):
            return value
    assert isinstance(gross, Amount)
    assert isinstance(idle, Amount)
    assert isinstance(duration, Amount)
    time_s = duration.value
    return Amount.of(
        gross.value - idle.value * time_s,
        "J",
        max(gross.label, idle.label, key=lambda method: method.weakness),
        low=None if gross.low is None or idle.high is None else gross.low - idle.high * time_s,
        high=None if gross.high is None or idle.low is None else gross.high - idle.low * time_s,
    )


def _power(measurement: Measurement, span: Span, scope: str) -> Value:
    """Mean power of a scope over an idle stretch, by its primary meter."""
    for reading in measurement.readings:
        if reading.span == span.name and reading.window < 0 and reading.scope == scope and reading.primary:
            if not isinstance(reading.value, Amount):
                return Unavailable(f"{span.name}, {scope}: {reading.value.reason}")
            return mean_power(reading.value, Amount.exact(span.duration_s, "s"))
    return Unavailable(f"{span.name}: no meter read {scope} in it")


def _sum(powers: Sequence[Value]) -> Value:
    found = []
    for power in powers:
        if not isinstance(power, Amount):
            return power
        found.append(power)
    return total(found) if found else Unavailable("no energy meter reads on this machine")
