from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CRASHING = """\
suite: crash
trials: 3
meters: []
windows: {min_seconds: 0.05, count: 1}
warm_up: {max_iterations: 0}
cases:
  - workload: spin
    matrix: {crash: [true, false]}
  - {workload: spin, name: gone, options: {iterations: 5}, requires: {gpu: 64}}
  - {workload: spin, name: gone too, options: {slow_by: 1%}, requires: {gpu: 64}}
"""


def harness(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text(CRASHING)
    return path


def test_plan_groups_what_is_skipped_and_counts_one_point_as_one(suite: Path) -> None:
    lines = harness("plan", suite, "--only", "crash=true", "--only", "gone").stdout.splitlines()
    assert sum(line.startswith("skipped: 2 x requires 64 GPU") for line in lines) == 1
    assert any(line.startswith("1 point, 3 trials, 2 skipped;") for line in lines)


def test_a_point_that_crashes_twice_is_ended_and_the_others_go_on(suite: Path, tmp_path: Path) -> None:
    done = harness("run", suite, "--store", tmp_path / "store")
    assert done.returncode == 3
    assert done.stderr.count("Traceback") == 1
    assert "raise RuntimeError" in done.stderr
    assert "measuring/trial.py" not in done.stderr
    assert done.stderr.count("worker.log") == 1
    assert "its first 2 trials failed alike" in done.stderr
    assert "crash=false" in done.stdout
    assert "1 point, 3 trials" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--fail-fast", "soon"), "point, run, never"),
        (("--only", "nothing"), "fits no point"),
        (("--only", "crash", "--resume", "x"), "--only and --trials choose from a new plan"),
    ],
)
def test_a_wrong_choice_is_refused_before_anything_runs(
    suite: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = harness("run", suite, "--store", tmp_path / "store", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store").glob("*/run.json"))
