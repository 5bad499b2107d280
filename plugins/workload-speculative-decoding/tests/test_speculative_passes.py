"""Ways to make the same pass: transformers' modules, fused weights, fixed shapes, CUDA graphs. One token everywhere."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global FixedShapeModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM
    global PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, Request, Rule, Sampling, StaticCacheModel, Trio
    global cached_model, fits_static_cache, fused_pass, generate, pass_facts, speculate, torch, why_not
    import torch
    from harness_speculative_decoding.methods.decoding import Request, generate
    from harness_speculative_decoding.methods.rule import Rule, Trio
    from harness_speculative_decoding.methods.sampling import Sampling
    from harness_speculative_decoding.methods.speculation import speculate
    from harness_speculative_decoding.networks.cache_choice import cached_model, fits_static_cache
    from harness_speculative_decoding.networks.cached import StaticCacheModel
    from harness_speculative_decoding.networks.captured import FixedShapeModel
    from harness_speculative_decoding.networks.fused import fused_pass, why_not
    from harness_speculative_decoding.together import pass_facts
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        OPTConfig,
        OPTForCausalLM,
        PreTrainedModel,
        Qwen2Config,
        Qwen2ForCausalLM,
    )


V = 11
SHAPE: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def llama(seed: int = 1, **more: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, **more})).double().eval()  # type: ignore[no-any-return]


def qwen(seed: int = 1, **more: Any) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**{**SHAPE, "num_key_value_heads": 2, **more})).double().eval()
    with torch.no_grad():
        for layer in model.model.layers:  # transformers begins with biases of 0
            layer.self_attn.q_proj.bias.normal_()
            layer.self_attn.v_proj.bias.normal_()
    return model  # type: ignore[no-any-return]


def opt(seed: int = 1) -> OPTForCausalLM:
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=V, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=64, init_std=0.3, dropout=0.0,
    )  # fmt: skip
    return OPTForCausalLM(config).double().eval()  # type: ignore[no-any-return]


ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FUSABLE = {
    "llama": llama,
    "grouped": lambda: llama(num_key_value_heads=2),
    "one key head": lambda: llama(num_key_value_heads=1),
    "biases": lambda: llama(attention_bias=True, mlp_bias=True),
    "tied": lambda: llama(tie_word_embeddings=True),
    "head width": lambda: llama(head_dim=10),
    "llama3 angles": lambda: llama(rope_parameters={**ROPE, "original_max_position_embeddings": 16}),
    "qwen2": qwen,
}


@pytest.mark.parametrize("name", FUSABLE)
def test_fused_logits_are_transformers_own(name: str) -> None:
    model = FUSABLE[name]()
    reference = copy.deepcopy(model)
    wrapped = cached_model(model)
    assert isinstance(wrapped, StaticCacheModel)
    assert wrapped.is_fused
    rows = [[1, 2, 3, 4, 5, 6, 7, 8], [3, 4, 5]]
    with torch.inference_mode():
        wrapped.prefill([row[:-2] for row in rows], 12)
        found = wrapped.extend(torch.tensor([row[-2:] for row in rows]), 2)
        wrapped.drop([1, 0])
        again = wrapped.extend(torch.tensor([[9], [10]]), 1)
        for number, (row, after) in enumerate(zip(rows, ([*rows[0][:-1], 9], [*rows[1], 10]), strict=True)):
            assert torch.allclose(found[number], reference(torch.tensor([row])).logits[0, -2:], atol=1e-12)
            assert torch.allclose(again[number], reference(torch.tensor([after])).logits[0, -1:], atol=1e-12)


def test_fusing_leaves_the_model_as_it_was() -> None:
    model = llama()
    reference = copy.deepcopy(model)
    fused_pass(model)
    for name, weight in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    # Weights are shared, not copied: what training changes later, the fused pass sees.
    wrapped = cached_model(model)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(0.5)
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        wrapped.prefill([[]], 4)
        assert torch.allclose(wrapped.extend(ids, 3), model(ids).logits, atol=1e-12)
    model(ids, labels=ids).loss.backward()
    assert model.model.layers[0].self_attn.q_proj.weight.grad is not None


def test_a_moved_model_is_fused_anew_and_an_unmoved_one_is_not() -> None:
    model = llama()
    first = fused_pass(model)
    assert fused_pass(model) is first
    model.float()
    assert fused_pass(model) is not first
    assert fits_static_cache(model, fused=True)


def test_a_fused_model_is_saved_and_loaded_unchanged(tmp_path: Path) -> None:
    model = llama()
    before = copy.deepcopy(model.state_dict())
    fused_pass(model)
    model.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in before.items())


def test_what_is_left_to_transformers_says_why() -> None:
    assert "OPTForCausalLM is not among" in why_not(opt())
    assert "rotary" in why_not(llama(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}))
    sliding = qwen(use_sliding_window=True, sliding_window=4, max_window_layers=0)
    assert "attend" in why_not(sliding)
    mixed = llama()
    mixed.model.norm.float()
    assert "number types" in why_not(mixed)

    class Adapted(torch.nn.Linear):
        """A linear layer that does something else."""

    adapted = llama()
    adapted.model.layers[0].mlp.up_proj = torch.nn.Sequential(adapted.model.layers[0].mlp.up_proj)
    adapted.model.layers[1].mlp.up_proj = Adapted(24, 40).double()
    assert "plain matrices" in why_not(adapted)
    with pytest.raises(ValueError, match="not among"):
        fused_pass(opt())


TRIOS = {
    "opt": lambda: (opt(1), opt(2), opt(3)),
    "llama and qwen2": lambda: (llama(1, num_key_value_heads=2), qwen(2), qwen(3)),
}
"""The architectures of the published set-ups: OPT with OPT, Llama-3 with Qwama, which is a Qwen2."""


@pytest.mark.parametrize("name", TRIOS)
def test_every_way_gives_the_same_tokens(name: str) -> None:
    models = TRIOS[name]()
    requests = [Request([token % V for token in range(1 + 2 * (seed % 3))], seed) for seed in range(5)]
    settings: dict[str, Any] = {"rule": Rule(draft_tokens=3), "max_new_tokens": 14, "eos": (5,)}

    def trio(**how: Any) -> Trio:
        return Trio(*(cached_model(model, **how) for model in models))

    plain = [speculate(trio(kind="none"), [request], **settings)[0].tokens for request in requests]
    for how in ({"fused": False}, {"fused": True}, {"compiled": "on"}, {"compiled": "on", "fused": False}):
        together = trio(**how)
        for _ in range(2):  # the second time in memory that the first one has used
            assert [result.tokens for result in speculate(together, requests, **settings)] == plain


def test_fixed_shapes_keep_their_memory_and_say_why_there_is_no_graph() -> None:
    wrapped = cached_model(llama(), compiled="on")
    assert isinstance(wrapped, FixedShapeModel)
    wrapped.prefill([[1, 2], [3]], 9)
    first = wrapped._static[0].keys
    assert first is not None
    assert first.shape[2] == 16
    wrapped.select([1])
    assert wrapped._static[0].keys is first  # a row that has ended keeps its place
    wrapped.prefill([[4], [5]], 12)
    assert wrapped._static[0].keys is first
    wrapped.prefill([[4], [5]], 17)
    assert wrapped._static[0].keys is not first
    assert pass_facts(wrapped) == {
        "cache": "static, fixed shapes",
        "fused": True,
        "graphs": {"unavailable": "CUDA graphs run on no cpu device"},
    }


@pytest.mark.parametrize("compiled", ["off", "on"])
def test_vanilla_gives_the_same_tokens_on_its_own_cache_and_on_transformers(compiled: Any) -> None:
    model = llama()
    requests = [Request([1, 2, 3][: 1 + seed % 3], seed) for seed in range(5)]
    settings: dict[str, Any] = {"sampling": Sampling(0.9, top_k=7), "max_new_tokens": 12, "eos": (4,)}
    theirs = generate(copy.deepcopy(model), requests, **settings)
    ours = generate(cached_model(model, compiled=compiled), requests, **settings)
    assert [one.tokens for one in ours] == [one.tokens for one in theirs]
    assert [one.logprob for one in ours] == pytest.approx([one.logprob for one in theirs], abs=1e-9)
    with pytest.raises(ValueError, match="no token"):
        generate(cached_model(model), [Request([])], **settings)


def test_other_models_pass_through_transformers() -> None:
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=32, n_embd=16, n_layer=1, n_head=2)).double().eval()
    wrapped = cached_model(gpt2)
    assert isinstance(wrapped, StaticCacheModel)
    assert not wrapped.is_fused
    assert pass_facts(gpt2)["cache"] == "dynamic"


@pytest.mark.gpu
def test_bfloat16_on_the_device_stays_near_float64() -> None:
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
    exact = llama(**shape)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    rough = cached_model(copy.deepcopy(exact).to("cuda", torch.bfloat16), compiled="on")  # type: ignore[arg-type]
    with torch.inference_mode():
        rough.prefill([[]], 8)
        found = rough.extend(ids.to("cuda"), 5).double().cpu().log_softmax(-1)
        assert float((found - exact(ids).logits.log_softmax(-1)).abs().max()) < 0.3


@pytest.mark.parametrize("rule", [{}, {"mode": "paper", "bonus": True}, {"temperature": 0.0}, {"top_k": 3}])
def test_a_bonus_pass_made_ahead_changes_no_token(rule: dict[str, Any]) -> None:
    models = [llama(seed, hidden_size=16, intermediate_size=16) for seed in (1, 2, 3)]
    requests = [Request([1, 2, 3][: 1 + seed % 3], seed) for seed in range(6)]
    settings: dict[str, Any] = {"rule": Rule(draft_tokens=2, **rule), "max_new_tokens": 17, "eos": (5,)}
    found = {}
    for ahead in (True, False, None):
        found[ahead] = speculate(Trio(*map(cached_model, models)), requests, **settings, ahead=ahead)
    for early, late, by_habit in zip(found[True], found[False], found[None], strict=True):
        assert early.tokens == late.tokens == by_habit.tokens
        assert early.log_z == pytest.approx(late.log_z, abs=1e-12)
        assert early.law_logprob == pytest.approx(late.law_logprob, abs=1e-9)
        assert early.draft_calls >= by_habit.draft_calls >= late.draft_calls
        assert (early.rounds, early.accepted, early.target_calls) == (late.rounds, late.accepted, late.target_calls)


class _Largest:
    """The largest tensor that operations gave while it was active, in elements."""

    def __enter__(self) -> Self:
        from torch.utils._python_dispatch import TorchDispatchMode

        outer = self
        self.elements = 0

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                del types
                result = func(*args, **(kwargs or {}))
                if isinstance(result, torch.Tensor):
                    outer.elements = max(outer.elements, result.numel())
                return result

        self._mode = Mode()
        self._mode.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._mode.__exit__(*error)


@pytest.mark.parametrize("compiled", ["off", "on"])
def test_a_large_cache_takes_no_square_of_it(compiled: Any) -> None:
    capacity = 4000
    wrapped = cached_model(llama(max_position_embeddings=4096), compiled=compiled)
    with torch.inference_mode(), _Largest() as largest:
        wrapped.prefill([[1, 2, 3, 4]], capacity)
        wrapped.extend(torch.tensor([[1, 2, 3, 4, 5]]), 5)
        wrapped.prefill([[1 + number % 7 for number in range(2500)]], capacity)
    assert largest.elements < capacity**2 / 2


@pytest.mark.parametrize("compiled", ["off", "on"])
def test_memory_is_kept_between_requests_and_leaves_nothing_behind(compiled: Any) -> None:
    wrapped, draft = cached_model(llama(), compiled=compiled), cached_model(llama(2), compiled=compiled)
    fresh = copy.deepcopy(llama())

    def decode(seeds: list[int], length: int) -> list[list[int]]:
        requests = [Request([(seed + number) % V for number in range(3 + seed % 3)], seed) for seed in seeds]
        results = speculate(Trio(wrapped, draft), requests, rule=Rule(draft_tokens=3), max_new_tokens=length, eos=(5,))
        alone = [
            speculate(
                Trio(cached_model(fresh, "none"), cached_model(llama(2), "none")),
                [request],
                rule=Rule(draft_tokens=3),
                max_new_tokens=length,
                eos=(5,),
            )[0].tokens
            for request in requests
        ]
        assert [result.tokens for result in results] == alone
        return alone

    for seeds, length in (([1, 2, 3], 20), ([4, 5, 6], 12), ([7], 9), ([8], 20), ([9, 10, 11], 20)):
        decode(seeds, length)
    storages = []
    for _ in range(2):
        with torch.inference_mode():
            wrapped.prefill([[1, 2]], 20)
        storages.append(wrapped._static[0].keys.data_ptr())
    assert storages[0] == storages[1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_of_a_broken_model_are_no_answer(temperature: float) -> None:
    from harness_speculative_decoding.methods.sampling import SpeculationError

    model = llama()
    with torch.no_grad():
        model.lm_head.weight[3, 0] = float("nan")
    for one in (model, cached_model(model, "dynamic")):
        with pytest.raises(SpeculationError, match="not numbers"):
            generate(one, [Request([1, 2], 0)], sampling=Sampling(temperature), max_new_tokens=3)
