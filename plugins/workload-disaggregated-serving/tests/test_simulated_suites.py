"""Every shipped suite that simulates, cut short: its numbers are simulated, on the simulated clock."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from harness_disaggregated_serving import harness_workloads
from typer.testing import CliRunner

from harness.cli import app
from harness.quantity import Amount, Method
from harness.records.files import load_record, recorded_trials
from harness.records.record import Record

pytest.importorskip("harness_meter_fuel")
yaml = pytest.importorskip("yaml")

SUITES = Path(__file__).parents[3] / "suites"
MODELLED = {spec.name for spec in harness_workloads() if spec.modelled}
SHORT: dict[str, dict[str, Any]] = {
    "greenllm-simulated": {"requests": 150, "most_requests": 150},
    "greenllm-online": {"requests": 150, "rates": [0.25, 0.5]},
}


def simulating() -> list[Path]:
    """Suites with a case of modelled work."""
    found = []
    for path in sorted(SUITES.glob("*.yaml")):
        cases = yaml.safe_load(path.read_text(encoding="utf-8"))["cases"]
        if any(case["workload"] in MODELLED for case in cases):
            found.append(path)
    return found


def cut(path: Path) -> str:
    """The suite with the first value of every axis and short streams."""
    suite = yaml.safe_load(path.read_text(encoding="utf-8"))
    suite["trials"] = 1
    suite["cases"] = [case for case in suite["cases"] if case["workload"] in MODELLED]
    suite.pop("questions", None)  # of axes that are cut
    for case in suite["cases"]:
        case["options"] = {**case.get("options", {}), **SHORT[case["workload"]]}
        case["matrix"] = {name: values[-1:] for name, values in case.get("matrix", {}).items()}
        case["matrix"].pop("qps", None)
    return str(yaml.safe_dump(suite))


def amounts(record: Record) -> dict[str, Amount]:
    """Every amount of a record, by where it stands."""
    found: dict[str, object] = {**record.totals}
    for name, unit in record.units.items():
        found |= {f"{name}: {cost}": value for cost, value in unit.costs.items()}
        found |= {f"{name}: {share}": value for share, value in unit.shares.items()}
        found[f"{name}: rate"] = unit.rate
    for column, statistics in record.columns.items():
        found |= {f"{column}.{statistic}": value for statistic, value in statistics.items()}
    return {name: value for name, value in found.items() if isinstance(value, Amount)}


def test_the_suites_that_simulate_are_found() -> None:
    assert {"greenllm-sweep.yaml", "greenllm-paper.yaml", "greenllm-online.yaml"} <= {
        path.name for path in simulating()
    }


@pytest.mark.parametrize("path", simulating(), ids=lambda path: path.stem)
def test_every_number_says_simulated_and_uses_the_simulated_clock(path: Path, tmp_path: Path) -> None:
    suite = tmp_path / path.name
    suite.write_text(cut(path), encoding="utf-8")
    done = CliRunner().invoke(app, ["run", str(suite), "--store", str(tmp_path / "store")])
    assert done.exit_code == 0, done.output
    (run,) = (child for child in (tmp_path / "store").iterdir() if (child / "run.json").exists())
    records = [load_record(trial) for trial in recorded_trials(run)]
    assert records
    for record in records:
        found = amounts(record)
        for name, amount in found.items():
            if not name.startswith("simulator_"):
                assert set(amount.composition) == {Method.SIMULATED}, name
        seconds = found["duration_s"].value
        assert seconds == pytest.approx(sum(span.simulated_s or 0.0 for span in record.measurement.windows))
        assert seconds > 10 * found["simulator_s"].value
        assert found["energy_j"].value > 0
        assert found["carbon_embodied_g"].value > 0
        for unit in record.units.values():
            if isinstance(unit.rate, Amount):
                assert unit.rate.value * seconds == pytest.approx(unit.count.achieved)
    _tables(run, records)


def _tables(run: Path, records: list[Record]) -> None:
    """Side-cars say it too, and hold the energy of the records."""
    for name in ("greenllm-winners.md", "greenllm-claims.md", "greenllm-online.md"):
        if (run / name).exists():
            assert "simulated" in (run / name).read_text(encoding="utf-8").splitlines()[0].lower()
    if (run / "greenllm-cells.csv").exists():
        rows = list(csv.DictReader(io.StringIO((run / "greenllm-cells.csv").read_text(encoding="utf-8"))))
        assert {row["method"] for row in rows} == {"simulated"}
    for record, trial in zip(records, recorded_trials(run), strict=True):
        file = trial / "profile_row.json"
        if not file.exists():
            continue
        row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["row"]
        joules = sum(device["energy_busy_j"] + device["energy_idle_j"] for device in row["devices"])
        energy = record.totals["energy_j"]
        assert isinstance(energy, Amount)
        assert energy.value == pytest.approx(joules, rel=1e-6)
