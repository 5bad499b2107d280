"""The suite's meters on the other nodes of a cluster: opened over there, read from here like any other meter.

A node's meters live in a process of that node and are sampled there at their own pace. Here each is a `RemoteMeter`,
whose snapshots bear this machine's time: an edge holds the energy of every node at nearly one moment, and what a
message takes is part of the time that the reading took. Clocks of two machines are never compared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.discovery.registry import load_plugins
from harness.measuring.channel import Channel
from harness.measuring.meters import Meters
from harness.measuring.opening import open_meters
from harness.meter import Meter, MeterContext, Node
from harness.planning.point import Choice
from harness.quantity import Unavailable
from harness.sample import Scope, Snapshot, clock_id, now_ns

_HERE: list[Meters] = []
"""What this process has opened for trials of other machines."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A meter that a node opened; fields as in `Channel`."""

    name: str
    asked: bool
    scopes: Mapping[str, Scope]
    missing: Mapping[str, str]
    cross_check: bool
    address: tuple[int, int] = (-1, -1)


def open_here(choices: tuple[Choice, ...], context: MeterContext, processes: Mapping[str, int]) -> list[Opened]:
    """Opens a point's meters on the node where it is called, and samples them there."""
    reading, silent = open_meters(choices, load_plugins(), context)
    meters = Meters(reading)
    faults = meters.attach(processes)
    meters.start()
    _HERE.append(meters)
    found = [
        Opened(each.name, each.asked, each.scopes, each.missing, each.cross_check, (len(_HERE) - 1, index))
        for index, each in enumerate(reading)
    ]
    found += [Opened(each.name, each.asked, {}, each.missing, each.cross_check) for each in silent]
    return [replace(each, missing={**each.missing, "attach": "; ".join(faults)}) for each in found] if faults else found


def ask_here(address: tuple[int, int], method: str) -> Any:
    """Calls a method of a meter that `open_here` opened."""
    meters, index = _HERE[address[0]], address[1]
    if method == "close":
        meters.stop()
    channel = meters.channels[index]
    with channel.lock:
        return getattr(channel.meter, method)()


class RemoteMeter(Meter):
    """A meter of another node. A node that is gone raises at every reading, which its channel makes Unavailable."""

    def __init__(self, node: Node, address: tuple[int, int]) -> None:
        self._node = node
        self._address = address

    def open(self, context: MeterContext) -> Unavailable:  # noqa: ARG002 - the role's signature
        """It was opened on its node, before there was a meter here."""
        return Unavailable("a node's meter is opened by its node")

    def read(self) -> Snapshot:
        """Cumulative joules over there, at a time of this machine's clock."""
        began = now_ns()
        found: Snapshot = self._node.call(ask_here, self._address, "read")
        return Snapshot(began, found.joules, now_ns() - began, found.watts)

    def conditions(self) -> Sequence[Any]:
        """State of the node's devices."""
        return list(self._node.call(ask_here, self._address, "conditions"))

    def temperatures(self) -> Mapping[str, float]:
        """Of the node's devices."""
        return dict(self._node.call(ask_here, self._address, "temperatures"))

    def facts(self) -> Mapping[str, object]:
        """What its node says of it; why not, where the node is gone."""
        try:
            return dict(self._node.call(ask_here, self._address, "facts"))
        except Exception as error:  # noqa: BLE001 - a node that is lost costs its own facts only
            return {"lost": f"{type(error).__name__}: {error}"}

    def close(self) -> None:
        """Closes it over there; one whose node is gone went with it."""
        self._node.call(ask_here, self._address, "close")


@dataclass(slots=True)
class Machines:
    """Which nodes are one machine, so that no counter is read twice.

    Attributes:
        first: identity of a machine -> the first node on it.
        read: scopes that are read so far.
    """

    first: dict[str, str]
    read: set[str] = field(default_factory=set)

    def apart(self, node: str, twin: str, opened: Opened) -> Opened:
        """The meter without what is read already, and with its scopes inside those of the machine's first node."""
        kept: dict[str, Scope] = {}
        missing = dict(opened.missing)
        for name, scope in opened.scopes.items():
            suffix = name.partition("/")[2]
            own_process = suffix.partition(":")[0] == "process" and node != twin
            known = f"{twin}/{suffix}"
            if known in self.read and not own_process:
                whose = "the same machine" if node == twin else f"the machine of {twin}"
                missing[name] = f"read already: {node} is {whose}"
                continue
            around = [f"{twin}/{outer.partition('/')[2]}" for outer in scope.within if _of_machine(outer)]
            outside = [] if node == twin else [f"{twin}/host"]
            kept[name] = replace(scope, within=(*scope.within, *around, *outside))
        return replace(opened, scopes=kept, missing=missing)


def _of_machine(scope: str) -> bool:
    return scope.partition("/")[2].partition(":")[0] != "process"


def open_on(
    nodes: Sequence[Node], choices: tuple[Choice, ...], own: str, read: Collection[str]
) -> tuple[list[Channel], list[Channel]]:
    """Opens the meters of a point on other nodes: those that read, and those that do not, with the reason.

    Args:
        nodes: of the cluster.
        choices: the point's meters.
        own: name of the node that the trial runs on.
        read: scopes that its own meters read.
    """
    machines = Machines({clock_id(): own}, set(read))
    reading: list[Channel] = []
    silent: list[Channel] = []
    for node in nodes:
        try:
            twin = machines.first.setdefault(node.call(clock_id), node.name)
            context = MeterContext(node=node.name, devices=tuple(node.devices))
            found = node.call(open_here, choices, context, dict(node.processes))
        except Exception as error:  # noqa: BLE001 - a node that is lost costs its own readings only
            lost = {f"{node.name}/*": f"{type(error).__name__}: {error}"}
            silent.append(Channel(f"meters@{node.name}", asked=True, meter=_Gone(), scopes={}, missing=lost))
            continue
        for opened in found:
            one = machines.apart(node.name, twin, opened)
            machines.read.update(one.scopes)
            meter = RemoteMeter(node, one.address)
            name = f"{one.name}@{node.name}"
            channel = Channel(name, one.asked, meter, one.scopes, one.missing, cross_check=one.cross_check)
            (reading if one.scopes else silent).append(channel)
    return reading, silent


class _Gone(Meter):
    """In the place of the meters of a node that did not answer."""

    def open(self, context: MeterContext) -> Unavailable:  # noqa: ARG002 - the role's signature
        return Unavailable("its node is gone")

    def read(self) -> Snapshot:
        return Snapshot(now_ns(), {})

    def close(self) -> None:
        pass
