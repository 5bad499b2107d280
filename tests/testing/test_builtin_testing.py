"""The conformance checks catch the faults that they are for."""

from __future__ import annotations

import pytest

from harness.backend import Backend
from harness.functional_unit import FunctionalUnit
from harness.meter import Meter, MeterContext
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot
from harness.testing import FakeClock, check_meter, check_offers, check_workload
from harness.testing.checks import Checks
from harness.workload import Column, Workload, WorkloadSpec

SCOPE = Scope(method=Method.COUNTER)
LIMITED = Scope(method=Method.COUNTER, max_power_w=300.0, tick_s=0.1)


class Fake(Meter):
    """A meter that reads what it is told."""

    def __init__(self, opened, *reads):
        self.opened, self.reads, self.count = opened, reads, 0

    def open(self, context):
        self.count = 0
        return self.opened

    def read(self):
        self.count += 1
        return Snapshot(self.count, self.reads[min(self.count, len(self.reads)) - 1])

    def close(self):
        pass


@pytest.mark.parametrize(
    ("opened", "reads", "complaint"),
    [
        ({"gpu:A": SCOPE}, [{"gpu:A": 1.0}], "begin with its node"),
        ({"n0/a": SCOPE}, [{"n0/a": 2.0}, {"n0/a": 1.0}], "went back"),
        ({"n0/a": SCOPE}, [{"n0/a": Cumulative(1, gap_s=2)}, {"n0/a": Cumulative(1)}], "gap_s of n0/a went back"),
        ({"n0/a": SCOPE}, [{}], "left out"),
        ({"n0/a": SCOPE}, [{"n0/a": float("nan")}], "joules of n0/a is nan"),
        ({"n0/a": SCOPE}, [{"n0/a": -1.0}], "is -1"),
        ({"n0/a": SCOPE}, [{"n0/a": 1.0, "n0/b": 1.0}], "did not announce"),
        ({"n0/a": LIMITED}, [{"n0/a": 1.0}, {"n0/a": 900.0}], "grew by 899 J in 1e-09 s; its max_power_w of 300 W"),
        ({"n0/a": Scope(method=Method.COUNTER, max_power_w=-1.0)}, [{"n0/a": 1.0}], "max_power_w of n0/a is -1"),
        ({"n0/a": Unavailable("no")}, [{"n0/a": 0.0}], "must not read"),
        ({"n0/a": Unavailable(" ")}, [{}], "without a reason"),
        (Unavailable(""), [{}], "without a reason"),
    ],
)
def test_check_meter_complains(opened, reads, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_meter(Fake(opened, *reads), MeterContext())


def test_check_meter_accepts_an_honest_one():
    meter = Fake({"n0/a": SCOPE, "n0/b": Unavailable("no")}, {"n0/a": 1.0}, {"n0/a": Unavailable("lost")}, {"n0/a": 2})
    assert len(check_meter(meter, MeterContext())) == 3


def test_check_meter_allows_what_a_late_counter_may_show_at_once():
    checks = Checks()
    check_meter(Fake({"n0/a": LIMITED}, {"n0/a": 1.0}, {"n0/a": 60.0}), MeterContext(), checks=checks)
    assert not checks.failed
    assert [one.state for one in checks.found if "max_power_w" in one.sentence] == ["passed"]


class Here(Backend):
    def open(self):
        return []


def workload(write, columns=("x",), unit="x"):
    class Written(Workload):
        def step(self, window):
            write(window)

    return WorkloadSpec(
        name="w",
        summary="w",
        factory=lambda _options: Written(),
        columns=tuple(Column(name, "1") for name in columns),
        functional_units={"u": FunctionalUnit(unit)},
    )


@pytest.mark.parametrize(
    ("write", "unit", "complaint"),
    [
        (lambda w: None, "x", "wrote no item"),
        (lambda w: w.item("a", x=1.0), "x", "share an id"),
        (lambda w: w.item(str(w.iteration), y=1.0), "x", "undeclared columns"),
        (lambda w: w.item(str(w.iteration), x=float("inf")), "x", "is inf"),
        (lambda w: w.item(str(w.iteration)), "x", "cannot be counted"),
        (lambda w: w.item(str(w.iteration), x=1.0), "z", "undeclared columns"),
        (lambda w: (w.item(str(w.iteration), x=1.0), w.output("q", 1)), "x", "without an item"),
        (
            lambda w: (w.item(str(w.iteration), x=1.0), w.device("d", busy_s=2, reserved_s=1)),
            "x",
            "longer than reserved",
        ),
    ],
)
def test_check_workload_complains(tmp_path, write, unit, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_workload(workload(write, unit=unit), None, Here(), tmp_path)


def test_check_offers_names_a_heavy_import(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("")
    (tmp_path / "heavy_plugin.py").write_text("import numpy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AssertionError, match="heavy_plugin imports numpy"):
        check_offers("heavy_plugin")
    with pytest.raises(AssertionError, match="No module named"):
        check_offers("no_such_plugin_anywhere")


def test_fake_clock_goes_when_told():
    clock = FakeClock(5)
    assert clock() == clock.monotonic_ns() == 5
    assert clock.advance(0.5) == clock() == 500_000_005
