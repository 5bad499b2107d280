"""The impact meter `fuel`: energy and duration of a window -> operational and embodied carbon, in g."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from harness.errors import HarnessError
from harness.impact import Costed, Factor, Impact, ImpactMeter
from harness.quantity import Amount, Method, Unavailable, Undefined, Value, total
from harness.units import kwh
from harness_meter_fuel import codecarbon_tables, embodied
from harness_meter_fuel.carbon import checked_duration_s, operational_g
from harness_meter_fuel.charging import NodeHosts, extrapolated, range_beside, reserved
from harness_meter_fuel.grid import Grid
from harness_meter_fuel.inventory import Bill, Hosts, Inventory, bill, hosts, nodes_of, take
from harness_meter_fuel.options import FuelOptions

_HOST_PARTS = ("cpu", "dram")
"""Scopes that hold nothing but processors or memory begin so; `host` and `module` hold accelerators too."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the two summands, with the factors and flags that belong to it."""

    value: Value
    factors: tuple[Factor, ...] = ()
    flags: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class _Hardware:
    """What took part, and its bill under the chosen table and under each one that qualifies: fixed over windows."""

    inventory: Inventory
    chosen: Bill | Unavailable
    qualifying: Mapping[str, Bill]
    factors: tuple[Factor, ...]


def scope_kind(scope: str) -> str:
    """`gpu` of `n0/gpu:<uuid>`, `cpu` of `n0/cpu-package:0`, `dram`, `host`, `module`."""
    register = scope.partition("/")[2].partition(":")[0]
    return "cpu" if register.startswith("cpu") else register


def _reason(value: Unavailable | Undefined) -> str:
    return value.reason


def _low(value: Amount) -> float:
    return value.value if value.low is None else value.low


def _high(value: Amount) -> float:
    return value.value if value.high is None else value.high


class FuelMeter(ImpactMeter):
    """Applies one set of options; reads no clock and no device."""

    def __init__(self, options: FuelOptions) -> None:
        self.options = options
        self._known: dict[tuple[object, ...], _Hardware] = {}
        self._latest: tuple[Costed, _Hardware] | None = None
        self._shared: tuple[_Hardware, tuple[str, ...], tuple[NodeHosts, Factor]] | None = None

    @cached_property
    def _grid(self) -> Grid | Unavailable:
        """The grid in use, looked up once."""
        return self.options.intensity()

    def _hardware(self, costed: Costed) -> _Hardware:
        """The hardware of a window; costing many windows of the same devices bills it once."""
        if self._latest is None or self._latest[0] is not costed:
            self._latest = (costed, self._looked_up(costed))
        return self._latest[1]

    def _looked_up(self, costed: Costed) -> _Hardware:
        key = (costed.devices, tuple(costed.energy), *((use.device, use.stands_for) for use in costed.uses))
        if key not in self._known:
            inventory = take(costed.devices, self.options, costed.uses, costed.energy)
            chosen = bill(inventory, self.options, self.options.table)
            self._known = {
                key: _Hardware(
                    inventory, chosen, qualifying(inventory, self.options), _embodied_factors(inventory, chosen)
                )
            }
        return self._known[key]

    def apply(self, costed: Costed) -> Impact:
        """Carbon of one window: operational, embodied, and their sum where both are known.

        Raises:
            MeasurementError: energy or duration outside its range, or a series that does not cover the window.
            UsageError: a factor outside its range.
        """
        operational = self._operational(costed)
        hardware = self._embodied(costed)
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
        flags = (*operational.flags, *self._place_flags(), *hardware.flags)
        tables = self._hardware(costed).qualifying
        timed = isinstance(costed.duration, Amount)
        held = reserved(costed)
        under = {name: each.grams(costed.duration_s, held) for name, each in tables.items()} if timed else {}
        return Impact(
            readings={
                "carbon_operational_g": operational.value,
                "carbon_embodied_g": hardware.value,
                "carbon_g": summed,
                "sci_g": self._sci(summed),
            },
            factors=(*operational.factors, *hardware.factors),
            flags=(*flags, *self._profile_flags(costed, flags, summed), *self._sci_flags(summed, known=bool(held))),
            alternatives={"carbon_embodied_g": under} if under else {},
            basis=self._basis(costed),
        )

    def _place_flags(self) -> list[str]:
        """Says that a grid intensity which names no country goes before that of the place, of which the water is."""
        options = self.options
        own = options.fixed is not None or (options.grid is not None and options.grid.country is None)
        if options.place is None or not own:
            return []
        unknown = "whether carbon and water rest on the same place is not known"
        return [f"grid intensity is not that of the place {options.place.label}: {unknown}"]

    def _basis(self, costed: Costed) -> dict[str, str]:
        """What other impact meters of a record should rest on too."""
        options = self.options
        here = options.place if options.grid is None and options.fixed is None else None
        country = here.country if here else ""
        if options.grid is not None and options.grid.country is not None:
            country = codecarbon_tables.alpha_3(options.grid.country)
        basis = {
            "place": (here.row or here.name) if here else "",
            "country": country,
            "pue": repr(self._pue[0]) if isinstance(costed.duration, Amount) else "",
            "time": "when it ran" if options.grid is not None and options.grid.series is not None else "",
        }
        return {key: value for key, value in basis.items() if value}

    # SCI (ISO/IEC 21031:2024): E * I + M with the window as the time reserved; the core divides by R

    def _sci(self, summed: Value) -> Value:
        if self.options.grid is not None and self.options.grid.basis == "market":
            return Unavailable("SCI is location-based: a market-based grid intensity gives no SCI score")
        return summed

    def _sci_flags(self, summed: Value, *, known: bool) -> list[str]:
        """Where the score differs from the standard's; `known`: the work says how long its devices were reserved."""
        if not isinstance(self._sci(summed), Amount):
            return []
        time = "" if known else "hardware counted for the window, not for all the time it was reserved"
        counted = self._pue[1].source.startswith("default: ") or self.options.fixed is not None
        overhead = "data-centre overhead not counted (pue 1)" if counted else ""
        differs = ", ".join(filter(None, (time, overhead)))
        return [f"SCI: {differs}"] if differs else []

    # Operational

    def _operational(self, costed: Costed) -> _Part:
        grid = self._grid
        if isinstance(grid, Unavailable):
            return _Part(grid)
        pue, pue_factor = self._pue
        charged = {name: value for name, value in costed.energy.items() if self._charges(name)}
        known = {name: value for name, value in charged.items() if isinstance(value, Amount)}
        missing = {name: value for name, value in charged.items() if not isinstance(value, Amount)}
        shares, share_factor = self._shares_of(costed, known)
        left = [name for name in costed.energy if name not in charged]
        flags = [*grid.flags, *(f"not charged: {name}, not among the scopes asked for" for name in left)]
        flags += [*(f"incomplete: no energy of {name} ({_reason(missing[name])})" for name in missing)]
        if pue != 1.0 and pue_factor.source == "no source given":
            flags.append("pue without a source")
        if not known:
            reason = "; ".join(f"{name}: {_reason(value)}" for name, value in missing.items())
            total_energy = costed.readings.get("energy_j")
            if not reason and isinstance(total_energy, Unavailable):
                reason = total_energy.reason
            return _Part(Unavailable(f"no energy was read: {reason or 'no scope is listed'}"), (), tuple(flags))
        grams: list[Amount] = []
        ends: list[tuple[float, float, float]] = []
        for name, energy in known.items():
            node_hosts = shares.of(name)
            if node_hosts != 1.0 and scope_kind(name) in {"host", "module"}:
                flags.append(f"{name} charged whole: it holds accelerators too, the host energy share is for parts")
            if grid.series is not None and not isinstance(costed.duration, Amount):
                return _Part(Unavailable(_reason(costed.duration)), (), tuple(flags))
            intensity, low, high, uniform, past = self._intensity(grid, costed, name)
            if past:
                flags.append(f"grid intensity of {name} is of a past time: {past}")
            if uniform:
                flags.append(f"uniform split of {name} over the intensity series")
            times = node_hosts if scope_kind(name) in _HOST_PARTS else 1.0
            low_end, high_end = (intensity if end is None else end for end in (low, high))
            ends.append((low_end, high_end, kwh(energy.value) * pue * times))
            grams.append(
                operational_g(
                    energy,
                    intensity,
                    pue=pue,
                    hosts=times,
                    grid_low_g_per_kwh=low,
                    grid_high_g_per_kwh=high,
                )
            )
        flags += [*shares.flags, *range_beside(grams, ends)]
        return _Part(total(grams), (grid.factor, pue_factor, share_factor), tuple(flags))

    def _charges(self, scope: str) -> bool:
        return self.options.scopes is None or scope_kind(scope) in self.options.scopes

    @staticmethod
    def _intensity(grid: Grid, costed: Costed, scope: str) -> tuple[float, float | None, float | None, bool, str]:
        if grid.series is None:
            assert grid.factor.value is not None
            return grid.factor.value, grid.low, grid.high, False, ""
        found = grid.series.intensity(costed.start_utc_s, costed.duration_s, costed.trace, scope)
        return found.g_per_kwh, found.low, found.high, found.uniform, found.past

    @cached_property
    def _pue(self) -> tuple[float, Factor]:
        if self.options.pue is not None:
            value, given = self.options.pue.value, self.options.pue.source.strip()
            source = f"declared: {given}" if given else "no source given"
        elif self.options.fixed is not None:
            value, source = self.options.fixed.pue, self.options.fixed.source
        elif isinstance(self._grid, Grid) and self._grid.pue is not None:
            value, source = self._grid.pue, f"declared: {self._grid.factor.source}"
        elif self.options.place is not None and self.options.place.pue is not None:
            known = self.options.place.pue
            return known.value, Factor(
                name="pue",
                value=known.value,
                unit="1",
                source=known.source,
                licence=known.licence,
                date=known.date,
                id=f"pue:{known.id or known.value!r}",
                low=known.low,
                high=known.high,
            )
        else:
            value, source = 1.0, "default: energy of the IT equipment alone"
        return value, Factor(name="pue", value=value, unit="1", source=source, id=f"pue:{value!r}:{source}")

    def _shares_of(self, costed: Costed, known: Mapping[str, Amount]) -> tuple[NodeHosts, Factor]:
        """The energy shares, which windows of the same hardware and scopes have in common."""
        hardware, names = self._hardware(costed), (*costed.energy, "", *known)
        if self._shared is None or self._shared[0] is not hardware or self._shared[1] != names:
            self._shared = (hardware, names, self._energy_shares(costed, known))
        return self._shared[2]

    def _energy_shares(self, costed: Costed, known: Mapping[str, Amount]) -> tuple[NodeHosts, Factor]:
        """How many times the energy of each node's processors and memory counts."""
        parts = [name for name in known if scope_kind(name) in _HOST_PARTS]
        if self.options.fixed is not None:
            share = self.options.fixed.host_energy_share
            return NodeHosts(share), _share_factor("host_energy_share", share, self.options.fixed.source)
        accelerators = len(self._hardware(costed).inventory.accelerators)
        counted = hosts(self.options, accelerators, self.options.host_energy_share, costed.energy)
        factor = _share_factor("host_energy_share", counted.charged, counted.source)
        per_host = self.options.host.gpus
        if not accelerators or per_host is None:
            return NodeHosts(counted.share), _share_factor("host_energy_share", counted.share, counted.source)
        nodes = nodes_of(costed.energy)
        by_node = {node: self._hosts_of(number, per_host, counted) for node, number in nodes.items() if number}
        if len(by_node) == len(nodes) and sum(nodes.values()) == accelerators:
            flags = [extrapolated(node, number) for node, number in by_node.items() if parts and number > 1]
            return NodeHosts(1.0, by_node, tuple(flags)), factor
        read = max(1, len({name.partition("/")[0] for name in parts}))
        each = counted.charged / read
        flags = [extrapolated(f"{read} hosts" if read > 1 else "one host", each)] if parts and each > 1 else []
        return NodeHosts(each, {}, tuple(flags)), factor

    def _hosts_of(self, accelerators: int, per_host: int, counted: Hosts) -> float:
        if self.options.host.whole_hosts or self.options.host_energy_share is not None:
            return math.ceil(accelerators / per_host) * counted.share
        return accelerators / per_host

    # Embodied

    def _embodied(self, costed: Costed) -> _Part:
        if not isinstance(costed.duration, Amount):
            return _Part(Unavailable(_reason(costed.duration)))
        checked_duration_s(costed.duration_s)
        known = self._hardware(costed)
        inventory, chosen = known.inventory, known.chosen
        if isinstance(chosen, Unavailable):
            return _Part(chosen, (), inventory.flags)
        held = reserved(costed)
        value = chosen.grams(costed.duration_s, held)
        if inventory.declared:
            value = Amount.of(value.value, value.unit, Method.SIMULATED, low=value.low, high=value.high)
        # Grams per table that has a row for every device, where there are at least two and no own row is used.
        spread = {name: each.grams(costed.duration_s, held) for name, each in known.qualifying.items()}
        flags = list(inventory.flags)
        if any(held_s > costed.duration_s for held_s in held.values()):
            flags.append("embodied carbon of devices reserved beyond the window: for the time reserved")
        flags += [each for charge in chosen.charges if (each := charge.doubt)]
        if spread:
            least = min(spread, key=lambda name: _low(spread[name]))
            most = max(spread, key=lambda name: _high(spread[name]))
            value = replace(value, low=_low(spread[least]), high=_high(spread[most]))
            flags.append(f"embodied range: {least} (low) to {most} (high)")
        elif value.low is None:
            flags.append(f"embodied range not known: only table {self.options.table!r} or own rows fit all devices")
        return _Part(value, known.factors, tuple(flags))

    # Profile

    def _profile_flags(self, costed: Costed, flags: Sequence[str], summed: Value) -> list[str]:
        fixed = self.options.fixed
        wanted = fixed.wanted if fixed else self.options.scopes or ()
        who = f"profile {fixed.name}" if fixed else "the suite"
        read = {scope_kind(name) for name, value in costed.energy.items() if isinstance(value, Amount)}
        absent = [kind for kind in wanted if kind not in read]
        found = [f"incomplete: {who} wants {kind} energy, none was read" for kind in absent]
        if fixed is None:
            return found
        doubts = [flag for flag in flags if flag.startswith(("incomplete", "embodied carbon without"))]
        if absent or doubts or not isinstance(summed, Amount):
            return [*found, f"not to be called {fixed.name}"]
        if fixed.name == "fuel-code":
            found.append(
                "fuel-code takes the mean of 200 ms power samples x duration for GPU energy: see its method here"
            )
        return [*found, f"profile {fixed.name}: after the paper, constants from secondary sources"]


def _embodied_factors(inventory: Inventory, chosen: Bill | Unavailable) -> tuple[Factor, ...]:
    """The table, each figure, and how many hosts; none where nothing is charged."""
    if isinstance(chosen, Unavailable):
        return ()
    counted = inventory.hosts
    share = _share_factor("host_embodied_share", counted.charged, counted.source)
    return _distinct([_table_factor(chosen), *(charge.factor() for charge in chosen.charges), share])


def _table_factor(chosen: Bill) -> Factor:
    """Which embodied table was used, so that results under two of them are told apart; own rows are `declared`."""
    names = "+".join(sorted({charge.row.table for charge in chosen.charges}))
    return Factor(
        name="embodied_table",
        value=None,
        unit="",
        source="each figure has its own source",
        id=f"embodied_table:{names}",
    )


def _share_factor(name: str, share: float, source: str) -> Factor:
    return Factor(name=name, value=share, unit="1", source=source, id=f"{name}:{share!r}:{source}")


def _distinct(factors: Iterable[Factor]) -> tuple[Factor, ...]:
    return tuple({factor.id: factor for factor in factors}.values())


def qualifying(inventory: Inventory, options: FuelOptions) -> dict[str, Bill]:
    """The bill under each table that has a row for every device, from two tables on; else empty.

    Own rows belong to no table, so with one in use there is no range to give.
    """
    bills = {name: _alternative(inventory, options, name) for name in embodied.tables()}
    known = {name: each for name, each in bills.items() if isinstance(each, Bill)}
    own = any(charge.row.table == "declared" for each in known.values() for charge in each.charges)
    return {} if own or len(known) < 2 else known


def _alternative(inventory: Inventory, options: FuelOptions, name: str) -> Bill | Unavailable:
    """A table that nobody chose: an error in it is no error of the figure that was asked for."""
    try:
        found = bill(inventory, options, name)
        if isinstance(found, Bill):
            found.grams(1.0)
    except (HarnessError, ValueError, KeyError) as error:
        return Unavailable(f"embodied table {name!r}: {error}")
    return found
