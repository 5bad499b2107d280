"""The registry: plugins one by one, broken ones apart, conflicts named, notification hooks that cannot hurt."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness.discovery import registry as registries
from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError
from harness.hookspecs import hookimpl
from harness.impact import ImpactMeterSpec
from harness.meter import MeterSpec
from harness.workload import WorkloadSpec


def no_factory(options: object) -> Any:
    raise AssertionError("planning makes no plugin")


def workload(name: str) -> WorkloadSpec:
    return WorkloadSpec(name=name, summary="", factory=no_factory)


def plugin(**hooks: Any) -> ModuleType:
    module = ModuleType("plugin_of_a_test")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def test_offers_are_gathered_by_kind_and_name() -> None:
    registry = Registry()
    impact = ImpactMeterSpec(name="carbon", summary="", factory=no_factory, needs=("energy_j",), yields={"g": "g"})

    def meters() -> Any:
        yield MeterSpec(name="joules", summary="", factory=no_factory)
        yield impact

    assert registry.register(plugin(harness_workloads=lambda: [workload("w")], harness_meters=meters), "p")
    assert list(registry.workloads) == ["w"]
    assert list(registry.meters) == ["carbon", "joules"]
    assert registry.get("meter", "carbon").spec is impact
    assert registry.get("workload", "w").plugin.name == "p"
    assert registry.backends == registry.executors == registry.scorers == registry.commands == {}
    assert registry.broken == []


def offers_nothing_iterable() -> Any:
    return 3


def offers_text() -> Any:
    return "abc"


def offers_a_wrong_type() -> Any:
    return [MeterSpec(name="m", summary="", factory=no_factory)]


def offers_a_wrong_name() -> Any:
    return [workload("a b/c")]


def raises() -> Any:
    raise RuntimeError("the disk is on fire")


def raises_late() -> Any:
    yield workload("early")
    raise RuntimeError("the disk is on fire")


def leaves() -> Any:
    sys.exit(4)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (offers_nothing_iterable, "returned 3; accepted: an iterable of WorkloadSpec"),
        (offers_text, "returned 'abc'"),
        (offers_a_wrong_type, "accepted: WorkloadSpec"),
        (offers_a_wrong_name, "yielded the name 'a b/c'"),
        (raises, "RuntimeError: the disk is on fire"),
        (raises_late, "RuntimeError: the disk is on fire"),
        (leaves, "SystemExit: 4"),
    ],
)
def test_a_broken_offer_is_recorded_and_the_others_work(function: Any, said: str) -> None:
    registry = Registry()
    told: list[object] = []

    def news(trial: object) -> None:
        told.append(trial)

    assert not registry.register(
        plugin(harness_workloads=function, harness_trial_started=news), "bad", distribution="joule-bad", version="2.0"
    )
    assert registry.register(plugin(harness_workloads=lambda: [workload("good")]), "good")
    assert list(registry.workloads) == ["good"]
    (broken,) = registry.broken
    assert (broken.name, broken.distribution, broken.version) == ("bad", "joule-bad", "2.0")
    assert said in broken.error
    assert registry.tell("harness_trial_started", trial={}) == []
    assert told == [], "a broken plugin gets no notification"
    with pytest.raises(UsageError, match=r"joule-bad 2\.0"):
        registry.get("workload", "xyz")


def test_a_misspelt_hook_is_named() -> None:
    registry = Registry()
    assert not registry.register(plugin(harness_workload=no_factory), "p")
    assert "did you mean 'harness_workloads'?" in registry.broken[0].error


def test_a_hook_with_a_wrong_argument_is_broken() -> None:
    registry = Registry()
    assert not registry.register(plugin(harness_trial_started=lambda nonsense: None), "p")
    assert "nonsense" in registry.broken[0].error
    assert registry.tell("harness_trial_started", trial={}) == []


def test_a_name_offered_twice_is_an_error_only_when_used() -> None:
    registry = Registry()
    for name in ("one", "two"):
        made = plugin(harness_workloads=lambda name=name: [workload("same"), workload(name)])
        registry.register(made, name, distribution=f"joule-{name}", version="1.0")
    assert list(registry.workloads) == ["one", "joule-one:same", "joule-two:same", "two"]
    (conflict,) = registry.conflicts
    assert (conflict.kind, conflict.name) == ("workload", "same")
    with pytest.raises(UsageError) as caught:
        registry.get("workload", "same")
    assert "joule-one 1.0" in str(caught.value)
    assert "joule-two 1.0" in str(caught.value)
    assert caught.value.accepted == "joule-one:same, joule-two:same"


def test_an_unknown_name_says_what_is_accepted() -> None:
    registry = Registry()
    registry.register(plugin(harness_workloads=lambda: [workload("decode"), workload("segment")]), "p")
    with pytest.raises(UsageError) as caught:
        registry.get("workload", "decoed")
    assert caught.value.accepted == "decode, segment"
    assert caught.value.hint == "did you mean 'decode'?"


def test_news_reach_all_and_a_fault_is_only_told() -> None:
    registry = Registry()
    told: list[object] = []

    def listen(trial: Any, folder: Any) -> None:
        told.append((trial, folder))

    def less(trial: Any) -> None:
        told.append(trial)

    registry.register(plugin(harness_trial_finished=listen), "a")
    registry.register(plugin(harness_trial_finished=lambda trial: 1 / 0), "b", distribution="joule-b", version="3")
    registry.register(plugin(harness_trial_finished=less), "c")
    (fault,) = registry.tell("harness_trial_finished", trial={"status": "ok"}, folder=Path("x"))
    assert "joule-b 3" in fault
    assert "ZeroDivisionError" in fault
    assert sorted(map(str, told)) == sorted([str(({"status": "ok"}, Path("x"))), str({"status": "ok"})])


def entry(name: str, value: str, distribution: str) -> EntryPoint:
    found: Any = SimpleNamespace(name=distribution, version="1.2", metadata={})
    point = EntryPoint(name, value, "harness")
    vars(point)["dist"] = found
    return point


def test_entry_points_load_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_fine.py").write_text(
        "from harness import WorkloadSpec, hookimpl\n"
        "@hookimpl\n"
        "def harness_workloads():\n"
        "    return [WorkloadSpec(name='fine', summary='', factory=print)]\n"
    )
    (tmp_path / "plugin_raising.py").write_text("raise OSError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [
        entry("z", "plugin_raising", "joule-z"),
        entry("missing", "plugin_that_is_not_there", "joule-m"),
        entry("fine", "plugin_fine", "joule-fine"),
        entry("again", "plugin_fine", "joule-fine"),
        entry("attribute", "plugin_fine:nothing", "joule-zz"),
    ]
    monkeypatch.setattr(registries, "entry_points", lambda group: found if group == "harness" else [])
    registry = load_plugins()
    assert list(registry.workloads) == ["fine"]
    assert registry.versions() == {"joule-fine": "1.2"}
    errors = {broken.name: broken.error for broken in registry.broken}
    assert errors.keys() == {"z", "missing", "fine", "attribute"}, (
        "the second entry point of one module is the broken one"
    )
    assert "no licence" in errors["z"]
    assert "plugin_that_is_not_there" in errors["missing"]


def test_the_installed_core_offers_through_its_own_entry_point() -> None:
    registry = load_plugins()
    distributions = {offer.plugin.distribution for offer in registry.backends.values()}
    assert "joule-harness" in distributions
    assert Distribution.from_name("joule-harness").version == registry.versions()["joule-harness"]


def test_discovery_imports_nothing_heavy() -> None:
    code = (
        "import sys; from harness.discovery.registry import load_plugins; load_plugins('no-such-group');"
        "print([n for n in ('torch', 'numpy', 'pynvml', 'yaml') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
