"""Which hardware a window is charged for, and what one embodied table says that it weighs.

Accelerators count one by one and whole; processors and memory of the host count by the host share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.backend import Device
from harness.impact import DeviceUse, Factor
from harness.quantity import Amount, Unavailable, total
from harness_meter_fuel import embodied
from harness_meter_fuel.carbon import GRAMS_PER_KG, embodied_g
from harness_meter_fuel.embodied import EmbodiedRow
from harness_meter_fuel.options import FuelOptions

_BYTES_PER_GB = 1e9


@dataclass(frozen=True, slots=True)
class Item:
    """Hardware of one product: `quantity` devices, or GB of memory. `kind` is `gpu`, `cpu`, `dram`, ..."""

    kind: str
    name: str
    quantity: float

    @property
    def of_host(self) -> bool:
        """Whether the host share applies."""
        return self.kind in {"cpu", "dram"}


@dataclass(frozen=True, slots=True)
class Inventory:
    """All hardware charged, the share of the host, where that comes from, and what a reader must know.

    `declared` where the devices only stand for others: what is charged to them is simulated.
    """

    items: tuple[Item, ...]
    accelerators: int
    host_share: float
    share_source: str
    flags: tuple[str, ...] = ()
    declared: bool = False


def _physical(devices: Iterable[Device]) -> list[Device]:
    """Accelerators without repetition; partitions of one device stand for it once."""
    found: dict[str, Device] = {}
    for device in devices:
        if device.kind != "cpu":
            found.setdefault(device.parent or device.uuid, device)
    return list(found.values())


def _named(device: Device, options: FuelOptions, flags: list[str]) -> str:
    for key in (device.uuid, device.name, device.kind):
        stand_in = options.devices.get(key)
        if stand_in is not None:
            if stand_in != device.name:
                flags.append(f"stand-in: {device.kind} {device.name!r} costed as {stand_in!r}")
            return stand_in
    return device.name


def host_share(options: FuelOptions, accelerators: int, declared: float | None) -> tuple[float, str]:
    """The share of the host that is charged, and why: declared, accelerators used / in the host, or the whole."""
    if declared is not None:
        return declared, "declared in the suite"
    if accelerators and options.host.gpus is not None:
        return min(1.0, accelerators / options.host.gpus), f"{accelerators} of {options.host.gpus} GPUs used"
    return 1.0, "whole host: no GPU used" if not accelerators else "whole host: number of its GPUs not declared"


def _stood_for(uses: Iterable[DeviceUse]) -> Inventory | None:
    """Declared devices that stand for products, where the workload's rows name some; without this machine's host."""
    products = {use.device: use.stands_for for use in uses if use.stands_for}
    if not products:
        return None
    items = tuple(Item("gpu", product, 1.0) for product in products.values())
    flags = tuple(f"declared device {name!r} costed as {product!r}" for name, product in products.items())
    host = "embodied carbon of this machine not charged: its processes stand for other devices"
    return Inventory(items, len(items), 1.0, "no host declared", (*flags, host), declared=True)


def take(devices: Iterable[Device], options: FuelOptions, uses: Iterable[DeviceUse] = ()) -> Inventory:
    """The hardware that took part: the trial's devices and the declared host, or what the work's rows stand for."""
    declared = _stood_for(uses)
    if declared is not None:
        return declared
    listed = list(devices)
    flags: list[str] = []
    accelerators = _physical(listed)
    items = [Item(device.kind, _named(device, options, flags), 1.0) for device in accelerators]
    cpus = [device for device in listed if device.kind == "cpu"]
    if options.host.cpu is not None:
        items.append(Item("cpu", options.host.cpu, float(options.host.cpus)))
        flags += [
            f"stand-in: cpu {device.name!r} costed as {options.host.cpu!r}"
            for device in cpus
            if not embodied.same_product(options.host.cpu, device.name)
        ]
    elif cpus:
        items += [Item("cpu", _named(device, options, flags), float(options.host.cpus)) for device in cpus]
    else:
        flags.append("embodied carbon without cpu: none listed")
    memory = [device.memory_bytes for device in cpus if device.memory_bytes is not None]
    if options.host.dram_gb is not None:
        items.append(Item("dram", "DRAM", options.host.dram_gb))
    elif memory:
        items.append(Item("dram", "DRAM", sum(memory) / _BYTES_PER_GB))
    else:
        flags.append("embodied carbon without dram: size not known")
    share, source = host_share(options, len(accelerators), options.host_embodied_share)
    return Inventory(tuple(items), len(accelerators), share, source, tuple(flags))


@dataclass(frozen=True, slots=True)
class Charge:
    """One summand of the embodied carbon: a row, how much of it, which share, over which lifetime."""

    row: EmbodiedRow
    item: Item
    share: float
    lifetime_s: float

    def grams(self, duration_s: float) -> Amount:
        """Its embodied carbon in g over a window."""
        mass_g = self.row.kg * GRAMS_PER_KG * self.item.quantity
        return embodied_g(mass_g, duration_s=duration_s, lifetime_s=self.lifetime_s, share=self.share)

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
    """All charges under one table."""

    table: str
    charges: tuple[Charge, ...] = field(default=())

    def grams(self, duration_s: float) -> Amount:
        """The sum over all charges, in g, `estimated`, without a bound."""
        return total(charge.grams(duration_s) for charge in self.charges)


def _own(item: Item, options: FuelOptions) -> EmbodiedRow | None:
    for key, own in options.embodied.items():
        if key == item.kind or embodied.same_product(key, item.name):
            device = item.name if key == item.kind else key
            return EmbodiedRow(
                device=device,
                kind=item.kind,
                kg=own.figure_kg,
                per="GB" if item.kind == "dram" else "device",
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
        if row is None and item.of_host and server is not None and inventory.accelerators:
            share = inventory.accelerators / int(server.per.split()[0])
            row, host_is_covered = server, True
            if options.host_embodied_share is not None:
                share = options.host_embodied_share
            item = Item("server", "server", 1.0)  # noqa: PLW2901 - the server stands for the processor and memory
        elif row is not None and row.per == "device with host":
            host_is_covered, share = True, 1.0
        else:
            share = inventory.host_share if item.of_host else 1.0
        if row is None:
            return Unavailable(f"embodied table {table!r} has no row for {item.kind} {item.name!r}")
        lifetime_s = row.lifetime_s if row.table == "declared" and row.lifetime_s is not None else options.lifetime
        lifetime_s = lifetime_s or row.lifetime_s or common
        if lifetime_s is None:
            return Unavailable(f"embodied table {table!r} states no lifetime for {item.kind} {item.name!r}")
        charges.append(Charge(row, item, share, lifetime_s))
    return Bill(table, tuple(charges)) if charges else Unavailable("no device is listed, so nothing is embodied")
