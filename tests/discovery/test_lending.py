"""A revision's environment without the harness gets the running one, and nothing else of where that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import harness
from harness.discovery import lending
from harness.discovery.lending import lend, needed
from harness.errors import MeasurementError

ASKED = """
import importlib.util, json, sys
import harness
from harness.discovery.registry import load_plugins
registry = load_plugins()
print(json.dumps({
    "harness": harness.__file__,
    "broken": [str(each) for each in registry.broken],
    "workloads": sorted(registry.workloads),
    "found": [name for name in ("yaml", "ruff", "mypy", "_pytest") if importlib.util.find_spec(name)],
}))
"""


def made(folder: Path) -> Path:
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    return environment


def asked(environment: Path, code: str) -> str:
    """What a program prints there, as if nobody had named other folders."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [environment / "bin/python", "-c", code],
        env=variables,
        cwd=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_running_harness_and_its_plugins_work_there(tmp_path: Path) -> None:
    environment = made(tmp_path)
    lend(environment)
    found = json.loads(asked(environment, ASKED))
    assert Path(found["harness"]).resolve() == Path(harness.__file__).resolve()
    assert found["broken"] == []
    assert "spin" in found["workloads"]
    assert "yaml" in found["found"]
    assert "mypy" not in found["found"], "what the harness does not require is not lent"


def test_what_the_environment_has_itself_comes_first(tmp_path: Path) -> None:
    environment = made(tmp_path)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "yaml.py").write_text("here = True\n", encoding="utf-8")
    lend(environment)
    assert asked(environment, "import yaml; print(yaml.here)") == "True\n"


def test_another_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = made(tmp_path)
    other = tmp_path / "python"
    other.write_text('#!/bin/sh\necho \'["/site", "cpython-27", "linux"]\'\n', encoding="utf-8")
    other.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(other))
    with pytest.raises(MeasurementError, match="and the harness cpython-27"):
        lend(environment)


def test_requirements_are_followed_with_the_extras_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, *requires: str) -> None:
            self.requires = requires

    known = {
        "a": Fake("B_c[fast]>=1; python_version > '3'", "gone>2", 'dev-tool; extra == "dev"'),
        "b-c": Fake('quick (>1); extra == "fast"', "slow ; extra == 'other'", "a"),
        "quick": Fake(),
        "slow": Fake(),
        "dev-tool": Fake(),
    }

    def distribution(name: str) -> Fake:
        if name not in known:
            raise lending.metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(lending.metadata, "distribution", distribution)
    assert {id(each) for each in needed(["a"])} == {id(known[name]) for name in ("a", "b-c", "quick")}
