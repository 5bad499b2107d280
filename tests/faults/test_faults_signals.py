"""A run that is told to end: by a runner, a scheduler, a terminal that closes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ExitCode
from harness.running import finishing
from harness.testing import until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_as_ctrl_c(bench: Any, number: signal.Signals) -> None:
    suite = bench.suite(trials=2, workload="spin", options="iterations: 1000")
    driver = bench.start("run", suite, "--store", bench.store)
    until(lambda: list(bench.store.glob("*/*/measurement.json")))
    driver.send_signal(number)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == ExitCode.INTERRUPTED, output
    folder = bench.only_run
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert f"interrupted: what is missing is run by: harness run --resume {folder}" in output
    assert len(list(folder.glob("*/record.json"))) == 1, "what was finished is costed"
    resumed = bench.run_alone("run", "--resume", folder, "--store", bench.store)
    assert resumed.returncode == 0, resumed.stderr
    assert len(list(folder.glob("*/record.json"))) == 2


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    code = """
import os, signal, time
from harness.commands.signals import heed_signals
heed_signals()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
except KeyboardInterrupt:
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 128 + signal.SIGHUP


def test_costing_of_an_interrupted_run_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "costing_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"])
    assert "within 0.1 s; `harness run --resume` costs the rest" in finishing.finish(tmp_path, limit_s=0.1)
