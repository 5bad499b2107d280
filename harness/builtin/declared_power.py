"""Impact meter `declared_power`: declared watts times the device rows of the workload. Simulated joules."""

from __future__ import annotations

import math
from typing import Final

from pydantic import Field, NonNegativeFloat

from harness.impact import Costed, DeviceUse, Impact, ImpactMeter, ImpactMeterSpec
from harness.options import Options
from harness.quantity import Amount, Method, Unavailable, Value, total
from harness.sample import Scope


class Watts(Options):
    """Declared power of a device."""

    busy: NonNegativeFloat
    """Power while it works, in W."""
    idle: NonNegativeFloat = 0.0
    """Power while it is reserved and waits, in W."""
    phases: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Power by what the device does, in W, where the workload tells: `{prefill: 360, decode@1: 180, decode@64: 260}`. A
    phase at a load that is not named takes that of the phase alone (`decode`), and one named nowhere takes `busy`."""

    def joules(self, use: DeviceUse) -> float:
        """Energy of a device row: each phase at its power, the rest of the busy time at `busy`, then idle."""
        told = math.fsum(
            seconds * self.phases.get(phase, self.phases.get(phase.partition("@")[0], self.busy))
            for phase, seconds in use.phases.items()
        )
        untold_s = max(0.0, use.busy_s - math.fsum(use.phases.values()))
        return told + self.busy * untold_s + self.idle * max(0.0, use.reserved_s - use.busy_s)


class DeclaredPowerOptions(Options):
    """Options of impact meter `declared_power`."""

    watts: Watts | dict[str, Watts]
    """One declaration for all devices, or one for each device UUID or role; a UUID's goes before its role's."""


class DeclaredPower(ImpactMeter):
    """Joules of a device = busy watts x busy seconds + idle watts x the other reserved seconds."""

    def __init__(self, options: DeclaredPowerOptions) -> None:
        self._watts = options.watts

    def _declared(self, use: DeviceUse) -> Watts | None:
        if isinstance(self._watts, Watts):
            return self._watts
        return self._watts.get(use.device) or self._watts.get(use.role)

    def _joules(self, use: DeviceUse) -> Value:
        watts = self._declared(use)
        if watts is None:
            known = ", ".join(self._watts) if isinstance(self._watts, dict) else ""
            role = f" in role {use.role!r}" if use.role else ""
            return Unavailable(f"no watts are declared for device {use.device!r}{role}; declared: {known or 'none'}")
        return Amount.of(watts.joules(use), "J", Method.SIMULATED)

    def apply(self, costed: Costed) -> Impact:
        """Energy per device, in scope `declared:<device>`, and their sum as `energy_j`.

        Every device of the rows must have declared watts: else the sum is Unavailable, since a part is no total.
        """
        if not costed.uses:
            return Impact(readings={"energy_j": Unavailable("the workload wrote no device rows")})
        parts: dict[str, list[Value]] = {}
        for use in costed.uses:
            parts.setdefault(use.device, []).append(self._joules(use))
        energy = {f"n0/declared:{device}": _sum(values) for device, values in parts.items()}
        scopes = {
            f"n0/declared:{device}": Scope(
                method=Method.SIMULATED,
                within=_measured_by(device, costed),
                device=device,
                note="model: declared watts x busy and reserved time",
            )
            for device in parts
        }
        return Impact(
            readings={"energy_j": _sum(list(energy.values()))},
            energy=energy,
            scopes=scopes,
            flags=("energy from declared watts",),
        )


def _measured_by(device: str, costed: Costed) -> tuple[str, ...]:
    """Scopes that already hold what the declaration stands for, so that the two are never added."""
    if any(one.uuid == device and one.kind == "cpu" for one in costed.devices):
        return tuple(name for name in costed.energy if name.partition("/")[2].startswith(("cpu-package:", "process")))
    return (f"n0/gpu:{device}", f"n0/module:{device}")


def _sum(values: list[Value]) -> Value:
    amounts = [value for value in values if isinstance(value, Amount)]
    return total(amounts) if len(amounts) == len(values) else next(v for v in values if not isinstance(v, Amount))


METER: Final = ImpactMeterSpec(
    name="declared_power",
    summary="simulated: declared watts x the time devices were busy or reserved",
    factory=DeclaredPower,
    needs=(),
    yields={"energy_j": "J"},
    options=DeclaredPowerOptions,
)
