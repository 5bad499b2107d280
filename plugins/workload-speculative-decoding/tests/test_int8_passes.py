"""8-bit weights in fused passes: rounded weights, logits close to theirs, and a refusal where passes are not fused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from harness_speculative_decoding.options import AssistedOptions, VanillaOptions
from pydantic import ValidationError

from harness.errors import UsageError


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global LlamaConfig, LlamaForCausalLM, Loaded, Request, Sampling, generate, pass_facts, quantize, torch, wrap_alone
    import torch
    from harness_speculative_decoding.loading import Loaded
    from harness_speculative_decoding.methods.decoding import Request, generate
    from harness_speculative_decoding.methods.sampling import Sampling
    from harness_speculative_decoding.networks.quantization import quantize
    from harness_speculative_decoding.together import pass_facts, wrap_alone
    from transformers import LlamaConfig, LlamaForCausalLM


def quantized() -> tuple[Any, Loaded]:
    """A model as it was, and the same with rounded weights."""
    torch.manual_seed(3)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    before = LlamaForCausalLM(config).eval()
    model = copy.deepcopy(before)
    facts = quantize(model, "int8-fused")
    return before, Loaded(model, None, {"source": "a model", **facts})  # type: ignore[arg-type]


def test_weights_are_rounded_and_passes_are_close_to_them() -> None:
    before, loaded = quantized()
    assert loaded.facts["quantized_layers"] == 2 * 7
    own, rounded = (model.state_dict() for model in (before, loaded.model))
    for name, weight in rounded.items():
        steps = float((weight - own[name]).abs().max() / (own[name].abs().amax(-1).max() / 127))
        assert (0 < steps <= 0.501) if "proj" in name else steps == 0
    reference = copy.deepcopy(loaded.model)
    wrapped = wrap_alone(loaded)
    assert set(pass_facts(wrapped)["layouts"].values()) == {1, "int8"}  # type: ignore[attr-defined]
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.inference_mode():
        wrapped.prefill([[]], 8)  # type: ignore[operator]
        found, right = wrapped.extend(ids, 4), reference(ids).logits  # type: ignore[operator]
    assert 0 < float((found - right).norm() / right.norm()) < 0.02
    made = generate(wrapped, [Request([1, 2], 1)], sampling=Sampling(), max_new_tokens=8)
    assert len(made[0].tokens) == 8


def test_what_is_not_fused_is_refused() -> None:
    _, loaded = quantized()
    with pytest.raises(UsageError, match="the option fused says no"):
        wrap_alone(loaded, fused=False)


def test_a_pytorch_without_the_product_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, loaded = quantized()
    monkeypatch.delattr(torch, "_weight_int8pack_mm")
    with pytest.raises(UsageError, match="do not give its logits"):
        wrap_alone(loaded)


def test_passes_of_transformers_own_are_not_fused() -> None:
    with pytest.raises(ValidationError, match="int8-weight-only"):
        AssistedOptions.model_validate({"quantization": "int8-fused"})
    with pytest.raises(ValidationError, match="several devices"):
        VanillaOptions.model_validate({"quantization": "int8-fused", "device_map": "auto"})
    assert AssistedOptions().quantization == "none"
