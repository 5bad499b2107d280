"""`serve-endpoint` against a real `transformers serve` process on loopback, with a model and tokenizer built here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness_disaggregated_serving
import pytest
from harness_disaggregated_serving.load.prompts import load_tokenizer

from harness.builtin.host import BACKEND as HOST
from harness.quantity import Amount
from harness.records.files import records_of
from harness.testing import RecordingWindow, check_workload, trial_context

WINDOW_STRIDE = 7919
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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    build_model(folder)
    return folder


SPEC = next(each for each in harness_disaggregated_serving.harness_workloads() if each.name == "serve-endpoint")


def options(model: Path, **given: Any) -> dict[str, Any]:
    """A server of a tiny model that the harness starts itself, on a port that it finds."""
    words = [sys.executable, "-c", PROGRAM, "serve", str(model), "--device", "cpu"]
    command = [*words, "--host", "127.0.0.1", "--port", "{port}"]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(model.parent / "home"), "OMP_NUM_THREADS": "1"}
    return {
        "model": str(model), "requests": 4, "qps": 10, "length_scale": 0.05, "request_timeout": "60s",
        "server": {
            "command": command, "environment": environment, "start_timeout": START_S,
            "version": [sys.executable, "-c", "import transformers; print('transformers', transformers.__version__)"],
        }, **given,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_real_server_says_how_many_tokens_it_made(model: Path, api: str, tmp_path: Path) -> None:
    window = check_workload(SPEC, options(model, api=api), HOST.factory(HOST.options()), tmp_path)
    for row in window.rows:
        assert row["status"] == "ok", window.outputs[str(row["item_id"])]
        assert isinstance(row["output_tokens"], int)
        assert row["output_tokens"] >= 1
        assert row["prompt_tokens"] >= 1  # type: ignore[operator]
        assert 0 < row["ttft_sent_s"] <= row["ttft_s"] <= row["latency_s"]  # type: ignore[operator]


@pytest.mark.slow
def test_prompts_have_exactly_the_tokens_that_the_server_counts(model: Path, tmp_path: Path) -> None:
    from harness_disaggregated_serving.endpoint.planned import Load

    given = options(model, tokenizer=str(model), requests=6)
    parsed = SPEC.options.model_validate(given)
    workload = SPEC.factory(parsed)
    window = RecordingWindow(1)
    try:
        workload.prepare(trial_context(tmp_path, HOST.factory(HOST.options())))
        asked = [json.loads(each.body) for each in Load(parsed, workload._seed + WINDOW_STRIDE).planned()]
        workload.run(window)
        workload.after_window(window)
    finally:
        workload.close()
    tokenizer = load_tokenizer(str(model))
    counted = [row["prompt_tokens"] for row in sorted(window.rows, key=lambda row: str(row["item_id"]))]
    assert counted == [len(tokenizer.encode(body["prompt"])) for body in asked]


@pytest.mark.slow
def test_a_run_charges_a_real_server(model: Path, tmp_path: Path) -> None:
    """The whole command: a server is started for each trial, charged, and gone afterwards."""
    suite = {
        "suite": "served", "backend": "host", "meters": [{"cpu_time": {"watts_per_core": 10}}], "trials": 1,
        "windows": {"count": 1, "min_seconds": 0}, "warm_up": {"max_seconds": 1, "max_iterations": 1},
        "idle_seconds": 0,
        "cases": [{"workload": "serve-endpoint", "options": options(model)}],
    }  # fmt: skip
    (tmp_path / "suite.yaml").write_text(json.dumps(suite), encoding="utf-8")
    command = [sys.executable, "-m", "harness", "run", str(tmp_path / "suite.yaml"), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "store").glob("*-served-*")
    (record,) = records_of(run)
    energy = record.units["token"].costs["energy_j"]
    assert isinstance(energy, Amount)
    assert record.totals["energy_j"] == record.totals["energy_j:n0/process:server"]
    assert record.measurement.workload["server"]["version"].startswith("transformers 5.")
