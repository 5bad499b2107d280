"""The impact meter `fuel`: energy and duration of a window -> operational and embodied carbon, in g."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from harness.errors import HarnessError
from harness.meter import Costed, Factor, Impact, ImpactMeter
from harness.quantity import Amount, Unavailable, Undefined, Value, total
from harness_meter_fuel import embodied
from harness_meter_fuel.carbon import operational_g
from harness_meter_fuel.grid import Grid
from harness_meter_fuel.inventory import Bill, bill, host_share, take
from harness_meter_fuel.options import FuelOptions

_HOST_PARTS = ("cpu", "dram")
"""Scopes that hold nothing but processors or memory begin so; `host` and `module` hold accelerators too."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the two summands, with the factors and flags that belong to it."""

    value: Value
    factors: tuple[Factor, ...] = ()
    flags: tuple[str, ...] = field(default=())


def scope_kind(scope: str) -> str:
    """`gpu` of `n0/gpu:<uuid>`, `cpu` of `n0/cpu-package:0`, `dram`, `host`, `module`."""
    register = scope.partition("/")[2].partition(":")[0]
    return "cpu" if register.startswith("cpu") else register


def _reason(value: Unavailable | Undefined) -> str:
    return value.reason


class FuelMeter(ImpactMeter):
    """Applies one set of options; reads no clock and no device."""

    def __init__(self, options: FuelOptions) -> None:
        self.options = options

    def apply(self, costed: Costed) -> Impact:
        """Carbon of one window: operational, embodied, and their sum where both are known."""
        operational = self._guarded(self._operational, costed)
        hardware = self._guarded(self._embodied, costed)
        summed: Value
        if isinstance(operational.value, Amount) and isinstance(hardware.value, Amount):
            summed = total([operational.value, hardware.value])
        else:
            missing = [
                f"{name}: {_reason(part.value)}"
                for name, part in (("operational", operational), ("embodied", hardware))
                if not isinstance(part.value, Amount)
            ]
            summed = Unavailable("; ".join(missing))
        flags = (*operational.flags, *hardware.flags)
        return Impact(
            readings={
                "carbon_operational_g": operational.value,
                "carbon_embodied_g": hardware.value,
                "carbon_g": summed,
            },
            factors=(*operational.factors, *hardware.factors),
            flags=(*flags, *self._profile_flags(costed, flags, summed)),
        )

    @staticmethod
    def _guarded(part: Callable[[Costed], _Part], costed: Costed) -> _Part:
        """A part, or why it is not known: a reading outside its range gives no number and loses no record."""
        try:
            return part(costed)
        except HarnessError as error:
            return _Part(Unavailable(str(error)))

    # Operational

    def _operational(self, costed: Costed) -> _Part:
        grid = self.options.intensity()
        if isinstance(grid, Unavailable):
            return _Part(grid)
        pue, pue_factor = self._pue()
        share, share_factor = self._energy_share(costed)
        known = {name: value for name, value in costed.energy.items() if isinstance(value, Amount)}
        missing = {name: value for name, value in costed.energy.items() if not isinstance(value, Amount)}
        flags = [*grid.flags, *(f"incomplete: no energy of {name} ({_reason(missing[name])})" for name in missing)]
        if pue != 1.0 and not pue_factor.source.startswith("declared: "):
            flags.append("pue without a source")
        if not known:
            reason = "; ".join(f"{name}: {_reason(value)}" for name, value in missing.items())
            total_energy = costed.readings.get("energy_j")
            if not reason and isinstance(total_energy, Unavailable):
                reason = total_energy.reason
            return _Part(Unavailable(f"no energy was read: {reason or 'no scope is listed'}"), (), tuple(flags))
        grams = []
        for name, energy in known.items():
            scope_share = share if scope_kind(name) in _HOST_PARTS else 1.0
            if share != 1.0 and scope_kind(name) in {"host", "module"}:
                flags.append(f"{name} charged whole: it holds accelerators too, the host energy share is for parts")
            intensity, low, high, uniform = self._intensity(grid, costed, name)
            if uniform:
                flags.append(f"uniform split of {name} over the intensity series")
            grams.append(
                operational_g(
                    energy,
                    intensity,
                    pue=pue,
                    share=scope_share,
                    grid_low_g_per_kwh=low,
                    grid_high_g_per_kwh=high,
                )
            )
        return _Part(total(grams), (grid.factor, pue_factor, share_factor), tuple(flags))

    @staticmethod
    def _intensity(grid: Grid, costed: Costed, scope: str) -> tuple[float, float | None, float | None, bool]:
        if grid.series is None:
            assert grid.factor.value is not None
            return grid.factor.value, grid.low, grid.high, False
        found = grid.series.intensity(costed.start_utc_s, costed.duration_s, costed.trace, scope)
        return found.g_per_kwh, found.low, found.high, found.uniform

    def _pue(self) -> tuple[float, Factor]:
        if self.options.pue is not None:
            value, given = self.options.pue.value, self.options.pue.source.strip()
            source = f"declared: {given}" if given else "no source given"
        elif self.options.fixed is not None:
            value, source = self.options.fixed.pue, self.options.fixed.source
        else:
            value, source = 1.0, "default: energy of the IT equipment alone"
        return value, Factor(name="pue", value=value, unit="1", source=source, id=f"pue:{value!r}:{source}")

    def _energy_share(self, costed: Costed) -> tuple[float, Factor]:
        if self.options.fixed is not None:
            share, source = self.options.fixed.host_energy_share, self.options.fixed.source
        else:
            accelerators = take(costed.devices, self.options).accelerators
            share, source = host_share(self.options, accelerators, self.options.host_energy_share)
        return share, _share_factor("host_energy_share", share, source)

    # Embodied

    def _embodied(self, costed: Costed) -> _Part:
        inventory = take(costed.devices, self.options)
        chosen = bill(inventory, self.options, self.options.table)
        if isinstance(chosen, Unavailable):
            return _Part(chosen, (), inventory.flags)
        value = chosen.grams(costed.duration_s)
        spread = self._spread(costed)
        flags = list(inventory.flags)
        if spread:
            least, most = (min(spread.values()), max(spread.values()))
            names = {value: name for name, value in spread.items()}
            value = replace(value, low=least, high=most)
            flags.append(f"embodied range: {names[least]} (low) to {names[most]} (high)")
        else:
            flags.append(f"embodied range not known: only table {self.options.table!r} or own rows fit all devices")
        factors = [charge.factor() for charge in chosen.charges]
        factors.append(_share_factor("host_embodied_share", inventory.host_share, inventory.share_source))
        return _Part(value, _distinct(factors), tuple(flags))

    def _spread(self, costed: Costed) -> dict[str, float]:
        """Grams per table that has a row for every device, where there are at least two and no own row is used."""
        return {name: each.grams(costed.duration_s).value for name, each in qualifying(costed, self.options).items()}

    # Profile

    def _profile_flags(self, costed: Costed, flags: Sequence[str], summed: Value) -> list[str]:
        fixed = self.options.fixed
        if fixed is None:
            return []
        read = {scope_kind(name) for name, value in costed.energy.items() if isinstance(value, Amount)}
        absent = [kind for kind in fixed.wanted if kind not in read]
        found = [f"incomplete: profile {fixed.name} wants {kind} energy, none was read" for kind in absent]
        doubts = [flag for flag in flags if flag.startswith(("incomplete", "embodied carbon without"))]
        if absent or doubts or not isinstance(summed, Amount):
            return [*found, f"not to be called {fixed.name}"]
        return [f"profile {fixed.name}: after the paper, constants from secondary sources"]


def _share_factor(name: str, share: float, source: str) -> Factor:
    return Factor(name=name, value=share, unit="1", source=source, id=f"{name}:{share!r}:{source}")


def _distinct(factors: Iterable[Factor]) -> tuple[Factor, ...]:
    return tuple({factor.id: factor for factor in factors}.values())


def qualifying(costed: Costed, options: FuelOptions) -> dict[str, Bill]:
    """The bill under each table that has a row for every device of the window, from two tables on; else empty.

    Own rows belong to no table, so with one in use there is no range to give.
    """
    inventory = take(costed.devices, options)
    bills = {name: bill(inventory, options, name) for name in embodied.tables()}
    known = {name: each for name, each in bills.items() if isinstance(each, Bill)}
    own = any(charge.row.table == "declared" for each in known.values() for charge in each.charges)
    return {} if own or len(known) < 2 else known


def flip_factor(
    operational_g_a: float, embodied_g_a: float, operational_g_b: float, embodied_g_b: float
) -> float | None:
    """The common factor on embodied carbon at which two systems tie; None where no positive factor does.

    All four per functional unit, in g. To be read next to the spread of the tables, about 47.
    """
    gap = embodied_g_b - embodied_g_a
    if gap == 0:
        return None
    factor = (operational_g_a - operational_g_b) / gap
    return factor if math.isfinite(factor) and factor > 0 else None
