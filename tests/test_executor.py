"""What an executor needs to know of the worker: its command, the probe's, the files of a trial's folder."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

from harness import executor
from harness.executor import ask_probe, costing_command, probe_command, tail, worker_command
from harness.records.paths import FAILURE, LOG, MEASUREMENT

ROOT = Path(__file__).parents[1]
STARTED = {executor.WORKER, executor.COSTING, executor.PROBE}


def test_commands_name_the_interpreter_the_module_and_what_it_works_on() -> None:
    folder = Path("/runs/a b/t")
    assert worker_command(folder) == [sys.executable, "-m", "harness.worker", "/runs/a b/t"]
    assert worker_command(folder, "/env/python")[0] == "/env/python"
    assert costing_command(folder, "--again", python="/p") == ["/p", "-m", "harness.costing", "/runs/a b/t", "--again"]
    assert probe_command("/p")[:2] == ["/p", "-m"]


@pytest.mark.parametrize("module", sorted(STARTED))
def test_what_is_started_is_there(module: str) -> None:
    found = importlib.util.find_spec(module)
    assert found is not None
    if found.submodule_search_locations:
        assert importlib.util.find_spec(f"{module}.__main__") is not None


def test_no_other_file_types_the_name_of_a_started_module() -> None:
    typed = []
    for path in [*(ROOT / "harness").rglob("*.py"), *ROOT.glob("plugins/*/src/**/*.py")]:
        if path == ROOT / "harness/executor.py":
            continue
        typed += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in STARTED
        ]
    templates = (ROOT / "harness/commands/templates").rglob("*.in")
    typed += [str(path) for path in templates if any(name in path.read_text(encoding="utf-8") for name in STARTED)]
    assert typed == []


def test_the_files_of_a_trial_are_those_of_the_store() -> None:
    assert (executor.MEASUREMENT, executor.LOG, executor.FAILURE) == (MEASUREMENT, LOG, FAILURE)


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ()
    log.write_text("".join(f"line {number} {'x' * 100}\n" for number in range(10_000)), encoding="utf-8")
    assert [line.partition(" x")[0] for line in tail(log, 2)] == ["line 9998", "line 9999"]
    assert len(tail(log)) == 12
    log.write_bytes(b"\xff\xfe broken\nend")
    assert tail(log)[-1] == "end"


def test_a_probe_answers_or_says_why_it_cannot() -> None:
    (device,) = ask_probe({"backend": {"name": "host", "options": {}}})["devices"]
    assert device["kind"] == "cpu"
    assert "there is no backend 'quantum'" in ask_probe({"backend": {"name": "quantum", "options": {}}})["unavailable"]
    assert "longer than 0.01 s" in ask_probe({"workloads": []}, limit_s=0.01)["unavailable"]
