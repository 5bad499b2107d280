"""`serve-endpoint` against a real `transformers serve` process on loopback, with a model and tokenizer built here."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness_disaggregated_serving
import httpx
import pytest

from harness.builtin.host import BACKEND as HOST
from harness.testing import check_workload, until

for _needed in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(_needed, reason="`transformers serve` needs the extra transformers[serving]")

START_S = 180.0
PROGRAM = """
import importlib.metadata, importlib.util
if importlib.util.find_spec("accelerate") is None:  # which spreads a model over devices: there is one here
    import transformers.modeling_utils
    transformers.modeling_utils.check_and_set_device_map = lambda device_map: None
importlib.metadata.entry_points(group="console_scripts")["transformers"].load()()
"""


def build_model(folder: Path) -> None:
    """A tiny Llama with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    raw.train_from_iterator(["time year people way day man thing life child world school state"] * 8, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, int]]:
    folder = tmp_path_factory.mktemp("served")
    model = folder / "model"
    build_model(model)
    port = free_port()
    command = [sys.executable, "-c", PROGRAM, "serve", str(model), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True)
    try:

        def said() -> str:
            return (folder / "log").read_text()[-2000:]

        def healthy() -> bool:
            assert process.poll() is None, f"the server ended: {said()}"
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
            return False

        until(healthy, limit_s=START_S, every_s=0.3, what=said)
        yield f"http://127.0.0.1:{port}/v1", str(model), process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_real_server_says_how_many_tokens_it_made(served: tuple[str, str, int], api: str, tmp_path: Path) -> None:
    url, model, pid = served
    spec = next(each for each in harness_disaggregated_serving.harness_workloads() if each.name == "serve-endpoint")
    options: dict[str, Any] = {
        "url": url, "model": model, "api": api, "requests": 4, "qps": 10, "length_scale": 0.05,
        "request_timeout": "60s", "server": {"pid": pid},
    }  # fmt: skip
    window = check_workload(spec, options, HOST.factory(HOST.options()), tmp_path)
    for row in window.rows:
        assert row["status"] == "ok", window.outputs[str(row["item_id"])]
        assert isinstance(row["output_tokens"], int)
        assert row["output_tokens"] >= 1
        assert row["prompt_tokens"] >= 1  # type: ignore[operator]
        assert 0 < row["ttft_s"] <= row["latency_s"]  # type: ignore[operator]
