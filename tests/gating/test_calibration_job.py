"""`harness calibrate` with jobs that are made up: what it keeps, and that the gate finds it. Planning is real."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import MeasurementError, UsageError
from harness.gating import calibration_job as calibrate_command
from harness.gating import job as gate_command
from harness.gating.calibration import CalibrationJob, CalibrationSample, Report
from harness.gating.sides import BASE, HEAD, installed
from harness.gating.verdict import CellKey

SUITE = """\
suite: calm
backend: {name: host}
meters: []
windows: {count: 1, min_seconds: 1}
cases:
  - workload: spin
gate:
  - {metric: duration_s, per: operation, worse_by_at_most: TOLERANCE}
"""
CELL = CellKey("calm", "spin", "duration_s", "operation")
Calibrated = tuple[Report, Path]


def suite(folder: Path, tolerance: str = "10%") -> Path:
    path = folder / "calm.yaml"
    path.write_text(SUITE.replace("TOLERANCE", tolerance), encoding="utf-8")
    return path


def calibrate(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make: Any, *, jobs: int = 20, pairs: int = 24
) -> Calibrated:
    monkeypatch.setattr(calibrate_command, "job", make)
    return calibrate_command.run(
        [suite(folder)],
        folder / "store",
        jobs=jobs,
        pairs=pairs,
        python=sys.executable,
        seed=0,
        watcher=lambda event: None,
    )


def quiet(
    folder: Path, sides: Any, matched: Any, pairs: int, seed: int, watcher: Any, wait_s: float | None
) -> CalibrationJob:
    generator = random.Random(seed)
    draw = lambda: tuple(generator.gauss(0, 0.02) for _ in range(pairs))  # noqa: E731 - two draws of one kind
    return CalibrationJob({CELL: CalibrationSample(draw(), draw())}, draw())


def flaky(
    folder: Path, sides: Any, matched: Any, pairs: int, seed: int, watcher: Any, wait_s: float | None
) -> CalibrationJob:
    if seed % 2:
        raise MeasurementError("the head crashed")
    return quiet(folder, sides, matched, pairs, seed, watcher, wait_s)


@pytest.mark.slow
def test_the_gate_finds_what_was_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, path = calibrate(tmp_path, monkeypatch, quiet)
    assert [cell.key for cell in report.cells] == [CELL]
    shown = "\n".join(calibrate_command.lines(report, path))
    assert "calm: spin: duration_s per operation, tolerance 10.0%" in shown
    assert "false alarms: 0 of 20 (0.0% to 16.1%)" in shown
    assert "control stays within" in shown
    side = installed(BASE, sys.executable)
    sides = {BASE: side, HEAD: side}
    for tolerance, refused in (("10%", False), ("0.5%", True)):
        file = suite(tmp_path, tolerance)
        matched = gate_command.match(sides, gate_command.load([file]), tmp_path / "control.yaml")
        found, why = gate_command.calibrated(tmp_path / "store", matched, ["calm"], 36)
        assert why == ""
        assert found is not None
        assert found.control == report.control
        if refused:
            with pytest.raises(UsageError, match="is below what 24 pairs show here"):
                gate_command.refuse_weak(found, 36)
        else:
            gate_command.refuse_weak(found, 36)
    assert "made for 24 pairs" in gate_command.calibrated(tmp_path / "store", matched, ["calm"], 12)[1]


@pytest.mark.slow
def test_jobs_that_fail_are_left_out_while_enough_remain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, path = calibrate(tmp_path, monkeypatch, flaky, jobs=12)
    assert report.alarms.trials == 6
    assert '"failed": 6' in path.read_text()
    with pytest.raises(MeasurementError, match="the head crashed"):
        calibrate(tmp_path, monkeypatch, flaky, jobs=8)


@pytest.mark.parametrize(("jobs", "pairs", "accepted"), [(4, 24, "at least 5"), (20, 4, "at least 5")])
def test_too_little_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, pairs: int, accepted: str
) -> None:
    with pytest.raises(UsageError) as caught:
        calibrate(tmp_path, monkeypatch, quiet, jobs=jobs, pairs=pairs)
    assert caught.value.accepted == accepted
