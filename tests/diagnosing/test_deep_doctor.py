"""`harness doctor --deep`: each thing that may be wrong is found, named, and has its remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.diagnosing import state as deep
from harness.diagnosing.store_findings import store_findings
from harness.machine.device_locks import LockPlace, device_locks, lock_file, lock_place
from harness.running.driver_lock import driven
from harness.testing import until

StoredRun = Callable[..., Path]
SANE = {"wall": 1_800_000_000.0, "monotonic": 100.0, "boot": 100.0}


def wrong(findings: Any) -> list[Any]:
    return [finding for finding in findings if finding.state == "wrong"]


# Locks


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of device locks of this test."""
    monkeypatch.setenv("HARNESS_LOCKS", str(tmp_path / "locks"))
    return lock_place().folder


def test_locks_are_free_or_held_by_a_process_that_is_named(locks: Path) -> None:
    assert [found.detail for found in deep.lock_findings()] == [f"none was ever taken in {locks}"]
    with device_locks(("gpu-2",), print):
        pass
    with device_locks(("gpu-1",), print):
        held, free = deep.lock_findings()
    assert (free.what, free.state, free.detail) == ("gpu-2", "well", "free")
    assert (held.what, held.state) == ("gpu-1", "well")
    assert held.detail.startswith(f"held by process {os.getpid()} of ")


def test_a_lock_whose_holder_is_gone_is_wrong(locks: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with device_locks(("gpu-1",), print):
        path = lock_file(locks, "gpu-1")
        said = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**said, "pid": child.pid}), encoding="utf-8")
        (found,) = deep.lock_findings()
    assert found.state == "wrong"
    assert str(child.pid) in found.detail
    assert "fuser" in found.remedy


def test_what_is_no_lock_is_wrong(locks: Path) -> None:
    lock_file(locks, "gpu-1").symlink_to(locks)
    (found,) = deep.lock_findings()
    assert found.state == "wrong"
    assert "it is a link" in found.detail


def test_locks_that_do_not_exclude_other_users_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep, "lock_place", lambda: LockPlace(tmp_path, "runs of other users", fallback=True))
    first, _ = deep.lock_findings()
    assert (first.state, first.detail) == ("not known", "not excluded: runs of other users")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_lock_folder_of_somebody_else_is_refused(locks: Path) -> None:
    os.chown(locks, 12345, 12345)
    (found,) = deep.lock_findings()
    assert found.state == "wrong"
    assert "belongs to another user" in found.detail


# Workers


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What looks like a worker from outside."""
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "worker.py").write_text("import time; time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-m", "harness.worker", "/runs/a/b"], cwd=tmp_path)
    yield process
    process.kill()
    process.wait()


def test_a_worker_with_its_driver_is_at_work_and_a_stopped_one_is_told(worker: subprocess.Popen[bytes]) -> None:
    mine = [("/runs/a/b", psutil.Process(worker.pid))]
    assert [(found.state, found.detail) for found in deep.worker_findings(mine)] == [("well", "1 at work")]
    assert worker.pid in [process.pid for _, process in deep.running_workers()]
    os.kill(worker.pid, 19)
    until(lambda: mine[0][1].status() == psutil.STATUS_STOPPED)
    (stopped,) = wrong(deep.worker_findings(mine))
    assert stopped.remedy == f"kill -CONT {worker.pid}"


def test_a_worker_whose_driver_is_gone_is_wrong(
    worker: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil.Process, "parent", lambda self: None)
    (orphan,) = wrong(deep.worker_findings([("/runs/a/b", psutil.Process(worker.pid))]))
    assert "its driver is gone" in orphan.detail
    assert orphan.remedy == f"kill -KILL {worker.pid}"


def test_a_process_that_outlived_its_trial_is_wrong() -> None:
    environment = {**os.environ, "HARNESS_TRIAL": "/runs/a/t000"}
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    try:
        (stray,) = until(lambda: [each for each in deep.stray_findings() if each.what == f"process {child.pid}"])
    finally:
        child.kill()
        child.wait()
    assert stray.state == "wrong"
    assert "started by the trial /runs/a/t000, which is over" in stray.detail
    assert stray.remedy == f"kill -KILL {child.pid}"


# Store


def test_a_store_that_is_whole_is_well(stored_run: StoredRun, tmp_path: Path) -> None:
    stored_run("r1", {"a": [1.0, 2.0]})
    (found,) = store_findings(tmp_path / "store")
    assert (found.state, found.detail) == ("well", "1 runs, 2 trials, all readable")
    (none,) = store_findings(tmp_path / "none")
    assert none.state == "well"


def trial_of(run: Path) -> Path:
    return min(path for path in run.iterdir() if path.is_dir())


def test_what_a_crash_left_in_a_store_is_named_with_what_to_do(stored_run: StoredRun, tmp_path: Path) -> None:
    run = stored_run("r1", {"a": [1.0, 2.0, 3.0]})
    first, second, third = sorted(path for path in run.iterdir() if path.is_dir())
    (first / "record.json").write_text("{", encoding="utf-8")
    (second / "record.json").unlink()
    (second / "job.json").write_text("{}", encoding="utf-8")
    (third / ".record.json.999999999").write_text("half", encoding="utf-8")
    (run / "plan.json").write_text("[{]", encoding="utf-8")
    broken = tmp_path / "store" / "r2"
    broken.mkdir()
    (broken / "plan.json").write_text("[]", encoding="utf-8")
    found = {Path(each.what).name: each for each in store_findings(tmp_path / "store")}
    assert all(each.state == "wrong" and each.remedy for each in found.values())
    assert "not JSON" in found[first.name].detail
    assert found[second.name].detail in {"measured and not costed", "begun and not finished"}
    assert found[".record.json.999999999"].remedy == "delete it: it is not a record"
    assert "cannot be resumed" in found["plan.json"].remedy
    assert "run.json cannot be read: there is none" in found["r2"].detail


def test_a_run_that_ended_early_is_resumed_and_one_that_goes_on_is_left_alone(
    stored_run: StoredRun, tmp_path: Path
) -> None:
    run = stored_run("r1", {"a": [1.0]})
    described = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**described, "status": "running"}))
    (trial_of(run) / "record.json").unlink()
    (trial_of(run) / "measurement.json").unlink(missing_ok=True)
    (trial_of(run) / "job.json").write_text("{}")
    remedies = {found.remedy for found in store_findings(tmp_path / "store")}
    assert remedies == {f"harness run --resume {run}"}
    with driven(run):
        (found,) = store_findings(tmp_path / "store")
    assert found.state == "well"


# Clock, disk, memory


def test_the_clock_must_be_set_and_steady_and_who_keeps_it_is_told() -> None:
    assert wrong(deep.clock_findings(SANE, 0)) == []
    (unset,) = wrong(deep.clock_findings({**SANE, "wall": 0.0}, 0))
    assert unset.what == "date"
    assert wrong(deep.clock_findings(SANE, 0x40)) == []
    (alone,) = (each for each in deep.clock_findings(SANE, 0x40) if each.state == "not known")
    assert alone.what == "synchronised"
    assert "chrony" in alone.remedy
    (mad,) = wrong(deep.clock_findings({**SANE, "boot": 50.0}, 0))
    assert mad.what == "steady"
    slept = list(deep.clock_findings({**SANE, "boot": 160.0}, 0))
    assert slept[-1].detail == "asleep for 60 s since it was started"


def test_a_full_disk_and_little_memory_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(deep.memory_findings(1 << 40)) == []
    assert wrong(deep.memory_findings(1 << 20))[0].detail == "1.05 MB"
    from shutil import _ntuple_diskusage  # type: ignore[attr-defined]

    monkeypatch.setattr("shutil.disk_usage", lambda path: _ntuple_diskusage(100, 90, 1 << 20))
    (full,) = wrong(deep.disk_findings({"store": tmp_path / "not" / "yet"}))
    assert str(tmp_path) in full.detail
    assert full.remedy == "make room"


# The command


@pytest.mark.parametrize("store", ["whole", "broken"])
def test_the_exit_code_says_whether_all_is_well(
    stored_run: StoredRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    store: str,
) -> None:
    run = stored_run("r1", {"a": [1.0]})
    if store == "broken":
        (trial_of(run) / "record.json").write_text("{")
    for other in (
        "lock_findings",
        "worker_findings",
        "stray_findings",
        "clock_findings",
        "disk_findings",
        "memory_findings",
    ):
        monkeypatch.setattr(deep, other, lambda *_: [])
    assert deep.command(tmp_path / "store", as_json=True) == (3 if store == "broken" else 0)
    said = json.loads(capsys.readouterr().out)
    assert said["healthy"] is (store == "whole")
    assert {finding["area"] for finding in said["findings"]} == {"store"}
    deep.command(tmp_path / "store", as_json=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert ("restore the file" in shown) is (store == "broken")
