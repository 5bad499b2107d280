"""The command, as a user calls it: what it writes, what it says, and its exit codes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import LoadedRun

Kept = Callable[..., LoadedRun]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_file_is_written_and_what_is_left_out_is_said(kept: Kept, tmp_path: Path) -> None:
    run = kept("a", "b", grid=None)
    done = command("export", run.folder, tmp_path / "emissions.csv", "--to", "codecarbon", "--only", "b")
    assert (done.returncode, done.stdout) == (0, f"exported: {tmp_path / 'emissions.csv'}\n")
    assert done.stderr.splitlines() == [
        f"left out: b, trial {number}: emissions is empty: nothing of the suite gives it" for number in range(2)
    ]
    with (tmp_path / "emissions.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["project_name"] for row in csv.DictReader(stream)] == ["b", "b"]


def test_options_reach_the_report(kept: Kept, tmp_path: Path) -> None:
    run = kept()
    asked = ("--set", "stage=inference", "--set", "family=chatbot", "--set", "parameters=7.5")
    done = command("export", run.folder, tmp_path / "report.json", "--to", "boamps", *asked)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["task"]["algorithms"][0]["parametersNumber"] == 7.5
    done = command("export", run.folder, tmp_path / "none.json", "--to", "boamps", "--set", "stage=inference")
    assert (done.returncode, done.stderr) == (2, "error: --set, boamps: the option boamps.family is missing\n")
    assert not (tmp_path / "none.json").exists()


def test_a_service_that_is_away_is_exit_code_3(kept: Kept, nobody: str) -> None:
    pytest.importorskip("prometheus_client")
    done = command("export", kept().folder, nobody, "--to", "pushgateway")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"error: {nobody}: the gateway did not take the ")
    assert len(done.stderr.splitlines()) == 1
