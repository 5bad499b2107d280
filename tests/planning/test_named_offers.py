"""A worker imports the plugins that its job names: the right ones, no others, and all where those do not suffice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError
from harness.planning.named_offers import hardware_meters, load_named, offers_of
from harness.planning.point import Choice, Point

PLUGIN = """
from harness import ImpactMeterSpec, ScorerSpec, WorkloadSpec, hookimpl
{before}

@hookimpl
def harness_workloads():
    return [WorkloadSpec(name={workload!r}, summary="", factory=print)]

@hookimpl
def harness_meters():
    yields = {{"x": "x"}}
    return [ImpactMeterSpec(name="{workload}-price", summary="", factory=print, needs=("energy_j",), yields=yields)]

@hookimpl
def harness_scorers():
    return [ScorerSpec(name="{workload}-score", summary="", factory=print, columns=())]
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a plugin of one module, named as its distribution, that offers a workload and what goes with it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def installed(name: str, workload: str, before: str = "") -> None:
        (tmp_path / f"{name}.py").write_text(PLUGIN.format(workload=workload, before=before), encoding="utf-8")
        packaged = tmp_path / f"{name}-1.0.dist-info"
        packaged.mkdir()
        (packaged / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        (packaged / "entry_points.txt").write_text(f"[harness]\n{name}-plugin = {name}\n", encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)

    return installed


def point(workload: str, meters: tuple[str, ...] = ("tdp",), scorers: tuple[str, ...] = ()) -> Point:
    return Point(
        id="0123456789ab",
        suite="s",
        label="a point",
        workload=workload,
        backend=Choice("host"),
        meters=tuple(Choice(name) for name in meters),
        scorers=tuple(Choice(name) for name in scorers),
    )


def job(planned: Point) -> dict[str, Any]:
    """A job as a worker reads it."""
    return dict(json.loads(json.dumps({"offers": offers_of(planned, load_plugins())})))


def distributions(registry: Registry) -> set[str]:
    return {plugin.distribution for plugin in registry.plugins}


def test_the_job_names_each_offer_with_its_plugin(install: Install) -> None:
    install("named_offers_one", "one")
    named = offers_of(point("one", ("tdp", "one-price"), ("one-score",)), load_plugins())
    ours = {"distribution": "named_offers_one", "plugin": "named_offers_one-plugin"}
    core = {"distribution": "joule-harness", "plugin": "builtin"}
    assert named == [
        {"kind": "workload", "name": "one", **ours, "in_trial": True},
        {"kind": "backend", "name": "host", **core, "in_trial": True},
        {"kind": "meter", "name": "tdp", **core, "in_trial": True},
        {"kind": "meter", "name": "one-price", **ours, "in_trial": False},
        {"kind": "scorer", "name": "one-score", **ours, "in_trial": False},
    ]


def test_only_the_named_plugins_are_imported(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("named_offers_used", "used")
    install("named_offers_other", "other")
    asked = job(point("used"))
    monkeypatch.delitem(sys.modules, "named_offers_other")
    registry = load_named(asked)
    assert distributions(registry) == {"joule-harness", "named_offers_used"}
    assert registry.get("workload", "used").plugin.name == "named_offers_used-plugin"
    assert "named_offers_other" not in sys.modules


def test_what_costs_later_is_not_imported_and_its_version_is_recorded(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("named_offers_price", "priced")
    planned = point("spin", ("tdp", "priced-price"), ("priced-score",))
    asked = job(planned)
    monkeypatch.delitem(sys.modules, "named_offers_price")
    registry = load_named(asked)
    assert "named_offers_price" not in sys.modules
    assert registry.versions()["named_offers_price"] == "1.0"
    assert [choice.name for choice in hardware_meters(planned, asked)] == ["tdp"]


def test_a_job_that_names_none_has_every_plugin(install: Install) -> None:
    install("named_offers_any", "any")
    registry = load_named({})
    assert distributions(registry) == distributions(load_plugins()) >= {"joule-harness", "named_offers_any"}
    assert hardware_meters(point("spin", ("tdp", "any-price")), {}) == (Choice("tdp"), Choice("any-price"))


def test_an_offer_that_moved_to_another_plugin_is_found(install: Install) -> None:
    install("named_offers_new", "moved")
    asked = job(point("moved"))
    for each in asked["offers"]:
        each["distribution"] = each["distribution"].replace("named_offers_new", "named-offers-of-before")
    assert load_named(asked).get("workload", "moved").plugin.distribution == "named_offers_new"


def test_an_offer_that_is_missing_here_is_an_error_that_names_its_plugin(install: Install) -> None:
    install("named_offers_here", "here")
    asked = job(point("here"))
    asked["offers"][0] |= {"name": "gone", "distribution": "named-offers-there", "plugin": "away"}
    registry = load_named(asked)
    with pytest.raises(UsageError, match="plugin away of named-offers-there, which lacks it here"):
        registry.get("workload", "gone")


def test_a_named_plugin_that_cannot_be_imported_says_why(install: Install, tmp_path: Path) -> None:
    install("named_offers_breaks", "breaks")
    asked = job(point("breaks"))
    (tmp_path / "named_offers_breaks.py").write_text("raise RuntimeError('no driver here')", encoding="utf-8")
    sys.modules.pop("named_offers_breaks")
    with pytest.raises(UsageError, match="no driver here"):
        load_named(asked).get("workload", "breaks")


def test_two_plugins_of_a_job_that_offer_one_name_are_an_error(install: Install) -> None:
    install("named_offers_twin", "twin")
    asked = job(point("twin"))
    install("named_offers_double", "twin")
    asked["offers"].append({**asked["offers"][0], "name": "twin", "distribution": "named_offers_double",
                            "plugin": "named_offers_double-plugin"})  # fmt: skip
    with pytest.raises(UsageError, match="defined more than once"):
        load_named(asked).get("workload", "twin")
    with pytest.raises(UsageError, match=r"accepted: named_offers_double:twin, named_offers_twin:twin"):
        offers_of(point("twin"), load_plugins())


def test_a_job_says_whose_of_two_offers_is_meant(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("named_offers_mine", "shared")
    install("named_offers_yours", "shared")
    meant = point(
        "named_offers_yours:shared", ("named_offers_mine:shared-price",), ("named_offers_yours:shared-score",)
    )
    asked = job(meant)
    assert [(each["name"], each["distribution"]) for each in asked["offers"] if "shared" in each["name"]] == [
        ("named_offers_yours:shared", "named_offers_yours"),
        ("named_offers_mine:shared-price", "named_offers_mine"),
        ("named_offers_yours:shared-score", "named_offers_yours"),
    ]
    monkeypatch.delitem(sys.modules, "named_offers_mine")
    registry = load_named(asked)
    assert registry.get("workload", "named_offers_yours:shared").plugin.distribution == "named_offers_yours"
    assert "named_offers_mine" not in sys.modules


def test_a_newer_driver_may_say_more(install: Install) -> None:
    install("named_offers_later", "later")
    asked = job(point("later"))
    for each in asked["offers"]:
        each["since"] = "2.0"
    assert distributions(load_named(asked)) == {"joule-harness", "named_offers_later"}


def test_a_run_costs_with_plugins_that_no_worker_imports(tmp_path: Path) -> None:
    """The impact meter's module refuses to be imported in a worker, and the unused plugin to be imported there too."""
    refuses = "import os\nif 'HARNESS_MESSAGES' in os.environ: raise RuntimeError('imported in a worker')\n"
    site = tmp_path / "site"
    site.mkdir()
    for name, code in {
        "price_only": refuses
        + textwrap.dedent(
            """
            from harness import Amount, Impact, ImpactMeter, ImpactMeterSpec, Method, hookimpl

            class Price(ImpactMeter):
                def apply(self, costed):
                    return Impact(readings={"euro": Amount(1.0, "EUR", {Method.ESTIMATED: 1.0})})

            @hookimpl
            def harness_meters():
                return [ImpactMeterSpec(name="price", summary="", factory=lambda options: Price(), needs=("energy_j",),
                                        yields={"euro": "EUR"})]
            """
        ),
        "unused": refuses,
    }.items():
        (site / f"{name}.py").write_text(code, encoding="utf-8")
        packaged = site / f"{name}-1.0.dist-info"
        packaged.mkdir()
        (packaged / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        (packaged / "entry_points.txt").write_text(f"[harness]\n{name} = {name}\n", encoding="utf-8")
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "suite: s\nbackend: host\nmeters: [tdp: {watts: 100}, price]\ntrials: 1\n"
        "windows: {count: 1, min_seconds: 0.01}\nwarm_up: {max_iterations: 0, min_iterations: 0}\n"
        "cases: [{workload: spin, options: {iterations: 1000}}]\n",
        encoding="utf-8",
    )
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "harness", "run", str(suite), "--store", str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    (measured,) = (tmp_path / "store").glob("*/*/measurement.json")
    found = json.loads(measured.read_text(encoding="utf-8"))
    assert found["plugins"].keys() == {"joule-harness", "price_only"}, done.stdout + done.stderr
    assert [report["name"] for report in found["meters"]] == ["tdp"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((measured.parent / "record.json").read_text(encoding="utf-8"))["totals"]["euro"]["value"] == 1.0
