"""Whose processor time a window was, and what is said and done about it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from harness.gating.cells import gateable
from harness.gating.pairs import faults
from harness.machine.processor_time import MachineTimes, machine_times
from harness.measuring.foreign_load import APPORTIONED, UNKNOWN, LoadWatch
from harness.planning.point import Choice, Point
from harness.planning.trial_rules import ForeignLoad
from harness.quantity import Amount, Method, Unavailable
from harness.records.metric import Metric
from harness.records.record import FOREIGN_LOAD, Measurement, Reading, Record, SeenCondition
from harness.sample import Scope
from tests.conftest import trial

PACKAGE = "n0/cpu-package:0"
SCOPES = {
    PACKAGE: Scope(method=Method.COUNTER, note="RAPL"),
    "n0/gpu:1": Scope(method=Method.COUNTER),
    "n0/process": Scope(method=Method.ESTIMATED),
}


class Machine:
    """Times that a test moves on."""

    def __init__(self) -> None:
        self.times: MachineTimes | Unavailable = MachineTimes(1000.0, 10.0, 5000.0, 0.02)
        self.own: float | Unavailable = 100.0
        self.asked: list[list[int]] = []

    def spend(self, own: float, others: float = 0.0, stolen: float = 0.0, idle: float = 0.0) -> None:
        assert isinstance(self.times, MachineTimes)
        assert isinstance(self.own, float)
        before = self.times
        self.own += own
        busy = before.busy_s + own + others
        elapsed = before.elapsed_s + own + others + stolen + idle
        self.times = MachineTimes(busy, before.stolen_s + stolen, elapsed, before.resolution_s)

    def read_own(self, pids: Iterable[int]) -> float | Unavailable:
        self.asked.append(list(pids))
        return self.own


def watch(machine: Machine, *, at_most: float = 0.05, apportion: bool = False) -> LoadWatch:
    rule = ForeignLoad(at_most=at_most, apportion=apportion)
    return LoadWatch(rule, "n0", lambda: machine.times, machine.read_own, 77)


def one_window(machine: Machine, load: LoadWatch, window: int = 0, **spent: float) -> None:
    load.open()
    machine.spend(**spent)
    load.close(window)


def test_load_below_the_limit_is_kept_and_carries_no_condition() -> None:
    machine = Machine()
    load = watch(machine)
    one_window(machine, load, own=50.0, others=3.0, stolen=1.0, idle=46.0)
    assert load.conditions(SCOPES) == ()
    (kept,) = load.loads
    assert (kept.own_s, kept.others_s, kept.stolen_s, kept.machine_s) == pytest.approx((50.0, 3.0, 1.0, 100.0))


@pytest.mark.parametrize(("others", "stolen"), [(6.0, 0.0), (0.0, 6.0), (3.0, 3.0)])
def test_others_and_a_hypervisor_above_the_limit_are_said_with_numbers(others: float, stolen: float) -> None:
    machine = Machine()
    load = watch(machine)
    one_window(machine, load, own=50.0, others=others, stolen=stolen, idle=100.0 - 50.0 - others - stolen)
    (seen,) = load.conditions(SCOPES)
    assert (seen.kind, seen.scope, seen.fails, seen.count) == (FOREIGN_LOAD, PACKAGE, False, 1)
    assert f"other processes had {others:.1f}% and a hypervisor {stolen:.1f}%" in seen.detail


def test_the_limit_is_the_suite_s() -> None:
    machine = Machine()
    load = watch(machine, at_most=0.5)
    one_window(machine, load, own=50.0, others=40.0, idle=10.0)
    assert load.conditions(SCOPES) == ()


def test_the_worst_window_is_told_and_all_are_counted() -> None:
    machine = Machine()
    load = watch(machine)
    for window, others in enumerate((10.0, 30.0, 0.0)):
        one_window(machine, load, window, own=50.0, others=others, idle=20.0)
    (seen,) = load.conditions(SCOPES)
    assert seen.count == 2
    assert "in window 1" in seen.detail


def test_where_no_scope_holds_others_joules_their_disturbance_is_still_said_but_not_of_a_model() -> None:
    machine = Machine()
    load = watch(machine)
    one_window(machine, load, own=1.0, others=99.0)
    scopes = {"n0/gpu:1": SCOPES["n0/gpu:1"], PACKAGE: Scope(method=Method.SIMULATED)}
    assert [seen.scope for seen in load.conditions(scopes)] == ["n0/host"]
    assert load.conditions(scopes, modelled=True) == ()


def test_what_is_not_known_is_said() -> None:
    machine = Machine()
    load = watch(machine)
    load.open()
    machine.own = Unavailable("process 77 is gone")
    load.close(0)
    (seen,) = load.conditions(SCOPES)
    assert (seen.kind, seen.detail) == (UNKNOWN, "foreign load not known: process 77 is gone")
    assert load.conditions({"n0/gpu:1": SCOPES["n0/gpu:1"]}) == ()


def test_times_that_go_back_or_stand_still_are_not_known() -> None:
    for own, elapsed in ((0.0, 0.0), (0.0, -1.0)):
        machine = Machine()
        load = watch(machine)
        load.open()
        assert isinstance(machine.times, MachineTimes)
        machine.times = replace(machine.times, elapsed_s=machine.times.elapsed_s + elapsed)
        machine.spend(own)
        load.close(0)
        assert load.loads[0].unknown


def test_a_window_too_short_for_the_clock_is_not_known_and_not_loaded() -> None:
    machine = Machine()
    load = watch(machine)
    one_window(machine, load, own=0.08, others=0.01, idle=0.01)
    (seen,) = load.conditions(SCOPES)
    assert seen.kind == UNKNOWN
    assert "10.0% ± 20.0%" in seen.detail


def test_packages_of_other_nodes_are_not_known() -> None:
    machine = Machine()
    load = watch(machine)
    one_window(machine, load, own=50.0, idle=50.0)
    (seen,) = load.conditions({**SCOPES, "n1/cpu-package:0": Scope(method=Method.COUNTER)})
    assert (seen.kind, seen.scope) == (UNKNOWN, "n1/cpu-package:0")


def test_processes_that_the_workload_names_are_its_own() -> None:
    machine = Machine()
    load = watch(machine)
    load.attach([88, 77])
    load.open()
    assert machine.asked == [[77, 88]]


# Apportioning


def reading(scope: str = PACKAGE, window: int = 0, *, primary: bool = True) -> Reading:
    value = Amount.of(100.0, "J", Method.COUNTER, low=95.0, high=105.0)
    return Reading(span="window", window=window, meter="rapl", scope=scope, primary=primary, value=value)


def test_apportioned_energy_is_an_estimate_between_nothing_and_the_whole() -> None:
    machine = Machine()
    load = watch(machine, apportion=True)
    one_window(machine, load, own=30.0, others=10.0, stolen=5.0, idle=55.0)
    mine, card, idle = load.apportioned([reading(), reading("n0/gpu:1"), reading(window=-1)], SCOPES)
    assert mine.value == Amount.of(75.0, "J", Method.ESTIMATED, low=0.0, high=105.0)
    assert mine.whole == reading().value
    assert APPORTIONED in mine.flags
    assert (card, idle) == (reading("n0/gpu:1"), reading(window=-1))
    described = load.described(SCOPES)
    assert described[PACKAGE].method is Method.ESTIMATED
    assert described[PACKAGE].note == f"RAPL; {APPORTIONED}"
    assert described["n0/gpu:1"] == SCOPES["n0/gpu:1"]
    assert load.conditions(SCOPES)[0].kind == FOREIGN_LOAD


def test_without_the_option_nothing_is_apportioned() -> None:
    machine = Machine()
    load = watch(machine)
    one_window(machine, load, own=30.0, others=10.0)
    assert load.apportioned([reading()], SCOPES) == [reading()]
    assert load.described(SCOPES) == SCOPES


def test_what_cannot_be_apportioned_is_missing_and_the_whole_is_kept() -> None:
    machine = Machine()
    machine.times = Unavailable("no /proc/stat")
    load = watch(machine, apportion=True)
    load.open()
    load.close(0)
    there = {**SCOPES, "n1/host": Scope(method=Method.WALL)}
    mine, far = load.apportioned([reading(), reading("n1/host")], there)
    assert mine.value == Unavailable("not apportioned: no /proc/stat")
    assert mine.whole == reading().value
    assert isinstance(far.value, Unavailable)
    assert "own node" in far.value.reason


# Gates


def loaded(scope: str, *, read: str = PACKAGE) -> Record:
    point = Point(id="a" * 12, suite="s", label="p", workload="w", backend=Choice("host"),
                  functional_units={"token": {"sum": "tokens"}})  # fmt: skip
    finished = trial(point, "r", 0, 100.0)
    seen = SeenCondition(kind=FOREIGN_LOAD, scope=scope, detail="too much", fails=False, count=1, first_ns=0)
    span = replace(finished.measurement.spans[0], flags=())
    measurement = replace(finished.measurement, conditions=(seen,), readings=(reading(read),), spans=(span,))
    return replace(finished, measurement=measurement)


def test_energy_that_holds_others_joules_is_not_gated_and_its_pair_is_redone() -> None:
    finished = loaded(PACKAGE)
    point = Point.from_json(dict(finished.measurement.point))
    assert faults(finished.measurement, point) == [f"foreign_load on {PACKAGE}: too much"]
    assert gateable(Metric("energy_j"), finished) == (None, f"foreign_load on {PACKAGE}: too much")
    assert gateable(Metric("energy_j", "token"), finished)[0] is None
    assert gateable(Metric("duration_s"), finished)[0] is not None


def test_load_beside_a_card_alone_keeps_no_gate_from_judging() -> None:
    finished = loaded("n0/host", read="n0/gpu:1")
    assert faults(finished.measurement, Point.from_json(dict(finished.measurement.point))) == []
    assert gateable(Metric("energy_j"), finished)[0] is not None


def test_a_measurement_of_before_has_no_loads() -> None:
    from harness.records.files import adapter

    written = adapter(Measurement).dump_python(loaded(PACKAGE).measurement, mode="json")
    written.pop("loads")
    for each in written["readings"]:
        each.pop("whole")
    assert adapter(Measurement).validate_python(written).loads == ()


# The real machine


@pytest.fixture
def burning() -> Iterator[subprocess.Popen[bytes]]:
    """A process that works and is no child of what is watched."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def test_a_real_process_outside_of_the_tree_is_foreign(burning: subprocess.Popen[bytes]) -> None:
    """The watched tree is an idle child; what this test and the burning child spend is others' work."""
    idle = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        load = LoadWatch(ForeignLoad(), "n0", pid=idle.pid)
        load.open()
        spent_until = os.times().user + 0.5
        while os.times().user < spent_until:
            pass
        load.close(0)
    finally:
        idle.communicate(b"\n")
    (kept,) = load.loads
    assert not kept.unknown
    assert kept.others_s is not None
    assert kept.own_s is not None
    assert kept.others_s >= 0.4
    assert kept.own_s < kept.others_s
    assert not isinstance(machine_times(), Unavailable)
