"""Each exported file is read back with its own library and says what the records say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from harness.errors import MeasurementError
from harness.quantity import Amount
from harness.records.files import trial_folders
from harness.records.paths import RECORD
from harness.records.summary import load
from harness.reporting.export import model_card, open_metrics, pytest_benchmark
from harness.reporting.figures import figures

HOSTILE = 'point "a"\\b\n{x="y"} # EOF'
MakeRun = Callable[..., Path]
Harness = Callable[..., "subprocess.CompletedProcess[str]"]


def test_pytest_benchmark_compares_two_exports(make_run: MakeRun, tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    for name in ("one", "two"):
        exported = pytest_benchmark(load(make_run(name, trials=5)))
        (tmp_path / f"{name}.json").write_text(exported, encoding="utf-8")
    table = tmp_path / "table.csv"
    files = [str(tmp_path / "one.json"), str(tmp_path / "two.json")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", *files, f"--csv={table}"],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "point 0 [per token]" in done.stdout
    assert len(table.read_text(encoding="utf-8").splitlines()) == 1 + 2 * 3


def test_pytest_benchmark_statistics_are_those_of_its_own_library(make_run: MakeRun) -> None:
    stats = pytest.importorskip("pytest_benchmark.stats")
    run = make_run(points=1, trials=7)
    for number, trial in enumerate(trial_folders(run)):
        content = json.loads((trial / RECORD).read_text(encoding="utf-8"))
        seconds = (1.0, 1.1, 1.2, 1.3, 1.25, 1.15, 9.0)[number]
        amount = {"value": seconds, "unit": "s/token", "composition": {"measured": seconds}, "low": None, "high": None}
        content["units"]["token"]["costs"]["duration_s"] = {**amount, "kind": "amount"}
        (trial / RECORD).write_text(json.dumps(content), encoding="utf-8")
    found = json.loads(pytest_benchmark(load(run)))["benchmarks"][0]["stats"]
    wanted = stats.Stats()
    for seconds in (1.0, 1.1, 1.2, 1.3, 1.25, 1.15, 9.0):
        wanted.update(seconds)
    for name in ("min", "max", "mean", "stddev", "rounds", "median", "total", "ops", "stddev_outliers"):
        assert found[name] == pytest.approx(getattr(wanted, name)), name
    assert found["hd15iqr"] < 9.0


def test_open_metrics_are_parsed_into_the_same_numbers(make_run: MakeRun) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    report = load(make_run(label=HOSTILE))
    families = list(parser.text_string_to_metric_families(open_metrics(report)))
    samples = [sample for family in families for sample in family.samples]
    assert {family.type for family in families} == {"gauge"}
    wanted = [figure for figure in figures(report) if figure.value is not None]
    plain = ("_bound_low", "_bound_high", "_trials_least", "_trials_greatest")
    assert sorted(s.value for s in samples if not s.name.endswith(plain)) == sorted(
        f.value for f in wanted if f.value is not None
    )
    lows = [figure.low for figure in wanted if figure.low is not None]
    assert sorted(s.value for s in samples if s.name.endswith("_bound_low")) == sorted(lows)
    assert {sample.labels["point"] for sample in samples} == {point.label for point in report.points}
    (energy,) = (
        s for s in samples
        if s.name == "harness_energy_j" and s.labels["per"] == "token" and s.labels["point_id"] == "p0000"
        and "scope" not in s.labels
    )  # fmt: skip
    assert energy.labels["method"] == "estimated"
    assert energy.labels["unit"] == "J/token"


def with_carbon(run: Path, value: dict[str, object] | None = None) -> list[float]:
    """Gives each trial a total carbon, or a reason; returns the grams."""
    grams = []
    for number, trial in enumerate(trial_folders(run)):
        content = json.loads((trial / RECORD).read_text(encoding="utf-8"))
        grams.append(0.25 + number)
        told = {"value": grams[-1], "unit": "g", "composition": {"estimated": grams[-1]}, "kind": "amount"}
        content["totals"]["carbon_g"] = value or told
        (trial / RECORD).write_text(json.dumps(content), encoding="utf-8")
    return grams


def test_model_card_is_read_by_hugging_face(make_run: MakeRun) -> None:
    hub = pytest.importorskip("huggingface_hub")
    run = make_run(label='quote " colon: {brace}', points=2, trials=2)
    grams = with_carbon(run)
    card = hub.ModelCard(model_card(load(run)) + "\n# A model\n")
    assert card.data.co2_eq_emissions["emissions"] == pytest.approx(sum(grams))
    assert "estimated" in card.data.co2_eq_emissions["source"]
    assert card.data.co2_eq_emissions["hardware_used"].startswith('quote " colon: {brace}')
    data = hub.ModelCardData(**yaml.safe_load(model_card(load(run)).strip("-\n")))
    assert data.to_dict()["co2_eq_emissions"] == card.data.co2_eq_emissions


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (
            {"name": "aws-frankfurt", "country": "DEU", "grid": {"value": 380.0, "id": "tables-1:DEU"}},
            "aws-frankfurt, DEU",
        ),
        ({"name": "FR", "row": "FRA", "country": "FRA"}, "FRA"),
        ({"name": "our lab", "grid": {"value": 380.0}}, "our lab"),
        ({"grid": {"value": 380.0}}, None),
        (None, None),
    ],
    ids=["place", "country", "own", "numbers", "none"],
)
def test_the_location_of_a_model_card_is_a_place_and_no_factor(
    make_run: MakeRun, place: dict[str, object] | None, expected: str | None
) -> None:
    run = make_run(points=1, trials=1)
    with_carbon(run)
    (trial,) = trial_folders(run)
    content = json.loads((trial / RECORD).read_text(encoding="utf-8"))
    content["impacts"] = [{"name": name, "options": {"place": place}} for name in ("fuel", "scarf")]
    (trial / RECORD).write_text(json.dumps(content), encoding="utf-8")
    found = yaml.safe_load(model_card(load(run)).strip("-\n"))["co2_eq_emissions"]
    assert found.get("geographical_location") == expected
    assert "; grid intensity grid:1" in found["source"]


def without(run: Path, reading: str, reason: str | None = None) -> None:
    """Takes a reading out of the first trial's totals, or puts the reason why it is missing in its place."""
    trial = next(iter(trial_folders(run)))
    content = json.loads((trial / RECORD).read_text(encoding="utf-8"))
    del content["totals"][reading]
    if reason is not None:
        content["totals"][reading] = {"kind": "unavailable", "reason": reason}
    (trial / RECORD).write_text(json.dumps(content), encoding="utf-8")


def test_model_card_has_operational_carbon_where_the_embodied_is_unknown(make_run: MakeRun) -> None:
    run = make_run(points=1, trials=2)
    with_carbon(run)
    without(run, "carbon_g")
    without(run, "carbon_embodied_g", "no table has this card")
    report = load(run)
    found = yaml.safe_load(model_card(report).strip("-\n"))["co2_eq_emissions"]
    wanted = [each.totals["carbon_operational_g"] for each in report.records]
    assert found["emissions"] == pytest.approx(sum(each.value for each in wanted if isinstance(each, Amount)))
    assert "operational carbon alone (embodied carbon is unknown: no table has this card)" in found["source"]


def test_model_card_does_not_pass_a_part_for_the_whole(make_run: MakeRun) -> None:
    run = make_run(points=1, trials=2)
    without(run, "carbon_operational_g")
    with pytest.raises(MeasurementError, match="no operational carbon: no meter of the suite gives it"):
        model_card(load(run))
    again = make_run("again", points=1, trials=2)
    without(again, "carbon_operational_g", "no grid is named")
    with pytest.raises(MeasurementError, match="no operational carbon: no grid is named"):
        model_card(load(again))


def test_simulated_carbon_is_on_no_model_card(make_run: MakeRun) -> None:
    run = make_run(points=1, trials=2)
    with_carbon(run, {"value": 1.0, "unit": "g", "composition": {"simulated": 1.0}, "kind": "amount"})
    with pytest.raises(MeasurementError, match="simulated carbon: nobody emitted it"):
        model_card(load(run))


@pytest.fixture
def harness(harness_in_process: Harness) -> Harness:
    return partial(harness_in_process, environment={"COLUMNS": "200"})


def test_command_writes_the_file_or_says_what_it_takes(make_run: MakeRun, tmp_path: Path, harness: Harness) -> None:
    run = make_run(points=1, trials=2)
    done = harness("export", run, tmp_path / "metrics.txt", "--to", "openmetrics")
    assert (done.returncode, done.stdout) == (0, f"exported: {tmp_path / 'metrics.txt'}\n")
    assert (tmp_path / "metrics.txt").read_text(encoding="utf-8").endswith("# EOF\n")
    done = harness("export", run, tmp_path / "x", "--to", "openmetric")
    assert done.returncode == 2
    assert "did you mean 'openmetrics'?" in done.stderr
    without(run, "carbon_operational_g")
    done = harness("export", run, tmp_path / "x", "--to", "model-card")
    assert done.returncode == 3
    assert not (tmp_path / "x").exists()
    done = harness("export", run, tmp_path / "x", "--to", "openmetrics", "--set", "level=1")
    assert done.returncode == 2
    assert "there is no option openmetrics.level" in done.stderr
    done = harness("export", run, tmp_path / "x", "--to", "openmetrics", "--set", "level")
    assert (done.returncode, done.stderr) == (2, "error: --set: 'level' does not set an option; accepted: NAME=VALUE\n")
    for given in ("level=1, 2", "level="):
        done = harness("export", run, tmp_path / "x", "--to", "openmetrics", "--set", given)
        assert done.returncode == 2
        assert "is not one value; accepted: level=VALUE" in done.stderr


def test_a_part_of_a_run_is_exported(make_run: MakeRun, tmp_path: Path, harness: Harness) -> None:
    run = make_run(points=3, trials=2)
    done = harness("export", run, tmp_path / "part", "--to", "pytest-benchmark", "--only", "point 1")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "part").read_text(encoding="utf-8"))
    assert [each["name"] for each in content["benchmarks"]] == ["point 1 [per token]"]
    done = harness("export", run, tmp_path / "none", "--to", "pytest-benchmark", "--only", "point 9")
    assert done.returncode == 2
    assert "--only 'point 9' fits no point with a record; accepted: point 0; point 1; point 2" in done.stderr
    assert not (tmp_path / "none").exists()
