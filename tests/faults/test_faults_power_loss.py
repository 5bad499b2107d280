"""Power is lost after every call that a trial makes to the disk: its record is then whole, or is not there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.errors import HarnessError, MeasurementError
from harness.records.files import check_side_cars, load_measurement, load_record, read_lines, write_atomically
from harness.records.paths import FAILURE, ITEMS, MEASUREMENT, PLAN, RECORD, RUN
from harness.running.run_folder import planned_points, reopen


def _model() -> ModuleType:
    spec = spec_from_file_location("disk_model", Path(__file__).with_name("disk_model.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


disk_model = _model()


def states(ops: Any, root: Path, into: Path) -> Any:
    """After each prefix of the calls, with what is not yet safe kept or lost in every way."""
    for count in range(len(ops) + 1):
        for names in ("kept", "lost"):
            for data in disk_model.DATA if names == "kept" else ("lost",):
                disk_model.after_power_loss(ops[:count], str(root), into, names=names, data=data)
                yield count, f"after {count} of {len(ops)} calls ({ops[count - 1] if count else '-'}), {names}, {data}"


def test_a_file_is_old_or_new_and_never_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, left = tmp_path / "disk", tmp_path / "left"
    root.mkdir()
    disk = disk_model.Disk(root)
    old, new = b'{"old": 1}' * 50, b'{"new": 22}' * 50
    with disk.watched(monkeypatch):
        write_atomically(root / "run.json", old)
        first = len(disk.ops)
        write_atomically(root / "run.json", new)
    assert (root / "run.json").read_bytes() == new
    for count, state in states(disk.ops, root, left):
        path = left / "run.json"
        found = path.read_bytes() if path.exists() else None
        assert found in ((None, old) if count < first else (old, new)), state
        if count == len(disk.ops):
            assert found == new, f"finished and lost: {state}"


@pytest.mark.parametrize("missing", ["sync", "sync-folder"])
def test_the_model_finds_a_writer_that_forgets_to_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    root, left = tmp_path / "disk", tmp_path / "left"
    root.mkdir()
    disk = disk_model.Disk(root)
    with disk.watched(monkeypatch):
        write_atomically(root / "run.json", b"whole")
    ops = [op for op in disk.ops if op.kind != missing]
    found = set()
    for count, _ in states(ops, root, left):
        path = left / "run.json"
        found.add((count == len(ops), path.read_bytes() if path.exists() else None))
    assert found & {(True, None), (True, b""), (True, b"wh")}


def test_a_trial_is_whole_or_is_not_there_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: Callable[..., Any]
) -> None:
    root, left = tmp_path / "disk", tmp_path / "left"
    root.mkdir()
    disk = disk_model.Disk(root)
    with disk.watched(monkeypatch):
        trial, said = in_process(store=root / "store", cost=True)
    assert not said.reason
    measured, finished = load_measurement(trial), load_record(trial)
    items = list(read_lines(trial / ITEMS))
    done = max(number for number, op in enumerate(disk.ops) if op.kind == "sync-folder") + 1
    assert {"make", "write", "sync", "rename", "folder", "sync-folder"} <= {op.kind for op in disk.ops}
    seen = set()
    for count, state in states(disk.ops, root, left):
        run = left / "store" / "run"
        there = run / trial.name
        try:
            points, _ = reopen(run)
            assert [point.id for point in points] == [measured.point["id"]], state
            seen.add("planned")
        except HarnessError:
            assert not (there / MEASUREMENT).exists(), f"measured and not to be resumed: {state}"
            seen.add("no run yet")
        if (there / MEASUREMENT).exists():
            assert load_measurement(there) == measured, state
            check_side_cars(there, measured)
            assert list(read_lines(there / ITEMS)) == items, state
            seen.add("measured")
        if (there / RECORD).exists():
            assert load_record(there) == finished, state
            seen.add("finished")
        if count >= done:
            assert (there / RECORD).exists(), f"finished and lost: {state}"
        for name in (PLAN, RUN):
            if (run / name).exists():
                json.loads((run / name).read_bytes())
        if (there / "job.json").exists():
            json.loads((there / "job.json").read_bytes())
    assert seen == {"no run yet", "planned", "measured", "finished"}
    assert planned_points(trial.parent)


@pytest.mark.parametrize("tail", [b'{"item_id": "9', b"\0\0\0\0\0\0", b"\xff\xfe\xff", b"\x80{}"])
def test_a_torn_tail_of_a_side_car_is_seen_and_never_counted(
    in_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tail: bytes
) -> None:
    from harness.costing import coster as costing

    trial, _ = in_process()
    path = trial / ITEMS
    rows = list(read_lines(path))
    path.write_bytes(path.read_bytes() + tail)
    assert list(read_lines(path)) == rows, "a torn last line ends the file"
    with pytest.raises(MeasurementError, match=r"items\.jsonl: holds \d+ bytes where the trial wrote \d+"):
        check_side_cars(trial, load_measurement(trial))
    assert costing.main(trial.parent) == 1
    assert not (trial / RECORD).exists()
    assert "items.jsonl" in json.loads((trial / FAILURE).read_text())["reason"]


def test_a_side_car_cut_at_a_line_is_no_smaller_measurement(in_process: Callable[..., Any]) -> None:
    from harness.planning.trial_rules import Windows

    trial, _ = in_process(windows=Windows(count=1, min_seconds=0.0, min_iterations=5))
    path = trial / ITEMS
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(MeasurementError, match="where the trial wrote"):
        check_side_cars(trial, load_measurement(trial))
