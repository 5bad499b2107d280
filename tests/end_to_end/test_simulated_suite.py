"""Real work on a simulated accelerator: its times are measured, and nothing made of its joules is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.quantity import Amount, Method
from harness.records.files import load_record, recorded_trials

pytest.importorskip("harness_meter_fuel")

SUITE = """\
suite: simulated
backend: {name: simulated, uuid: simulated-suite, idle_w: 50, busy_w: 300, tick: 20ms}
meters: [simulated, fuel: {grid: 400, embodied: {gpu: {kg: 20, source: a test, lifetime: 5y}}}]
trials: 1
windows: {count: 1, min_seconds: 0.5}
warm_up: {max_seconds: 1, max_iterations: 6}
cases:
  - workload: spin
    options: {iterations: 1000}
"""
OF_CLOCK_AND_COUNT = {"duration_s", "rate"}


def test_what_is_made_of_simulated_joules_is_simulated(tmp_path: Path) -> None:
    suite = tmp_path / "simulated.yaml"
    suite.write_text(SUITE, encoding="utf-8")
    done = CliRunner().invoke(app, ["run", str(suite), "--store", str(tmp_path / "store")])
    assert done.exit_code == 0, done.output
    (run,) = (child for child in (tmp_path / "store").iterdir() if (child / "run.json").exists())
    (trial,) = recorded_trials(run)
    record = load_record(trial)
    assert not record.modelled
    found = dict(record.totals)
    for name, unit in record.units.items():
        found |= {f"{cost} per {name}": value for cost, value in {**unit.costs, "rate": unit.rate}.items()}
    labels = {name: value.label for name, value in found.items() if isinstance(value, Amount)}
    for name, label in labels.items():
        if name.partition(" ")[0] in OF_CLOCK_AND_COUNT:
            assert label is Method.MEASURED, name
        elif name.startswith("carbon_embodied_g"):
            assert label is Method.ESTIMATED, name
        else:
            assert label is Method.SIMULATED, name
    assert {"energy_j", "power_w", "carbon_operational_g", "carbon_g"} <= labels.keys()
    power = record.totals["power_w"]
    assert isinstance(power, Amount)
    assert 50 * 0.9 <= power.value <= 300
