"""README, CONTRIBUTING and CHANGELOG say what the code does: commands, hooks, exit codes, paths, versions."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import harness
from harness import Snapshot, hookspecs
from harness.cli import app
from harness.discovery.registry import load_plugins
from harness.errors import ExitCode
from harness.meter import Meter, MeterContext, MeterSpec
from harness.planning.planner import expand
from harness.planning.suite import loads
from harness.quantity import Method

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DOCUMENTS = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):[^=\n]*##", MAKEFILE, re.MULTILINE))
SETTINGS = ("PYTHON=python3", "ARGS=", "TORCH_INDEX=")
QUIET = {"--disable-pip-version-check", "--quiet"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Shell lines as words, continuation lines joined, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def made(target: str) -> list[list[str]]:
    """What make would run for a target in a new clone, without the messages and the marks of what is done."""
    done = subprocess.run(
        [
            "make",
            "--dry-run",
            "--always-make",
            "--no-print-directory",
            "PYTHON=python3",
            "ARGS=",
            "TORCH_INDEX=",
            target,
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    listed = [[word for word in words if word not in QUIET] for words in commands(done.stdout)]
    return [words for words in listed if words[0] not in {"echo", "test", "touch"}]


def known_commands() -> set[str]:
    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    return names | {group.name for group in app.registered_groups if group.name}


def test_makefile_has_the_targets() -> None:
    assert {"setup", "demo", "test", "soak", "lint", "bench", "docs", "dist", "gpu-check", "clean"} <= TARGETS
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(phony.group(1).split()) == TARGETS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_lines_name_targets(document: str) -> None:
    text = DOCUMENTS[document]
    named = {words[-1] for block in blocks(text, "sh") for words in commands(block) if words[0] == "make"}
    named |= {words.split()[-1] for words in re.findall(r"`make ([^`]+)`", text)}
    assert named
    assert named <= TARGETS


def test_readme_shows_the_plain_lines_of_make() -> None:
    plain = next(commands(block) for block in blocks(README, "sh") if "-m venv" in block)
    wanted = made("demo")
    wanted += [words for words in made("test") if words not in wanted]
    assert plain == wanted


def test_ci_calls_make() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    called = re.search(r"^targets=\((.*)\)$", script, re.MULTILINE)
    assert called is not None
    assert {"lint", "test"} <= set(called.group(1).split()) <= TARGETS
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert {each["os"] for each in job["strategy"]["matrix"]["include"]} == {"macos-latest"}
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_harness_commands_exist(document: str) -> None:
    known = known_commands() | set(load_plugins().offers("command"))
    named = set(re.findall(r"`(?:\.venv/bin/)?harness ([a-z]+)", DOCUMENTS[document]))
    assert named
    assert named <= known


def test_readme_lists_every_command() -> None:
    known = known_commands()
    assert known == set(re.findall(r"^\| `harness ([a-z]+)", README, re.MULTILINE))


def test_contributing_lists_the_hooks() -> None:
    section = CONTRIBUTING.partition("\n## Hooks\n")[2].partition("\n### ")[0]
    specified = {name for name in vars(hookspecs) if name.startswith("harness_")}
    assert set(re.findall(r"`(harness_[a-z_]+)`", section)) == specified


def test_contributing_lists_the_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| `([A-Z]+)` \|", CONTRIBUTING, re.MULTILINE)
    assert {(int(number), name) for number, name in rows} == {(code.value, code.name) for code in ExitCode}


def test_readme_lists_the_methods() -> None:
    section = README.partition("\n## What is measured")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z]+)` \|", section, re.MULTILINE)) == {method.value for method in Method}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_paths_exist(document: str) -> None:
    text = DOCUMENTS[document]
    named = re.findall(r"`((?:harness|plugins|suites|tests|benchmarks|reports|docs|\.ci|\.github)/[\w./-]*)`", text)
    named += re.findall(r"\]\(([\w./-]+)\)", text)
    assert named
    written_by_the_tool = {"reports/", "reports/baselines/"}
    assert [path for path in named if path not in written_by_the_tool and not (ROOT / path).exists()] == []


def test_the_suite_in_the_readme_is_one() -> None:
    (text,) = blocks(README, "yaml")
    suite = loads(text)
    assert suite.suite == "example"
    assert [case.workload for case in suite.cases] == ["spin"]


def test_suites_in_plugins_readmes_plan() -> None:
    """Each is read, and its options are what the installed plugins take; no machine is asked."""
    registry = load_plugins()
    found = {}
    for file in sorted(ROOT.glob("plugins/*/README.md")):
        for text in blocks(file.read_text(encoding="utf-8"), "yaml"):
            if text.startswith("suite:"):
                found[file.parent.name] = expand([loads(text, file.parent.name)], registry).points
    assert {"backend-torch", "meter-nvml"} <= found.keys()
    assert [name for name, points in found.items() if not points] == []


def test_the_first_plugin_works() -> None:
    """The meter of CONTRIBUTING, run: watts times time, on the clock of snapshots."""
    (code,) = blocks(CONTRIBUTING, "python")
    names: dict[str, object] = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    offer = names["harness_meters"]
    assert callable(offer)
    (spec,) = offer()
    assert isinstance(spec, MeterSpec)
    meter = spec.factory(spec.options())
    assert isinstance(meter, Meter)
    scopes = meter.open(MeterContext())
    assert isinstance(scopes, dict)
    (scope,) = scopes
    first, second = meter.read(), meter.read()
    assert joules(second, scope) - joules(first, scope) == pytest.approx(
        5.0 * (second.monotonic_ns - first.monotonic_ns) / 1e9
    )
    meter.close()


def joules(snapshot: Snapshot, scope: str) -> float:
    value = snapshot.joules[scope]
    assert isinstance(value, float)
    return value


def test_the_first_plugins_project_file_is_toml() -> None:
    (text,) = blocks(CONTRIBUTING, "toml")
    assert tomllib.loads(text) == {"project": {"entry-points": {"harness": {"lamp": "my_lamp"}}}}


@pytest.mark.slow
def test_the_ten_minutes_can_be_lived_through(tmp_path: Path) -> None:
    """Every command of the section in order, in an empty folder; pip without a network, into a folder of its own."""
    section = CONTRIBUTING.partition("\n## A first plugin in ten minutes\n")[2].partition("\n### ")[0]
    lived = [words for block in blocks(section, "sh") for words in commands(block)]
    assert [words[0] for words in lived] == ["harness", "pip", "pytest", "harness", "harness"]
    site = tmp_path / "site"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "PIP_NO_INDEX": "1"}
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
    starts = {"harness": ["-m", "harness"], "pip": install, "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider"]}
    said = ""
    for words in lived:
        rest = [word for word in words[1:] if word not in {"install", "-e"}] if words[0] == "pip" else words[1:]
        done = subprocess.run(
            [sys.executable, *starts[words[0]], *rest],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        listed = "--no-probe" in words  # another plugin of this environment may be broken, which is exit code 3
        assert listed or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        said = done.stdout
        assert not listed or "lamp" in said
    assert "passed" in said
    assert "failed" not in said
    (text,) = blocks(section, "yaml")
    assert loads(text).cases[0].workload == "spin"


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert project["version"] == harness.__version__ == newest.group(1)


def test_line_length_is_the_decided_one() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert f"**Line length {tools['ruff']['line-length']}.**" in CONTRIBUTING
