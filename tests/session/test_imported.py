"""What another program measured, kept as a run: its numbers, its label, and that it never counts as measured here."""

from pathlib import Path

import pytest

from harness import Amount, Imported, Method, Scope, Unavailable, Undefined, Value, keep_imported, load_record
from harness.errors import UsageError
from harness.records.files import trial_folders
from harness.records.record import Record

ESTIMATED = Scope(method=Method.ESTIMATED, note="a model")


def stretch(label: str, start_s: float, joules: float | None, duration_s: float = 10.0) -> Imported:
    value: Value = Unavailable("no number") if joules is None else Amount.of(joules, "J", Method.ESTIMATED)
    return Imported(
        label=label,
        started_utc_s=start_s,
        duration_s=duration_s,
        energy={"n0/gpu:0": value, "n0/cpu:0": Amount.of(5.0, "J", Method.ESTIMATED)},
        scopes={"n0/gpu:0": ESTIMATED, "n0/cpu:0": ESTIMATED},
        columns={"own_g": 3.0},
        facts={"machine": "elsewhere"},
        flags=("as it said",),
    )


def records(folder: Path) -> list[Record]:
    return [load_record(each) for each in trial_folders(folder)]


def test_stretches_of_one_label_are_trials_of_one_point_in_order_of_time(tmp_path: Path) -> None:
    folder = keep_imported(
        [stretch("a", 200.0, 20.0), stretch("b", 150.0, 7.0), stretch("a", 100.0, 10.0)], tmp_path, tool="other 1.0"
    )
    found = sorted(records(folder), key=lambda record: record.measurement.windows[0].start_utc_s)
    energy = [record.totals["energy_j"] for record in found]
    assert [value.value for value in energy if isinstance(value, Amount)] == [15.0, 12.0, 25.0]
    assert [record.measurement.point["label"] for record in found] == ["a", "b", "a"]
    assert [record.measurement.trial for record in found] == [0, 0, 1]
    assert found[0].measurement.point["id"] == found[2].measurement.point["id"] != found[1].measurement.point["id"]
    for record in found:
        value = record.totals["energy_j"]
        assert isinstance(value, Amount)
        assert value.label is Method.ESTIMATED
        assert "measured by other 1.0, not by this harness" in record.measurement.flags
        assert record.measurement.workload["machine"] == "elsewhere"


def test_what_it_does_not_say_is_unavailable_and_not_zero(tmp_path: Path) -> None:
    record = records(keep_imported([stretch("a", 1.0, None)], tmp_path, tool="other"))[0]
    assert not isinstance(record.totals["energy_j"], Amount)
    missing = record.totals["energy_j:n0/gpu:0"]
    assert isinstance(missing, Unavailable | Undefined)
    assert "no number" in missing.reason


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_stretch_without_a_length_is_refused_before_anything_is_kept(tmp_path: Path, duration_s: float) -> None:
    with pytest.raises(UsageError, match="a finite duration above 0"):
        keep_imported([stretch("a", 1.0, 1.0), stretch("a", 2.0, 1.0, duration_s)], tmp_path, tool="other")
    with pytest.raises(UsageError, match="nothing to keep"):
        keep_imported([], tmp_path, tool="other")
    assert not list(tmp_path.iterdir())
