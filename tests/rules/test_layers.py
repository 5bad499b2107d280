"""The floors that import-linter holds: every child of the core stands on exactly one, every package is read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract for contract in CONFIGURATION["contracts"]}
FLOORS = [[name.strip() for name in re.split(r"[:|]", floor)] for floor in CONTRACTS["floors"]["layers"]]


def packages(folder: Path, name: str) -> dict[str, Path]:
    """The packages below a folder, itself included, by dotted name."""
    return {
        ".".join([name, *file.parent.relative_to(folder).parts]): file.parent
        for file in sorted(folder.rglob("__init__.py"))
    }


def plugin_packages() -> dict[str, Path]:
    files = [*ROOT.glob("plugins/*/src/*/__init__.py"), *ROOT.glob("tests/example_plugin/src/*/__init__.py")]
    return {file.parent.name: file.parent for file in files}


def test_every_child_of_the_core_stands_on_exactly_one_floor() -> None:
    children = {f"harness.{path.stem}" for path in (ROOT / "harness").glob("*.py") if path.stem != "__init__"}
    children |= {f"harness.{path.parent.name}" for path in (ROOT / "harness").glob("*/__init__.py")}
    named = [name for floor in FLOORS for name in floor]
    assert sorted(named) == sorted(children)


def test_import_linter_reads_every_package() -> None:
    assert set(CONFIGURATION["root_packages"]) == {*plugin_packages(), "harness"}


def test_no_plugin_may_look_into_a_room() -> None:
    doors = CONTRACTS["doors"]
    rooms = {f"harness.{path.parent.name}" for path in (ROOT / "harness").glob("*/__init__.py")}
    assert set(doors["source_modules"]) == set(plugin_packages())
    assert set(doors["forbidden_modules"]) == rooms - {"harness.testing"}
    assert "ignore_imports" not in doors


def test_the_top_floor_is_small() -> None:
    assert len(list((ROOT / "harness").glob("*.py"))) <= 28


SPACIOUS = {"harness", "harness.reporting", "harness.commands"}
"""What a plugin may import, what only the reports need, and one file a command."""


def test_no_package_is_left_out_of_the_contract_about_circles() -> None:
    assert set(CONTRACTS["circles"]["ancestors"]) == set(CONFIGURATION["root_packages"])


def test_no_room_is_crowded() -> None:
    crowded = {
        name: count
        for name, folder in packages(ROOT / "harness", "harness").items()
        if name not in SPACIOUS and (count := len(list(folder.glob("*.py"))) - 1) > 16
    }
    assert crowded == {}
