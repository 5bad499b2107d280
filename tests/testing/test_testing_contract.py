"""The conformance kit finds what breaks a contract, in every kind of plugin spec, and says what passed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import (
    Amount,
    Backend,
    BackendSpec,
    Column,
    Device,
    Executor,
    Exported,
    ExportSpec,
    Factor,
    FunctionalUnit,
    Impact,
    ImpactMeter,
    ImpactMeterSpec,
    MeasurementError,
    Meter,
    MeterSpec,
    Method,
    NoOptions,
    Options,
    Outcome,
    PluginError,
    Scope,
    Scorer,
    ScorerSpec,
    Snapshot,
    Unavailable,
    UsageError,
    Workload,
    WorkloadSpec,
    hookimpl,
    now_ns,
)
from harness.builtin.host import BACKEND as HOST
from harness.builtin.local import LocalExecutor
from harness.cli import app
from harness.discovery.registry import Registry, load_plugins
from harness.testing import (
    Checks,
    FakeNvml,
    NotTriedError,
    check_backend,
    check_determinism,
    check_executor,
    check_export,
    check_impact_meter,
    check_scorer,
    made_up,
)
from harness.testing.contract import check_offer, chosen

ROOT = Path(__file__).parents[2]


# Checks


def test_checks_keep_the_worst_outcome():
    held = Checks()
    with held.that("a"):
        raise NotTriedError("no device")
    with held.that("a"):
        pass
    with held.that("b"):
        raise AssertionError("it went back")
    with held.that("b"):
        pass
    with held.that("c"):
        raise ValueError("odd")
    assert [(each.sentence, each.state, each.detail) for each in held.found] == [
        ("a", "passed", ""),
        ("b", "failed", "it went back"),
        ("c", "failed", "ValueError: odd"),
    ]
    assert [each.sentence for each in held.failed] == ["b", "c"]


def test_strict_checks_raise_what_failed_them():
    with pytest.raises(ValueError, match="odd"), Checks(strict=True).that("a"):
        raise ValueError("odd")
    with Checks(strict=True).that("a"):
        raise NotTriedError("no device")


# Impact meters

GRAMS = ImpactMeterSpec(
    name="g", summary="g", factory=lambda _options: None, needs=("energy_j",), yields={"carbon_g": "g"}
)


class Grams(ImpactMeter):
    """1 g a joule, with one fault at a time."""

    def __init__(self, fault=""):
        self.fault = fault
        self.calls = count()

    def apply(self, costed):
        energy = costed.readings["energy_j"]
        if isinstance(energy, Unavailable):
            zero = Amount.of(0.0, "g", Method.ESTIMATED)
            return Impact(readings={"carbon_g": zero if self.fault == "zero" else energy})
        carbon = energy.times(1.0 + (self.fault == "drift") * next(self.calls), "kg" if self.fault == "unit" else "g")
        readings = {} if self.fault == "absent" else {"carbon_g": carbon}
        if self.fault == "extra":
            readings["water_l"] = carbon
        source = " " if self.fault == "source" else "a table"
        return Impact(readings=readings, factors=(Factor(name="one", value=1.0, unit="g/J", source=source),))


def test_an_honest_impact_meter_passes_every_check():
    held = Checks()
    check_impact_meter(Grams(), GRAMS, made_up(GRAMS), checks=held)
    assert [each.state for each in held.found] == ["passed"] * 5


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("zero", "carbon_g is 0 g"),
        ("drift", "second result differs"),
        ("unit", "in kg, declared g"),
        ("absent", "left out"),
        ("extra", "undeclared"),
        ("source", "no source"),
    ],
)
def test_an_impact_meter_that_fails_one_check(fault, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_impact_meter(Grams(fault), GRAMS, made_up(GRAMS))


# Backends

DESK = Device(kind="desk", uuid="desk-0", name="Desk")


class Desk(Backend):
    def __init__(self, devices=(DESK,), closes=9):
        self.devices, self.closes = devices, closes

    def open(self):
        return self.devices

    def close(self):
        self.closes -= 1
        if self.closes < 0:
            raise RuntimeError("closed once too often")


@pytest.mark.parametrize(
    ("probed", "made", "complaint"),
    [
        ([], Desk, "no device"),
        (Unavailable(" "), Desk, "without a reason"),
        ([DESK], lambda: Desk(devices=()), "the probe found"),
        ([DESK], lambda: Desk(devices=(DESK, DESK)), "share an identity"),
        ([DESK], lambda: Desk(devices=(replace(DESK, uuid=""),)), "no uuid"),
        ([DESK], lambda: Desk(closes=1), "once too often"),
    ],
)
def test_a_backend_that_breaks_one_promise(probed, made, complaint):
    spec = BackendSpec(name="d", summary="d", factory=lambda _options: made(), probe=lambda _options: probed)
    with pytest.raises((AssertionError, RuntimeError), match=complaint):
        check_backend(spec, NoOptions())


def test_a_backend_that_is_not_there_is_not_tried():
    spec = BackendSpec(
        name="d", summary="d", factory=lambda _options: Desk(), probe=lambda _options: Unavailable("no desk")
    )
    held = Checks()
    check_backend(spec, NoOptions(), checks=held)
    assert {each.detail for each in held.found if each.state == "not tried"} == {"no desk"}
    assert not held.failed


# Executors


def test_the_local_executor_keeps_its_contract(tmp_path):
    check_executor(LocalExecutor, tmp_path)


@pytest.mark.parametrize(
    ("outcome", "complaint"),
    [(Outcome(ok=True), "reported as ok"), (Outcome(ok=False), "without a reason"), (None, "returned None")],
)
def test_an_executor_that_lies_about_a_failed_worker(tmp_path, outcome, complaint):
    class Liar(Executor):
        def run(self, job, listener):
            return outcome

    with pytest.raises(AssertionError, match=complaint):
        check_executor(Liar, tmp_path)


# Workloads and scorers


def dice(write):
    class Dice(Workload):
        def step(self, window):
            write(window)

    return WorkloadSpec(
        name="dice",
        summary="dice",
        factory=lambda _options: Dice(),
        columns=(Column("eyes", "1"), Column("took_s", "s")),
        functional_units={"eye": FunctionalUnit("eyes")},
    )


def test_determinism_sees_items_outputs_and_not_times(tmp_path):
    never_again = count()
    check_determinism(
        dice(lambda window: window.item(str(window.iteration), eyes=4, took_s=next(never_again))),
        None,
        lambda: HOST.factory(HOST.options()),
        tmp_path,
    )
    for write, complaint in (
        (lambda window: window.item(str(window.iteration), eyes=next(never_again)), "items differ"),
        (lambda window: window.item(str(next(never_again)), eyes=4), "items differ"),
        (lambda window: (window.item("a", eyes=4), window.output("a", next(never_again))), "outputs differ"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            check_determinism(dice(write), None, lambda: HOST.factory(HOST.options()), tmp_path)


@pytest.mark.parametrize(
    ("score", "complaint"),
    [
        (lambda items: {"a": {"length": 1.0}}, "scored"),
        (lambda items: {"a": {"width": 1.0}, "b": {}}, "undeclared"),
        (lambda items: {"a": {"length": float("nan")}, "b": {}}, "is nan"),
    ],
)
def test_a_scorer_that_breaks_one_promise(score, complaint):
    class Bad(Scorer):
        def score(self, items):
            return score(items)

    spec = ScorerSpec(name="s", summary="s", factory=lambda _options: Bad(), columns=(Column("length", "1"),))
    with pytest.raises(AssertionError, match=complaint):
        check_scorer(spec, None, [({"item_id": "a"}, "x"), ({"item_id": "b"}, "yy")])


# Installed offers


class Falling(Meter):
    """Begins at 9 J and falls."""

    def open(self, context):
        self.left = 9.0
        return {f"{context.node}/x": Scope(method=Method.COUNTER)}

    def read(self):
        self.left -= 1
        return Snapshot(now_ns(), {"n0/x": self.left})

    def close(self):
        pass


class Hungry(Options):
    """Options without a default."""

    file: str


def registry_with(*specs):
    class Plugin:
        @hookimpl
        def harness_meters(self):
            return list(specs)

    registry = Registry()
    assert registry.register(Plugin(), "mine"), registry.broken
    return registry


def test_a_spec_is_checked_to_the_end_even_if_one_check_fails():
    registry = registry_with(MeterSpec(name="falling", summary="falls", factory=lambda _options: Falling()))
    ((kind, offer),) = chosen(registry, "falling")
    checks = check_offer(kind, offer, registry)
    assert [each.detail for each in checks.failed] == ["joules of n0/x went back"]
    states = {each.sentence: each.state for each in checks.found}
    assert states["close() may be called twice"] == "passed"
    assert "not tried" in states.values(), "it came through no entry point, so its imports cannot be watched"


def test_a_spec_that_needs_options_is_not_tried():
    registry = registry_with(MeterSpec(name="h", summary="h", factory=lambda _options: Falling(), options=Hungry))
    ((kind, offer),) = chosen(registry, "mine")
    checks = check_offer(kind, offer, registry)
    assert not checks.failed
    assert checks.found[-1].detail == "needs options: file"


def test_a_factory_that_raises_fails_a_check():
    registry = registry_with(MeterSpec(name="h", summary="h", factory=lambda _options: 1 / 0))
    ((kind, offer),) = chosen(registry, "h")
    (failed,) = check_offer(kind, offer, registry).failed
    assert "ZeroDivisionError" in failed.detail


def test_a_name_means_a_spec_a_distribution_or_a_plugin():
    registry = load_plugins()
    assert {kind for kind, _ in chosen(registry, "simulated")} == {"backend", "meter"}
    assert {offer.plugin.distribution for _, offer in chosen(registry, "joule-harness")} == {"joule-harness"}
    with pytest.raises(UsageError, match=r"'spinn'.*did you mean 'spin'"):
        chosen(registry, "spinn")
    twice = MeterSpec(name="twice", summary="t", factory=lambda _options: Falling())
    conflicting = registry_with(twice, twice)
    with pytest.raises(PluginError, match="defined more than once"):
        chosen(conflicting, "twice")


@pytest.mark.parametrize("name", ["spin", "host", "declared_power"])
def test_the_command_says_what_built_in_plugins_pass(name):
    done = CliRunner().invoke(app, ["plugins", "--check", name, "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert {row["name"] for row in rows} == {name}
    assert {row["state"] for row in rows} <= {"passed", "not tried"}
    assert [row for row in rows if row["state"] == "passed"]


def test_the_command_refuses_an_unknown_name():
    done = CliRunner().invoke(app, ["plugins", "--check", "no-such-offer"])
    assert isinstance(done.exception, UsageError)


# The pytest plugin

USES = """
def test_clock(harness_clock):
    assert harness_clock.advance(1.5) == harness_clock() == 2_500_000_000

def test_powercap(harness_powercap):
    zone = harness_powercap.zone("intel-rapl:0", "package-0", energy_uj=7)
    assert harness_powercap.read_text(zone / "energy_uj") == "7\\n"

def test_accelerator(harness_accelerator, harness_clock):
    from harness.builtin.simulated import attached
    assert attached("SIM-0") is harness_accelerator
    with harness_accelerator.busy():
        harness_clock.advance(2.0)
    assert harness_accelerator.true_joules(harness_clock()) == 2.0 * harness_accelerator.busy_w

def test_nvml(harness_nvml, harness_clock):
    fake = harness_nvml()
    import pynvml
    assert pynvml is fake
    pynvml.nvmlInit()
    (card,) = fake.cards
    handle = pynvml.nvmlDeviceGetHandleByUUID(card.uuid)
    before = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    harness_clock.advance(1.0)
    assert abs(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - before - 100_000) <= 100 * 100 + 1

def test_contract(harness_contract):
    assert [check for check in harness_contract("cpu_time") if check.state == "passed"]
"""
INERT = """
import sys
def test_nothing_is_loaded():
    heavy = {"pydantic", "yaml", "numpy", "torch", "harness.testing", "harness.backend"} & set(sys.modules)
    assert not heavy, heavy
"""


def run_pytest(folder, text):
    (folder / "test_it.py").write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "harness.pytest_plugin", "-p", "no:cacheprovider", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


def test_fixtures_give_the_fakes(tmp_path):
    done = run_pytest(tmp_path, USES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_the_pytest_plugin_is_inert(tmp_path):
    done = run_pytest(tmp_path, INERT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_entry_point_bears_its_modules_name():
    import tomllib

    points = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert points["pytest11"] == {"harness.pytest_plugin": "harness.pytest_plugin"}


def test_the_fake_driver_fakes_nothing_that_the_real_one_lacks():
    real = pytest.importorskip("pynvml")
    faked = [name for name in vars(FakeNvml) if name.startswith("nvml")]
    assert faked
    assert [name for name in faked if not hasattr(real, name)] == []
    from harness.testing.nvml import HOPPER

    assert real.NVML_DEVICE_ARCH_HOPPER == HOPPER


# Exports


def exporting(**fields):
    written = {"load": lambda: lambda run, target, options: Exported(content=run.name)} | fields
    return ExportSpec(name="mine", summary="mine", **written)


def test_an_export_that_keeps_its_contract_passes(tmp_path):
    checks = Checks()
    check_export(exporting(), NoOptions(), tmp_path, checks=checks)
    assert [(each.state, each.detail) for each in checks.found] == [("passed", "")] * 2


@pytest.mark.parametrize(
    ("export", "complaint"),
    [
        (lambda run, target, options: "text", "not an Exported"),
        (lambda run, target, options: Exported(), "has no content"),
        (lambda run, target, options: Exported(content=str(time.monotonic_ns())), "two exports of one run differ"),
        (lambda run, target, options: Exported(content=str(run.folder.joinpath("x").touch())), "changed the run"),
        (lambda run, target, options: 1 / 0, "division by zero"),
    ],
    ids=["type", "content", "differs", "writes", "raises"],
)
def test_an_export_that_breaks_its_contract_fails(tmp_path, export, complaint):
    checks = Checks()
    check_export(exporting(load=lambda: export), NoOptions(), tmp_path, checks=checks)
    assert complaint in checks.failed[0].detail


def test_an_export_that_refuses_or_sends_is_not_tried(tmp_path):
    def refuse(run, target, options):
        raise MeasurementError("no carbon")

    for spec, reason in ((exporting(load=lambda: refuse), "no carbon"), (exporting(address="URL"), "it needs the URL")):
        checks = Checks()
        check_export(spec, NoOptions(), tmp_path / reason, checks=checks)
        assert [each.detail for each in checks.found if each.state == "not tried"] == [reason]
