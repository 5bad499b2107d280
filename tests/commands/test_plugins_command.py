"""`harness plugins NAME`: one name with its options, columns, units and conditions, on any terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from typer.testing import CliRunner

from harness import Column, FunctionalUnit, ImpactMeterSpec, Options, Share, Unavailable, WorkloadSpec, hookimpl
from harness.cli import app
from harness.commands.plugin_page import page
from harness.discovery.registry import Registry
from harness.errors import ExitCode, UsageError


class KilnOptions(Options):
    """Options of a kiln.

    Attributes:
        heat: how hot, in °C; ±1 of what it says, and its text is longer than one line of eighty columns can ever hold.
        waste: share of the heat that is lost.
    """

    heat: float = Field(gt=0)
    waste: Share = 0.25


def never(_options: Any) -> Any:
    raise AssertionError("showing a plugin makes nothing")


class Kiln:
    @hookimpl
    def harness_workloads(self) -> Any:
        yield WorkloadSpec(
            name="kiln",
            summary="fires pots",
            factory=never,
            options=KilnOptions,
            columns=(Column("pots", "1", "pots that came out whole", higher_is_better=True), Column("soot_g", "g")),
            functional_units={"pot": FunctionalUnit.of("pots", {"soot_g": "<= 2"})},
            backends=("host",),
            probe=lambda _options: Unavailable("no kiln"),
        )

    @hookimpl
    def harness_meters(self) -> Any:
        yield ImpactMeterSpec(
            name="kiln", summary="clay used", factory=never, needs=("energy_j",), yields={"clay_g": "g"}
        )


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    assert made.register(Kiln(), "kiln", distribution="pottery", version="1.2"), made.broken
    return made


def test_a_name_of_several_kinds_shows_each(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = page(registry, "kiln", probe=False, as_json=False)
    assert shown.startswith("workload kiln\n  Fires pots.\n  from pottery 1.2\n  runs on backend host\n")
    for line in (
        "    heat: number > 0, in °C, required",
        "    waste: share, default 25%",
        "        Share of the heat that is lost.",
        "    pots: 1, higher is better",
        "        Pots that came out whole.",
        "    pot: sum of pots where soot_g <= 2",
        "impact meter kiln",
        "  needs the reading energy_j",
        "    clay_g: g",
    ):
        assert line in shown.splitlines(), line


def test_no_line_is_wider_than_the_terminal(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("40", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        shown = page(registry, "kiln", probe=False, as_json=False)
        assert max(map(len, shown.splitlines())) <= int(columns)


def test_a_workload_that_needs_options_is_not_asked(registry: Registry) -> None:
    assert "  on this machine: needs options: heat" in page(registry, "kiln", probe=True, as_json=False).splitlines()


def test_the_same_as_json(registry: Registry) -> None:
    work, impact = json.loads(page(registry, "kiln", probe=False, as_json=True))
    assert (work["kind"], impact["kind"]) == ("workload", "impact meter")
    assert [row["key"] for row in work["options"][0]["rows"]] == ["heat", "waste"]
    assert work["options"][0]["rows"][0]["required"]
    assert work["columns"][0] == {
        "name": "pots",
        "unit": "1",
        "better": "higher is better",
        "meaning": "pots that came out whole",
    }
    assert impact["readings"] == {"clay_g": "g"}


def test_an_unknown_name_says_what_is_near(registry: Registry) -> None:
    with pytest.raises(UsageError, match="did you mean 'kiln'") as caught:
        page(registry, "klin", probe=False, as_json=False)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_name_in_conflict_is_refused(registry: Registry) -> None:
    assert registry.register(Kiln(), "other", distribution="brickworks")
    with pytest.raises(UsageError, match="brickworks:kiln, pottery:kiln"):
        page(registry, "kiln", probe=False, as_json=False)


def test_name_and_check_exclude_each_other() -> None:
    done = CliRunner().invoke(app, ["plugins", "spin", "--check", "host"])
    assert done.exit_code == ExitCode.USAGE
    assert "mutually exclusive" in done.output


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_pipe_of_any_encoding_shows_it(encoding: str) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from test_plugins_command import Kiln\n"
        "from harness.commands.plugin_page import page\n"
        "from harness.discovery.registry import Registry\n"
        "registry = Registry()\n"
        "registry.register(Kiln(), 'kiln')\n"
        "print(page(registry, 'kiln', probe=False, as_json=False))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        capture_output=True,
        env={**environment, "PYTHONIOENCODING": encoding},
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode(encoding)
    assert ("°C; ±1 of" if encoding == "utf-8" else "?C; +-1 of") in shown
    assert max(map(len, shown.splitlines())) <= 80
