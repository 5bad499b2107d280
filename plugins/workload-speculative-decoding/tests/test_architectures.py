"""What becomes of 24 architectures: which cache they get, and that no token differs from a model without a cache."""

from __future__ import annotations

from typing import Any

import pytest

V = 19
TINY: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 96,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
GPT: dict[str, Any] = {"vocab_size": V, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 96}
MOE: dict[str, Any] = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}

# Architecture -> (what it gets, its configuration beside TINY).
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("fused", {}),
    "Qwen2": ("fused", {}),
    "Qwen3": ("static", {}),
    "Qwen2Moe": ("static", {**MOE, "shared_expert_intermediate_size": 12}),
    "Mistral": ("dynamic", {"sliding_window": 4}),
    "Mixtral": ("static", {**MOE, "sliding_window": None}),
    "Gemma": ("static", {}),
    "Gemma2": ("dynamic", {"sliding_window": 4, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "Phi": ("static", {"num_key_value_heads": 2}),
    "Phi3": ("static", {"num_key_value_heads": 2, "sliding_window": None}),
    "GPT2": ("static", {**GPT, "initializer_range": 0.3}),
    "GPTNeo": ("dynamic", {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 4}),
    "GPTNeoX": ("static", {}),
    "GPTJ": ("static", {**GPT, "rotary_dim": 4, "initializer_range": 0.3}),
    "OPT": ("static", {"ffn_dim": 24, "word_embed_proj_dim": 16, "init_std": 0.3, "dropout": 0.0}),
    "Bloom": ("dynamic", {"n_layer": 2, "n_head": 2}),
    "Falcon": ("static", {"alibi": False, "new_decoder_architecture": False}),
    "StableLm": ("static", {"num_key_value_heads": 2}),
    "Olmo2": ("static", {}),
    "Cohere": ("static", {}),
    "Granite": ("static", {}),
    "Starcoder2": ("static", {"sliding_window": None}),
    "DeepseekV3": (
        "static",
        {
            "num_key_value_heads": 2,
            "head_dim": 4,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_nope_head_dim": 4,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "first_k_dense_replace": 2,
        },
    ),
    "Mamba": ("refused", {"state_size": 4}),
}


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global DynamicCacheModel, FixedShapeModel, Request, Rule, StaticCacheModel, Trio, UncachedModel, cached_model
    global probe_length, speculate, torch, transformers
    import torch
    import transformers
    from harness_speculative_decoding.methods.decoding import Request
    from harness_speculative_decoding.methods.rule import Rule, Trio
    from harness_speculative_decoding.methods.speculation import speculate
    from harness_speculative_decoding.networks.cache_choice import cached_model, probe_length
    from harness_speculative_decoding.networks.cached import DynamicCacheModel, StaticCacheModel, UncachedModel
    from harness_speculative_decoding.networks.captured import FixedShapeModel


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def made(name: str, **more: Any) -> Any:
    """A small random model in eval mode; in float64 where transformers has the kernels for it."""
    settings = {**TINY, **ARCHITECTURES[name][1], **more}
    if name == "Falcon":
        del settings["head_dim"]  # a property of its configuration
    torch.manual_seed(1)
    kind = getattr(transformers, f"{name}ForCausalLM", None) or getattr(transformers, f"{name}LMHeadModel")
    model = kind(getattr(transformers, f"{name}Config")(**settings)).eval()
    return model if name in {"Qwen2Moe", "Mixtral", "DeepseekV3"} else model.double()


def tokens(target: Any, batch: int) -> list[list[int]]:
    """What plain speculation decodes from prompts of different lengths, beyond the windows of TINY's models."""
    draft = UncachedModel(made("Llama"))
    requests = [Request([1 + row, 4, 2, 7][: 2 + row % 3], row) for row in range(batch)]
    rule = Rule(draft_tokens=3, temperature=0.8)
    return [result.tokens for result in speculate(Trio(target, draft), requests, rule=rule, max_new_tokens=16)]


QUICK = {"Llama", "GPTNeo", "Bloom", "Mamba"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES]
)
def test_no_architecture_gets_another_token_than_without_a_cache(name: str) -> None:
    expected, _ = ARCHITECTURES[name]
    if expected == "refused":
        with pytest.raises(ValueError, match="recurrent state"):
            cached_model(made(name))
        return
    reference = tokens(UncachedModel(made(name)), 3)
    eager, fixed = cached_model(made(name), compiled="off"), cached_model(made(name), compiled="on")
    assert isinstance(fixed, DynamicCacheModel if expected == "dynamic" else FixedShapeModel)
    for wrapped in (eager, fixed):
        assert tokens(wrapped, 1) == reference[:1]
        if expected == "dynamic":
            assert isinstance(wrapped, DynamicCacheModel)
        else:
            assert isinstance(wrapped, StaticCacheModel)
            assert wrapped.is_fused == (expected == "fused")
            assert tokens(wrapped, 3) == reference


def test_a_probe_goes_beyond_every_window_that_the_configuration_names() -> None:
    assert probe_length(made("Llama")) == 12
    assert probe_length(made("GPTNeo", window_size=40)) == 52
    assert probe_length(made("GPTNeo", window_size=256)) == 96, "no further than the model's context"
    assert probe_length(made("Qwen2", use_sliding_window=False, max_window_layers=70)) == 12


def test_a_window_too_long_to_try_gets_transformers_own_cache() -> None:
    long = made("GPTNeo", window_size=8192, max_position_embeddings=16384)
    assert isinstance(cached_model(long), DynamicCacheModel)


def test_the_readme_says_what_becomes_of_each() -> None:
    from pathlib import Path

    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for kind in ("fused", "static", "dynamic", "refused"):
        names = ", ".join(name for name, (gets, _) in ARCHITECTURES.items() if gets == kind)
        assert f"| {kind} | {names} |" in readme
