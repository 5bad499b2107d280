"""The layers that import-linter holds know every module of the core and every plugin's package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
LAYERS = [
    {name.strip(" ()") for name in re.split(r"[:|]", layer)}
    for contract in CONFIGURATION["contracts"]
    if contract["id"] == "layers"
    for layer in contract["layers"]
]


def layer_of(module: str) -> int:
    """Position of a module's layer, 0 at the top."""
    found = [position for position, names in enumerate(LAYERS) if module in names]
    assert len(found) == 1, f"{module} belongs into one layer of [tool.importlinter] in pyproject.toml, found {found}"
    return found[0]


def plugin_packages() -> set[str]:
    folders = [*ROOT.glob("plugins/*/src/*/__init__.py"), *ROOT.glob("tests/example_plugin/src/*/__init__.py")]
    return {file.parent.name for file in folders}


def test_every_module_of_the_core_has_a_layer() -> None:
    modules = [path.stem for path in (ROOT / "harness").glob("*.py") if path.name != "__init__.py"]
    modules += [path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")]
    for module in modules:
        layer_of(f"harness.{module}")


def test_every_plugin_lies_between_records_and_steps() -> None:
    packages = plugin_packages() | {"harness.builtin"}
    assert {layer_of(package) for package in packages} == {layer_of("harness.builtin")}
    assert layer_of("harness.run") < layer_of("harness.builtin") < layer_of("harness.record")


def test_import_linter_reads_every_package() -> None:
    assert set(CONFIGURATION["root_packages"]) == plugin_packages() | {"harness"}


def test_every_layered_module_exists() -> None:
    known = {name for names in LAYERS for name in names if name.startswith("harness.")}
    missing = {name for name in known if not list((ROOT / "harness").glob(f"{name.partition('.')[2]}*"))}
    assert missing == set()
