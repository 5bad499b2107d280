"""Results of other load generators in their own layouts, with rows of ours, and a tool that is run and charged."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import harness_disaggregated_serving
import pytest
from harness_disaggregated_serving.endpoint import results
from harness_disaggregated_serving.endpoint.bench_options import BenchOptions
from pydantic import ValidationError

from harness.builtin.host import BACKEND as HOST
from harness.errors import MeasurementError
from harness.testing import RecordingWindow, trial_context

VLLM = {
    "date": "20260101-000000", "backend": "vllm", "duration": 4.0, "completed": 2, "total_output_tokens": 10,
    "input_lens": [7, 9, 3], "output_lens": [5, 8, 0], "ttfts": [0.2, 0.2, 0.0], "errors": ["", "", "gone"],
    "itls": [[0.02, 0.02, 0.02, 0.02], [], []],
}  # fmt: skip
GUIDELLM = {
    "benchmarks": [
        {"requests": {
            "successful": [
                {"request_start_time": 100.0, "request_end_time": 100.28, "request_latency": 0.28, "prompt_tokens": 7,
                 "output_tokens": 5, "time_to_first_token_ms": 200.0, "inter_token_latency_ms": 20.0},
                {"request_start_time": 103.0, "request_latency": 1.0, "prompt_tokens": 9, "output_tokens": 1,
                 "time_to_first_token_ms": 200.0, "inter_token_latency_ms": None},
            ],
            "errored": [{"request_latency": None}], "incomplete": [],
        }}
    ]
}  # fmt: skip
AIPERF = [
    {"metadata": {"request_start_ns": 100_000_000_000, "was_cancelled": False}, "error": None, "metrics": {
        "time_to_first_token": {"value": 200.0, "unit": "ms"}, "inter_token_latency": {"value": 0.02, "unit": "s"},
        "request_latency": {"value": 280.0, "unit": "ms"}, "output_sequence_length": {"value": 5, "unit": "tokens"},
        "input_sequence_length": {"value": 7, "unit": "tokens"}}},
    {"metadata": {"request_start_ns": 103_000_000_000}, "error": None, "metrics": {
        "request_latency": {"value": 1.0, "unit": "s"}, "output_sequence_length": {"value": 8}}},
    {"metadata": {"request_start_ns": 101_000_000_000}, "error": {"type": "X", "message": "gone"}, "metrics": {}},
]  # fmt: skip
FILES = {
    "vllm bench serve": ("result.json", json.dumps(VLLM)),
    "guidellm": ("benchmarks.json", json.dumps(GUIDELLM)),
    "aiperf": ("profile_export.jsonl", "".join(json.dumps(each) + "\n" for each in AIPERF)),
}


@pytest.mark.parametrize("tool", FILES)
def test_each_tools_requests_are_the_same_requests(tmp_path: Path, tool: str) -> None:
    name, text = FILES[tool]
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = results.read(tmp_path / name)
    assert (found.tool, found.duration_s) == (tool, pytest.approx(4.0))
    first, second, third = found.requests
    assert (first.ok, first.prompt_tokens, first.output_tokens) == (True, 7, 5)
    assert (first.ttft_s, first.tpot_s, first.latency_s) == pytest.approx((0.2, 0.02, 0.28))
    assert (second.ok, second.tpot_s) == (True, None)  # all in one chunk, one token, or not told
    assert (third.ok, bool(third.reason)) == (False, True)


def test_several_tokens_a_chunk_do_not_make_vllms_results_faster(tmp_path: Path) -> None:
    """Twelve tokens in four chunks of three, 60 ms apart: 20 ms a token."""
    told = {**VLLM, "output_lens": [12], "input_lens": [1], "ttfts": [0.2], "itls": [[0.06] * 3], "errors": [""]}
    (tmp_path / "r.json").write_text(json.dumps(told), encoding="utf-8")
    assert results.read(tmp_path / "r.json").requests[0].tpot_s == pytest.approx(0.02)


@pytest.mark.parametrize("text", ["{}", "7", "not json", '{"total_output_tokens": 7}'])
def test_what_is_no_tools_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    with pytest.raises(MeasurementError):
        results.read(tmp_path / "r.json")


SPEC = next(each for each in harness_disaggregated_serving.harness_workloads() if each.name == "serve-bench")
TOOL = "import pathlib, sys; pathlib.Path(sys.argv[1], 'result.json').write_text(sys.argv[2])"


def bench(folder: Path, **given: Any) -> tuple[RecordingWindow, Any]:
    words = [sys.executable, "-c", TOOL, "{results}", json.dumps(VLLM)]
    options = {"run": words, "server": {"pid": os.getpid()}, "slo": {"ttft": 0.3, "tpot": 0.1}, **given}
    workload = SPEC.factory(BenchOptions.model_validate(options))
    workload.prepare(trial_context(folder, HOST.factory(HOST.options())))
    assert workload.processes() == {"server": os.getpid()}
    window = RecordingWindow(1)
    workload.run(window)
    workload.after_window(window)
    return window, workload


def test_a_tool_is_run_and_its_requests_are_rows(tmp_path: Path) -> None:
    window, workload = bench(tmp_path)
    assert [row["status"] for row in window.rows] == ["ok", "ok", "failed"]
    assert [row["meets_slo"] for row in window.rows] == [1.0, 0.0, 0.0]
    assert sum(row["output_tokens"] or 0 for row in window.rows) == 13  # type: ignore[misc]
    assert workload.facts()["tool"] == "vllm bench serve"
    assert not [flag for flag in workload.flags() if "the load lasted" in flag]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ([sys.executable, "-c", "import sys; sys.exit('no server {results}')"], r"exit code 1[\s\S]*no server"),
        ([sys.executable, "-c", "0", "{results}"], "0 files match"),
        (["/no/such/tool", "{results}"], "cannot be started"),
    ],
)
def test_a_tool_that_fails_or_writes_nothing_is_an_error(tmp_path: Path, run: list[str], message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        bench(tmp_path, run=run)


def test_a_command_that_does_not_say_where_results_go_is_refused() -> None:
    with pytest.raises(ValidationError, match="results go"):
        BenchOptions.model_validate({"run": "vllm bench serve"})
