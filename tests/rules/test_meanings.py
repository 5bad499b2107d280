"""Every option, suite key, column and command option says what it means, and its unit where its name ends in one."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from harness.cli import app
from harness.discovery.option_table import OptionRow, option_tables
from harness.discovery.registry import Registry
from harness.planning.suite import Suite, loads
from harness.workload import COMMON_COLUMNS

ROOT = Path(__file__).parents[2]
EXAMPLE = "harness-example-plugin"
DISTRIBUTIONS = [
    tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]
    for file in [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
]
WITH_UNIT = re.compile(r"(?:_s|_w|_j|_gb|_hz|watts|seconds)$")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = spec_from_file_location("docs_build", ROOT / "docs/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def registry(build: ModuleType) -> Registry:
    made: Registry = build.own_plugins()
    assert made.register(importlib.import_module("harness_example_plugin"), "example", distribution=EXAMPLE)
    return made


def complain(breaches: list[str]) -> None:
    assert not breaches, f"{len(breaches)} have none:\n" + "\n".join(breaches)


def rows_of(model: Any, where: str) -> Iterator[tuple[str, OptionRow]]:
    for table in option_tables(model.model_json_schema()):
        yield from ((f"{where} {table.name}.{row.key}".replace(" .", " "), row) for row in table.rows)


def options_of(registry: Registry, distribution: str) -> Iterator[tuple[str, OptionRow]]:
    for kind in ("workload", "backend", "meter", "scorer", "executor", "export"):
        for name, offer in registry.offers(kind).items():
            if offer.plugin.distribution == distribution:
                yield from rows_of(offer.spec.options, f"{kind} {name}:")


def columns_of(registry: Registry, distribution: str) -> Iterator[tuple[str, str]]:
    for kind in ("workload", "scorer"):
        for name, offer in registry.offers(kind).items():
            if offer.plugin.distribution == distribution:
                yield from ((f"{kind} {name}: column {each.name}", each.summary) for each in offer.spec.columns)


def arguments_of(build: ModuleType, name: str, command: Any) -> Iterator[tuple[str, str]]:
    for full, each in build.subcommands(name, command):
        yield f"harness {full}".strip(), each.help or ("" if full else "the command itself")
        for shown, _, meaning in build.arguments(each):
            yield f"harness {full} {shown}", meaning


@pytest.mark.parametrize("distribution", [*DISTRIBUTIONS, EXAMPLE])
def test_everything_that_a_plugin_offers_has_a_meaning(
    build: ModuleType, registry: Registry, distribution: str
) -> None:
    said = [(where, row.meaning) for where, row in options_of(registry, distribution)]
    said += columns_of(registry, distribution)
    for name, offer in registry.commands.items():
        if offer.plugin.distribution == distribution:
            said += arguments_of(build, name, build.command_of(offer.spec))
    complain([where for where, meaning in said if not meaning.strip()])


@pytest.mark.parametrize("distribution", [*DISTRIBUTIONS, EXAMPLE])
def test_a_number_whose_name_ends_in_a_unit_shows_it(registry: Registry, distribution: str) -> None:
    numbers = [(where, row) for where, row in options_of(registry, distribution) if "number" in row.type]
    complain([where for where, row in numbers if WITH_UNIT.search(row.key) and not row.unit])


def test_every_key_of_a_suite_has_a_meaning() -> None:
    rows = list(rows_of(Suite, "suite"))
    assert len(rows) > 40
    complain([where for where, row in rows if not row.meaning])
    complain([where for where, row in rows if row.key.endswith("seconds") and row.unit != "s"])


def test_common_columns_and_commands_have_a_meaning(build: ModuleType) -> None:
    said = [(each.name, each.summary) for each in COMMON_COLUMNS]
    said += arguments_of(build, "", typer.main.get_command(app))
    assert len(said) > 100
    complain([where for where, meaning in said if not meaning.strip()])


def test_defaults_of_a_suite_are_what_a_suite_may_say() -> None:
    """Every default of the reference, written down, is read and changes nothing."""
    (keys, *_) = option_tables(Suite.model_json_schema())
    lines = [f"{row.key}: {row.default}" for row in keys.rows if row.default and row.key != "suite"]
    plain = "suite: a\ncases: [{workload: spin}]\n"
    written = loads(plain + "\n".join(lines))
    assert dict(written) == dict(loads(plain))
