"""The client of `serve-endpoint` against a loopback server that replays streams as engines send them, and faults."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import harness_disaggregated_serving
import pytest
from harness_disaggregated_serving.endpoint.latency import chunk_tokens, tpot_s
from harness_disaggregated_serving.endpoint.options import EndpointOptions
from pydantic import ValidationError

from harness.builtin.host import BACKEND as HOST
from harness.errors import MeasurementError
from harness.testing import check_workload, trial_context

Piece = str | float
SPEC = next(each for each in harness_disaggregated_serving.harness_workloads() if each.name == "serve-endpoint")


def event(content: object) -> str:
    return f"data: {json.dumps(content)}\n\n"


def chat(**delta: str) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def usage(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


# Forms as the engines' documentation shows them: vLLM sends its usage in a last event without choices and then [DONE];
# llama.cpp puts it beside its timings; transformers serve sends no [DONE] at all.
VLLM: list[Piece] = [
    event(chat(role="assistant", content="")),
    event(chat(content="Hel")), 0.05, event(chat(content="lo there")),
    event({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "length"}]}),
    event({"choices": [], "usage": usage(9, 5)}),
    "data: [DONE]\n\n",
]  # fmt: skip
LLAMA_CPP: list[Piece] = [
    ": keep-alive\r\n\r\n",
    "data: " + json.dumps({"choices": [{"text": "a", "finish_reason": None}]}) + "\r\n\r\n", 0.05,
    "data: " + json.dumps({"choices": [{"text": "b", "finish_reason": None}]}) + "\r\n\r\n",
    "data: " + json.dumps(
        {"choices": [{"text": "", "finish_reason": "stop"}], "usage": usage(7, 8), "timings": {"predicted_n": 8}}
    ) + "\r\n\r\n",
    "data: [DONE]\r\n\r\n",
]  # fmt: skip
NO_DONE: list[Piece] = [
    event({"choices": [{"text": "x", "finish_reason": None}]}),
    event({"choices": [{"text": "", "finish_reason": "length"}], "usage": usage(3, 4)}),
]
NO_USAGE: list[Piece] = [*VLLM[:-2], "data: [DONE]\n\n"]


@pytest.mark.parametrize(
    ("pieces", "api", "counts", "text"),
    [
        (VLLM, "chat", (9, 5), "Hello there"),
        (LLAMA_CPP, "completions", (7, 8), "ab"),
        (NO_DONE, "completions", (3, 4), "x"),
    ],
)
def test_streams_of_engines(
    replay: Any, pieces: list[Piece], api: str, counts: tuple[int, int], text: str, ask: Any
) -> None:
    replay.answers(pieces)
    found = ask(replay.url, api=api)
    assert (found.finished, found.reason, found.retries) == (True, "", 0)
    assert ((found.prompt_tokens, found.output_tokens), found.text) == (counts, text)
    assert replay.seen[0][0] == ("/v1/chat/completions" if api == "chat" else "/v1/completions")


def test_times_are_of_text_and_tokens_are_of_usage(replay: Any, ask: Any) -> None:
    """Two chunks held five tokens, three of them by its share of the text the second one: the gap is theirs."""
    replay.answers(VLLM)
    found = ask(replay.url)
    tokens = chunk_tokens(found)
    assert tokens is not None
    assert (tokens.counts, tokens.estimated) == ((1, 4), True)
    gap_s = found.times[1] - found.times[0]
    assert gap_s >= 0.04
    assert tpot_s(found, tokens) == pytest.approx(gap_s / 4)


def test_without_usage_there_are_no_counts(replay: Any, ask: Any) -> None:
    replay.answers(NO_USAGE)
    found = ask(replay.url)
    assert (found.finished, found.output_tokens, chunk_tokens(found)) == (True, None, None)


@pytest.mark.parametrize("cut", [VLLM[:3], [*VLLM[:3], 'data: {"choices": [{"del']])
def test_a_truncated_stream_has_failed(replay: Any, cut: list[Piece], ask: Any) -> None:
    replay.answers(cut)
    found = ask(replay.url)
    assert not found.finished
    assert "ended before" in found.reason or "cut off" in found.reason
    assert len(replay.seen) == 1  # text had come: asking again would hide what the first attempt cost


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_that_passes_is_a_counted_retry(replay: Any, status: int, ask: Any) -> None:
    replay.answers(["slow down"], status, Retry_After="0")
    replay.answers(VLLM)
    found = ask(replay.url)
    assert (found.finished, found.retries, found.output_tokens) == (True, 1, 5)


def test_refusals_come_to_an_end(replay: Any, ask: Any) -> None:
    replay.answers(["busy"], 429)
    found = ask(replay.url, retries=2)
    assert (found.finished, found.rejected, found.retries, len(replay.seen)) == (False, False, 2, 3)
    assert found.reason == "status 429: busy"


def test_a_bad_request_is_rejected_at_once_and_a_key_never_repeated(replay: Any, ask: Any) -> None:
    replay.answers(["no such model for key s3cret"], 400)
    found = ask(replay.url, secret="s3cret")
    assert (found.rejected, len(replay.seen)) == (True, 1)
    assert found.reason == "status 400: no such model for key ***"


@pytest.mark.parametrize(("before", "attempts"), [([], 2), (VLLM[:2], 1)])
def test_a_stalled_server_is_given_up(replay: Any, before: list[Piece], attempts: int, ask: Any) -> None:
    replay.answers([*before, 3.0])
    found = ask(replay.url, retries=1, silence_s=0.2)
    assert (found.finished, len(replay.seen)) == (False, attempts)
    assert "silent" in found.reason


def test_a_server_that_drips_is_given_up(replay: Any, ask: Any) -> None:
    replay.answers([piece for _ in range(40) for piece in (event(chat(content="x")), 0.1)])
    found = ask(replay.url, timeout_s=0.5)
    assert found.reason == "not finished in 0.5 s"


def test_an_error_in_the_stream_is_the_reason(replay: Any, ask: Any) -> None:
    replay.answers([VLLM[0], event({"error": {"message": "out of memory"}})])
    assert "out of memory" in ask(replay.url).reason


def test_the_workload_keeps_its_contract(replay: Any, tmp_path: Path, endpoint_options: Any) -> None:
    replay.answers(LLAMA_CPP)
    window = check_workload(SPEC, endpoint_options(replay.url), HOST.factory(HOST.options()), tmp_path)
    assert [row["output_tokens"] for row in window.rows] == [8] * 6
    for row in window.rows:
        assert row["first_token_s"] == pytest.approx(row["start_s"] + row["ttft_s"])  # type: ignore[operator]
    body = replay.seen[0][2]
    assert body["stream_options"] == {"include_usage": True}
    assert len(body["prompt"].split()) >= 1


def test_arrivals_do_not_wait_for_answers(replay: Any, tmp_path: Path, served: Any) -> None:
    """Six answers of half a second each, all at once: an open loop has sent the last before the first has ended."""
    replay.answers([0.5, *NO_DONE])
    window, _ = served(replay.url, tmp_path, arrivals="all_at_once")
    begun = [row["start_s"] for row in window.rows]
    ended = [row["start_s"] + row["latency_s"] for row in window.rows]  # type: ignore[operator]
    assert max(begun) < min(ended)  # type: ignore[type-var]
    assert all(row["ttft_s"] >= 0.45 for row in window.rows)  # type: ignore[operator]


def test_every_request_ends_and_is_counted(replay: Any, tmp_path: Path, served: Any) -> None:
    for script in (VLLM, VLLM[:3], NO_USAGE):
        replay.answers(script)
    replay.answers(["no"], 400)
    window, facts = served(replay.url, tmp_path, api="chat")
    assert sum(facts["ended"].values()) == len(window.rows) == 6
    assert facts["ended"] == {"finished": 2, "rejected": 3, "failed": 1}
    assert facts["without_usage"] == 1
    without = [row for row in window.rows if row["status"] == "ok" and row["output_tokens"] is None]
    assert [row["meets_slo"] for row in without] == [None]


def test_rates_of_tokens_that_nobody_counted_are_not_available(replay: Any, tmp_path: Path, served: Any) -> None:
    replay.answers(VLLM)
    replay.answers(NO_USAGE)
    slow = {"ttft": 60, "tpot": 60}
    window, facts = served(replay.url, tmp_path, api="chat", slo=slow)
    assert [row["status"] for row in window.rows] == ["ok"] * 6
    assert facts["requests_per_s"] > 0
    assert facts["output_tokens_per_s"] is facts["goodput_per_s"] is None
    reason = "the server sent no token count (usage) of 5 of 6 requests"
    assert facts["rates_not_available"] == {"goodput_per_s": reason, "output_tokens_per_s": reason}


def test_rates_of_tokens_that_the_server_counted_are_there(replay: Any, tmp_path: Path, served: Any) -> None:
    replay.answers(VLLM)
    window, facts = served(replay.url, tmp_path, api="chat", slo={"ttft": 60, "tpot": 60})
    tokens = sum(row["output_tokens"] for row in window.rows)  # type: ignore[misc]
    assert facts["output_tokens_per_s"] / facts["requests_per_s"] == pytest.approx(tokens / 6)
    assert facts["goodput_per_s"] == facts["requests_per_s"]
    assert facts["rates_not_available"] == {}


def test_a_late_first_token_misses_its_target_whatever_was_counted(replay: Any, tmp_path: Path, served: Any) -> None:
    replay.answers([0.1, *NO_USAGE])
    window, facts = served(replay.url, tmp_path, api="chat", slo={"ttft": "1ms", "tpot": 60})
    assert {row["meets_slo"] for row in window.rows} == {0.0}
    assert facts["goodput_per_s"] == 0.0


def test_no_rate_is_searched_where_no_token_is_counted(replay: Any, tmp_path: Path, served: Any) -> None:
    replay.answers(NO_USAGE)
    with pytest.raises(MeasurementError, match=r"no token count \(usage\) of \d+ of \d+ requests"):
        served(replay.url, tmp_path, api="chat", search={"max_qps": {"requests": 4}}, qps=20)


def test_the_key_is_sent_and_never_kept(
    replay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: Any
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    replay.answers(["bad key s3cret"], 401)
    window, facts = served(replay.url, tmp_path, api_key_env="MY_KEY")
    assert replay.seen[0][1]["Authorization"] == "Bearer s3cret"
    assert facts["key_sent"] is True
    assert "s3cret" not in json.dumps([facts, window.rows, window.outputs])


def test_no_server_is_an_error_with_its_address(tmp_path: Path, served: Any) -> None:
    with pytest.raises(MeasurementError, match=r"no answer from http://127\.0\.0\.1:1/v1"):
        served("http://127.0.0.1:1/v1", tmp_path)


@pytest.mark.parametrize(
    "given",
    [
        {"url": "ftp://x/v1"},
        {"url": "https://me:pass@x/v1"},
        {"url": "https://x/v1?key=1"},
        {"extra": {"stream": False}},
        {"sizes": "novels"},
        {"api_key_env": "sk-123"},
        {"url": "http://x:99999/v1"},
        {"url": "http://[::1/v1"},
        {"server": {"command": "serve '{port}"}},
        {"server": {"command": " "}},
        {"server": {"command": "serve {port}", "version": "serve 'x"}},
    ],
)
def test_bad_options_are_refused(given: dict[str, object], endpoint_options: Any) -> None:
    with pytest.raises(ValidationError):
        EndpointOptions.model_validate({**endpoint_options("http://127.0.0.1:1/v1"), **given})


def test_certificates_are_verified(replay: Any, tmp_path: Path, served: Any) -> None:
    """A server without TLS, and so without a certificate, is no server to a client that was told https."""
    with pytest.raises(MeasurementError, match="SSL"):
        served(replay.url.replace("http:", "https:"), tmp_path)


def test_a_file_without_certificates_is_an_error(replay: Any, tmp_path: Path, served: Any) -> None:
    (tmp_path / "ca.pem").write_text("no certificate", encoding="utf-8")
    with pytest.raises(MeasurementError, match="PEM"):
        served(replay.url.replace("http:", "https:"), tmp_path, ca=str(tmp_path / "ca.pem"))
    options = EndpointOptions(url="https://x/v1", model="m", ca=str(tmp_path / "none.pem"))
    assert SPEC.check is not None
    assert ["none.pem" in str(fault) for fault in SPEC.check(options, tmp_path)] == [True]


def test_the_servers_process_and_gpus_are_named_to_meters(tmp_path: Path, replay: Any, endpoint_options: Any) -> None:
    given = endpoint_options(replay.url, server={"pid": os.getpid(), "gpus": {"GPU-7": "NVIDIA L4"}})
    workload = SPEC.factory(EndpointOptions.model_validate(given))
    workload.prepare(trial_context(tmp_path, HOST.factory(HOST.options())))
    assert dict(workload.processes()) == {"server": os.getpid()}
    assert [(device.uuid, device.name) for device in workload.devices()] == [("GPU-7", "NVIDIA L4")]
    workload.close()
