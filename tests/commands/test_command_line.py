"""`harness --help`, completion in a shell, and the names that the command has."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from harness.cli import app
from harness.commands import plugin_commands
from harness.discovery.registry import load_plugins

SPELLED = """
from harness import hookimpl
from harness.hookspecs import CommandSpec

raise RuntimeError("the help imports no plugin")

@hookimpl
def harness_commands():
    yield CommandSpec(name="spelled", summary="a summary", load=lambda: print)
    yield CommandSpec(load=lambda: print, summary="another", name="second")
"""
COMPUTED = """
from harness import hookimpl
from harness.hookspecs import CommandSpec

@hookimpl
def harness_commands():
    return [CommandSpec(name=f"computed-{n}", summary=f"the {n}th", load=lambda: print) for n in range(2)]
"""
SILENT = "raise RuntimeError('the help imports no plugin')\n"


def harness(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "COLUMNS": "80", **environment},
    )


def test_the_help_lists_every_command_with_its_whole_first_sentence() -> None:
    said = harness("--help").stdout
    assert "..." not in said.partition("Commands:")[2]
    assert max(map(len, said.splitlines())) <= 80
    offered = load_plugins().commands
    assert offered
    for name, offer in offered.items():
        assert f"  {name}" in said
        assert " ".join(offer.spec.summary.split()) in " ".join(said.split())
    assert set(re.findall(r"^  ([a-z]+) ", said, re.MULTILINE)) >= {
        command.callback.__name__ for command in app.registered_commands if command.callback is not None
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SPELLED, {"spelled": "a summary", "second": "another"}),
        (SILENT, {}),
        ("def harness_commands(:\n", {}),
    ],
)
def test_what_is_spelled_out_is_read_without_an_import(
    source: str, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "help_plugin").mkdir()
    (tmp_path / "help_plugin" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "help_plugin" / "inner.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    entry = EntryPoint("p", "help_plugin.inner", "harness")
    gone = EntryPoint("q", "help_plugin_that_is_gone", "harness")
    monkeypatch.setattr(plugin_commands, "entry_points", lambda **_: [entry, gone])
    assert plugin_commands.summaries() == dict(sorted(expected.items()))
    assert "help_plugin" not in sys.modules


def test_what_is_computed_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "help_computing.py").write_text(COMPUTED, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    entry = EntryPoint("p", "help_computing", "harness")
    monkeypatch.setattr(plugin_commands, "entry_points", lambda **_: [entry])

    def asked() -> Any:
        from harness.discovery.registry import Registry

        registry = Registry()
        registry.load(entry)
        return registry

    monkeypatch.setattr(plugin_commands, "loaded_registry", asked)
    assert plugin_commands.summaries() == {"computed-0": "the 0th", "computed-1": "the 1th"}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("harness rep", ["report"]),
        ("harness site", ["site", "sites"]),
        ("harness store ch", ["check"]),
        ("harness --ver", ["--version"]),
    ],
)
def test_a_shell_completes_commands_options_and_plugins(typed: str, expected: list[str]) -> None:
    asked = {"_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = harness(**asked)
    assert done.stdout.split() == expected, done.stderr
    assert done.returncode == 0


def test_a_script_for_the_shell_is_shown() -> None:
    done = harness("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    assert "_HARNESS_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize("name", ["greenllm", "sites"])
def test_commands_of_plugins_look_like_the_cores(name: str) -> None:
    done = harness(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: harness {name}") or done.stdout.lstrip().startswith("Usage:")
    assert "╭" not in done.stdout


def test_on_windows_one_sentence_names_wsl() -> None:
    code = "import sys; sys.platform = 'win32'; from harness.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert "WSL" in sentence
