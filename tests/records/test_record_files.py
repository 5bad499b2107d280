"""A record refers to the measurement beside it by digest; what was written before that is still read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import MeasurementError
from harness.records.files import (
    check_side_cars,
    load_measurement,
    load_record,
    trial_folders,
    write_measurement,
    write_output,
    write_record,
)
from harness.records.paths import MEASUREMENT, RECORD

OLD = Path(__file__).with_name("record_of_before.json")
"""A record of `spin` by version 0.1.0 of before records referred to their measurement."""

MakeRun = Callable[..., Path]


@pytest.fixture
def trial(make_run: MakeRun) -> Path:
    return next(trial_folders(make_run(points=1, trials=1)))


def test_a_record_holds_the_digest_in_place_of_the_measurement(trial: Path) -> None:
    measured = (trial / MEASUREMENT).read_bytes()
    content = json.loads((trial / RECORD).read_text(encoding="utf-8"))
    assert content["measurement"] == {"file": MEASUREMENT, "sha256": hashlib.sha256(measured).hexdigest()}
    assert load_record(trial).measurement == load_measurement(trial)


def test_a_record_of_another_measurement_is_an_error_that_names_both(trial: Path) -> None:
    write_measurement(trial, replace(load_measurement(trial), trial=7))
    with pytest.raises(MeasurementError) as found:
        load_record(trial)
    assert str(trial / MEASUREMENT) in str(found.value)
    assert str(trial / RECORD) in str(found.value)
    assert "harness score" in str(found.value)


def test_a_record_without_its_measurement_is_an_error_that_names_both(trial: Path) -> None:
    (trial / MEASUREMENT).unlink()
    with pytest.raises(MeasurementError) as found:
        load_record(trial)
    assert str(trial / MEASUREMENT) in str(found.value)
    assert str(trial / RECORD) in str(found.value)


def test_no_record_leads_out_of_its_folder(trial: Path) -> None:
    content = json.loads((trial / RECORD).read_text(encoding="utf-8"))
    content["measurement"]["file"] = "../other/measurement.json"
    (trial / RECORD).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(MeasurementError, match="accepted: measurement"):
        load_record(trial)


def test_a_record_is_not_written_beside_another_measurement(trial: Path) -> None:
    before = (trial / RECORD).read_bytes()
    finished = load_record(trial)
    with pytest.raises(MeasurementError, match="not the measurement that the record was made of"):
        write_record(trial, replace(finished, measurement=replace(finished.measurement, trial=7)))
    assert (trial / RECORD).read_bytes() == before


def test_a_record_that_holds_its_measurement_is_read(trial: Path, hold_measurement: Callable[[Path], None]) -> None:
    finished = load_record(trial)
    hold_measurement(trial)
    (trial / MEASUREMENT).unlink()
    assert load_record(trial) == finished


def test_a_record_of_before_is_read_and_written_anew_as_one_of_now(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_bytes(OLD.read_bytes())
    finished = load_record(tmp_path)
    assert finished.measurement.point["workload"] == "spin"
    assert finished.measurement.windows
    write_measurement(tmp_path, finished.measurement)
    write_record(tmp_path, finished)
    assert load_record(tmp_path) == finished
    assert (tmp_path / RECORD).stat().st_size + (tmp_path / MEASUREMENT).stat().st_size < 1.05 * OLD.stat().st_size


@pytest.mark.parametrize("text", ["", "[]", "{", '{"measurement": 5}', '{"measurement": {"sha256": 1}}', "\xff"])
def test_what_is_no_record_is_an_error_that_names_it(trial: Path, text: str) -> None:
    (trial / RECORD).write_bytes(text.encode("latin-1"))
    with pytest.raises(MeasurementError) as found:
        load_record(trial)
    assert str(trial / RECORD) in str(found.value)


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_output(pipe, b"a table")
        assert read.result() == b"a table"
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_full_device_is_said_and_stays() -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(MeasurementError, match="/dev/full: cannot be written: No space left on device"):
        write_output(full, b"a table")
    assert full.is_char_device()


def test_a_link_leads_to_the_file_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "latest"
    link.symlink_to(tmp_path / "there/table")
    for text in (b"one", b"two"):
        write_output(link, text)
        assert link.is_symlink()
        assert (tmp_path / "there/table").read_bytes() == text


def test_only_a_recosted_trial_may_be_without_its_outputs(trial: Path) -> None:
    finished = load_record(trial)
    measured = replace(finished.measurement, side_cars={"outputs.jsonl": 5})
    with pytest.raises(MeasurementError, match="holds 0 bytes where the trial wrote 5"):
        check_side_cars(trial, measured)
    write_record(trial, replace(finished, parent=f"another-run/{trial.name}"))
    check_side_cars(trial, measured)
    (trial / "outputs.jsonl").write_text("torn")
    with pytest.raises(MeasurementError, match="holds 4 bytes where the trial wrote 5"):
        check_side_cars(trial, measured)
    with pytest.raises(MeasurementError, match=r"items.jsonl: holds \d+ bytes where the trial wrote 999999"):
        check_side_cars(trial, replace(measured, side_cars={"items.jsonl": 999999}))
