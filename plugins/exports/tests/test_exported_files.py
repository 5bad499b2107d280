"""Each file is read by the library whose format it is, and says what the records say."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from harness_exports import boamps, emissions_csv, mlperf_power
from harness_exports.options import BoAmpsOptions
from harness_exports.trials import component

import harness
from harness import Amount, Device, Factor, LoadedRun, MeasurementError, Method, NoOptions, Unavailable, UsageError
from harness.units import JOULES_PER_KWH

Kept = Callable[..., LoadedRun]
NONE = NoOptions()
ASKED = BoAmpsOptions(stage="inference", family="chatbot")
SCHEMA = Path(__file__).parent / "boamps-1.1.0.json"


def changed(run: LoadedRun, **changes: Any) -> LoadedRun:
    """The run as if each measurement had these fields."""
    points = []
    for point in run.report.points:
        records = tuple(replace(each, measurement=replace(each.measurement, **changes)) for each in point.records)
        points.append(replace(point, trials=replace(point.trials, records=records)))
    return LoadedRun(replace(run.report, points=tuple(points)))


def joules(run: LoadedRun) -> list[float]:
    values = [trial.readings["energy_j"] for trial in run.trials]
    assert all(isinstance(value, Amount) for value in values)
    return [value.value for value in values if isinstance(value, Amount)]


def rows(content: str | None, file: Path) -> list[dict[str, str]]:
    assert content is not None
    file.write_text(content, encoding="utf-8")
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# codecarbon


def test_emissions_csv_has_the_columns_of_codecarbon_and_is_continued_by_it(kept: Kept, tmp_path: Path) -> None:
    data = pytest.importorskip("codecarbon.output_methods.emissions_data").EmissionsData
    output = pytest.importorskip("codecarbon.output_methods.file").FileOutput
    logging.getLogger("codecarbon").setLevel("ERROR")
    assert tuple(field.name for field in fields(data)) == emissions_csv.COLUMNS
    file = tmp_path / "emissions.csv"
    before = rows(emissions_csv.export(kept("a"), "", NONE).content, file)
    own = data(**{field.name: 0 for field in fields(data)} | {"run_id": "codecarbon's own", "project_name": "b"})
    output("emissions.csv", str(tmp_path)).out(own, own)
    after = rows(file.read_text(encoding="utf-8"), tmp_path / "again.csv")
    assert len(after) == len(before) + 1 == 3, "codecarbon took the file for another format and put it aside"
    assert after[:2] == before
    assert after[2]["run_id"] == "codecarbon's own"


def test_emissions_csv_says_what_the_records_say(kept: Kept, tmp_path: Path) -> None:
    run = kept("a", "b")
    found = rows(emissions_csv.export(run, "", NONE).content, tmp_path / "emissions.csv")
    assert [row["project_name"] for row in found] == ["a", "a", "b", "b"]
    for row, trial in zip(found, run.trials, strict=True):
        energy, carbon = trial.readings["energy_j"], trial.readings["carbon_operational_g"]
        assert isinstance(energy, Amount)
        assert isinstance(carbon, Amount)
        assert float(row["energy_consumed"]) * JOULES_PER_KWH == pytest.approx(energy.value)
        assert float(row["gpu_energy"]) == pytest.approx(float(row["cpu_energy"]) * 4)
        assert float(row["gpu_power"]) * float(row["duration"]) == pytest.approx(energy.value * 0.8)
        assert float(row["emissions"]) * 1000 == pytest.approx(carbon.value)
        assert float(row["emissions_rate"]) == pytest.approx(float(row["emissions"]) / float(row["duration"]))
        assert row["run_id"].startswith(row["experiment_id"])
        assert row["tracking_mode"] == "machine"
    unknown = ("ram_energy", "ram_power", "water_consumed", "cpu_utilization_percent", "on_cloud", "gpu_count", "wue")
    assert {row[name] for row in found for name in unknown} == {""}


def test_what_is_missing_is_an_empty_cell_and_said(kept: Kept, tmp_path: Path) -> None:
    done = emissions_csv.export(kept(ram="the sensor is gone", grid=None), "", NONE)
    found = rows(done.content, tmp_path / "emissions.csv")
    empty = ("energy_consumed", "ram_energy", "emissions", "emissions_rate")
    assert {row[name] for row in found for name in empty} == {""}
    assert float(found[0]["gpu_energy"]) > 0
    assert "work, trial 0: emissions is empty: nothing of the suite gives it" in done.left_out
    (said,) = {line.partition(": energy_consumed is empty: ")[2] for line in done.left_out if "energy_" in line}
    assert "the sensor is gone" in said


def test_a_name_that_a_spreadsheet_would_work_out_stays_text(kept: Kept, tmp_path: Path) -> None:
    found = rows(emissions_csv.export(kept("=cmd|'/C calc'!A0", "-1+1"), "", NONE).content, tmp_path / "emissions.csv")
    assert {row["project_name"] for row in found} == {"'=cmd|'/C calc'!A0", "'-1+1"}
    assert all(float(row["energy_consumed"]) > 0 for row in found), "numbers stay numbers"


def test_what_read_no_energy_tracked_neither_a_process_nor_a_machine(kept: Kept, tmp_path: Path) -> None:
    run = changed(kept(trials=1), readings=())
    points = []
    for point in run.report.points:
        bare = [replace(each, totals={"duration_s": each.totals["duration_s"]}) for each in point.records]
        points.append(replace(point, trials=replace(point.trials, records=tuple(bare))))
    none = LoadedRun(replace(run.report, points=tuple(points)))
    (row,) = rows(emissions_csv.export(none, "", NONE).content, tmp_path / "emissions.csv")
    assert (row["energy_consumed"], row["tracking_mode"]) == ("", "")


def test_emissions_csv_comes_back_through_codecarbon_import(kept: Kept, tmp_path: Path) -> None:
    read = pytest.importorskip("harness_meter_fuel.commands.codecarbon").read
    run = kept("a", "b")
    rows(emissions_csv.export(run, "", NONE).content, tmp_path / "emissions.csv")
    stretches, version = read(tmp_path / "emissions.csv")
    assert version == f"none: joule-harness {harness.__version__}"
    assert [each.label for each in stretches] == ["a", "a", "b", "b"]
    for each, wanted, trial in zip(stretches, joules(run), run.trials, strict=True):
        parts = [value.value for value in each.energy.values() if isinstance(value, Amount)]
        assert sum(parts) == pytest.approx(wanted)
        assert each.duration_s == pytest.approx(trial.record.measurement.windows[0].duration_s)
        assert each.started_utc_s == pytest.approx(trial.record.measurement.windows[0].start_utc_s, abs=1.0)


def recosted(run: LoadedRun, **changes: Any) -> LoadedRun:
    """The run as if each record had these fields."""
    points = []
    for point in run.report.points:
        records = tuple(replace(each, **changes) for each in point.records)
        points.append(replace(point, trials=replace(point.trials, records=records)))
    return LoadedRun(replace(run.report, points=tuple(points)))


def test_emissions_csv_has_water_of_the_site_and_a_pue_that_is_one_number(kept: Kept, tmp_path: Path) -> None:
    run = kept(trials=1)
    totals = dict(run.trials[0].record.totals)
    water = {name: Amount.of(litres, "L", Method.ESTIMATED) for name, litres in
             (("water_onsite_l", 2.0), ("water_offsite_l", 3.0))}  # fmt: skip
    pues = [Factor(name="pue", value=value, unit="1", source="a test") for value in (1.2, 1.5)]
    for factors, pue in ((pues[:1], "1.2"), (pues, "")):
        content = emissions_csv.export(recosted(run, totals=totals | water, factors=tuple(factors)), "", NONE).content
        (row,) = rows(content, tmp_path / "emissions.csv")
        assert (row["water_consumed"], row["pue"]) == ("2.0", pue)


# BoAmps


def test_a_boamps_report_is_valid_and_codecarbon_reads_it(kept: Kept) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    models = pytest.importorskip("codecarbon.output_methods.boamps.models")
    run = kept(trials=3)
    options = BoAmpsOptions(
        stage="inference", family="chatbot", infra="onPremise", data_type="token", model="toy", parameters=0.5,
        framework="torch", country="france", publisher="lab", licence="CC BY 4.0", accuracy=0.9,
    )  # fmt: skip
    content = boamps.export(run, "", options).content
    assert content is not None
    report = json.loads(content)
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(report)
    assert models.BoAmpsReport.from_dict(report).to_dict() == report
    (measure,) = report["measures"]
    assert measure["powerConsumption"] * JOULES_PER_KWH == pytest.approx(sum(joules(run)))
    assert measure["measurementDuration"] == 4 + 5 + 6
    assert measure["measurementDateTime"] == "2023-11-14 22:13:20"
    assert (measure["cpuTrackingMode"], measure["gpuTrackingMode"]) == ("rig (integrated)", "rig (counter)")
    assert report["environment"]["powerSourceCarbonIntensity"] == 360
    assert report["task"]["nbRequest"] == report["task"]["dataset"][0]["dataQuantity"] == 3
    assert report["quality"] == "high"
    assert boamps.export(run, "", options).content == content


def test_a_boamps_report_of_little_is_valid_and_invents_nothing(kept: Kept) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    report = json.loads(str(boamps.export(kept(), "", ASKED).content))
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(report)
    assert report.keys() == {"header", "task", "measures", "system", "infrastructure", "quality"}
    assert "publisher" not in report["header"]


def test_the_schema_of_the_test_refuses_a_report_that_is_none() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    valid = jsonschema.Draft4Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).is_valid
    measure = {"measurementMethod": "m", "powerConsumption": 1}
    report: dict[str, Any] = {
        "task": {"taskStage": "s", "taskFamily": "f", "algorithms": [{}],
                 "dataset": [{"dataUsage": "input", "dataType": "text"}]},
        "measures": [measure],
        "infrastructure": {"infraType": "other", "components": [{"componentType": "cpu", "nbComponent": 1}]},
    }  # fmt: skip
    assert valid(report)
    assert not valid({**report, "measures": [{**measure, "unit": "kWh"}]}), "a field of another version"
    assert not valid({**report, "measures": []})
    assert not valid({**report, "quality": "superb"})


def test_devices_are_the_components_of_a_boamps_report(kept: Kept) -> None:
    cards = tuple(Device(kind="gpu", uuid=f"GPU-{at}", name="H200", memory_bytes=141 * 10**9) for at in range(2))
    machine = {"cpu": "Example CPU", "memory_bytes": 64 * 10**9, "system": "Linux", "python": "3.12.1"}
    run = changed(kept(), devices=cards, environment=machine)
    report = json.loads(str(boamps.export(run, "", ASKED).content))
    assert report["infrastructure"]["components"] == [
        {"componentName": "Example CPU", "componentType": "cpu", "nbComponent": 1},
        {"componentName": "H200", "componentType": "gpu", "nbComponent": 2, "memorySize": 141},
        {"componentType": "ram", "nbComponent": 1, "memorySize": 64},
    ]
    assert report["system"] == {"os": "linux"}
    assert report["software"] == {"language": "python", "version": "3.12.1"}
    (row, _) = csv.DictReader(str(emissions_csv.export(run, "", NONE).content).splitlines())
    assert (row["gpu_count"], row["gpu_model"], row["cpu_model"]) == ("2", "2 x H200", "Example CPU")


def test_idle_energy_is_the_calibration_of_a_boamps_report(kept: Kept) -> None:
    from harness.records.record import Reading, Span

    run = kept()
    (first, _) = run.trials
    measurement = first.record.measurement
    idle = Span(name="idle", window=-1, start_ns=0, end_ns=2 * 10**9, start_utc_s=1.6e9)
    read = {"n0/gpu:GPU-1": 18.0, "n0/cpu-package:0": 9.0}
    readings = tuple(
        Reading(span="idle", window=-1, meter="rig", scope=scope, primary=True,
                value=Amount.of(value, "J", Method.COUNTER))
        for scope, value in read.items()
    )  # fmt: skip
    both = changed(run, spans=(idle, *measurement.spans), readings=(*readings, *measurement.readings))
    (measure,) = json.loads(str(boamps.export(both, "", ASKED).content))["measures"]
    assert measure["powerCalibrationMeasurement"] * JOULES_PER_KWH == pytest.approx(2 * 27.0)
    assert measure["durationCalibrationMeasurement"] == 2 * 2.0
    gone = replace(readings[0], value=Unavailable("no tick"))
    part = changed(run, spans=(idle, *measurement.spans), readings=(gone, readings[1], *measurement.readings))
    (measure,) = json.loads(str(boamps.export(part, "", ASKED).content))["measures"]
    assert "powerCalibrationMeasurement" not in measure


def test_a_boamps_report_has_no_intensity_where_the_record_has_two(kept: Kept) -> None:
    grids = tuple(Factor(name="grid_intensity", value=value, unit="g/kWh", source="a test") for value in (50.0, 360.0))
    asked = ASKED.model_copy(update={"country": "france"})
    report = json.loads(str(boamps.export(recosted(kept(), factors=grids), "", asked).content))
    assert report["environment"] == {"country": "france"}


@pytest.mark.parametrize(("error", "quality"), [(10, "high"), (25, "medium"), (50, "low"), (51, None)])
def test_the_quality_of_a_boamps_report_is_its_bound(error: int, quality: str | None) -> None:
    energy = Amount.of(100.0, "J", Method.COUNTER, low=100.0 - error, high=100.0 + error)
    assert boamps._quality(energy) == quality


def test_a_boamps_report_is_of_one_point_with_all_its_energy(kept: Kept) -> None:
    with pytest.raises(UsageError, match=r"has 2 points.*--only"):
        boamps.export(kept("a", "b"), "", ASKED)
    with pytest.raises(MeasurementError, match=r"work, trial 0: no energy: .*the sensor is gone"):
        boamps.export(kept(ram="the sensor is gone"), "", ASKED)


# MLPerf


def test_the_library_of_mlperf_finds_the_energy_of_each_window(kept: Kept, tmp_path: Path) -> None:
    parser = pytest.importorskip("mlperf_logging.compliance_checker.mlp_parser")
    summarizer = pytest.importorskip("mlperf_logging.result_summarizer.result_summarizer")
    run = kept("a", "b")
    log = tmp_path / "power.log"
    log.write_text(str(mlperf_power.export(run, "", NONE).content), encoding="utf-8")
    lines, errors = parser.parse_file(str(log), "6.0.0")
    assert errors == []
    assert [line.key for line in lines[:3]] == ["power_measurement_start", "power_reading", "power_measurement_stop"]
    windows = [lines[at : at + 3] for at in range(0, len(lines), 3)]
    found = [summarizer._compute_power_node(window, window[-1].timestamp - window[0].timestamp) for window in windows]
    assert found == pytest.approx(joules(run))
    said = windows[0][1].value["metadata"]
    assert (said["point"], said["trial"], said["method"]) == ("a", 0, "integrated")
    assert said["low_w"] < windows[0][1].value["value"] < said["high_w"]


def test_an_mlperf_log_says_that_it_is_no_result(kept: Kept) -> None:
    assert "not an MLPerf result" in str(mlperf_power.export(kept(), "", NONE).content)


def test_an_mlperf_log_holds_measured_power_only(kept: Kept) -> None:
    with pytest.raises(MeasurementError, match="its energy is estimated, and an MLPerf log holds measured power"):
        mlperf_power.export(kept(cpu=Method.ESTIMATED), "", NONE)


# What must not look measured


@pytest.mark.parametrize("export", [boamps.export, emissions_csv.export, mlperf_power.export], ids=["b", "e", "m"])
def test_simulated_energy_goes_into_no_file_without_labels(kept: Kept, export: Callable[..., object]) -> None:
    with pytest.raises(MeasurementError, match="simulated: no machine spent this energy"):
        export(kept(gpu=Method.SIMULATED), "", ASKED)


def test_trials_that_are_not_valid_are_left_out_and_said(kept: Kept, tmp_path: Path) -> None:
    from harness.records.record import SeenCondition

    run = kept(trials=2)
    (point,) = run.report.points
    seen = SeenCondition(kind="reset", scope="n0/gpu:GPU-1", detail="fell", fails=True, count=1, first_ns=0)
    bad = replace(point.records[1], measurement=replace(point.records[1].measurement, conditions=(seen,)))
    trials = replace(point.trials, records=point.records[:1], left_out=(bad,))
    run = LoadedRun(replace(run.report, points=(replace(point, trials=trials),)))
    done = emissions_csv.export(run, "", NONE)
    assert len(rows(done.content, tmp_path / "emissions.csv")) == 1
    assert any(line.startswith("work, trial 1: not valid: reset on n0/gpu:GPU-1: fell") for line in done.left_out)


def test_scopes_are_told_by_what_they_name() -> None:
    assert [component(name) for name in ("n3/gpu:A", "n0/cpu:codecarbon", "n0/wall", "n1/dram:1")] == [
        "gpu", "cpu", "", "ram",
    ]  # fmt: skip
