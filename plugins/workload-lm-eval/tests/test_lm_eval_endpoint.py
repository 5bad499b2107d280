"""A server answers: scores as lm-eval's own client has them, tokens as the server counts, its energy and no other."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness_lm_eval import server_energy
from harness_lm_eval.options import EndpointOptions

from harness import Method, Unavailable
from harness.errors import MeasurementError
from harness.sample import Scope

SECRET = "sk-very-secret"  # not a key of anything


class Served:
    """An OpenAI API before a model: completions with `echo` and `logprobs`, and chat.

    Attributes:
        url: its base address.
        asked: bodies of the requests.
        keys: values of the header Authorization.
        usages: tokens of each generated answer.
        broken: answers a request with status 400 where it returns True.
        busy: so many requests are refused with status 429 first.
    """

    def __init__(self, lm: Any) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.usages: list[dict[str, int]] = []
        self.broken: Callable[[dict[str, Any]], bool] = lambda body: False
        self.busy = 0
        self._lm = lm
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(200, {"data": []})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.asked.append(body)
                    outer.keys.append(self.headers.get("Authorization", ""))
                    if outer.busy:
                        outer.busy -= 1
                        self._say(429, {"error": "busy"})
                    elif outer.broken(body):
                        self._say(400, {"error": f"no, {SECRET}"})
                    else:
                        self._say(200, outer.answer(body))

            def _say(self, status: int, content: dict[str, Any]) -> None:
                said = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        chat = "messages" in body
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        ids = self._lm.tokenizer(prompt, return_tensors="pt")["input_ids"]
        if body.get("echo"):
            with torch.no_grad():
                laws = torch.log_softmax(self._lm.model(ids).logits[0], dim=-1)
            after = [*ids[0].tolist()[1:], int(laws[-1].argmax())]
            own = [None, *(float(law[token]) for law, token in zip(laws, after, strict=True))]
            top = [None, *({"top": float(law.max())} for law in laws)]
            choice = {"index": 0, "text": "", "logprobs": {"token_logprobs": own, "top_logprobs": top}}
            return {"choices": [choice], "usage": {"prompt_tokens": ids.shape[1], "completion_tokens": 1}}
        made = self._lm.model.generate(ids, max_new_tokens=body["max_tokens"], do_sample=False)[0, ids.shape[1] :]
        text = self._lm.tokenizer.decode(made, skip_special_tokens=True)
        for stop in body["stop"]:
            text = text.split(stop)[0]
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": int(ids.shape[1]), "completion_tokens": len(made)}
        self.usages.append(usage)
        return {"choices": [{"index": 0, **said}], "usage": usage}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def served(tiny: Callable[..., Any]) -> Iterator[Served]:
    made = Served(tiny())
    yield made
    made.close()


@pytest.fixture
def tokenizer_folder() -> str:
    import harness_speculative_decoding

    return str(Path(str(harness_speculative_decoding.__file__)).parent / "models" / "tiny")


def told(window: Any) -> dict[tuple[str, int], Any]:
    return {(each["task"], each["document"]): each.get("metrics") for each in window.outputs.values()}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_scores_are_those_of_lm_evals_own_client(
    served: Served, asked: Any, evaluated: Any, task_folder: Path, tokenizer_folder: str, concurrency: int
) -> None:
    from lm_eval.models.openai_completions import LocalCompletionsAPI  # type: ignore[import-untyped]

    kinds = ["own_choice", "own_likelihood", "own_rolling", "own_generation"]
    endpoint = {"url": served.url, "model": "tiny", "tokenizer": tokenizer_folder, "max_length": 200}
    _, (window,) = asked(
        tasks=kinds, include_path=str(task_folder), endpoint={**endpoint, "concurrency": concurrency}, limit=4
    )
    mine = list(served.asked)
    client = LocalCompletionsAPI(
        base_url=f"{served.url}/completions",
        model="tiny",
        tokenizer=tokenizer_folder,
        tokenizer_backend="huggingface",
        tokenized_requests=False,
        max_length=200,
    )
    served.asked.clear()
    results = evaluated(client, kinds, limit=4)
    expected: dict[tuple[str, int], dict[str, Any]] = {}
    for task in kinds:
        for sample in results["samples"][task]:
            values = expected.setdefault((task, sample["doc_id"]), {})
            for name in sample["metrics"]:
                value = sample[name]
                values[f"{name},{sample['filter']}"] = list(value) if isinstance(value, tuple) else float(value)
    assert told(window) == expected
    theirs = {json.dumps(body, sort_keys=True) for body in served.asked}
    assert {json.dumps(body, sort_keys=True) for body in mine} == theirs, "the very requests of lm-eval"


def test_a_served_model_is_as_right_as_the_same_one_here(
    served: Served, asked: Any, task_folder: Path, tokenizer_folder: str
) -> None:
    own = {"tasks": ["own_choice"], "include_path": str(task_folder)}
    endpoint = {"url": served.url, "model": "tiny", "tokenizer": tokenizer_folder}
    _, (there,) = asked(endpoint=endpoint, **own)
    _, (here,) = asked(model="builtin:tiny", **own)
    assert told(there) == told(here)
    assert {row["acc"] for row in here.rows} == {0.0, 1.0}


def test_chat_sends_messages_and_the_servers_tokens_are_counted(
    served: Served, asked: Any, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    endpoint = {"url": served.url, "model": "tiny", "api": "chat", "api_key_env": "MY_KEY"}
    workload, (window,) = asked(tasks=["own_generation"], include_path=str(task_folder), endpoint=endpoint, limit=2)
    assert all(body["messages"][-1]["role"] == "user" for body in served.asked)
    assert set(served.keys) == {f"Bearer {SECRET}"}
    counted = [{"prompt_tokens": row["input_tokens"], "completion_tokens": row["output_tokens"]} for row in window.rows]
    assert counted == served.usages
    assert all(0 <= row["start_s"] < row["end_s"] for row in window.rows)  # type: ignore[operator]
    assert SECRET not in json.dumps([dict(workload.facts()), window.outputs])


def test_a_request_that_fails_fails_its_document_alone(
    served: Served, asked: Any, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    served.broken = lambda body: "binary" in body["prompt"].rpartition("\n\n")[2]
    workload, (window,) = asked(
        tasks=["own_generation"], include_path=str(task_folder), endpoint={"url": served.url, "model": "tiny"}
    )
    assert [row["status"] for row in window.rows] == ["ok", "ok", "ok", "ok", "error", "ok"]
    assert ["correct" in row for row in window.rows] == [True, True, True, True, False, True]
    assert any("1 documents of the last window failed" in flag and "400" in flag for flag in workload.flags())
    assert SECRET not in json.dumps([list(workload.flags()), window.outputs])


def test_a_busy_server_is_asked_again(
    served: Served, asked: Any, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_lm_eval import endpoint as module

    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.001)
    served.busy = 2
    own = {"tasks": ["own_generation"], "include_path": str(task_folder), "limit": 1}
    endpoint = {"url": served.url, "model": "tiny"}
    _, (window,) = asked(endpoint=endpoint, **own)
    assert ([row["status"] for row in window.rows], len(served.asked)) == (["ok"], 3)
    served.busy = 2
    _, (window,) = asked(endpoint={**endpoint, "retries": 1}, **own)
    assert [row["status"] for row in window.rows] == ["error"]


def test_answers_of_later_passes_may_come_from_a_cache_and_that_is_told(
    served: Served, asked: Any, task_folder: Path
) -> None:
    workload, (window,) = asked(
        tasks=["own_generation"],
        include_path=str(task_folder),
        endpoint={"url": served.url, "model": "tiny"},
        limit=2,
        iterations=3,
    )
    assert len(window.rows) == len(served.asked) == 4
    assert any("asked every document 2 times" in flag for flag in workload.flags())


def test_a_server_that_nobody_runs_ends_the_trial_before_a_window(asked: Any, task_folder: Path) -> None:
    endpoint = {"url": "http://127.0.0.1:9/v1", "model": "tiny"}
    with pytest.raises(MeasurementError, match="no answer from"):
        asked(tasks=["own_generation"], include_path=str(task_folder), endpoint=endpoint)


def test_log_likelihoods_of_a_group_need_a_tokenizer_too(served: Served, asked: Any, task_folder: Path) -> None:
    with pytest.raises(MeasurementError, match="tokenizer"):
        asked(tasks=["own_group"], include_path=str(task_folder), endpoint={"url": served.url, "model": "tiny"})


def scope(device: str = "") -> Scope:
    return Scope(device=device, method=Method.COUNTER)


READ = {
    ("cpu_time", "n0/process"): scope(),
    ("cpu_time", "n0/process:server"): scope(),
    ("rapl", "n0/cpu-package:0"): scope(),
    ("nvml", "n0/gpu:GPU-1"): scope("GPU-1"),
    ("nvml", "n0/gpu:GPU-2"): scope("GPU-2"),
    ("prometheus", "far/host"): scope(),
}


@pytest.mark.parametrize(
    ("server", "url", "expected"),
    [
        (
            {"pid": 1},
            "http://127.0.0.1/v1",
            {"n0/process:server", "n0/cpu-package:0", "n0/gpu:GPU-1", "n0/gpu:GPU-2", "far/host"},
        ),
        ({"meters": ["prometheus"]}, "http://far/v1", {"far/host"}),
        ({"gpus": {"GPU-2": "H100"}}, "http://far/v1", {"n0/gpu:GPU-2"}),
    ],
    ids=["process", "meters", "gpus"],
)
def test_the_servers_scopes_are_charged(server: dict[str, Any], url: str, expected: set[str]) -> None:
    options = EndpointOptions.model_validate({"url": url, "model": "m", "server": server})
    found = server_energy.charged(options, READ)
    assert not isinstance(found, Unavailable)
    assert set(found) == expected
    assert "n0/process" not in found


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ({}, "no meter reads the server: name it"),
        ({"meters": ["nothing"]}, "none of the server's meters"),
        ({"gpus": {"GPU-9": "H100"}}, "GPU-9"),
    ],
    ids=["not named", "meters", "gpus"],
)
def test_energy_of_a_server_that_no_meter_reads_is_unavailable(server: dict[str, Any], why: str) -> None:
    options = EndpointOptions.model_validate({"url": "http://far/v1", "model": "m", "server": server})
    found = server_energy.charged(options, READ)
    assert isinstance(found, Unavailable)
    assert why in found.reason
