"""The disk is full at any write: said clearly, exit code 3, what is finished stands, and a resume works with room."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.costing import coster as costing
from harness.errors import MeasurementError
from harness.records.files import load_measurement, load_record, read_lines, write_atomically
from harness.records.paths import ITEMS, MEASUREMENT, RECORD
from harness.running.driver_lock import driven
from harness.testing import until


def _model() -> ModuleType:
    spec = spec_from_file_location("disk_model", Path(__file__).with_name("disk_model.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


disk_model = _model()
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_cannot_be_replaced_still_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, b"old")
    disk = disk_model.Disk(tmp_path)
    with disk.watched(monkeypatch):
        write_atomically(path, b"old")
    for call in range(disk.calls):
        failing = disk_model.Disk(tmp_path, call, FULL)
        with failing.watched(monkeypatch), pytest.raises(MeasurementError) as caught:
            write_atomically(path, b"new")
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
        renamed = any(op.kind == "rename" for op in failing.ops)
        assert path.read_bytes() == (b"new" if renamed else b"old"), failing.ops
        path.write_bytes(b"old")
        for left in tmp_path.glob(".*"):
            left.unlink()  # where not even removing works any more


def test_a_disk_full_at_any_write_of_a_trial_costs_that_trial_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: Callable[..., Any]
) -> None:
    counting = disk_model.Disk(tmp_path / "0")
    with counting.watched(monkeypatch):
        in_process(store=tmp_path / "0", cost=True)
    assert counting.calls > 20
    reasons = set()
    for call in range(counting.calls):
        store = tmp_path / str(call + 1)
        with disk_model.Disk(store, call, FULL).watched(monkeypatch), pytest.MonkeyPatch.context() as patch:
            patch.setattr("traceback.print_exc", lambda: None)
            try:
                _, said = in_process(store=store, cost=True)
                reasons.add(said.reason)
            except (MeasurementError, OSError) as error:  # of the driver
                reasons.add(str(error))
        for trial in store.glob("*/*/"):
            if (trial / MEASUREMENT).exists():
                measured = load_measurement(trial)
                assert len(list(read_lines(trial / ITEMS))) == sum(s.iterations for s in measured.windows)
                costing.main(trial.parent)
                assert load_record(trial).measurement == measured
            assert not (trial / RECORD).exists() or load_record(trial)
    assert all(not reason or "No space left on device" in reason for reason in reasons), reasons
    assert any(reasons)


def test_a_driver_says_what_the_disk_did_and_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError) as caught, driven(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "x" / "job.json"))
    assert "job.json: cannot be written: No space left on device" in str(caught.value)
    assert f"harness run --resume {tmp_path}" in str(caught.value)
    with pytest.raises(OSError, match="no disk"), driven(tmp_path):
        raise OSError(errno.ECONNREFUSED, "no disk")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 4096)
        except OSError:
            return ballast


def test_a_run_on_a_disk_that_fills_up_is_resumed_when_there_is_room(bench: Any, small_disk: Path) -> None:
    bench.store = small_disk / "store"
    driver = bench.start(
        "run", bench.suite(trials=3, seconds=0.8, options="iterations: 200000"), "--store", bench.store
    )
    until(lambda: bench.store.exists() and len(bench.measured()) == 1)
    ballast = fill(small_disk)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 3, output
    assert "No space left on device" in output
    assert "internal error" not in output
    assert len(bench.measured()) < 3
    for trial in bench.measured():
        assert load_measurement(bench.only_run / trial)
    ballast.unlink()
    bench.resume()


def test_a_disk_that_is_full_from_the_start_is_said(bench: Any, small_disk: Path) -> None:
    fill(small_disk)
    done = bench.run("run", bench.suite(), "--store", small_disk / "store")
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.slow
def test_costing_on_a_full_disk_leaves_the_measurement(bench: Any, small_disk: Path) -> None:
    bench.store = small_disk / "store"
    assert bench.run("run", bench.suite(), "--store", bench.store).returncode == 0
    (finished,) = bench.only_run.glob("*/record.json")
    before = finished.read_bytes()
    ballast = fill(small_disk)
    done = bench.run_alone("score", bench.only_run)
    assert done.returncode == 3
    assert "the disk is full" in done.stderr
    assert finished.read_bytes() == before
    ballast.unlink()
    assert bench.run("score", bench.only_run).returncode == 0
    assert json.loads(finished.read_bytes()) == json.loads(before)
