"""Results of other load generators in their own layouts, with rows of ours, and a tool that is run and charged."""

from __future__ import annotations

import json
import os
import re
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


CLOCKED = """
import json, pathlib, sys, time
told = json.loads(sys.argv[2])
told["start_times"] = [time.perf_counter() + float(sys.argv[3]) for _ in told["output_lens"]]
pathlib.Path(sys.argv[1], "result.json").write_text(json.dumps(told))
"""


def clocked(folder: Path, off_s: float) -> tuple[list[Any], list[str], float]:
    words = [sys.executable, "-c", CLOCKED, "{results}", json.dumps(VLLM), str(off_s)]
    window, workload = bench(folder, run=words)
    return [row["start_s"] for row in window.rows], [*workload.flags()], window.now_s()


def test_starts_of_vllm_are_told_by_its_performance_counter(tmp_path: Path) -> None:
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    starts, flags, ended_s = clocked(tmp_path / "same", 0.0)
    assert all(0 < start < ended_s for start in starts)
    assert starts == sorted(starts)
    assert not [flag for flag in flags if "another clock" in flag]
    starts, flags, _ = clocked(tmp_path / "other", 1e6)
    assert starts == [None, None, None]
    assert [flag for flag in flags if "another clock" in flag]


def changed(document: Any, path: str, value: object) -> str:
    """The JSON of a document in which one place holds something else."""
    copy = json.loads(json.dumps(document))
    *before, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    at = copy
    for part in before:
        at = at[part]
    at[last] = value
    return json.dumps(copy)


ODD = [
    (changed(VLLM, "input_lens", [7, 9]), r"input_lens has 2 values; accepted: 3"),
    (changed(VLLM, "errors", []), r"errors has 0 values; accepted: 3"),
    (changed(VLLM, "ttfts/1", "soon"), r"ttfts\[1\] is 'soon'; accepted: a finite number"),
    (changed(VLLM, "ttfts/1", -1), r"ttfts\[1\] is -1"),
    (changed(VLLM, "itls/0", 0.02), r"itls\[0\] is 0\.02; accepted: a list"),
    (changed(VLLM, "itls/0/2", None).replace("null", "NaN"), r"itls\[0\]\[2\] is nan"),
    (changed(VLLM, "output_lens", 5), r"output_lens is 5; accepted: a list"),
    (changed(VLLM, "output_lens/0", 5.5), r"output_lens\[0\] is 5\.5; accepted: a whole number"),
    (changed(VLLM, "output_lens/0", True), r"output_lens\[0\] is True"),
    (changed(VLLM, "duration", "4 s"), r"duration is '4 s'"),
    (
        json.dumps({**VLLM, **{key: [] for key in ("input_lens", "output_lens", "ttfts", "errors", "itls")}}),
        "without",
    ),
    (json.dumps(VLLM) + "\n" + json.dumps(VLLM), "several results; accepted: one: without --append-result"),
    (changed(GUIDELLM, "benchmarks", {}), r"benchmarks is \{\}; accepted: a list"),
    (changed(GUIDELLM, "benchmarks/0", 7), r"benchmarks\[0\] is 7; accepted: an object"),
    (changed(GUIDELLM, "benchmarks/0/requests", []), r"benchmarks\[0\]\.requests is \[\]"),
    (
        changed(GUIDELLM, "benchmarks/0/requests/successful/1/output_tokens", "one"),
        r"benchmarks\[0\]\.requests\.successful\[1\]\.output_tokens is 'one'",
    ),
    (json.dumps(AIPERF[0]) + "\n7\n", r"line 2 is 7; accepted: an object"),
    (json.dumps(AIPERF[0]) + "\n{cut", r"r\.json:2: it is neither"),
    (
        changed(AIPERF, "0/metrics/time_to_first_token/unit", "days"),
        r"line 1\.metrics\.time_to_first_token is in 'days'",
    ),
    (changed(AIPERF, "1/metrics", "none"), r"line 2\.metrics is 'none'"),
]
"""What is in a file, and what is said of it."""


@pytest.mark.parametrize(("text", "told"), ODD, ids=[told for _, told in ODD])
def test_an_odd_result_is_refused_with_its_file_and_field(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    with pytest.raises(MeasurementError, match=r"r\.json") as refused:
        results.read(tmp_path / "r.json")
    assert re.search(told, str(refused.value)), str(refused.value)


def test_a_result_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MeasurementError, match="cannot be read"):
        results.read(tmp_path / "r.json")


def test_a_refusal_without_a_text_is_no_answer(tmp_path: Path) -> None:
    """vLLM writes the server's reason as error, which HTTP/2 and some proxies leave empty."""
    (tmp_path / "r.json").write_text(changed(VLLM, "errors/2", ""), encoding="utf-8")
    assert [each.ok for each in results.read(tmp_path / "r.json").requests] == [True, True, False]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"run": "bench '{results}"}, "No closing quotation"),
        ({"run": ["", "{results}"]}, "names no program"),
        ({"run": "bench {results}", "results": "/tmp/*.json"}, "within the run's folder"),
        ({"run": "bench {results}", "results": "../*.json"}, "within the run's folder"),
    ],
)
def test_a_run_that_cannot_be_is_refused_while_planning(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        BenchOptions.model_validate(given)


def test_a_command_that_does_not_say_where_results_go_is_refused() -> None:
    with pytest.raises(ValidationError, match="results go"):
        BenchOptions.model_validate({"run": "vllm bench serve"})
