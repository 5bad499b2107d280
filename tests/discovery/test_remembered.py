"""Only the plugins that give what was chosen are imported, as long as nothing that decides it has changed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.discovery import registry as registries
from harness.discovery.registry import Registry
from harness.discovery.remembered import load_chosen
from harness.errors import UsageError

PLUGIN = """
from harness import MeterSpec, hookimpl
@hookimpl
def harness_meters():
    return [MeterSpec(name={name!r}, summary="", factory=print, auto={auto})]
"""
NAMES = ("lamp", "stove", "fan")

Load = Callable[..., Registry]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads as a new process would: `lamp` is one that `auto` tries, `stove` and `fan` are not."""
    folder = tmp_path / "modules"
    for name in NAMES:
        (folder / f"remembered_{name}").mkdir(parents=True)
        (folder / f"remembered_{name}/__init__.py").write_text(PLUGIN.format(name=name, auto=name == "lamp"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    points = []
    for name in NAMES:
        distribution: Any = SimpleNamespace(name=f"joule-{name}", version="1", metadata={})
        points.append(EntryPoint(name, f"remembered_{name}", "harness"))
        vars(points[-1])["dist"] = distribution
    monkeypatch.setattr(registries, "entry_points", lambda group: points)

    def anew(wanted: Mapping[str, Collection[str]], also: Collection[str] = ()) -> Registry:
        for module in [name for name in sys.modules if name.startswith("remembered_")]:
            monkeypatch.delitem(sys.modules, module)
        return load_chosen(wanted, also=also)

    return anew


def imported() -> set[str]:
    return {name.removeprefix("remembered_") for name in sys.modules if name.startswith("remembered_")}


def change(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "modules" / f"remembered_{name}" / "__init__.py"
    path.write_text(text)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10_000_000))


def test_the_second_time_only_what_is_needed_is_imported(load: Load) -> None:
    assert set(load({"meter": ["auto"]}).meters) == set(NAMES)
    again = load({"meter": ["auto"]})
    assert set(again.meters) == imported() == {"lamp"}
    assert again.versions() == {"joule-lamp": "1"}
    assert set(load({"meter": ["auto", "fan"]}).meters) == {"lamp", "fan"}


def test_a_changed_plugin_is_asked_again(load: Load, tmp_path: Path) -> None:
    load({"meter": ["auto"]})
    change(tmp_path, "stove", PLUGIN.format(name="hot stove".replace(" ", "-"), auto=True))
    assert set(load({"meter": ["auto"]}).meters) == {"lamp", "fan", "hot-stove"}
    assert set(load({"meter": ["auto"]}).meters) == {"lamp", "hot-stove"}


def test_an_unknown_name_is_looked_for_everywhere(load: Load) -> None:
    load({"meter": ["auto"]})
    registry = load({"meter": ["auto", "oven"]})
    with pytest.raises(UsageError, match="fan, lamp, stove"):
        registry.get("meter", "oven")


def test_two_plugins_with_one_name_are_still_told(load: Load, tmp_path: Path) -> None:
    change(tmp_path, "fan", PLUGIN.format(name="lamp", auto=False))
    for _ in range(2):
        (conflict,) = load({"meter": ["lamp"]}).conflicts
        assert conflict.name == "lamp"


def test_a_broken_plugin_is_told_every_time(load: Load, tmp_path: Path) -> None:
    change(tmp_path, "fan", "raise OSError('no licence')")
    for _ in range(2):
        assert [broken.name for broken in load({"meter": ["auto"]}).broken] == ["fan"]


@pytest.mark.parametrize("content", ["", "[", "{}", '[{"name": 1}]', "[[]]", json.dumps([None])])
def test_what_was_damaged_is_not_believed(load: Load, tmp_path: Path, content: str) -> None:
    load({"meter": ["auto"]})
    (kept,) = (tmp_path / "cache/joule-harness/plugins").iterdir()
    kept.write_text(content)
    assert set(load({"meter": ["auto"]}).meters) == set(NAMES)
    assert set(load({"meter": ["auto"]}).meters) == {"lamp"}
