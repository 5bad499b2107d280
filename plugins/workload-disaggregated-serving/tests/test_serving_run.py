"""Workload `greenllm` through the harness: contract, a run by the command line, conservation of requests and joules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness_disaggregated_serving
import pytest
from harness_disaggregated_serving.choosing.comparison import write_table
from harness_disaggregated_serving.choosing.recorded import pair_tables
from harness_disaggregated_serving.runtime.options import PairRunOptions
from pydantic import ValidationError

from harness.builtin.host import BACKEND as HOST
from harness.records.files import adapter, records_of
from harness.records.record import Record
from harness.testing import check_offers, check_workload

TINY = {"model": {"layers": 2, "hidden": 64}, "length_scale": 0.05, "requests": 8, "qps": 20}
SUITE = """
suite: tiny
backend: host
meters:
  - cpu_time: {watts_per_core: 10}
  - declared_power: {watts: {new: {busy: 400, idle: 60}, old: {busy: 70, idle: 15}}}
  - fuel:
      grid: 261
      embodied:
        A100-40GB: {kg: 17.473, lifetime: 5y, source: a test}
        T4: {kg: 8.961, lifetime: 7y, source: a test}
trials: 1
windows: {count: 1, min_seconds: 0}
warm_up: {max_seconds: 0.1, max_iterations: 1}
idle_seconds: 0
cases:
  - workload: greenllm
    options:
      new: {kind: A100-40GB}
      old: {kind: T4, slow_down: 2}
      model: {layers: 2, hidden: 64}
      length_scale: 0.1
      requests: 12
      qps: 10
    matrix: {configuration: [standalone, dpd]}
"""


def test_offers_are_inert() -> None:
    names = check_offers("harness_disaggregated_serving")
    assert {"workloads:greenllm", "workloads:greenllm-simulated", "commands:greenllm"} <= set(names)


def test_a_role_on_a_gpu_stands_for_nothing_else() -> None:
    with pytest.raises(ValidationError, match="is what it is"):
        PairRunOptions.model_validate({"new": {"kind": "T4", "device": "cuda:0"}})
    with pytest.raises(ValidationError, match="no profile"):
        PairRunOptions.model_validate({"new": {"kind": "T5"}})


def test_a_gpu_that_is_not_there_is_a_reason() -> None:
    spec = next(each for each in harness_disaggregated_serving.harness_workloads() if each.name == "greenllm")
    assert spec.probe is not None
    wanted = PairRunOptions.model_validate({"configuration": "dpd", "old": {"device": "cuda:99"}})
    reason = spec.probe(wanted)
    assert reason is not None
    assert "role old asks for cuda:99" in reason.reason
    alone = wanted.model_copy(update={"configuration": "standalone"})
    assert spec.probe(alone) is None  # which holds no old device


@pytest.mark.slow
def test_the_workload_keeps_its_contract(tmp_path: Path) -> None:
    spec = next(each for each in harness_disaggregated_serving.harness_workloads() if each.name == "greenllm")
    backend = HOST.factory(HOST.options())
    window = check_workload(spec, {**TINY, "configuration": "dsd"}, backend, tmp_path)
    assert len(window.rows) == TINY["requests"]
    assert {row["status"] for row in window.rows} == {"ok"}
    assert [(used.device, used.role) for used in window.uses] == [("new:cpu", "new"), ("old:cpu", "old")]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def whole(path: Path) -> dict[str, Any]:
    """A record with the measurement that it refers to."""
    measurement = path.with_name("measurement.json").read_text(encoding="utf-8")
    return {**json.loads(path.read_text(encoding="utf-8")), "measurement": json.loads(measurement)}


@pytest.mark.slow
def test_a_run_by_the_command_line_conserves_requests_and_joules(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-m", "harness", "run", str(tmp_path / "suite.yaml"), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "store").glob("*-tiny-*")
    records = [as_json(record) for record in records_of(run)]
    assert {record["measurement"]["workload"]["configuration"] for record in records} == {"standalone", "dpd"}
    for record in records:
        _check_conservation(record)
    for path in run.glob("*/items.jsonl"):
        statuses = [row["status"] for row in lines(path)]
        assert len(statuses) == 12
        assert set(statuses) <= {"ok", "rejected", "failed"}
    table = (run / "greenllm-table.md").read_text(encoding="utf-8")
    assert "| configuration |" in table
    assert table.count("(simulated)") >= 4
    assert table in done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "harness", "greenllm", "table", str(run)], capture_output=True, text=True, check=True
    )
    assert again.stdout == table
    (profiles,) = pair_tables(run)
    assert {row.configuration for row in profiles.rows} == {"standalone", "dpd"}
    for row in profiles.rows:
        assert (row.requests, row.method) == (12, "simulated")
        assert row.overloaded.startswith("load not judged")  # twelve requests tell nothing of a load
        (new, *_) = row.devices
        assert (new.name, new.embodied_kg) == ("A100-40GB", (26.34, 26.34, 26.34))
        assert new.energy_j == pytest.approx(400 * new.busy_s + 60 * (new.reserved_s - new.busy_s))
    _forget_lifetimes(run)
    assert "does not say over which lifetime" in (write_table(run) or "")


def as_json(record: Record) -> dict[str, Any]:
    values: dict[str, Any] = adapter(Record).dump_python(record, mode="json")
    return values


def _forget_lifetimes(run: Path) -> None:
    """Makes the run's records those of a time before lifetimes were kept."""
    for path in run.glob("*/record.json"):
        data = json.loads(path.read_text(encoding="utf-8"))
        data["factors"] = [{k: v for k, v in factor.items() if k != "lifetime_s"} for factor in data["factors"]]
        path.write_text(json.dumps(data), encoding="utf-8")


def _check_conservation(record: dict[str, Any]) -> None:
    measurement, totals = record["measurement"], record["totals"]
    ended = measurement["workload"]["ended"]
    assert ended["finished"] + ended["rejected"] + ended["failed"] == 12
    # joules by role: busy and idle parts of each declared device, and CPU time of each process within the work's own
    watts = {"new": (400, 60), "old": (70, 15)}
    declared = 0.0
    roles = 0.0
    for row in measurement["uses"]:
        use = row["use"]
        busy_w, idle_w = watts[use["role"]]
        expected = busy_w * use["busy_s"] + idle_w * (use["reserved_s"] - use["busy_s"])
        assert totals[f"energy_j:n0/declared:{use['device']}"]["value"] == pytest.approx(expected)
        declared += expected
        process = totals[f"energy_j:n0/process:{use['role']}"]
        cpu_j = 10 * measurement["workload"]["role_cpu_s"][use["role"]]
        assert process["composition"].keys() == {"estimated"}
        assert process["value"] == pytest.approx(cpu_j, abs=0.6)  # a few ticks of 10 ms, and the edges' own waiting
        roles += process["value"]
    work = totals["energy_j:n0/process"]["value"]
    assert roles <= work + 0.2
    assert totals["energy_j"]["value"] == pytest.approx(work + declared)
    embodied = totals["carbon_embodied_g"]
    kg_per_s = {"A100-40GB": 17.473 / 5, "T4": 8.961 / 7}
    rate = sum(kg_per_s[row["use"]["stands_for"]] for row in measurement["uses"]) * 1000 / (365 * 86400)
    assert embodied["value"] == pytest.approx(rate * totals["duration_s"]["value"])
    assert embodied["composition"].keys() == {"simulated"}
