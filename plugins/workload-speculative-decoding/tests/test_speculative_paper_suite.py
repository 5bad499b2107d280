"""The published set-ups: their options hold, and models of the same architectures load and decode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness_speculative_decoding as plugin
import pytest
import yaml

from harness.backend import Backend, Device
from harness.testing import check_workload


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
    global Qwen2Config, Qwen2ForCausalLM, Tokenizer, models, pre_tokenizers, torch
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        OPTConfig,
        OPTForCausalLM,
        PreTrainedModel,
        PreTrainedTokenizerFast,
        Qwen2Config,
        Qwen2ForCausalLM,
    )


SUITE = Path(__file__).parents[3] / "suites" / "sss-paper.yaml"
SPECS = {spec.name: spec for spec in plugin.harness_workloads()}
WORDS = ["<pad>", "</s>", "the", "cat", "sat", "on", "a", "mat", "dog", "ran"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Cpu(Backend):
    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def open(self) -> Sequence[Device]:
        return [Device(kind="cpu", uuid="cpu", name="test")]


def opt(width: int, layers: int, projection: int) -> PreTrainedModel:
    """As OPT-125M and OPT-350M: the latter projects its embeddings and norms after the layers."""
    config = OPTConfig(
        vocab_size=16, hidden_size=width, ffn_dim=2 * width, num_hidden_layers=layers, num_attention_heads=2,
        word_embed_proj_dim=projection, do_layer_norm_before=projection == width, max_position_embeddings=64,
        init_std=0.3, bos_token_id=1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return OPTForCausalLM(config)


def llama_3() -> PreTrainedModel:
    angles = {"rope_type": "default", "rope_theta": 500000.0}
    config = LlamaConfig(
        vocab_size=10, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, rope_parameters=angles,
        bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def qwama() -> PreTrainedModel:
    """A Qwen2 whose vocabulary is Llama-3's, with embeddings that are also its output layer."""
    config = Qwen2Config(
        vocab_size=10, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.3, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


STAND_INS = {
    "opt-6.7b": (lambda: opt(32, 2, 32), lambda: opt(16, 1, 16)),
    "opt-13b": (lambda: opt(32, 2, 32), lambda: opt(16, 1, 8)),
    "llama-3-8b": (llama_3, qwama),
}


def saved(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="the"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>").save_pretrained(folder)
    return str(folder)


def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(SUITE.read_text(encoding="utf-8"))["cases"]
    return found


@pytest.mark.parametrize("name", STAND_INS)
def test_the_architectures_load_and_decode_with_the_suites_settings(name: str, tmp_path: Path) -> None:
    (case,) = (case for case in cases() if case["name"] == f"sss-{name}")
    large, small = STAND_INS[name]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "the cat sat on"}\n{"prompt": "a dog"}\n')
    options = dict(case["options"])
    for number, (role, make) in enumerate((("target", large), ("draft_sft", small), ("draft_aligned", small))):
        torch.manual_seed(number)
        options[role] = saved(make(), tmp_path / role)
    options |= {"prompts": str(prompts), "max_new_tokens": 12, "dtype": "float32"}
    for mode in case["matrix"]["mode"]:
        window = check_workload(SPECS["sss"], {**options, "mode": mode}, Cpu(), tmp_path / mode, iterations=2)
        for row in window.rows:
            assert row["target_calls"] == row["rounds"] <= row["output_tokens"]  # type: ignore[operator]
            assert row["reward_calls"] == 0


def test_every_case_needs_a_gpu_and_has_options_that_hold() -> None:
    for case in cases():
        assert case["requires"]["gpu"] == 1
        options = case["options"]
        assert (options["temperature"], options["max_new_tokens"]) == (0.8, 128)
        assert options["prompts"] == "${env:HH_RLHF_PROMPTS}"
        SPECS[case["workload"]].options.model_validate(options)
        for mode in case.get("matrix", {}).get("mode", ()):
            SPECS["sss"].options.model_validate({**options, "mode": mode})
