"""Faults injected into each meter, seen through the core's window: a missing reading never becomes 0."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from harness.builtin import tdp
from harness.builtin.cpu_time import CpuTimeMeter, CpuTimeOptions
from harness.builtin.rapl import RaplMeter, RaplOptions
from harness.builtin.replay import ReplayMeter, ReplayOptions
from harness.builtin.simulated import SimulatedBackend, SimulatedMeter, SimulatedOptions
from harness.builtin.tdp import CpuSeconds, TdpMeter, TdpOptions
from harness.measuring.channel import Channel, Registers
from harness.measuring.edges import AT_LEAST
from harness.measuring.meters import Meters
from harness.meter import Meter, MeterContext
from harness.quantity import Amount, Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot, now_ns
from harness.testing import PowercapTree

WATTS = 100.0


class Source:
    """A hundred watts since the test began, counted by something that can break."""

    def __init__(self):
        self.began_s = time.monotonic()
        self.error = None
        self.offset_j = 5000.0
        self.frozen_j = None

    def true_j(self):
        return WATTS * (time.monotonic() - self.began_s)

    def joules(self):
        if self.error is not None:
            raise self.error
        return self.offset_j + self.true_j() if self.frozen_j is None else self.frozen_j

    def go(self):
        self.error = OSError(19, "No such device")

    def deny(self):
        self.error = PermissionError(13, "Permission denied")

    def backwards(self):
        self.offset_j = -self.true_j()

    def freeze(self):
        self.frozen_j = self.joules()


class SimulatedSource:
    """The same faults on a simulated accelerator."""

    def __init__(self):
        self.backend = SimulatedBackend(SimulatedOptions(idle_w=WATTS, busy_w=WATTS, tick="2ms"))
        self.devices = tuple(self.backend.open())
        self.device = self.backend.accelerator

    def true_j(self):
        return self.device.true_joules(time.monotonic_ns())

    def go(self):
        self.device.gone_at(time.monotonic_ns())

    def deny(self):
        self.device.missing = True

    def backwards(self):
        self.device.reset_at(time.monotonic_ns())

    def freeze(self):
        self.device.freeze_at(time.monotonic_ns())


def rapl(tmp_path, source):
    tree = PowercapTree(tmp_path)
    tree.zone("intel-rapl:0", "package-0")

    def read_text(path: Path):
        return str(round(source.joules() * 1e6)) if path.name == "energy_uj" else tree.read_text(path)

    return RaplMeter(RaplOptions(root=tmp_path), read_text)


def cpu_time(tmp_path, source):
    def spent(_pid):
        try:
            return source.joules() / WATTS
        except OSError as error:
            return Unavailable(str(error))

    return CpuTimeMeter(CpuTimeOptions(watts_per_core=WATTS), spent)


def tdp_machine(tmp_path, source):
    tdp_cpus = len(tdp.topology()["0"])

    def cpus():
        busy = source.joules() / WATTS
        return CpuSeconds((busy,) * tdp_cpus, (busy + 1,) * tdp_cpus)

    return TdpMeter(TdpOptions(watts=WATTS), cpus)


def simulated(tmp_path, source):
    return SimulatedMeter()


MAKERS = {"rapl": rapl, "cpu_time": cpu_time, "tdp": tdp_machine, "simulated": simulated}


@pytest.fixture(params=MAKERS)
def rig(request, tmp_path):
    source = SimulatedSource() if request.param == "simulated" else Source()
    context = MeterContext(devices=getattr(source, "devices", ()))
    meter = MAKERS[request.param](tmp_path, source)
    yield meter, source, context
    meter.close()
    with suppress(AttributeError):
        source.backend.close()


def channel_of(meter, context):
    scopes = meter.open(context)
    assert not isinstance(scopes, Unavailable), scopes
    return Channel("m", asked=True, meter=meter, scopes={n: s for n, s in scopes.items() if isinstance(s, Scope)})


def window(meter, context, inject, *, align=True, reads=20, pause_s=0.005):
    channel = channel_of(meter, context)
    meters = Meters([channel])
    opened = meters.opening(align=align)
    for index in range(reads):
        if index == reads // 2:
            inject()
        time.sleep(pause_s)
        channel.read()
    closed = meters.closing(align=align)
    return opened, closed, meters.energies(opened, closed)


def test_without_a_fault_the_truth_lies_near(rig):
    meter, _, context = rig
    opened, closed, energies = window(meter, context, lambda: None, reads=40)
    for reading in energies:
        assert isinstance(reading.value, Amount)
        assert reading.value.value == pytest.approx(WATTS * (closed.ns - opened.ns) / 1e9, rel=0.3)
        assert reading.coverage == 1


@pytest.mark.parametrize("fault", ["go", "deny"])
def test_driver_lost_in_the_window_is_unavailable(rig, fault):
    meter, source, context = rig
    _, _, energies = window(meter, context, getattr(source, fault))
    assert energies
    for reading in energies:
        assert isinstance(reading.value, Unavailable)
        assert reading.value.reason


@pytest.mark.parametrize("fault", ["go", "deny"])
def test_driver_lost_before_the_start_is_unavailable(rig, fault):
    meter, source, context = rig
    getattr(source, fault)()
    opened = meter.open(context)
    scopes = {"*": opened} if isinstance(opened, Unavailable) else opened
    assert scopes
    for scope in scopes.values():
        assert isinstance(scope, Unavailable)
        assert scope.reason
    assert not any(isinstance(value, float | int) for value in meter.read().joules.values())


def test_zero_ticks_are_unavailable(rig):
    meter, source, context = rig
    channel = channel_of(meter, context)
    source.freeze()
    meters = Meters([channel])
    opened = meters.opening(align=True)
    time.sleep(0.03)
    for reading in meters.energies(opened, meters.closing(align=True)):
        assert isinstance(reading.value, Unavailable)


def test_counter_that_falls_is_a_flagged_reset_with_the_truth_in_its_bound(rig):
    meter, source, context = rig
    opened, closed, energies = window(meter, context, source.backwards, align=False, reads=60)
    true_j = WATTS * (closed.ns - opened.ns) / 1e9
    for reading in energies:
        value = reading.value
        assert isinstance(value, Amount)
        assert "counter reset" in reading.flags
        assert reading.coverage < 1
        assert 0.5 * true_j < value.value < 1.1 * true_j
        if value.low is not None and value.high is not None:
            assert value.low <= true_j <= value.high


def test_one_failed_read_costs_nothing_between_good_edges(rig):
    meter, source, context = rig
    channel = channel_of(meter, context)
    meters = Meters([channel])
    opened = meters.opening(align=True)
    time.sleep(0.05)
    if isinstance(source, SimulatedSource):
        source.device.fail_reads(1)
    else:
        source.go()
    lost = channel.read()
    assert all(isinstance(lost[scope], Unavailable) for scope in channel.scopes)
    if not isinstance(source, SimulatedSource):
        source.error = None
    time.sleep(0.05)
    closed = meters.closing(align=True)
    for reading in meters.energies(opened, closed):
        assert isinstance(reading.value, Amount)
        assert reading.value.value == pytest.approx(WATTS * (closed.ns - opened.ns) / 1e9, rel=0.3)
        assert reading.coverage == 1


TRACES = {
    "empty cells": lambda t: "" if t > 0.1 else WATTS * t,
    "ends": lambda t: None if t > 0.1 else WATTS * t,
    "zero ticks": lambda t: 7,
    "falls once for all": lambda t: WATTS * t if t < 0.1 else 0,
}


@pytest.mark.parametrize("trace", TRACES)
def test_faults_in_a_trace_are_unavailable_or_said_to_be_a_part(tmp_path, trace):
    rows = [(i / 100, TRACES[trace](i / 100)) for i in range(400)]
    path = tmp_path / "trace.csv"
    lines = ["t_s,scope,joules", *(f"{t},host,{value}" for t, value in rows if value is not None)]
    path.write_text("\n".join(lines), encoding="utf-8")
    channel = channel_of(ReplayMeter(ReplayOptions(file=path)), MeterContext())
    meters = Meters([channel])
    opened = meters.opening(align=False)
    time.sleep(0.2)
    (reading,) = meters.energies(opened, meters.closing(align=False))
    value, flags = reading.value, reading.flags
    if trace == "falls once for all":  # what was counted before is certain, and no more
        assert isinstance(value, Amount)
        assert value.high is None
        assert {"counter reset", AT_LEAST} <= set(flags)
        return
    assert isinstance(value, Unavailable)
    assert "counter reset" not in flags


class OneMapping(Meter):
    """Gives the same mapping at every reading, and writes the new joules into it."""

    def __init__(self):
        self.joules = {"n0/a": 0.0}

    def open(self, context):
        return {"n0/a": Scope(method=Method.COUNTER, gain=0.0)}

    def read(self):
        self.joules["n0/a"] += 5.0
        return Snapshot(now_ns(), self.joules)

    def close(self):
        pass


def test_a_meter_that_writes_into_its_last_answer_changes_no_edge():
    meters = Meters([channel_of(OneMapping(), MeterContext())])
    opened = meters.opening(align=False)
    (reading,) = meters.energies(opened, meters.closing(align=False))
    assert reading.value.value == 5.0
    assert reading.primary


@pytest.mark.parametrize(
    ("said", "shown"),
    [(1, Cumulative(1)), (2.5, Cumulative(2.5)), (Cumulative(3.0, gap_s=1.0), Cumulative(3.0, gap_s=1.0))],
)
def test_what_a_meter_says_is_put_into_its_full_form(said, shown):
    registers = Registers(1, 2, {"n0/a": said}, {})
    assert registers["n0/a"] == shown
    assert list(registers) == ["n0/a"]


@pytest.mark.parametrize("said", [float("nan"), float("inf"), "much", None, Cumulative(float("nan"))])
def test_what_is_no_number_of_joules_is_unavailable(said):
    assert isinstance(Registers(1, 2, {"n0/a": said}, {})["n0/a"], Unavailable)
    assert isinstance(Registers(1, 2, {}, {})["n0/a"], Unavailable)


@pytest.mark.parametrize("given", [None, (1, {}, 0), Snapshot(1, None), Snapshot(1, [("n0/a", 1.0)])])
def test_what_is_no_snapshot_is_unavailable_in_every_scope(given):
    channel = channel_of(OneMapping(), MeterContext())
    channel.meter.read = lambda: given
    found = channel.read()["n0/a"]
    assert isinstance(found, Unavailable)
    assert "not a Snapshot" in found.reason
