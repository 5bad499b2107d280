"""Case C5: the engine on real transformers models, cached and not, alone and in a batch, against other samplers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global CacheKind, CausalModel, DynamicCacheModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
    global MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM, OPTConfig, OPTForCausalLM
    global PreTrainedModel, Request, Rule, Sampling, StaticCacheModel, Tensor, Trio, UncachedModel, cached_model
    global check_rollback, fits_static_cache, sample_ensemble, speculate, torch
    import torch
    from harness_speculative_decoding.methods.decoding import Request
    from harness_speculative_decoding.methods.ensemble import sample_ensemble
    from harness_speculative_decoding.methods.rule import Rule, Trio
    from harness_speculative_decoding.methods.sampling import Sampling
    from harness_speculative_decoding.methods.speculation import speculate
    from harness_speculative_decoding.networks.cache_choice import (
        CacheKind,
        cached_model,
        check_rollback,
        fits_static_cache,
    )
    from harness_speculative_decoding.networks.cached import (
        CausalModel,
        DynamicCacheModel,
        StaticCacheModel,
        UncachedModel,
    )
    from torch import Tensor
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        MambaConfig,
        MambaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        OPTConfig,
        OPTForCausalLM,
        PreTrainedModel,
    )


V = 6
PROMPT = [1, 4, 2]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def llama(layers: int, width: int, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).double()
    return model.eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def models() -> tuple[PreTrainedModel, PreTrainedModel, PreTrainedModel]:
    return llama(3, 32, 1), llama(1, 16, 2), llama(1, 16, 3)


def trio(models: Any, kind: CacheKind, *, sft: bool = True) -> Trio:
    target, aligned, reference = models
    return Trio(cached_model(target, kind), cached_model(aligned, kind), cached_model(reference, kind) if sft else None)


@pytest.mark.parametrize("k", [1, 2, 4, 7])
@pytest.mark.parametrize("sft", [True, False])
def test_c5_caches_do_not_change_a_token(models: Any, k: int, sft: bool) -> None:
    for seed in range(2):
        request = [Request(PROMPT[: 1 + 2 * seed], seed)]
        found = {
            kind: speculate(trio(models, kind, sft=sft), request, rule=Rule(draft_tokens=k), max_new_tokens=25)[0]
            for kind in ("none", "dynamic", "static")
        }
        assert found["none"].tokens == found["dynamic"].tokens == found["static"].tokens
        assert found["none"].logprob == pytest.approx(found["static"].logprob, abs=1e-9)
        assert found["none"].log_z == pytest.approx(found["dynamic"].log_z, abs=1e-9)


@pytest.mark.parametrize("sft", [True, False])
def test_ragged_batch_gives_each_request_its_own_tokens(models: Any, sft: bool) -> None:
    requests = [Request([token % V for token in range(1 + 3 * (seed % 4))], seed) for seed in range(9)]
    settings: dict[str, Any] = {"rule": Rule(draft_tokens=4, temperature=0.9), "max_new_tokens": 30, "eos": (5,)}
    together = speculate(trio(models, "static", sft=sft), requests, **settings)
    for request, result in zip(requests, together, strict=True):
        alone = speculate(trio(models, "dynamic", sft=sft), [request], **settings)[0]
        assert result.tokens == alone.tokens
        assert result.target_calls == alone.target_calls
        assert result.draft_calls == alone.draft_calls


def test_a_full_context_leaves_room_for_neighbours_drafts() -> None:
    """Rows near their end are filled up beyond the positions that a model with learned positions knows."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=V, n_positions=16, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3)
    model = GPT2LMHeadModel(config).double().eval()
    requests = [Request([1] * (4 + number), number) for number in range(5)]
    both = Trio(cached_model(model, "static"), cached_model(model, "static"))
    for result in speculate(both, requests, rule=Rule(draft_tokens=7), max_new_tokens=8):
        assert len(result.tokens) == 8


def joint_law(models: Any, temperature: float) -> Tensor:
    """Probabilities of the 216 three-token continuations of PROMPT under the product of the models."""
    rows = torch.tensor([PROMPT + list(tail) for tail in itertools.product(range(V), repeat=3)])
    with torch.inference_mode():
        target, aligned, sft = (model(input_ids=rows[:, :-1]).logits[:, 2:] for model in models)
    law = ((target + aligned - sft) / temperature).log_softmax(-1)
    return law.gather(-1, rows[:, 3:, None])[..., 0].sum(-1).exp()


def total_variation(results: list[Any], law: Tensor) -> float:
    codes = torch.tensor([(row.tokens[0] * V + row.tokens[1]) * V + row.tokens[2] for row in results])
    found = codes.bincount(minlength=V**3).double() / len(results)
    return float((found - law).abs().sum()) / 2


def perfect(law: Tensor, count: int) -> float:
    """Total variation that a perfect sampler shows; the mean of ten."""
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.multinomial(law, count, replacement=True, generator=generator) for _ in range(10))
    return sum(float((one.bincount(minlength=V**3) / count - law).abs().sum()) / 2 for one in drawn) / 10


@pytest.mark.parametrize("k", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(5, marks=pytest.mark.slow)])
def test_c5_joint_law_of_three_tokens(models: Any, k: int) -> None:
    requests = [Request(PROMPT, seed) for seed in range(6000)]
    rule = Rule(draft_tokens=k, temperature=0.8)
    results = speculate(trio(models, "static"), requests, rule=rule, max_new_tokens=3)
    law = joint_law(models, 0.8)
    assert float(law.sum()) == pytest.approx(1)
    assert total_variation(results, law) < 1.35 * perfect(law, 6000)


def test_c5_ancestral_sampling_of_the_summed_logits_has_the_same_law(models: Any) -> None:
    requests = [Request(PROMPT, seed) for seed in range(6000)]
    results = sample_ensemble(trio(models, "static"), requests, sampling=Sampling(0.8), max_new_tokens=3)
    law = joint_law(models, 0.8)
    assert total_variation(results, law) < 1.35 * perfect(law, 6000)
    assert {result.target_calls for result in results} == {3}


def test_c5_transformers_own_sampler_is_a_second_oracle(models: Any) -> None:
    from transformers.generation import utils

    sampler = getattr(utils, "_speculative_sampling", None)
    if sampler is None:
        pytest.skip("transformers has no _speculative_sampling any more")
    torch.manual_seed(5)
    with torch.inference_mode():
        target, aligned, sft = (model(input_ids=torch.tensor([PROMPT])).logits[:, -1:] for model in models)
    shifted = target + aligned - sft
    counts = torch.zeros(V)
    for _ in range(4000):
        drafted = torch.multinomial(aligned[0].softmax(-1), 1)
        tokens, _ = sampler(drafted, aligned, 1, torch.cat([shifted, shifted], 1))
        counts[tokens[0, 0]] += 1
    ours = speculate(trio(models, "static"), [Request(PROMPT, s) for s in range(4000)], rule=Rule(), max_new_tokens=1)
    own = torch.tensor([result.tokens[0] for result in ours]).bincount(minlength=V)
    law = shifted[0, 0].softmax(-1)
    for found in (counts, own):
        assert float((found / 4000 - law).abs().sum()) / 2 < 0.03


def test_ensemble_batch_and_ends(models: Any) -> None:
    requests = [Request(PROMPT[: 1 + seed % 3], seed) for seed in range(6)]
    settings: dict[str, Any] = {"sampling": Sampling(1.0, top_k=4), "max_new_tokens": 20, "eos": (0,)}
    together = sample_ensemble(trio(models, "static"), requests, **settings)
    for request, result in zip(requests, together, strict=True):
        assert result.tokens == sample_ensemble(trio(models, "none"), [request], **settings)[0].tokens
        assert (result.stopped == "eos") == (result.tokens[-1] == 0)
        assert 0 not in result.tokens[:-1]


def others() -> dict[str, PreTrainedModel]:
    torch.manual_seed(3)
    mistral = MistralConfig(
        vocab_size=V,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
        initializer_range=0.3,
    )
    opt = OPTConfig(
        vocab_size=V, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=64, init_std=0.3, dropout=0.0,
    )  # fmt: skip
    gpt2 = GPT2Config(vocab_size=V, n_positions=64, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3)
    return {
        "mistral": MistralForCausalLM(mistral).double().eval(),
        "opt": OPTForCausalLM(opt).double().eval(),
        "gpt2": GPT2LMHeadModel(gpt2).double().eval(),
    }


@pytest.mark.parametrize("name", ["mistral", "opt", "gpt2"])
def test_other_architectures_roll_back(models: Any, name: str) -> None:
    target = others()[name]
    wrapped = cached_model(target)
    assert isinstance(wrapped, DynamicCacheModel if name == "mistral" else StaticCacheModel)

    def decode(model: CausalModel) -> list[int]:
        trio = Trio(model, cached_model(models[1]), cached_model(models[2]))
        return speculate(trio, [Request(PROMPT, 1)], rule=Rule(draft_tokens=3), max_new_tokens=30)[0].tokens

    reference = decode(UncachedModel(target))
    assert decode(wrapped) == reference
    assert decode(DynamicCacheModel(target)) == reference


def test_sliding_windows_do_not_fit_the_static_cache() -> None:
    mistral = others()["mistral"]
    assert not fits_static_cache(mistral)
    with pytest.raises(ValueError, match="static cache"):
        cached_model(mistral, "static")
    with pytest.raises(ValueError, match="one request at a time"):
        cached_model(mistral, "dynamic").prefill([[1], [2]], 9)


def test_recurrent_state_is_refused() -> None:
    config = MambaConfig(vocab_size=V, hidden_size=16, state_size=4, num_hidden_layers=1)
    with pytest.raises(ValueError, match="recurrent state"):
        check_rollback(MambaForCausalLM(config).eval())


def test_padding_of_the_vocabulary_never_comes(models: Any) -> None:
    model = cached_model(models[0], "static", vocabulary=4)
    model.prefill([[1]], 8)
    assert model.extend(torch.tensor([[2, 3]]), 2).shape == (1, 2, 4)
