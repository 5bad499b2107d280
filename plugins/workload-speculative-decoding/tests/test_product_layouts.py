"""Layouts of weights: the same products and tokens in each, chosen once for a machine and kept for all who ask."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global LAYOUTS, Layouts, LlamaConfig, LlamaForCausalLM, Product, Request, Rule, Shape, Trio, cached_model
    global kept_choice, layouts_for, pass_facts, shapes_of, speculate, this_machine, time_layouts, torch
    import torch
    from harness_speculative_decoding.methods.decoding import Request
    from harness_speculative_decoding.methods.rule import Rule, Trio
    from harness_speculative_decoding.methods.speculation import speculate
    from harness_speculative_decoding.networks.cache_choice import cached_model
    from harness_speculative_decoding.networks.layouts import (
        Layouts,
        Shape,
        kept_choice,
        layouts_for,
        shapes_of,
        this_machine,
        time_layouts,
    )
    from harness_speculative_decoding.networks.products import LAYOUTS, Product
    from harness_speculative_decoding.together import pass_facts
    from transformers import LlamaConfig, LlamaForCausalLM


V = 40
NAMES = ("input", "output", "linear", "packed")


def llama(seed: int, **more: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        **more,
    )
    return LlamaForCausalLM(config).eval()  # type: ignore[no-any-return]


def everywhere(model: LlamaForCausalLM, layout: Any, rows: int) -> Layouts:
    chosen = {str(shape): layout for shape in shapes_of(model) if not (shape.head and layout == "input")}
    return Layouts(rows, chosen)


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [1, 5, 70])
def test_products_are_those_of_the_linear_layers(layout: Any, bias: bool, count: int) -> None:
    assert tuple(LAYOUTS) == NAMES
    torch.manual_seed(1)
    linears = [torch.nn.Linear(12, width, bias=bias) for width in (8, 4, 4)]
    before = copy.deepcopy(linears)
    product = Product(linears, layout, 5)
    rows, onto = torch.randn(count, 12), torch.randn(count, 16)
    with torch.inference_mode():
        right = torch.cat([linear(rows) for linear in before], 1)
        found = product.multiply(rows)
        assert found.is_contiguous()
        assert torch.allclose(found, right, atol=1e-5)
        assert torch.allclose(product.multiply(rows, onto), right + onto, atol=1e-5)
    assert product.holds(linears[0].weight)
    assert all(torch.equal(own.weight, other.weight) for own, other in zip(linears, before, strict=True))


@pytest.mark.parametrize("layout", ["input", "output", "linear"])
@pytest.mark.parametrize("more", [{}, {"tie_word_embeddings": True, "attention_bias": True}])
def test_tokens_are_the_same_in_every_layout(layout: Any, more: dict[str, Any]) -> None:
    models = [llama(seed, **more).double() for seed in (1, 2, 3)]
    requests = [Request([token % V for token in range(1 + 3 * seed)], seed) for seed in range(3)]
    settings: dict[str, Any] = {"rule": Rule(draft_tokens=3), "max_new_tokens": 14, "eos": (5,)}
    plain = Trio(*(cached_model(copy.deepcopy(model), "none") for model in models))
    moved = Trio(
        *(
            cached_model(copy.deepcopy(model), "static", layouts=everywhere(model, layout, rows))
            for model, rows in zip(models, (12, 3, 12), strict=True)
        )
    )
    assert all(model.is_fused for model in moved.all)  # type: ignore[attr-defined]
    found, expected = (speculate(trio, requests, **settings) for trio in (moved, plain))
    assert [one.tokens for one in found] == [one.tokens for one in expected]


def test_packed_weights_give_the_logits_of_float32() -> None:
    model = llama(1)
    reference = copy.deepcopy(model)
    wrapped = cached_model(model, "static", layouts=everywhere(model, "packed", 5))
    facts = pass_facts(wrapped)
    assert facts["fused"] is True
    assert set(facts["layouts"].values()) == {5, "packed"}  # type: ignore[attr-defined]
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.inference_mode():
        wrapped.prefill([[]], 8)
        assert torch.allclose(wrapped.extend(ids, 5), reference(ids).logits, atol=1e-4)


def test_another_layout_lays_the_same_model_out_anew() -> None:
    model = llama(1)
    first = cached_model(model, "static")
    second = cached_model(model, "static", layouts=everywhere(model, "output", 1))
    assert first.layouts.chosen == {}  # type: ignore[attr-defined]
    assert second.layouts.rows == 1  # type: ignore[attr-defined]
    assert cached_model(model, "static").layouts == second.layouts  # type: ignore[attr-defined]
    weight = model.model.layers[0].self_attn.q_proj.weight
    assert weight.is_contiguous()
    with torch.inference_mode():
        for wrapped in (first, second):
            wrapped.prefill([[]], 4)
        found = [wrapped.extend(torch.tensor([[3, 1]]), 2) for wrapped in (first, second)]
    assert torch.allclose(*found, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_products_in_8_bits_are_those_of_the_rounded_weights(bias: bool) -> None:
    from harness_speculative_decoding.networks.products import rounded

    torch.manual_seed(1)
    linears = [torch.nn.Linear(64, width, bias=bias) for width in (16, 48)]
    with torch.no_grad():
        linears[0].weight[3] = 0
    before = [linear.weight.detach().clone() for linear in linears]
    for weight in before:
        integers, scales = rounded(weight)
        assert float((integers * scales - weight).abs().max()) <= float(scales.max()) / 2 * 1.001
        assert torch.equal(rounded(integers * scales)[0], integers)  # rounding twice is rounding once
    product = Product(linears, "int8", 5)
    rows, onto = torch.randn(5, 64), torch.randn(5, 64)
    with torch.inference_mode():
        exact = torch.cat([linear(rows) for linear in linears], 1)
        found = product.multiply(rows)
        assert 0 < float((found - exact).norm() / exact.norm()) < 0.02
        assert torch.equal(product.multiply(rows, onto), found + onto)


class Clock:
    """Stands for the timing and counts how often it was asked."""

    def __init__(self, **seconds: float) -> None:
        self.seconds, self.asked = seconds, 0

    def __call__(self, *_: object, **__: object) -> Any:
        self.asked += 1
        return self.seconds


def choose(cache: Path, clock: Clock, rows: int = 5, shapes: list[Any] | None = None) -> Layouts:
    return kept_choice(shapes or [Shape(8, 4), Shape(8, 40, head=True)], rows, torch.float32, 2**20, cache, clock)


def test_a_choice_is_timed_once_and_kept(tmp_path: Path) -> None:
    clock = Clock(input=3.0, output=2.0, linear=2.5)
    first = choose(tmp_path, clock)
    assert clock.asked == 2
    assert dict(first.chosen) == {"8x4": "output", "8x40 head": "output"}
    # Another trial, for which the timing would have come out otherwise, gets the same.
    other = Clock(input=1.0, output=2.0, linear=3.0)
    assert choose(tmp_path, other) == first
    assert other.asked == 0
    assert dict(choose(tmp_path, other, rows=1).chosen)["8x4"] == "input"
    assert choose(tmp_path, other, shapes=[Shape(8, 4), Shape(4, 8)]).of(Shape(4, 8)) == "input"
    assert other.asked == 3
    (file,) = tmp_path.glob("product-layouts/*.json")
    kept = json.loads(file.read_text())
    assert kept["machine"] == this_machine(torch.float32)
    assert kept["products"]["8x4, 5 rows, 1 MiB"]["seconds"] == clock.seconds


def test_what_is_hardly_faster_changes_nothing(tmp_path: Path) -> None:
    assert choose(tmp_path, Clock(input=1.0, output=0.97, linear=1.0)).of(Shape(8, 4)) == "input"


def test_a_broken_file_is_timed_anew(tmp_path: Path) -> None:
    choose(tmp_path, Clock(input=1.0, output=2.0, linear=2.0))
    (file,) = tmp_path.glob("product-layouts/*.json")
    for text in ("", "{", "[]", '{"products": {"8x4, 5 rows, 1 MiB": {"layout": "sideways"}}}', '{"products": [1]}'):
        file.write_text(text)
        assert choose(tmp_path, Clock(input=2.0, output=1.0, linear=2.0)).of(Shape(8, 4)) == "output"


@pytest.mark.parametrize("odd", [1, None, {"layout": "sideways"}, {"seconds": {}}])
def test_an_odd_entry_costs_no_other(tmp_path: Path, odd: Any) -> None:
    choose(tmp_path, Clock(input=3.0, output=2.0, linear=2.5))
    (file,) = tmp_path.glob("product-layouts/*.json")
    kept = json.loads(file.read_text())
    kept["products"]["8x4, 5 rows, 1 MiB"] = odd
    file.write_text(json.dumps(kept))
    again = Clock(input=1.0, output=2.0, linear=3.0)
    assert dict(choose(tmp_path, again).chosen) == {"8x4": "input", "8x40 head": "output"}
    assert again.asked == 1


def test_threads_and_number_types_are_timed_apart(tmp_path: Path) -> None:
    choose(tmp_path, Clock(input=1.0, output=2.0, linear=2.0))
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        choose(tmp_path, Clock(input=1.0, output=2.0, linear=2.0))
    finally:
        torch.set_num_threads(before)
    assert len(list(tmp_path.glob("product-layouts/*.json"))) == 2


def test_a_cache_that_cannot_be_written_leaves_the_usual_layouts(tmp_path: Path) -> None:
    (tmp_path / "product-layouts").write_text("a file where a folder should be")
    found = layouts_for(llama(1), 5, tmp_path)
    assert dict(found.chosen) == {}
    assert "cannot be used" in found.facts()["usual_because"]  # type: ignore[operator]


def test_a_timing_leaves_out_what_this_machine_cannot_do(tmp_path: Path) -> None:
    exact = time_layouts(Shape(16, 8), 3, torch.float64, 2**14)
    assert {"input", "output", "linear"} <= exact.keys()
    assert "packed" not in exact  # oneDNN has no float64
    assert "packed" not in time_layouts(Shape(16, 8), 3, torch.float32, 2**14, packable=False)
    assert "input" not in time_layouts(Shape(16, 8, head=True), 3, torch.float32, 2**14)
    assert all(seconds > 0 for seconds in exact.values())
    model = llama(1).double()
    found = layouts_for(model, 4, tmp_path)
    assert set(found.chosen) == {str(shape) for shape in shapes_of(model)}
    assert cached_model(model, layouts=found).is_fused  # type: ignore[attr-defined]
