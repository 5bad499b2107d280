"""A run of the simulator from end to end: no output calls a simulated number measured."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.quantity import Amount, Method
from harness.records.files import load_record, recorded_trials
from harness.records.record import Record

pytest.importorskip("harness_meter_fuel")

SUITE = """\
suite: modelled
backend: {name: simulated, uuid: modelled}
meters:
  - simulated
  - declared_power: {watts: {A100-40GB: {busy: 400, idle: 60}, T4: {busy: 70, idle: 15}}}
  - fuel: {grid: 261, embodied: {gpu: {kg: 20, source: a test, lifetime: 5y}}}
trials: 1
windows: {count: 2, min_seconds: 0, min_iterations: 1}
warm_up: {max_iterations: 1}
idle_seconds: 0
cases:
  - workload: greenllm-simulated
    options: {new: {kind: A100-40GB}, sizes: chat, requests: 20, qps: 0.25}
  - workload: greenllm-simulated
    options: {new: {kind: A100-40GB}, old: {kind: T4}, configuration: dsd, sizes: chat, requests: 20, qps: 0.25}
"""
WATTS = {"A100-40GB": 400.0, "T4": 70.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modelled")
    suite = folder / "modelled.yaml"
    suite.write_text(SUITE, encoding="utf-8")
    done = CliRunner().invoke(app, ["run", str(suite), "--store", str(folder / "store")])
    assert done.exit_code == 0, done.output
    (found,) = (child for child in (folder / "store").iterdir() if (child / "run.json").exists())
    return found


def records(run: Path) -> list[Record]:
    found = [load_record(trial) for trial in recorded_trials(run)]
    assert len(found) == 2
    return found


def amounts(record: Record) -> dict[str, Amount]:
    """Every amount of a record, by where it stands."""
    found: dict[str, object] = {**record.totals}
    for name, unit in record.units.items():
        found |= {f"{name}: {cost}": value for cost, value in unit.costs.items()}
        found |= {f"{name}: {share}": value for share, value in unit.shares.items()}
        found[f"{name}: rate"] = unit.rate
    for column, statistics in record.columns.items():
        found |= {f"{column}.{statistic}": value for statistic, value in statistics.items()}
    for reading, named in record.alternatives.items():
        found |= {f"{reading} with {name}": value for name, value in named.items()}
    return {name: value for name, value in found.items() if isinstance(value, Amount)}


def test_nothing_of_modelled_work_is_better_than_simulated(run: Path) -> None:
    for record in records(run):
        found = amounts(record)
        assert len(found) > 60
        for name, amount in found.items():
            if not name.startswith("simulator_"):
                assert set(amount.composition) == {Method.SIMULATED}, name
        assert found["simulator_s"].label is Method.MEASURED
        assert found["carbon_g"].value > 0


def test_rate_energy_and_power_belong_to_the_simulated_seconds(run: Path) -> None:
    for record in records(run):
        found = amounts(record)
        seconds = found["duration_s"].value
        assert seconds == pytest.approx(sum(span.simulated_s or 0.0 for span in record.measurement.windows))
        assert found["simulator_s"].value < seconds
        achieved = record.units["token"].count.achieved
        assert found["token: rate"].value * seconds == pytest.approx(achieved)
        for device, watts in WATTS.items():
            energy = found.get(f"energy_j:n0/declared:{device}")
            assert energy is None or energy.value <= watts * seconds * (1 + 1e-9)
        held = {row.use.device for row in record.measurement.uses}
        assert found["power_w"].value <= sum(WATTS[device] for device in held)
        assert found["carbon_operational_g"].value == pytest.approx(found["energy_j"].value / 3.6e6 * 261)
        spread = len(held) * 20_000 * seconds / (5 * 365 * 86_400)  # every board that it holds
        assert found["carbon_embodied_g"].value == pytest.approx(spread)


def shown(run: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, str(run)], env={"COLUMNS": "400"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_output_says_simulated(run: Path, tmp_path: Path) -> None:
    def exported(form: str) -> str:
        target = tmp_path / form
        done = CliRunner().invoke(app, ["export", str(run), str(target), "--to", form])
        assert done.exit_code == 0, done.output
        return target.read_text(encoding="utf-8")

    figures = json.loads(shown(run, "report", "--format", "json"))["figures"]
    rows = list(csv.DictReader(io.StringIO(shown(run, "report", "--format", "csv"))))
    for row in (*figures, *rows):
        if row["value"] not in (None, "") and not row["metric"].startswith("simulator_"):
            assert row["label"] == "simulated", row
    text = shown(run, "report", "--format", "md")
    assert "simulated" in text
    assert not re.search(r"\b(exact|measured|counter)\b", _tables(text))
    page = tmp_path / "page.html"
    shown(run, "report", "--format", "html", "--output", str(page))
    for written in re.findall(r"<td[^>]*>([^<]*)</td>", page.read_text(encoding="utf-8")):
        assert written.strip() not in {"exact", "measured", "counter", "estimated"}
    for line in exported("openmetrics").splitlines():
        if line.startswith("harness_") and not line.startswith(("harness_simulator_", "harness_run_info")):
            assert 'method="simulated"' in line
    (first, *_) = json.loads(exported("pytest-benchmark"))["benchmarks"]
    assert first["options"]["timer"] == "simulated"
    assert {each["method"] for each in first["extra_info"].values() if isinstance(each, dict) and "value" in each} == {
        "simulated"
    }
    card = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "card"), "--to", "model-card"])
    assert card.exit_code == 1
    assert "simulated carbon: nobody emitted it" in str(card.exception)


def _tables(text: str) -> str:
    """Rows of Markdown tables that hold results: those that name a point of the suite."""
    return "\n".join(
        line for line in text.splitlines() if line.startswith("| greenllm-simulated") and "simulator" not in line
    )
