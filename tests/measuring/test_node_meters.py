"""Meters of other nodes: opened there, read from here by this machine's clock, and never one counter twice."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from harness.backend import Device
from harness.builtin.cpu_time import CpuTimeMeter
from harness.measuring import node_meters
from harness.measuring.channel import Channel
from harness.measuring.meters import Meters
from harness.measuring.node_meters import Machines, Opened, open_on
from harness.meter import Meter, MeterContext
from harness.planning.point import Choice
from harness.quantity import Amount, Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot, clock_id, disjoint, now_ns

CHOICES = (Choice("cpu_time", {"watts_per_core": 10.0}),)


class FakeNode:
    """A node in this process; what crosses to it and back is pickled, as it would be."""

    def __init__(self, name: str, machine: str | None = None, processes: Mapping[str, int] | None = None) -> None:
        self.name = name
        self.devices: tuple[Device, ...] = ()
        self.processes = dict(processes or {})
        self.machine = machine or f"machine of {name}"
        self.gone = False

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        if self.gone:
            raise ConnectionError("it was unplugged")
        if function is clock_id:
            return self.machine
        sent = pickle.loads(pickle.dumps((function, arguments)))
        return pickle.loads(pickle.dumps(sent[0](*sent[1])))


@pytest.fixture(autouse=True)
def nothing_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_meters, "_HERE", [])


def test_a_nodes_meter_reads_like_one_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = (lambda _pid: now_ns() / 1e9, now_ns)  # one core is busy all the time
    monkeypatch.setattr(CpuTimeMeter.__init__, "__defaults__", busy)
    node = FakeNode("n1")
    (channel,), silent = open_on([node], CHOICES, "n0", ["n0/process"])
    assert (channel.name, channel.asked, silent) == ("cpu_time@n1", True, [])
    assert channel.scopes["n1/process"].method is Method.ESTIMATED
    meters = Meters([])
    meters.add([channel])
    began_ns = now_ns()
    opened = meters.opening(align=False)
    opened_ns = now_ns()
    time.sleep(0.05)
    closing_ns = now_ns()
    closed = meters.closing(align=False)
    ended_ns = now_ns()
    (reading,) = meters.energies(opened, closed)
    value = reading.value
    assert reading.scope == "n1/process"
    assert isinstance(value, Amount)
    shortest_j, longest_j = 10e-9 * (closing_ns - opened_ns), 10e-9 * (ended_ns - began_ns)
    assert 0.999 * shortest_j <= value.value <= 1.001 * longest_j
    assert meters.close() == []


def test_a_snapshots_time_is_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    node = FakeNode("n1")
    (channel,), _ = open_on([node], CHOICES, "n0", [])
    far = Snapshot(7, {"n1/process": Cumulative(3.0)}, 11)
    monkeypatch.setattr(node_meters, "ask_here", lambda address, method: far)
    monkeypatch.setattr(node, "call", lambda function, *arguments: far)
    before = now_ns()
    found = channel.read()
    assert before <= found.began_ns <= found.ended_ns <= now_ns()
    assert {scope: found[scope] for scope in found} == far.joules


def test_a_node_that_is_lost_is_unavailable_and_never_zero() -> None:
    node = FakeNode("n1")
    (channel,), _ = open_on([node], CHOICES, "n0", [])
    meters = Meters([channel])
    opened = meters.opening(align=False)
    node.gone = True
    (value,) = (reading.value for reading in meters.energies(opened, meters.closing(align=False)))
    assert isinstance(value, Unavailable)
    assert "unplugged" in value.reason
    assert dict(channel.meter.facts()) == {"lost": "ConnectionError: it was unplugged"}
    (fault,) = meters.close()
    assert "unplugged" in fault


def test_a_node_that_cannot_be_asked_is_a_reason() -> None:
    node = FakeNode("n2")
    node.gone = True
    reading, (silent,) = open_on([node], CHOICES, "n0", [])
    assert reading == []
    assert (silent.name, silent.missing) == ("meters@n2", {"n2/*": "ConnectionError: it was unplugged"})


def opened(**scopes: tuple[str, ...]) -> Opened:
    described = {
        f"n1/{name}": Scope(method=Method.COUNTER, within=tuple(f"n1/{outer}" for outer in within))
        for name, within in scopes.items()
    }
    return Opened("m", asked=True, scopes=described, missing={}, cross_check=False)


def test_two_nodes_of_one_machine_share_its_counters_and_keep_their_processes() -> None:
    read = {"n0/package": Scope(method=Method.COUNTER), "n0/process": Scope(method=Method.ESTIMATED)}
    machines = Machines({"same": "n0"}, set(read))
    found = machines.apart("n1", "n0", opened(package=(), process=("package",), card=()))
    assert found.missing == {"n1/package": "read already: n1 is the machine of n0"}
    assert found.scopes.keys() == {"n1/process", "n1/card"}
    every = {**read, **found.scopes}
    # the counter of the package holds both processes, so that only the card may be added to it
    assert set(disjoint(every, every)) >= {"n0/package", "n1/card"}
    assert "n1/process" not in disjoint(every, every)


def test_two_machines_are_read_apart() -> None:
    machines = Machines({"one": "n0", "two": "n1"}, {"n0/package", "n0/process"})
    found = machines.apart("n1", "n1", opened(package=(), process=("package",)))
    assert (found.scopes.keys(), found.missing) == ({"n1/package", "n1/process"}, {})


def test_a_node_that_the_trial_is_on_adds_only_what_nobody_reads() -> None:
    node = FakeNode("n0", machine=clock_id())
    reading, (silent,) = open_on([node], CHOICES, "n0", ["n0/process"])
    assert reading == []
    assert silent.missing == {"n0/process": "read already: n0 is the same machine"}


class Steady(Meter):
    def open(self, context: MeterContext) -> Mapping[str, Scope]:
        return {"n0/a": Scope(method=Method.COUNTER)}

    def read(self) -> Snapshot:
        return Snapshot(now_ns(), {"n0/a": 1.0})

    def close(self) -> None:
        pass


def test_meters_can_be_added_while_others_are_sampled() -> None:
    first = Channel("a", asked=True, meter=Steady(), scopes={"n0/a": Scope(method=Method.COUNTER)})
    check = Channel("b", asked=True, meter=Steady(), scopes={}, cross_check=True)
    meters = Meters([first])
    meters.start()
    meters.add([check])
    assert [len(meters.opening(align=False).registers), len(meters.closing(align=False).registers)] == [2, 2]
    assert meters._thread is not None
    meters.add([])
    assert meters.close() == []
