"""Trainings that are interrupted: windows that were finished stand, with their cost, and the rest is the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness_semantic_segmentation as plugin
import psutil
import pytest
from harness_backend_torch import TorchOptions

from harness.errors import MeasurementError
from harness.quantity import Amount
from harness.records.files import load_record, read_lines, trial_folders
from harness.records.paths import ITEMS, WINDOWS
from harness.testing import RecordingWindow, trial_context, until

SUITE = """
suite: interrupted
backend: {name: torch, device: cpu}
meters: [tdp: {watts_per_thread: 4}]
trials: 1
warm_up: {max_iterations: 0}
cases:
  - workload: segmentation-training
    options: {model: bialignnet-dfnet1, width: 0.125, size: [32, 64], images: 4, batch: 2, validation_images: 1,
      steps: 28, target_miou: 0.0001}
    windows: {count: 14, min_seconds: 0, min_iterations: 2}
"""


def started(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "run", *map(str, arguments)],
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(driver: subprocess.Popen[str]) -> None:
    """Kills a run as a power cut does: driver and worker."""
    children = psutil.Process(driver.pid).children(recursive=True)
    for each in [*children, psutil.Process(driver.pid)]:
        each.send_signal(signal.SIGKILL)
    driver.wait(timeout=60)
    psutil.wait_procs(children, timeout=60)


@pytest.mark.slow
def test_a_training_killed_five_times_has_the_same_losses_and_knows_its_joules(tmp_path: Path) -> None:
    suite, moments = tmp_path / "suite.yaml", random.Random(3)
    suite.write_text(SUITE.replace("target_miou: 0.0001", "target_miou: 1.0"), encoding="utf-8")
    whole = started(tmp_path, suite, "--store", tmp_path / "whole")
    assert whole.wait(timeout=300) in {0, 3}
    store = tmp_path / "killed"
    driver = started(tmp_path, suite, "--store", store)
    for kill in range(5):
        wanted = 2 * kill + moments.randint(1, 2)
        journal = until(lambda: next(iter(store.glob(f"*/*/{WINDOWS}")), None), limit_s=120)
        until(lambda lines=wanted, path=journal: path.read_bytes().count(b"\n") >= lines, limit_s=120)
        ended(driver)
        (run,) = (path for path in store.iterdir() if (path / "plan.json").exists())
        driver = started(tmp_path, "--resume", run)
    assert driver.wait(timeout=300) in {0, 3}
    (trial,), (other,) = list(trial_folders(run)), trials(tmp_path / "whole")
    rows, wanted_rows = list(read_lines(trial / ITEMS)), list(read_lines(other / ITEMS))
    assert [row["loss"] for row in rows] == [row["loss"] for row in wanted_rows]
    assert [row["item_id"] for row in rows] == [f"step-{number}" for number in range(1, 29)]
    record = load_record(trial)
    assert len(record.measurement.windows) == 14
    joules = record.totals["energy_j"]
    assert isinstance(joules, Amount)
    read = [each.value for each in record.measurement.readings if each.primary and each.span == "window"]
    assert joules.value == pytest.approx(sum(each.value for each in read if isinstance(each, Amount)))
    assert any(flag.startswith("resumed: ") for flag in record.measurement.flags)
    assert not list(trial.glob("*.pt")), "a report's folder carries no checkpoint"


def trials(store: Path) -> list[Path]:
    (run,) = (path for path in store.iterdir() if (path / "plan.json").exists())
    return list(trial_folders(run))


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Trainings of one trial: a workload that has prepared after so many finished windows."""
    from harness_backend_torch.backend import TorchBackend
    from harness_semantic_segmentation.workloads.training import Training

    backend = TorchBackend(TorchOptions(device="cpu"))
    backend.open()
    options = {spec.name: spec for spec in plugin.harness_workloads()}["segmentation-training"].options

    def make(done: int = 0, **changes: Any) -> Any:
        small = {"model": "bialignnet-dfnet1", "width": 0.125, "size": [32, 64], "images": 4, "batch": 2, "steps": 8}
        training = Training(options.model_validate({**small, "validation_images": 1, **changes}))
        training.prepare(replace(trial_context(tmp_path, backend), windows_done=done))
        return training

    yield make
    backend.close()


def windows(training: Any, first: int, count: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for index in range(first, first + count):
        window = RecordingWindow(2, index=index)
        training.run(window)
        training.after_window(window)
        rows += window.rows
    return rows


def test_the_state_of_exactly_the_finished_windows_is_restored(made: Any) -> None:
    whole = [row["loss"] for row in windows(made(), 0, 4)]
    windows(made(), 0, 3)
    # The third state was written, and its window is not in the journal: the process ended in between.
    windows(made(2), 2, 1)  # and once more
    assert [row["loss"] for row in windows(made(2), 2, 2)] == whole[4:]
    with pytest.raises(MeasurementError, match="the state after window 1 of this trial is not there"):
        made(1)


def test_a_target_that_was_reached_ends_the_trial_also_after_an_interruption(made: Any) -> None:
    rows = windows(made(target_miou=1e-9), 0, 1)
    assert [row["target_reached"] for row in rows] == [0, 1]
    again = made(1, target_miou=1e-9)
    assert again.finished()
    assert again.facts()["best_miou"] == rows[-1]["miou"]


def test_states_inside_a_window_are_kept_when_asked_for(made: Any, tmp_path: Path) -> None:
    windows(made(checkpoint_every=1, checkpoints=str(tmp_path / "kept")), 0, 1)
    (inside,) = (tmp_path / "kept").rglob("checkpoint-inside.pt")
    resumed = windows(made(resume=str(inside)), 0, 1)
    assert resumed[0]["item_id"] == "step-3"
    assert resumed[0]["target_reached"] is None
