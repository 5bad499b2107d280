"""Which hardware a window is charged for, and what one embodied table says that it weighs.

Accelerators count one by one and whole. Hosts count as accelerators need them: `accelerators / host.gpus`, a fraction,
or whole ones where the suite says so; there may be more than one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from harness.backend import Device
from harness.impact import DeviceUse, Factor
from harness.quantity import Amount, Unavailable, total
from harness_meter_fuel import embodied
from harness_meter_fuel.carbon import GRAMS_PER_KG, embodied_g
from harness_meter_fuel.embodied import EmbodiedRow
from harness_meter_fuel.hardware import naming
from harness_meter_fuel.options import FuelOptions

_BYTES_PER_GB = 1e9


@dataclass(frozen=True, slots=True)
class Item:
    """Hardware of one product.

    Attributes:
        kind: `gpu`, `cpu`, `dram`, `ssd`, ...
        name: of the product.
        quantity: devices, or GB of memory and storage; of one host where `of_host`.
        device: which accelerator it is; empty for a part of a host.
        of_host: whether it is a part of a host, of which there may be several, or a fraction.
    """

    kind: str
    name: str
    quantity: float
    device: str = ""
    of_host: bool = False


@dataclass(frozen=True, slots=True)
class Hosts:
    """How many hosts are charged, which share of each, and why.

    Attributes:
        number: of hosts, a fraction where devices leave room in the last one.
        share: of each host, as declared; 1 unless the suite says otherwise.
        source: where the number is from.
    """

    number: float
    share: float
    source: str

    @property
    def charged(self) -> float:
        """Hosts times share."""
        return self.number * self.share


@dataclass(frozen=True, slots=True)
class Inventory:
    """All hardware charged, how much of the hosts, and what a reader must know.

    Attributes:
        items: accelerators one by one, and the parts of one host.
        accelerators: ids of the accelerators.
        hosts: how many hosts are charged.
        whole_hosts: whether a host is charged whole for as long as any of its accelerators is held.
        flags: what a reader must know.
        declared: whether the devices only stand for others: what is charged to them is simulated.
    """

    items: tuple[Item, ...]
    accelerators: tuple[str, ...]
    hosts: Hosts
    whole_hosts: bool = False
    flags: tuple[str, ...] = ()
    declared: bool = False


def _physical(devices: Iterable[Device]) -> dict[str, Device]:
    """Accelerators by id without repetition; partitions of one device stand for it once."""
    found: dict[str, Device] = {}
    for device in devices:
        if device.kind != "cpu":
            found.setdefault(device.parent or device.uuid, device)
    return found


def _named(device: Device, options: FuelOptions, flags: list[str]) -> str:
    for key in (device.uuid, device.name, device.kind):
        stand_in = options.devices.get(key)
        if stand_in is not None:
            if stand_in != device.name:
                flags.append(f"stand-in: {device.kind} {device.name!r} costed as {stand_in!r}")
            return stand_in
    return device.name


def nodes_of(scopes: Iterable[str]) -> dict[str, int]:
    """Node -> how many accelerators of it have a scope, from names such as `n1/gpu:<uuid>`; in order of appearance."""
    found: dict[str, int] = {}
    for scope in scopes:
        node, _, register = scope.partition("/")
        found[node] = found.get(node, 0) + register.startswith(("gpu:", "module:"))
    return found


def hosts(
    options: FuelOptions, accelerators: int, declared: float | None, scopes: Iterable[str] = (), *, read: bool = True
) -> Hosts:
    """How many hosts are charged: as many as the accelerators need, else as many as were seen.

    Args:
        options: the host's accelerators, and whether hosts count whole.
        accelerators: how many were used.
        declared: the share of each host as the suite gives it; None where it gives none.
        scopes: names of energy scopes, which tell the nodes apart.
        read: whether the hosts are those that were measured, and not stood for by others.
    """
    nodes = nodes_of(scopes) if read else {}
    per_host = options.host.gpus
    if not accelerators or per_host is None:
        number = float(max(1, len(nodes)))
        why = "no GPU used" if not accelerators else "number of its GPUs not declared"
        source = f"whole host: {why}" if number == 1 else f"{number:g} whole hosts: {why}"
        return Hosts(number, 1.0 if declared is None else declared, source if declared is None else "declared share")
    needed = math.ceil(accelerators / per_host)
    if options.host.whole_hosts or declared is not None:
        by_node = [math.ceil(number / per_host) for number in nodes.values()]
        known = sum(nodes.values()) == accelerators
        number = float(max(needed, sum(by_node)) if known else needed)
    else:
        number = accelerators / per_host
    source = f"{accelerators} of {per_host} GPUs a host used"
    if options.host.whole_hosts:
        source += f": {number:g} whole hosts"
    return Hosts(number, 1.0 if declared is None else declared, source if declared is None else f"declared; {source}")


def _stood_for(uses: Iterable[DeviceUse], options: FuelOptions) -> Inventory | None:
    """Declared devices that stand for products, where the workload's rows name some, in the declared host."""
    products = {use.device: use.stands_for for use in uses if use.stands_for}
    if not products:
        return None
    items = [Item("gpu", product, 1.0, device) for device, product in products.items()]
    flags = [f"declared device {name!r} costed as {product!r}" for name, product in products.items()]
    flags.append("embodied carbon of this machine not charged: its processes stand for other devices")
    parts = _declared_parts(options)
    flags += [] if parts else ["embodied carbon without a host: none declared"]
    counted = hosts(options, len(items), options.host_embodied_share, read=False)
    return Inventory((*items, *parts), tuple(products), counted, options.host.whole_hosts, tuple(flags), declared=True)


def _declared_parts(options: FuelOptions) -> list[Item]:
    """Parts of one host that the suite declares."""
    host = options.host
    parts = [Item("cpu", host.cpu, float(host.cpus), of_host=True)] if host.cpu is not None else []
    for kind, size_gb in (("dram", host.dram_gb), ("ssd", host.ssd_gb)):
        if size_gb is not None:
            parts.append(Item(kind, kind.upper(), size_gb, of_host=True))
    return [*parts, *(Item("part", name, number, of_host=True) for name, number in host.parts.items())]


def take(
    devices: Iterable[Device], options: FuelOptions, uses: Iterable[DeviceUse] = (), scopes: Iterable[str] = ()
) -> Inventory:
    """The hardware that took part: the trial's devices and their hosts, or what the work's rows stand for.

    Args:
        devices: of the trial.
        options: of the meter.
        uses: the work's device rows.
        scopes: names of energy scopes, which tell the nodes apart.
    """
    declared = _stood_for(uses, options)
    if declared is not None:
        return declared
    listed = list(devices)
    flags: list[str] = []
    accelerators = _physical(listed)
    items = [Item(device.kind, _named(device, options, flags), 1.0, key) for key, device in accelerators.items()]
    cpus = [device for device in listed if device.kind == "cpu"]
    parts = _declared_parts(options)
    if options.host.cpu is not None:
        flags += [
            f"stand-in: cpu {device.name!r} costed as {options.host.cpu!r}"
            for device in cpus
            if not naming.same_product(options.host.cpu, device.name)
        ]
    elif cpus:  # one a node: the parts are those of one host, so each product counts for its share of the nodes
        sockets = options.host.cpus / len(cpus)
        parts += [Item("cpu", _named(device, options, flags), sockets, of_host=True) for device in cpus]
    else:
        flags.append("embodied carbon without cpu: none listed")
    memory = [device.memory_bytes for device in cpus if device.memory_bytes is not None]
    if options.host.dram_gb is None and memory:
        parts.append(Item("dram", "DRAM", sum(memory) / len(memory) / _BYTES_PER_GB, of_host=True))
    elif options.host.dram_gb is None:
        flags.append("embodied carbon without dram: size not known")
    counted = hosts(options, len(accelerators), options.host_embodied_share, scopes)
    return Inventory((*items, *parts), tuple(accelerators), counted, options.host.whole_hosts, tuple(flags))


@dataclass(frozen=True, slots=True)
class Charge:
    """One summand of the embodied carbon.

    Attributes:
        row: of the table, or the suite's own.
        item: what it stands for.
        hosts: how many times it counts: hosts of a part of the host, 1 for an accelerator.
        lifetime_s: over which it is spread.
    """

    row: EmbodiedRow
    item: Item
    hosts: float
    lifetime_s: float

    def grams(self, held_s: float) -> Amount:
        """Its embodied carbon in g over the time it was held, with a bound where its figure is an interval."""
        mass_g = self.row.kg * GRAMS_PER_KG * self.item.quantity * self.hosts
        grams = embodied_g(mass_g, duration_s=held_s, lifetime_s=self.lifetime_s)
        if self.row.low_kg is None or self.row.high_kg is None:
            return grams
        per_kg = grams.value / self.row.kg
        return replace(grams, low=self.row.low_kg * per_kg, high=self.row.high_kg * per_kg)

    @property
    def doubt(self) -> str:
        """What a reader must know of its figure; empty where it is a published one, or a table's."""
        low, high = self.row.low_kg, self.row.high_kg
        if not self.row.estimated or low is None or high is None:
            return ""
        unit = "kg/GB" if self.row.per == "GB" else "kg"
        return f"embodied figure of {self.row.device} is an estimate, {low:.3g} to {high:.3g} {unit}"

    def factor(self) -> Factor:
        """Its figure, as the record keeps it."""
        notes = [self.row.source, self.row.confidence, f"lifetime {self.lifetime_s:g} s", f"per {self.row.per}"]
        return Factor(
            name=f"embodied:{self.item.kind}:{self.row.device}",
            value=self.row.kg,
            unit="kg/GB" if self.row.per == "GB" else "kg",
            source="; ".join(note for note in notes if note),
            licence=self.row.licence_note,
            id=f"{self.row.id}:{self.lifetime_s:g}",
            lifetime_s=self.lifetime_s,
        )


@dataclass(frozen=True, slots=True)
class Bill:
    """All charges under one table, and whose time they count by."""

    table: str
    inventory: Inventory
    charges: tuple[Charge, ...] = field(default=())

    def grams(self, duration_s: float, reserved: Mapping[str, float] | None = None) -> Amount:
        """The sum over all charges, in g, `estimated`; with a bound where every figure is an interval.

        Args:
            duration_s: of the window, which every device is charged for at least.
            reserved: device -> seconds it was reserved, where a workload says so; longer ones than the window count.
        """
        longer = {name: held_s for name, held_s in (reserved or {}).items() if held_s > duration_s}
        known = self.inventory.accelerators
        times = [longer.get(name, duration_s) for name in known] if longer else []
        host_s = duration_s
        if times:
            host_s = max(times) if self.inventory.whole_hosts else math.fsum(times) / len(times)
        return total(
            charge.grams(longer.get(charge.item.device, duration_s) if charge.item.device else host_s)
            for charge in self.charges
        )


def _own(item: Item, options: FuelOptions) -> EmbodiedRow | None:
    for key, own in options.embodied.items():
        if key == item.kind or naming.same_product(key, item.name):
            device = item.name if key == item.kind else key
            return EmbodiedRow(
                device=device,
                kind=item.kind,
                kg=own.figure_kg,
                low_kg=own.interval_kg[0],
                high_kg=own.interval_kg[1],
                estimated=own.made_of is not None,
                per="GB" if item.kind in {"dram", "ssd"} else "device",
                lifetime_s=own.lifetime,
                table="declared",
                source=own.provenance,
            )
    return None


def bill(inventory: Inventory, options: FuelOptions, table: str) -> Bill | Unavailable:
    """What a table charges for the hardware; Unavailable names the first device without a row."""
    rows = embodied.tables()[table]
    common = next((row.lifetime_s for row in rows if row.lifetime_s is not None), None)
    server = embodied.find(table, "server", "")
    if any(item.of_host and _own(item, options) for item in inventory.items):
        server = None  # it stands for processor and memory together: beside an own row it would count one twice
    charges: list[Charge] = []
    host_is_covered = False
    for item in inventory.items:
        row = _own(item, options)
        if row is None and item.of_host and host_is_covered:
            continue
        row = row or embodied.find(table, item.kind, item.name)
        number = inventory.hosts.charged if item.of_host else 1.0
        if row is None and item.of_host and server is not None and inventory.accelerators:
            row, host_is_covered = server, True
            number = _servers(server, len(inventory.accelerators), options)
            item = Item("server", "server", 1.0, of_host=True)  # noqa: PLW2901 - it stands for processor and memory
        elif row is not None and row.per == "device with host":
            host_is_covered = True
        if row is None:
            return Unavailable(embodied.missing(table, item.kind, item.name))
        lifetime_s = row.lifetime_s if row.table == "declared" and row.lifetime_s is not None else options.lifetime
        lifetime_s = lifetime_s or row.lifetime_s or common
        if lifetime_s is None:
            return Unavailable(f"embodied table {table!r} states no lifetime for {item.kind} {item.name!r}")
        charges.append(Charge(row, item, number, lifetime_s))
    if not charges:
        return Unavailable("no device is listed, so nothing is embodied")
    return Bill(table, inventory, tuple(charges))


def _servers(row: EmbodiedRow, accelerators: int, options: FuelOptions) -> float:
    """How many servers of so many accelerators each are charged."""
    number = accelerators / int(row.per.split()[0])
    if options.host_embodied_share is not None:
        return math.ceil(number) * options.host_embodied_share
    return float(math.ceil(number)) if options.host.whole_hosts else number
