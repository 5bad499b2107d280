"""Captured passes: on a CUDA device as graphs, elsewhere with graphs that record operations and repeat them."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global FixedShapeModel, Graph, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, Request, Rule, Sampling
    global Trio, cached_model, captured, generate, on_device, speculate, speculation, torch
    import torch
    from harness_speculative_decoding.methods import speculation
    from harness_speculative_decoding.methods.decoding import Request, generate
    from harness_speculative_decoding.methods.rule import Rule, Trio
    from harness_speculative_decoding.methods.sampling import Sampling
    from harness_speculative_decoding.methods.speculation import speculate
    from harness_speculative_decoding.networks import captured
    from harness_speculative_decoding.networks.cache_choice import cached_model
    from harness_speculative_decoding.networks.cached import on_device
    from harness_speculative_decoding.networks.captured import FixedShapeModel
    from torch.utils._python_dispatch import TorchDispatchMode
    from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

    torch.set_num_threads(1)

    class Graph(TorchDispatchMode):
        """Records operations and repeats them into the same memory: what a CUDA graph does, host values included."""

        def __init__(self) -> None:
            super().__init__()
            self.calls: list[tuple[Any, Any, Any, Any]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            result = func(*args, **(kwargs or {}))
            self.calls.append((func, args, kwargs or {}, result))
            return result

        def capture_begin(self) -> None:
            self.__enter__()

        def capture_end(self) -> None:
            self.__exit__(None, None, None)

        def replay(self) -> None:
            for func, args, kwargs, result in self.calls:
                again = func(*args, **kwargs)
                pairs = zip(result, again, strict=True) if isinstance(result, tuple) else [(result, again)]
                for old, new in pairs:
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Stream:
    """Stands for a CUDA stream."""

    def wait_stream(self, _: Stream) -> None:
        """There is nothing to wait for."""


class Cuda:
    """Stands for `torch.cuda` where there is no such device."""

    def __init__(self, graph: type[Any]) -> None:
        self.CUDAGraph, self.Stream = graph, Stream
        self.now = Stream()

    def current_stream(self) -> Stream:
        return self.now

    def synchronize(self) -> None:
        """Everything is done."""

    def stream(self, other: Stream) -> Any:
        outer = self

        class Entered:
            def __enter__(self) -> None:
                self.before, outer.now = outer.now, other

            def __exit__(self, *error: object) -> None:
                outer.now = self.before

        return Entered()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    found = Cuda(Graph)
    monkeypatch.setattr(captured, "cuda", found)
    return found


V = 11


def llama(seed: int = 1, **more: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": V,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
        "initializer_range": 0.3,
    }
    return LlamaForCausalLM(LlamaConfig(**{**shape, **more})).double().eval()  # type: ignore[no-any-return]


def grouped(seed: int = 1) -> LlamaForCausalLM:
    return llama(seed, num_key_value_heads=2)


def opt(seed: int = 1) -> OPTForCausalLM:
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=V, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=512, init_std=0.3, dropout=0.0,
    )  # fmt: skip
    return OPTForCausalLM(config).double().eval()  # type: ignore[no-any-return]


def graphed(model: Any, **how: Any) -> FixedShapeModel:
    """A wrapper that captures with the stand-in."""
    wrapped = cached_model(model, compiled="on", **how)
    assert isinstance(wrapped, FixedShapeModel)
    wrapped.eager_because = ""
    return wrapped


REQUESTS = [([1, 2, 3], 1), ([4], 2), ([5, 6], 3), ([7, 8, 9, 1], 4)]


@pytest.mark.parametrize("made", ["llama", "grouped"])
def test_repeated_operations_give_the_tokens_of_eager_passes(made: str, cuda: Cuda) -> None:
    model = {"llama": llama, "grouped": grouped}[made]
    requests = [Request(*given) for given in REQUESTS]
    settings: dict[str, Any] = {"rule": Rule(draft_tokens=3), "max_new_tokens": 18, "eos": (5,)}
    trio = Trio(*(graphed(model(seed)) for seed in (1, 2, 3)))
    plain = Trio(*(cached_model(model(seed), "none") for seed in (1, 2, 3)))
    expected = [one.tokens for one in speculate(plain, requests, **settings)]
    assert len({len(tokens) for tokens in expected}) > 1  # requests end at different times
    for _ in range(2):
        assert [one.tokens for one in speculate(trio, requests, **settings)] == expected
    for wrapped in trio.all:
        assert wrapped.eager_because == ""  # type: ignore[attr-defined]
        assert {shape[0] for shape in wrapped._graphs} == {4}  # type: ignore[attr-defined]  # never a smaller batch
    alone = [generate(graphed(model()), [Request(*given)], sampling=Sampling(), max_new_tokens=9) for given in REQUESTS]
    together = generate(graphed(model()), requests, sampling=Sampling(), max_new_tokens=9)
    assert [one.tokens for one in together] == [one.tokens for (one,) in alone]


def test_graphs_outlive_a_longer_table_of_angles(cuda: Cuda) -> None:
    model = llama()
    first, other = graphed(model), graphed(model)
    with torch.inference_mode():
        first.prefill([[1, 2]], 32)
        before = first.extend(torch.tensor([[3]]), 1)
        table = weakref.ref(first._angles[0])  # type: ignore[index]
        other.prefill([[1, 2]], 1024)  # needs more angles of the same weights
        other.extend(torch.tensor([[3]]), 1)
        first.prefill([[1, 2]], 32)
        assert first.graphs == 1
        assert table() is first._angles[0]  # type: ignore[index]
        assert torch.equal(first.extend(torch.tensor([[3]]), 1), before)


def test_a_capture_that_fails_says_why_and_leaves_the_stream(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    capturing = []

    class Spoilt(Graph):  # type: ignore[misc]
        def capture_begin(self) -> None:
            super().capture_begin()
            capturing.append(True)

        def capture_end(self) -> None:
            super().capture_end()
            capturing.pop()
            raise RuntimeError("operation failed due to a previous error during capture")

    cuda.CUDAGraph = Spoilt
    wrapped = graphed(llama())
    mask = wrapped._mask

    def asking(*given: Any) -> Any:
        if capturing:  # as an operation that looks at a number of the device
            raise RuntimeError("operation not permitted when stream is capturing")
        return mask(*given)

    monkeypatch.setattr(wrapped, "_mask", asking)
    own = cuda.now
    ids = torch.tensor([[3, 4]])
    with torch.inference_mode():
        wrapped.prefill([[1, 2]], 20)
        found = wrapped.extend(ids, 2)
        right = llama()(torch.tensor([[1, 2, 3, 4]])).logits[:, -2:]
    assert cuda.now is own
    assert wrapped.eager_because == "the pass cannot be captured: operation not permitted when stream is capturing"
    assert torch.allclose(found, right, atol=1e-12)


def test_every_pass_is_captured_ahead(cuda: Cuda) -> None:
    target, draft = graphed(llama(1)), graphed(llama(2))
    draft_tokens, new = 3, 400
    lengths = [len(prompt) for prompt, _ in REQUESTS]
    capacity = speculation.capacity_for(max(lengths), new, draft_tokens)
    with torch.inference_mode():
        target.warm_up(4, min(lengths) - 1, capacity, [(count, count) for count in range(2, draft_tokens + 2)])
        draft.warm_up(4, min(lengths) - 1, capacity, [(1, 1), (2, 1)])
    memory, shapes = target._static[0].keys, [set(model._graphs) for model in (target, draft)]
    assert {shape[-1] for shape in shapes[0]} == {256, target._layout.capacity}  # a long cache is not read at first
    settings: dict[str, Any] = {"rule": Rule(draft_tokens=draft_tokens), "max_new_tokens": new, "eos": (5,)}
    speculate(Trio(target, draft), [Request(*given) for given in REQUESTS], **settings)
    assert [set(model._graphs) for model in (target, draft)] == shapes
    assert target._static[0].keys is memory


@pytest.mark.parametrize("fused", [True, False])
def test_a_part_of_a_long_cache_is_as_good_as_all_of_it(fused: bool) -> None:
    wrapped = cached_model(llama(), compiled="on", fused=fused)
    ids = [number % V for number in range(600)]
    with torch.inference_mode():
        wrapped.prefill([ids[:250], ids[:90]], 700)
        found = [wrapped.extend(torch.tensor([[token], [token]]), 1)[0, 0] for token in ids[250:266]]
        wrapped.prefill([ids[:520]], 700)
        late = wrapped.extend(torch.tensor([ids[520:522]]), 2)
        right = llama()(torch.tensor([ids])).logits[0]
    assert torch.allclose(torch.stack(found), right[250:266], atol=1e-12)
    assert torch.allclose(late[0], right[520:522], atol=1e-12)


def test_nothing_is_copied_to_the_device_between_draft_and_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    models = Trio(*(cached_model(llama(seed), compiled="on") for seed in (1, 2, 3)))
    happened: list[str] = []

    def copying(*given: Any) -> Any:
        happened.append("copy")
        return on_device(*given)

    def noting(name: str, model: Any) -> None:
        extend = model.extend
        monkeypatch.setattr(model, "extend", lambda *given: (happened.append(name), extend(*given))[1])

    for module in (speculation, captured):
        monkeypatch.setattr(module, "on_device", copying)
    for name, model in zip(("target", "draft", "sft"), models.all, strict=True):
        noting(name, model)
    speculate(models, [Request([1, 2], 1)], rule=Rule(draft_tokens=3), max_new_tokens=20, ahead=True)
    text = " ".join(happened)
    assert "draft" in text
    assert "draft copy target" not in text
    assert "draft copy draft" not in text
    assert "target copy sft" not in text
    assert text.count("draft target sft") == happened.count("target")


GPU_MODELS = {"llama": llama, "grouped": grouped, "opt": opt}


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["llama", "grouped", "opt"])
@pytest.mark.parametrize("batch", [1, 4])
def test_graphs_give_the_tokens_of_eager_passes(name: str, fused: bool, batch: int) -> None:
    settings: dict[str, Any] = {"rule": Rule(draft_tokens=4), "max_new_tokens": 40, "eos": (5,)}
    found = {}
    for compiled in ("off", "on"):
        models = Trio(
            *(
                cached_model(copy.deepcopy(GPU_MODELS[name](seed)).to("cuda"), fused=fused, compiled=compiled)
                for seed in (1, 2, 3)
            )
        )
        requests = [Request(prompt, seed) for prompt, seed in REQUESTS]
        groups = [requests[first : first + batch] for first in range(0, len(requests), batch)]
        found[compiled] = [one.tokens for group in groups for one in speculate(models, group, **settings)]
        if compiled == "on" and fused and name != "opt":
            assert [model.eager_because for model in models.all] == ["", "", ""]  # type: ignore[attr-defined]
            assert all(model.graphs > 0 for model in models.all)  # type: ignore[attr-defined]
    assert found["on"] == found["off"]


@pytest.mark.gpu
def test_a_capture_that_fails_on_a_device_leaves_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = cached_model(llama().to("cuda"), compiled="on")  # type: ignore[arg-type]
    mask = wrapped._mask  # type: ignore[attr-defined]
    monkeypatch.setattr(wrapped, "_mask", lambda *given: (float(mask(*given).sum()), mask(*given))[1])
    own = torch.cuda.current_stream()
    with torch.inference_mode():
        wrapped.prefill([[1, 2]], 20)
        wrapped.extend(torch.tensor([[3]], device="cuda"), 1)
        torch.cuda.synchronize()
    assert torch.cuda.current_stream() == own
    assert "cannot be captured" in wrapped.eager_because  # type: ignore[attr-defined]
