"""`harness recost` as a user runs it, after a short run with the carbon meter."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.quantity import Amount
from harness.records.files import load_record

pytest.importorskip("harness_meter_fuel")

SUITE = """\
suite: again
backend: {name: host}
meters: [tdp: {watts: 65}, fuel: {grid: 400, embodied: {cpu: {kg: 9.98, source: a test}}, lifetime: 7y}]
trials: 1
windows: {count: 2, min_seconds: 0.2}
warm_up: {max_seconds: 1, max_iterations: 6}
cases:
  - workload: spin
    options: {iterations: 1000}
"""


def digests(folder: Path) -> dict[Path, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_one_measurement_answers_other_questions(tmp_path: Path) -> None:
    def harness(*arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *map(str, arguments)],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    suite, store = tmp_path / "again.yaml", tmp_path / "store"
    suite.write_text(SUITE, encoding="utf-8")
    harness("run", suite, "--store", store)
    (run,) = store.iterdir()
    before = digests(run)

    assert "records:" in harness("recost", run, "--set", "fuel.grid=200", "--store", store)
    (new,) = (folder for folder in store.iterdir() if folder != run)
    (old_trial,), (trial,) = run.glob("*/record.json"), new.glob("*/record.json")
    old, made = load_record(old_trial.parent), load_record(trial.parent)
    assert made.parent == f"{run.name}/{old_trial.parent.name}"
    for name, factor in (("carbon_operational_g", 0.5), ("carbon_embodied_g", 1.0)):
        was, now = old.totals[name], made.totals[name]
        assert isinstance(was, Amount)
        assert isinstance(now, Amount)
        assert now.value == pytest.approx(factor * was.value, rel=1e-12)
    assert "Factors" in harness("report", new, "--details")

    table = tmp_path / "table.csv"
    told = harness("recost", run, "--sweep", "fuel.grid=100,400", "--format", "csv", "--output", table)
    assert "lowest with fuel.grid=100" in told
    with table.open(encoding="utf-8", newline="") as stream:
        (low, high) = csv.DictReader(stream)
    assert float(high["carbon_operational_g"]) == pytest.approx(4 * float(low["carbon_operational_g"]))

    assert "did you mean 'grid'" in harness("recost", run, "--set", "fuel.gird=1", "--store", store, code=2)
    assert "did you mean 'fuel'" in harness("recost", run, "--set", "fule.grid=1", "--store", store, code=2)
    assert "recosted from" in harness("score", new, code=2)
    harness("recost", run, "--set", "fuel.grid=1", "--format", "csv", code=2)
    assert digests(run) == before
    assert len(list(store.iterdir())) == 2
