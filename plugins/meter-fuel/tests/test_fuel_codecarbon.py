"""codecarbon's `emissions.csv`, of old and new versions, as a run; rows of our own in its layout."""

from pathlib import Path

import pytest
from harness_meter_fuel.commands.codecarbon import codecarbon_import, read

from harness import Amount, Unavailable, load_record
from harness.errors import UsageError

HEAD = (
    "timestamp,project_name,run_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,cpu_energy,"
    "gpu_energy,ram_energy,energy_consumed,country_name,codecarbon_version,cpu_model"
)
ROW = "2024-05-31T10:39:13,training,x-1,100.0,0.05,0.0005,4,0,3,0.02,0.07,0.01,0.1,France,2.4.3,Apple M1"
GAPS = "2024-05-31T10:45:50,training,,65.38,,,,0.02,3.0,,1.0,0.5,,France,2.4.3,Apple M1"


def written(folder: Path, *rows: str, head: str = HEAD) -> Path:
    path = folder / "emissions.csv"
    path.write_text("\n".join((head, *rows)) + "\n", encoding="utf-8")
    return path


def test_kwh_become_joules_by_part_and_gaps_stay_gaps(tmp_path: Path) -> None:
    (full, gaps), version = read(written(tmp_path, ROW, GAPS))
    assert version == "2.4.3"
    joules = {scope: value.value for scope, value in full.energy.items() if isinstance(value, Amount)}
    assert joules == pytest.approx({"n0/cpu:codecarbon": 72e3, "n0/gpu:codecarbon": 252e3, "n0/dram:codecarbon": 36e3})
    assert full.label == "training"
    assert full.columns == {"codecarbon_g": 50.0}
    assert any("50 g CO2e, 500 g/kWh" in flag for flag in full.flags)
    assert full.facts["cpu_model"] == "Apple M1"
    assert isinstance(gaps.energy["n0/cpu:codecarbon"], Unavailable)
    assert not gaps.columns


def test_files_of_before_parts_were_written_have_the_whole(tmp_path: Path) -> None:
    head = "timestamp,project_name,duration,emissions,energy_consumed,country_name"
    (only,), version = read(written(tmp_path, "2021-03-01T10:00:00,old,10,0.001,0.002,France", head=head))
    (value,) = only.energy.values()
    assert isinstance(value, Amount)
    assert (value.value, version) == (7200.0, "")


@pytest.mark.parametrize(
    ("rows", "head", "says"),
    [
        ((ROW,), HEAD.replace("energy_consumed", "energy"), "column energy_consumed is missing; accepted: timestamp"),
        ((), HEAD, "holds no row"),
        ((ROW.replace(",100.0,", ",0,"),), HEAD, ":2: duration is '0'"),
        ((ROW.replace("2024-05-31T10:39:13", "then"),), HEAD, ":2: timestamp is 'then'"),
        ((ROW.replace(",0.1,France", ",0.01,France"),), HEAD, ":2: energy_consumed is 0.01, its parts are 0.1"),
        ((ROW.replace(",0.07,", ",-0.07,"),), HEAD, ":2: gpu_energy is -0.07"),
        ((ROW.replace(",0.07,", ",much,"),), HEAD, ":2: gpu_energy is 'much'"),
        ((f"{ROW},1",), HEAD, ":2: row has 17 fields"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, rows: tuple[str, ...], head: str, says: str) -> None:
    path = written(tmp_path, *rows, head=head)
    with pytest.raises(UsageError) as caught:
        read(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_command_keeps_a_run_and_costs_it_with_a_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codecarbon_import(written(tmp_path, ROW, ROW.replace("10:39", "11:39")), store=tmp_path / "runs", grid="200")
    assert "2 rows of emissions.csv" in capsys.readouterr().out
    (run,) = (tmp_path / "runs").glob("*-measure-*")
    records = [load_record(path.parent) for path in sorted(run.glob("*/record.json"))]
    assert len(records) == 2
    for record in records:
        grams = record.totals["carbon_operational_g"]
        assert isinstance(grams, Amount)
        assert grams.value == pytest.approx(0.1 * 200)
