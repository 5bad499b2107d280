"""Estimating meters: `cpu_time`, `tdp`, `declared_power`."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest
from pydantic import ValidationError

from harness.backend import Device
from harness.builtin import host, tdp
from harness.builtin.cpu_time import CpuTimeMeter, CpuTimeOptions
from harness.builtin.declared_power import DeclaredPower, DeclaredPowerOptions
from harness.builtin.spin import spin
from harness.builtin.tdp import CpuSeconds, TdpMeter, TdpOptions, normalised, package_power, table_watts
from harness.impact import Costed, DeviceUse
from harness.meter import MeterContext
from harness.quantity import Amount, Method, Unavailable
from harness.sample import disjoint
from harness.testing import FakeClock, check_meter

PROCESS = "n0/process"


class Tree:
    """CPU seconds of a process tree that a test sets."""

    def __init__(self, value=100.0):
        self.value = value

    def __call__(self, _pid=0):
        return self.value


def cpu_time(tree, clock, watts=10.0):
    return CpuTimeMeter(CpuTimeOptions(watts_per_core=watts), tree, clock)


def test_cpu_time_is_seconds_times_watts():
    tree, clock = Tree(), FakeClock()
    meter = cpu_time(tree, clock)
    scope = meter.open(MeterContext())[PROCESS]
    assert scope.method is Method.ESTIMATED
    assert scope.gain is None
    assert all(name.startswith("n0/cpu-package:") for name in scope.within)
    tree.value = 102.5
    clock.advance(1)
    assert meter.read().joules[PROCESS].joules == pytest.approx(25)


def test_cpu_time_that_falls_is_a_gap_and_never_negative():
    tree, clock = Tree(), FakeClock()
    meter = cpu_time(tree, clock)
    meter.open(MeterContext())
    for value in (103.0, 50.0, 51.0):
        tree.value = value
        clock.advance(1)
        state = meter.read().joules[PROCESS]
    assert (state.joules, state.resets, state.gap_s) == (pytest.approx(40), 1, 1)


def test_processes_of_roles_are_read_apart_and_within_the_works_own():
    spent, clock = {1: 5.0, 2: 100.0}, FakeClock()
    meter = CpuTimeMeter(CpuTimeOptions(watts_per_core=10), lambda pid: spent.get(pid, Unavailable("gone")), clock)
    meter.open(MeterContext(pid=1))
    found = meter.attach({"new": 2, "old": 3})
    assert found["n0/process:new"].method is Method.ESTIMATED
    assert found["n0/process:new"].within == meter._packages  # process 2 is no child of process 1
    assert found["n0/process:old"] == Unavailable("gone")
    spent[2] = 101.5
    clock.advance(1)
    assert meter.read().joules["n0/process:new"].joules == pytest.approx(15)
    del spent[2]
    clock.advance(1)
    assert meter.read().joules["n0/process:new"] == Unavailable("gone")


def test_a_child_of_the_work_lies_within_its_scope():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        meter = CpuTimeMeter(CpuTimeOptions(watts_per_core=10))
        scopes = {**meter.open(MeterContext()), **meter.attach({"old": child.pid})}
        assert disjoint(scopes, scopes) == [PROCESS]
    finally:
        child.communicate()


def test_watts_per_core_must_be_declared():
    with pytest.raises(ValidationError):
        CpuTimeOptions()


def test_cpu_time_contract_and_gone_process():
    check_meter(CpuTimeMeter(CpuTimeOptions(watts_per_core=5)), MeterContext(), between=lambda: spin(1000))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    opened = CpuTimeMeter(CpuTimeOptions(watts_per_core=5)).open(MeterContext(pid=ended.pid))
    assert isinstance(opened, Unavailable)
    assert "gone" in opened.reason


# tdp


class Cpus:
    """CPU seconds of four logical CPUs in two packages."""

    def __init__(self):
        self.busy = [10.0, 20.0, 30.0, 40.0]
        self.elapsed = 100.0

    def __call__(self):
        return CpuSeconds(tuple(self.busy), (self.elapsed,) * len(self.busy))


@pytest.fixture
def two_packages(monkeypatch):
    monkeypatch.setattr(tdp, "topology", lambda: {"0": [0, 1], "1": [2, 3]})
    monkeypatch.setattr(tdp, "codecarbon_table", lambda: None)


def tdp_meter(cpus, clock, tree=None, model="Nameless 9000", **options):
    return TdpMeter(TdpOptions(**options), cpus, tree or Tree(), lambda: model, clock)


def test_tdp_times_utilisation_per_package(two_packages):
    cpus, clock = Cpus(), FakeClock()
    meter = tdp_meter(cpus, clock, watts=100)
    scopes = meter.open(MeterContext())
    assert set(scopes) == {"n0/cpu-package:0", "n0/cpu-package:1"}
    assert all(scope.method is Method.ESTIMATED and scope.gain is None for scope in scopes.values())
    cpus.busy = [11.0, 20.5, 30.0, 42.0]  # 1.5 of 2 s x 2 CPUs; 2 of 4
    cpus.elapsed += 2
    clock.advance(2)
    read = meter.read().joules
    assert read["n0/cpu-package:0"].joules == pytest.approx(100 * 1.5 / 2)
    assert read["n0/cpu-package:1"].joules == pytest.approx(100 * 2 / 2)


def test_tdp_of_a_process_is_its_share_of_all_packages(two_packages):
    tree, clock = Tree(), FakeClock()
    meter = tdp_meter(Cpus(), clock, tree, watts=100, attribute="process")
    scopes = meter.open(MeterContext())
    assert scopes[PROCESS].within == ("n0/cpu-package:0", "n0/cpu-package:1")
    tree.value += 2
    clock.advance(2)
    assert meter.read().joules[PROCESS].joules == pytest.approx(2 * 200 / 4)


def test_stated_range_becomes_the_bound(two_packages):
    cpus, clock = Cpus(), FakeClock()
    meter = tdp_meter(cpus, clock, watts=100, range=(0.5, 1.5))
    assert meter.open(MeterContext())["n0/cpu-package:0"].gain == 0
    cpus.busy[0] += 2
    cpus.elapsed += 2
    clock.advance(2)
    state = meter.read().joules["n0/cpu-package:0"]
    assert (state.joules, state.over_j, state.under_j) == pytest.approx((100, 50, 50))


@pytest.mark.parametrize("wrong", [(1.1, 1.5), (0.5, 0.9), (-1.0, 2.0), (0.5, float("inf"))])
def test_range_must_hold_the_estimate(wrong):
    with pytest.raises(ValidationError):
        TdpOptions(range=wrong)


def test_unknown_model_is_unavailable_and_names_the_remedy(two_packages):
    opened = tdp_meter(Cpus(), FakeClock()).open(MeterContext())
    assert isinstance(opened, Unavailable)
    assert "Nameless 9000" in opened.reason
    assert "watts" in opened.reason


def test_watts_per_thread_is_flagged(two_packages):
    meter = tdp_meter(Cpus(), FakeClock(), watts_per_thread=4)
    scopes = meter.open(MeterContext())
    assert "4 W a thread, no table" in scopes["n0/cpu-package:0"].note
    facts = meter.facts()
    assert (facts["watts_per_package"], facts["fallback"]) == (8, True)


def test_table_is_matched_exactly(tmp_path):
    table = tmp_path / "cpu_power.csv"
    table.write_text("Name,TDP\nAMD EPYC 7742,225\nIntel Xeon Gold 6230,125\nTwin,65\nTwin,95\nOdd,n/a\n")
    assert table_watts("AMD EPYC 7742 64-Core Processor", table) == 225
    assert table_watts("Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz", table) == 125
    for unlike in ("AMD EPYC", "AMD EPYC 7743", "AMD EPYC 7742P", "Twin", "Odd", ""):
        assert table_watts(unlike, table) is None
    assert package_power(TdpOptions(watts=7), "AMD EPYC 7742", 4, table).watts == 7
    assert package_power(TdpOptions(watts_per_thread=1), "AMD EPYC 7742", 4, table).watts == 225


def test_packaged_table_knows_a_common_cpu_without_importing_codecarbon():
    table = tdp.codecarbon_table()
    if table is None:
        pytest.skip("codecarbon is not installed")
    assert table_watts("Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz", table) == pytest.approx(125)
    code = "import sys; from harness.builtin import tdp; tdp.codecarbon_table(); sys.exit('codecarbon' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_normalised_drops_marks_only():
    assert normalised("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz") == "intel core i7-8700k"


def test_frozen_cpu_times_are_unavailable(two_packages):
    clock = FakeClock()
    meter = tdp_meter(Cpus(), clock, watts=100)
    meter.open(MeterContext())
    clock.advance(1.5)
    lost = meter.read().joules["n0/cpu-package:0"]
    assert isinstance(lost, Unavailable)
    assert "no CPU time" in lost.reason


def test_offline_cpu_is_unavailable(two_packages):
    cpus, clock = Cpus(), FakeClock()
    meter = tdp_meter(cpus, clock, watts=100)
    meter.open(MeterContext())
    del cpus.busy[3]
    clock.advance(0.1)
    read = meter.read().joules
    assert isinstance(read["n0/cpu-package:1"], Unavailable)
    assert not isinstance(read["n0/cpu-package:0"], Unavailable)


@pytest.mark.parametrize("attribute", ["machine", "process"])
def test_tdp_contract_on_this_machine(attribute):
    check_meter(TdpMeter(TdpOptions(watts=65, attribute=attribute)), MeterContext(), between=lambda: spin(10_000))


def test_topology_holds_every_cpu_once(tmp_path):
    listed = [cpu for cpus in host.topology().values() for cpu in cpus]
    assert sorted(listed) == list(range(psutil.cpu_count()))
    assert list(host.topology(tmp_path)) == ["0"]


# declared power


def costed(*uses, devices=(), energy=None):
    return Costed(duration_s=10, start_utc_s=0, energy=energy or {}, readings={}, uses=uses, devices=devices)


def use(device, busy_s, reserved_s, role=""):
    return DeviceUse(device=device, role=role, busy_s=busy_s, reserved_s=reserved_s)


def declared(watts):
    return DeclaredPower(DeclaredPowerOptions(watts=watts))


def test_declared_watts_times_device_rows():
    impact = declared({"busy": 300, "idle": 50}).apply(costed(use("A", 2, 10), use("B", 1, 1), use("A", 1, 1)))
    assert impact.energy["n0/declared:A"].value == pytest.approx(600 + 400 + 300)
    assert impact.energy["n0/declared:B"].value == pytest.approx(300)
    total = impact.readings["energy_j"]
    assert (total.value, total.label) == (pytest.approx(1600), Method.SIMULATED)
    assert total.low is None
    assert "n0/gpu:A" in impact.scopes["n0/declared:A"].within


def test_device_goes_before_role():
    watts = {"draft": {"busy": 10}, "B": {"busy": 7}}
    impact = declared(watts).apply(costed(use("A", 1, 5, "draft"), use("B", 1, 1, "draft")))
    assert impact.energy["n0/declared:A"].value == pytest.approx(10)
    assert impact.energy["n0/declared:B"].value == pytest.approx(7)


def test_no_rows_and_undeclared_devices_are_unavailable():
    assert isinstance(declared({"busy": 1}).apply(costed()).readings["energy_j"], Unavailable)
    impact = declared({"draft": {"busy": 10}}).apply(costed(use("A", 1, 1, "draft"), use("B", 1, 1, "target")))
    assert isinstance(impact.readings["energy_j"], Unavailable)
    assert "'B'" in impact.readings["energy_j"].reason
    assert isinstance(impact.energy["n0/declared:A"], Amount)
    assert isinstance(impact.energy["n0/declared:B"], Unavailable)


def test_declared_cpu_is_never_added_to_its_packages():
    cpu = Device(kind="cpu", uuid="cpu", name="x")
    energy = {"n0/cpu-package:0": Amount.of(5, "J", Method.COUNTER), "n0/gpu:Z": Unavailable("no")}
    impact = declared({"busy": 1}).apply(costed(use("cpu", 1, 1), devices=(cpu,), energy=energy))
    assert impact.scopes["n0/declared:cpu"].within == ("n0/cpu-package:0",)


def test_negative_watts_and_unknown_keys_are_refused():
    for wrong in ({"busy": -1}, {"busy": 1, "peak": 3}, {"A": {"idle": 3}}):
        with pytest.raises(ValidationError):
            DeclaredPowerOptions(watts=wrong)


def test_declared_watts_by_phase_and_load():
    row = DeviceUse(device="A", busy_s=10, reserved_s=20, phases={"prefill": 2, "decode@1": 3, "decode@8": 4, "x": 1})
    watts = {"busy": 400, "idle": 50, "phases": {"prefill": 350, "decode": 150, "decode@8": 250}}
    joules = declared(watts).apply(costed(row)).energy["n0/declared:A"].value
    assert joules == pytest.approx(2 * 350 + 3 * 150 + 4 * 250 + 1 * 400 + 10 * 50)
    untold = DeviceUse(device="A", busy_s=10, reserved_s=10)
    assert declared(watts).apply(costed(untold)).energy["n0/declared:A"].value == pytest.approx(4000)
