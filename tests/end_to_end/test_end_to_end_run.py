"""`harness run` as a user runs it: real worker processes, real faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.quantity import Amount, Method, Unavailable
from harness.records.files import load_record, records_of, trial_folders
from harness.testing import until

SUITE = """\
suite: spin
backend: {backend}
meters: [{meters}]
trials: {trials}
windows: {{count: 2, min_seconds: {seconds}}}
warm_up: {{max_seconds: 1, max_iterations: 6}}
limits: {{trial: {trial_limit}, silence: 30s}}
cases:
  - workload: spin
    options: {{{options}}}
    matrix: {{{matrix}}}
"""

# A shell starts its background jobs with SIGINT ignored; so would a driver be that is started by tests that are one.
HEEDS_CTRL_C = """\
import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
from harness.cli import main

main()
"""


class User:
    def __init__(self, folder: Path, in_process: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        self.folder = folder
        self.in_process = in_process
        self.store = folder / "store"
        self.environment = {
            **os.environ,
            "TMPDIR": str(folder / "tmp"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "COLUMNS": "200",
        }

    def suite(self, **changes: object) -> Path:
        values: dict[str, object] = {
            "backend": "host",
            "meters": "auto, tdp: {watts: 100}",
            "trials": 2,
            "seconds": 0.2,
            "trial_limit": "60s",
            "options": "iterations: 2000",
            "matrix": "",
        }
        path = self.folder / "spin.yaml"
        path.write_text(SUITE.format(**{**values, **changes}), encoding="utf-8")
        return path

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "harness", *map(str, arguments)]

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Within this process."""
        return self.in_process(*arguments, environment=self.environment)

    def run_alone(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", HEEDS_CTRL_C, *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def only_run(self) -> Path:
        (folder,) = self.store.iterdir()
        return folder


@pytest.fixture
def user(tmp_path: Path, harness_in_process: Callable[..., Any]) -> Iterator[User]:
    (tmp_path / "tmp").mkdir()
    yield User(tmp_path, harness_in_process)
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        assert not ("harness.worker" in command and str(tmp_path) in command), "a worker outlived its run"


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "harness.worker" in " ".join(child.cmdline())
        ]
    except psutil.Error:
        return []


def test_a_run_leaves_complete_records_and_a_table(user: User) -> None:
    done = user.run_alone("run", user.suite(matrix="iterations: [2000, 4000]", options=""), "--store", user.store)
    assert done.returncode == 0, done.stdout + done.stderr
    records = list(records_of(user.only_run))
    assert len(records) == 4
    for record in records:
        energy, duration = record.totals["energy_j"], record.totals["duration_s"]
        assert isinstance(energy, Amount)
        assert isinstance(duration, Amount)
        assert energy.label is Method.ESTIMATED
        assert 0 < energy.value <= 100 * duration.value * 1.05
        cost = record.units["operation"].costs["energy_j"]
        assert isinstance(cost, Amount)
        assert cost.value == pytest.approx(energy.value / record.units["operation"].count.achieved)
        assert all("short" in span.flags for span in record.measurement.windows)
        assert record.measurement.environment["packages"]["joule-harness"]
    assert "estimated" in done.stdout
    assert str(user.only_run) in done.stdout
    missing = {name: reason for report in records[0].measurement.meters for name, reason in report.missing.items()}
    assert missing or any(report.name == "rapl" for report in records[0].measurement.meters)


def test_the_simulated_accelerator_is_labelled_simulated_and_bounded(user: User) -> None:
    suite = user.suite(
        backend="{name: simulated, busy_w: 300, idle_w: 50, tick: 20ms}",
        meters="simulated",
        trials=1,
        seconds=1,
    )
    done = user.run("run", suite, "--store", user.store)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = records_of(user.only_run)
    energy = record.totals["energy_j"]
    assert isinstance(energy, Amount)
    assert energy.label is Method.SIMULATED
    assert energy.low is not None
    assert energy.high is not None
    assert energy.low <= energy.value <= energy.high
    duration = record.totals["duration_s"]
    assert isinstance(duration, Amount)
    assert 50 * duration.value <= energy.value <= 300 * duration.value * 1.01


def test_without_any_meter_energy_is_unavailable_and_never_zero(user: User) -> None:
    done = user.run("run", user.suite(meters="auto", trials=1), "--store", user.store)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = records_of(user.only_run)
    if not any(report.scopes for report in record.measurement.meters):
        assert isinstance(record.totals["energy_j"], Unavailable)
        assert isinstance(record.units["operation"].costs["energy_j"], Unavailable)
        rate = record.units["operation"].rate
        assert isinstance(rate, Amount)


def test_a_crash_of_the_workload_fails_its_point_and_the_rest_goes_on(user: User) -> None:
    suite = user.suite(matrix="crash: [true, false]", trials=1)
    done = user.run_alone("run", suite, "--store", user.store)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "told to crash" in done.stderr
    assert "Traceback" not in done.stderr.replace("  | Traceback", "")
    assert len(list(records_of(user.only_run))) == 1
    failures = [json.loads(path.read_text()) for path in user.only_run.glob("*/failure.json")]
    assert len(failures) == 1
    assert any("RuntimeError" in line for line in failures[0]["log_tail"])


@pytest.mark.slow
def test_a_killed_worker_fails_that_trial_and_resume_runs_exactly_it(user: User) -> None:
    suite = user.suite(trials=3, seconds=2)
    process = user.start("run", suite, "--store", user.store)
    (worker,) = until(lambda: workers(process))
    worker.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3, output
    assert "SIGKILL" in output
    kept = {path.parent.name: path.stat().st_mtime_ns for path in user.only_run.glob("*/measurement.json")}
    assert len(kept) == 2
    done = user.run_alone("run", "--resume", user.only_run)
    assert done.returncode == 0, done.stdout + done.stderr
    now = {path.parent.name: path.stat().st_mtime_ns for path in user.only_run.glob("*/measurement.json")}
    assert len(now) == 3
    assert kept.items() <= now.items()
    assert len(list(records_of(user.only_run))) == 3


def test_ctrl_c_ends_the_worker_keeps_what_is_finished_and_exits_130(user: User) -> None:
    process = user.start("run", user.suite(trials=3, seconds=2), "--store", user.store)
    until(lambda: list(user.store.glob("*/*/measurement.json")))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert len(list(records_of(user.only_run))) >= 1
    assert json.loads((user.only_run / "run.json").read_text())["status"] == "interrupted"


def test_no_worker_outlives_a_killed_driver(user: User) -> None:
    process = user.start("run", user.suite(trials=1, seconds=30), "--store", user.store)
    (worker,) = until(lambda: workers(process))
    process.kill()
    process.communicate(timeout=30)
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def test_a_trial_over_its_limit_is_ended(user: User) -> None:
    suite = user.suite(trials=1, trial_limit="3s", seconds=60)
    done = user.run_alone("run", suite, "--store", user.store)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "longer than its limit of 3 s" in done.stderr


def test_a_usage_error_names_file_and_line_without_traceback(user: User) -> None:
    suite = user.suite(options="iteration: 5")
    done = user.run("run", suite, "--store", user.store)
    assert done.returncode == 2
    assert "spin.yaml:10" in done.stderr
    assert "iterations" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_point_skipped_is_no_failure_and_says_so(user: User) -> None:
    suite = user.suite(matrix="")
    suite.write_text(suite.read_text().replace("  - workload: spin", "  - workload: spin\n    requires: {gpu: 64}"))
    done = user.run("run", suite, "--store", user.store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every point was skipped" in done.stdout
    assert "skipped:" in done.stderr


def test_scoring_again_gives_the_same_record(user: User) -> None:
    assert user.run("run", user.suite(trials=1), "--store", user.store).returncode == 0
    (folder,) = trial_folders(user.only_run)
    before = load_record(folder)
    assert user.run("score", user.only_run).returncode == 0
    assert load_record(folder) == before


@pytest.mark.slow
def test_scoring_that_fails_leaves_the_record(user: User) -> None:
    assert user.run_alone("run", user.suite(trials=1), "--store", user.store).returncode == 0
    (folder,) = trial_folders(user.only_run)
    before = load_record(folder)
    (folder / "items.jsonl").write_text("no JSON\n{}\n", encoding="utf-8")
    done = user.run_alone("score", user.only_run)
    assert done.returncode == 3
    assert "costing.log" in done.stderr
    assert load_record(folder) == before


def test_markdown_report_comes_from_the_records_alone(user: User) -> None:
    assert user.run("run", user.suite(trials=1), "--store", user.store).returncode == 0
    (user.folder / "spin.yaml").unlink()
    done = user.run("report", user.only_run, "--format", "md")
    assert done.returncode == 0, done.stderr
    assert "| " in done.stdout
