"""Many runs begin at one instant in one store: each is whole, and nothing of one lies in another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.records.files import records_of


@pytest.mark.parametrize("number", [3, pytest.param(25, marks=pytest.mark.soak)])
def test_runs_side_by_side_in_one_store(bench: Any, number: int) -> None:
    suite = bench.suite(trials=2, options="iterations: 500")
    drivers = [bench.start("run", suite, "--store", bench.store) for _ in range(number)]
    outputs = [driver.communicate(timeout=600)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0] * number, outputs
    runs = [path for path in bench.store.iterdir() if (path / "run.json").exists()]
    assert len(runs) == number
    for run in runs:
        records = list(records_of(run))
        assert len(records) == 2
        assert {record.measurement.run for record in records} == {run.name}
        assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "ok"
    checked = bench.run_alone("store", "check", "--store", bench.store, "--json")
    assert (checked.returncode, json.loads(checked.stdout)) == (0, [])
    asked = bench.run_alone(
        "query", "SELECT count(DISTINCT run), count(*) FROM trials", "--store", bench.store, "--format", "csv"
    )
    assert asked.stdout.splitlines()[1] == f"{number},{2 * number}"
    (victim, *_) = bench.store.glob("*/*/items.jsonl")
    victim.unlink()
    checked = bench.run_alone("store", "check", "--store", bench.store)
    assert checked.returncode == 3
    assert "items.jsonl: holds 0 bytes where the trial wrote" in checked.stdout
