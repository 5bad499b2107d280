"""Workload `greenllm-simulated`, who wins where, table and chart."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from harness_disaggregated_serving import harness_run_finished, harness_workloads
from harness_disaggregated_serving.choosing.winners import envelope
from harness_disaggregated_serving.commands.sweep import (
    CELLS_FILE,
    CHART_FILE,
    CLAIMS_FILE,
    ROW_FILE,
    TABLE_FILE,
    write_sweep,
)
from harness_disaggregated_serving.simulator.options import SimulatedOptions
from harness_disaggregated_serving.simulator.workload import PROFILE_ROW, Simulated, probe
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.errors import MeasurementError, UsageError
from harness.quantity import Method, Unavailable


class Pen:
    """A window that keeps what it is told."""

    index = 0

    def __init__(self) -> None:
        self.items: list[tuple[str, str, Mapping[str, float | None]]] = []
        self.devices: list[tuple[str, str, float, float]] = []
        self.simulated_s = 0.0

    def item(self, item_id: str, *, status: str = "ok", **columns: float | None) -> None:
        self.items.append((item_id, status, columns))

    def simulated_duration(self, seconds: float) -> None:
        self.simulated_s += seconds

    def device(
        self,
        device: str,
        *,
        role: str = "",
        busy_s: float,
        reserved_s: float,
        stands_for: str,
        phases: Mapping[str, float],
    ) -> None:
        assert stands_for == device  # so that `fuel` charges the board, not this machine
        assert sum(phases.values()) == pytest.approx(busy_s)
        self.devices.append((device, role, busy_s, reserved_s))


def run(folder: Path, seed: int = 0, requests: int = 40, **options: Any) -> Pen:
    folder.mkdir(parents=True, exist_ok=True)
    given = {"requests": requests, "most_requests": requests, **options}
    workload, pen = Simulated(SimulatedOptions(**given)), Pen()
    workload.prepare(SimpleNamespace(folder=folder, seed=seed))  # type: ignore[arg-type]
    workload.run(pen)  # type: ignore[arg-type]
    assert workload.facts()["method"] == "simulated"
    assert workload.facts()["calibration"] == "uncalibrated"
    return pen


@pytest.mark.parametrize("configuration", ["standalone", "spec-local", "dpd", "dsd"])
def test_a_cell_fills_declared_columns_and_device_rows(tmp_path: Path, configuration: str) -> None:
    pen = run(tmp_path, configuration=configuration, qps=0.5)
    spec = next(each for each in harness_workloads() if each.name == "greenllm-simulated")
    declared = {column.name for column in spec.columns}
    assert {column.method for column in spec.columns} == {Method.SIMULATED}
    assert len(pen.items) == 40
    for _, status, columns in pen.items:
        assert status == "ok"
        assert columns.keys() == declared
    assert [row[1] for row in pen.devices] == (["new", "old"] if configuration in {"dpd", "dsd"} else ["new"])
    assert all(0 < busy <= reserved for _, _, busy, reserved in pen.devices)
    assert json.loads((tmp_path / PROFILE_ROW).read_text())["row"]["method"] == "simulated"


def test_trials_differ_and_points_of_a_trial_do_not(tmp_path: Path) -> None:
    first = run(tmp_path / "a", seed=1, configuration="standalone")
    other = run(tmp_path / "b", seed=2, configuration="standalone")
    pair = run(tmp_path / "c", seed=1, configuration="dpd")

    def sizes(pen: Pen) -> list[object]:
        return sorted((int(name), columns["prompt_tokens"], columns["arrival_s"]) for name, _, columns in pen.items)

    assert sizes(first) == sizes(pair) != sizes(other)


def test_a_model_that_does_not_fit_is_a_reason() -> None:
    options = SimulatedOptions(configuration="dpd", old={"kind": "T4"}, model="llama-2-13b")
    found = probe(options)
    assert isinstance(found, Unavailable)
    assert "old device" in found.reason
    with pytest.raises(MeasurementError, match="GiB of weights"):
        Simulated(options).prepare(SimpleNamespace(folder=Path(), seed=0))  # type: ignore[arg-type]
    assert probe(SimulatedOptions(configuration="dsd", old={"kind": "T4"}, model="llama-2-13b")) is None


@pytest.mark.parametrize(
    "options",
    [
        {"new": {"kind": "A100"}},
        {"old": {"kind": "T4", "embodied": "nothing"}},
        {"model": "gpt"},
        {"sizes": "talk"},
        {"slo": "fast"},
        {"acceptance": [0.5, 1.5]},
        {"qps": 0},
        {"gamme": 3},
        {"new": {"kind": "A100-40GB", "watts": {"decoding": 200}}},
        {"new": {"kind": "A100-40GB", "watts": {"decode": {"low": 300, "value": 200, "high": 400}}}},
        {"new": {"kind": "A100-40GB", "watts": {"decode": 20}}},
        {"new": {"kind": "A100-40GB", "idle_w": 900}},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SimulatedOptions(**options)


def lines_of(text: str, *words: str) -> list[list[str]]:
    """Rows of Markdown tables with each word in some cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in rows if all(any(word in cell for cell in row) for word in words)]


def test_a_run_gets_table_and_chart(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        run(tmp_path / f"a{seed}", seed, 600, configuration="standalone", qps=0.5)
        run(tmp_path / f"b{seed}", seed, 600, configuration="dsd", qps=0.5)
        run(tmp_path / f"c{seed}", seed, 600, configuration="dsd", qps=0.5, old={"kind": "T4"})
    harness_run_finished({}, tmp_path)
    text = (tmp_path / TABLE_FILE).read_text()
    assert "simulated" in text.splitlines()[0]
    assert "3 seeds" in text
    (found,) = lines_of(text, "dsd with T4", "feasible")
    assert re.match(r"[+-]\d+\.\d% \[[+-]\d+\.\d%, [+-]\d+\.\d%\]", found[7])
    assert "watts of A100-40GB (" in found[-1]
    assert len(lines_of(text, "busy", "5, 3")) == len(lines_of(text, "reserved", "5, 3")) == 1
    rows = list(csv.DictReader(io.StringIO((tmp_path / CELLS_FILE).read_text())))
    assert {row["method"] for row in rows} == {"simulated"}
    assert len(rows) == 3 * 2 * 6 * 3
    told = [row for row in rows if row["saving"]]
    assert {row["seeds"] for row in told} == {"3"}
    assert all(float(row["saving_low"]) <= float(row["saving"]) <= float(row["saving_high"]) for row in told)
    claims = (tmp_path / CLAIMS_FILE).read_text()
    assert "| carbon saved against standalone | up to 40.6% | up to " in claims
    assert "| requests that meet both targets | over 90% | 2 of 2 disaggregated cells; 0 cannot" in claims
    assert "- old device T4, W: prefill 63 (49 to 70)" in claims
    assert len(lines_of(claims, "dsd with", "feasible")) == 2
    ET.fromstring((tmp_path / CHART_FILE).read_text())
    assert ROW_FILE == PROFILE_ROW


def test_a_run_without_rows_is_left_alone(tmp_path: Path) -> None:
    harness_run_finished({}, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="no profile row"):
        write_sweep(tmp_path)


lines = st.dictionaries(
    st.sampled_from(["standalone", "a", "b", "c"]), st.tuples(st.floats(0.01, 10), st.floats(0, 10)), min_size=1
)


@given(lines, st.floats(0, 1e4))
def test_envelope_is_the_least_line_everywhere(given_lines: dict[str, tuple[float, float]], x: float) -> None:
    ranges = envelope(given_lines)
    assert ranges[0].low == 0
    assert math.isinf(ranges[-1].high)
    assert all(one.high == two.low for one, two in pairwise(ranges))
    winner = next(part.configuration for part in ranges if part.low <= x <= part.high)
    values = {name: slope * x + intercept for name, (slope, intercept) in given_lines.items()}
    assert values[winner] <= min(values.values()) * (1 + 1e-6) + 1e-9


def test_envelope_by_hand() -> None:
    found = envelope({"standalone": (0.30, 0.72), "pair": (0.22, 0.90)})
    assert [(part.configuration, part.low) for part in found] == [("standalone", 0), ("pair", pytest.approx(2.25))]
    assert str(found[1]) == "pair above 2.25"
    assert [part.configuration for part in envelope({"a": (1.0, 1.0), "standalone": (1.0, 1.0)})] == ["standalone"]
    assert envelope({}) == ()


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("gamma", [2, 6]),
        ("draft", ["draft-160m", "draft-68m"]),
        ("acceptance", [0.6, 0.8]),
        ("wire", ["full", "ids"]),
        ("first_token", ["prefill", "decode"]),
        ("batching", ["iteration", "none"]),
        ("max_batch", [16, 64]),
        ("arrivals", ["poisson", "constant"]),
        ("qps", [0.25, 0.5]),
        ("sizes", ["chat", "code"]),
        ("slo", ["longbench", {"ttft": "1s", "tpot": "30ms"}]),
        ("model", ["llama-2-7b", "llama-3-8b"]),
        ("link", [{"bandwidth_gbit_s": 1}, {"bandwidth_gbit_s": 10}]),
        ("link", [{"rtt": "1ms"}, {"rtt": "5ms"}]),
        ("old", [{"kind": "T4"}, {"kind": "V100-16GB"}]),
        ("old", [{"kind": "T4", "watts": {"draft": 40}}, {"kind": "T4", "watts": {"draft": 60}}]),
        ("new", [{"kind": "A100-40GB"}, {"kind": "A100-80GB"}]),
        ("new", [{"kind": "A100-40GB", "active_w": 300}, {"kind": "A100-40GB", "active_w": 400}]),
        ("new", [{"kind": "A100-40GB"}, {"kind": "A100-40GB", "embodied": "hf-sheet:A100-40GB"}]),
        ("requests", [120, 140]),
        ("seed", [0, 7]),
    ],
)
def test_any_option_can_be_swept_and_its_values_stay_apart(tmp_path: Path, option: str, values: list[Any]) -> None:
    for number, value in enumerate(values):
        for configuration in ("standalone", "dsd"):
            given = {"requests": 120, "configuration": configuration, "qps": 0.5, option: value}
            run(tmp_path / f"{configuration}{number}", **given)
    write_sweep(tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / CELLS_FILE).read_text())))
    told = {tuple(row.items()) for row in rows if row["configuration"] == "dsd"}
    assert len(told) == (1 if option == "seed" else 2) * 2 * 6 * 3
    lines = lines_of((tmp_path / TABLE_FILE).read_text(), "dsd", "± ")
    assert len({tuple(line) for line in lines}) == len(lines) == (1 if option == "seed" else 2)
