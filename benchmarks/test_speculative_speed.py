"""Decoding speed: ours beside transformers' own, same models, same law, interleaved.

Goals on one thread: `speculative` (K = 4) at least 1.6 times the tokens/s of `generate(assistant_model=...)` on the
larger pair and 3 times on the smaller one; `vanilla` at least 1.5 times those of `generate`; `sss` at most 1.2 times
the time of plain speculative sampling at equal acceptance; target calls per token within 2 % of the formula. On two:
`sss` with batch 8 at least 3 times the tokens/s of batch 1. Weights lie in the layouts that a timing finds, as in the
workloads.

On a CUDA device also: the share of the memory bandwidth that a round reaches, where the limit is what a copy on the
same device moves. The same computation runs here on the CPU, so that it is tested.

Models are random Llamas of 12 layers x 384 and 2 layers x 128, and of the built-in sizes, 4 x 128 and 2 x 48. Their
laws are nearly flat, hence the high acceptance, which is printed. Transformers works on copies, as our wrappers lay a
model's weights out anew. One thread's times are processor times, which other programs on the machine disturb least.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from harness_speculative_decoding.methods.decoding import Request, generate
from harness_speculative_decoding.methods.laws import tokens_per_round
from harness_speculative_decoding.methods.rule import Rule, Speculated, Trio
from harness_speculative_decoding.methods.sampling import Sampling
from harness_speculative_decoding.methods.speculation import speculate
from harness_speculative_decoding.networks.cache_choice import cached_model
from harness_speculative_decoding.networks.cached import CausalModel
from harness_speculative_decoding.networks.layouts import int8_layouts, layouts_for
from harness_speculative_decoding.networks.quantization import quantize
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

K, NEW, ROUNDS, VOCABULARY = 4, 128, 3, 1024
PAIRS = {"12x384": ((12, 384), (2, 128)), "4x128": ((4, 128), (2, 48))}
PROMPT = list(range(7, 39))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def llama(layers: int, width: int, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(2, width // 64),
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, PreTrainedModel]:
    target, draft = PAIRS[request.param]
    return llama(*target, 1), llama(*draft, 2)


@pytest.fixture
def target(pair: tuple[PreTrainedModel, PreTrainedModel]) -> PreTrainedModel:
    return pair[0]


@pytest.fixture
def draft(pair: tuple[PreTrainedModel, PreTrainedModel]) -> PreTrainedModel:
    return pair[1]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def wrapped(model: PreTrainedModel, rows: int, cache: Path) -> CausalModel:
    """A copy of the model, with the weights as passes over so many rows want them."""
    return cached_model(copy.deepcopy(model), layouts=layouts_for(model, rows, cache))


def seconds(
    candidates: Mapping[str, Callable[[int], object]],
    clock: Callable[[], float] = time.process_time,
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """Median seconds of each candidate, interleaved; the first round only warms up."""
    spent: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            began = clock()
            run(number)
            spent[name].append(clock() - began)
    return {name: statistics.median(values[1:]) for name, values in spent.items()}


def tell(benchmark: Any, **numbers: float) -> None:
    rounded = {name: round(value, 3) for name, value in numbers.items()}
    benchmark.extra_info.update(rounded)
    print("\n", rounded)


def test_speculative_against_assisted_generation(
    benchmark: Any, target: PreTrainedModel, draft: PreTrainedModel, cache: Path
) -> None:
    ours = Trio(wrapped(target, K + 1, cache), wrapped(draft, 1, cache))
    made: list[Speculated] = []
    settings = draft.generation_config
    settings.num_assistant_tokens = K
    settings.num_assistant_tokens_schedule = "constant"
    settings.assistant_confidence_threshold = 0.0
    prompt = torch.tensor([PROMPT])

    def speculative(number: int) -> None:
        made.extend(speculate(ours, [Request(PROMPT, number)], rule=Rule(draft_tokens=K), max_new_tokens=NEW))

    def assisted(number: int) -> None:
        torch.manual_seed(number)
        target.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            assistant_model=draft,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
        )

    found = seconds({"speculative": speculative, "assisted": assisted})
    share = sum(one.accepted for one in made) / sum(one.judged for one in made)
    tell(
        benchmark,
        assisted_over_speculative=found["assisted"] / found["speculative"],
        speculative_tokens_per_s=NEW / found["speculative"],
        acceptance=share,
    )
    benchmark.pedantic(speculative, args=(0,), rounds=1)


def test_vanilla_against_generate(benchmark: Any, target: PreTrainedModel, cache: Path) -> None:
    prompt = torch.tensor([PROMPT])
    ours = wrapped(target, 1, cache)

    def vanilla(number: int) -> None:
        generate(ours, [Request(PROMPT, number)], sampling=Sampling(), max_new_tokens=NEW)

    def theirs(number: int) -> None:
        torch.manual_seed(number)
        target.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
        )

    found = seconds({"vanilla": vanilla, "generate": theirs})
    tell(
        benchmark,
        generate_over_vanilla=found["generate"] / found["vanilla"],
        vanilla_tokens_per_s=NEW / found["vanilla"],
    )
    benchmark.pedantic(vanilla, args=(0,), rounds=1)


def test_8_bit_weights_against_those_of_32(benchmark: Any, target: PreTrainedModel, cache: Path) -> None:
    """Passes over one token, as `vanilla` makes them, and over K + 1."""
    small = copy.deepcopy(target)
    quantize(small, "int8-fused")
    ids = torch.tensor([[number + 1 for number in range(K + 1)]])

    def passes(model: CausalModel, count: int) -> Callable[[int], None]:
        def run(number: int) -> None:
            with torch.inference_mode():
                model.prefill([PROMPT], len(PROMPT) + NEW)
                for _ in range(32):
                    model.extend(ids[:, :count], count)
                    model.drop([count])

        return run

    for count in (1, K + 1):
        models = {
            "float32": wrapped(target, count, cache),
            "int8": cached_model(copy.deepcopy(small), layouts=int8_layouts(small, count)),
        }
        found = seconds({name: passes(model, count) for name, model in models.items()})
        tell(benchmark, tokens=count, float32_over_int8=found["float32"] / found["int8"])
    benchmark.pedantic(passes(models["int8"], K + 1), args=(0,), rounds=1)


def test_sss_against_plain_speculation(
    benchmark: Any, target: PreTrainedModel, draft: PreTrainedModel, cache: Path
) -> None:
    plain, shifted = (
        Trio(wrapped(target, K + 1, cache), wrapped(draft, 1, cache)),
        Trio(wrapped(target, K + 1, cache), wrapped(draft, 1, cache), wrapped(draft, K + 1, cache)),
    )
    made: dict[str, list[Speculated]] = {"speculative": [], "sss": []}

    def run(name: str, models: Trio) -> Callable[[int], None]:
        def decode(number: int) -> None:
            made[name] += speculate(models, [Request(PROMPT, number)], rule=Rule(draft_tokens=K), max_new_tokens=NEW)

        return decode

    candidates = {"speculative": run("speculative", plain), "sss": run("sss", shifted)}
    found = seconds(candidates)
    assert [one.tokens for one in made["sss"]] == [one.tokens for one in made["speculative"]]  # Z = 1: the same law
    tell(benchmark, sss_over_speculative=found["sss"] / found["speculative"])
    benchmark.pedantic(candidates["sss"], args=(0,), rounds=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_batch_8_against_batch_1(benchmark: Any, target: PreTrainedModel, draft: PreTrainedModel, threads: int) -> None:
    torch.set_num_threads(threads)
    models = Trio(*(cached_model(copy.deepcopy(model)) for model in (target, draft, draft)))

    def decode(batch: int) -> Callable[[int], object]:
        def run(number: int) -> object:
            requests = [Request(PROMPT, 100 * number + row) for row in range(batch)]
            return speculate(models, requests, rule=Rule(draft_tokens=K), max_new_tokens=NEW)

        return run

    # Of two threads the processor time is taken, too: what they wait for each other counts twice, with both batches.
    clock = time.process_time
    found = seconds({"one": decode(1), "eight": decode(8)}, clock)
    tell(benchmark, batch_8_over_1_tokens_per_s=8 * found["one"] / found["eight"])
    benchmark.pedantic(decode(8), args=(0,), rounds=1)


@pytest.mark.parametrize("bonus", [True, False])
def test_target_calls_follow_the_formula(benchmark: Any, bonus: bool) -> None:
    """7,680 tokens of 16 requests: rounds that the end cuts off are few among those."""
    models = Trio(cached_model(llama(*PAIRS["4x128"][0], 1)), cached_model(llama(*PAIRS["4x128"][1], 2)))
    requests = [Request(PROMPT[:16], seed) for seed in range(16)]
    rule = Rule(draft_tokens=K, bonus=bonus)
    made = benchmark.pedantic(
        speculate, args=(models, requests), kwargs={"rule": rule, "max_new_tokens": 480}, rounds=1
    )
    share = sum(one.accepted for one in made) / sum(one.judged for one in made)
    calls = sum(one.target_calls for one in made) / sum(len(one.tokens) for one in made)
    over = calls * tokens_per_round(share, K, bonus=bonus)
    tell(benchmark, acceptance=share, calls_per_token=calls, calls_over_formula=over)
    assert abs(over - 1) < 0.02


def bytes_read(model: PreTrainedModel, passes: float, context: int) -> float:
    """What passes over one row must read from memory: all weights but unused embeddings, and keys and values."""
    config = model.config
    item = next(model.parameters()).element_size()
    weights = sum(parameter.numel() for parameter in model.parameters())
    keys = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * context
    return passes * item * (weights + keys)


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes per second, read and written, of a copy in the device's memory: the best of ten."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(10):
        began = synchronized(device)
        target.copy_(source)
        best = max(best, 2 * size / (synchronized(device) - began))
    return best


def synchronized(device: torch.device) -> float:
    """Seconds on the clock once the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def share_of_bandwidth(
    device: torch.device, target_shape: tuple[int, int], draft_shape: tuple[int, int], size: int
) -> dict[str, float]:
    """How near a round of `sss`, and a token of `vanilla`, come to the time that reading weights and cache takes."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    shapes = (target_shape, draft_shape, draft_shape)
    target, draft, sft = (llama(*shape, seed).to(device, dtype) for seed, shape in enumerate(shapes))
    models: tuple[CausalModel, ...] = tuple(cached_model(model) for model in (target, draft, sft))
    limit = copy_bandwidth(device, size)
    context = len(PROMPT) + NEW // 2
    found = {"copy_gb_per_s": limit / 1e9}
    for number in range(3):  # the first two warm up and capture
        began = synchronized(device)
        (made,) = speculate(Trio(*models), [Request(PROMPT, number)], rule=Rule(draft_tokens=K), max_new_tokens=NEW)
        took = synchronized(device) - began
    read = (
        bytes_read(target, made.target_calls, context)
        + bytes_read(draft, made.draft_calls, context)
        + bytes_read(sft, made.sft_calls, context)
    )
    found |= {"sss_ms_per_round": 1e3 * took / made.rounds, "sss_share_of_bandwidth": read / took / limit}
    for number in range(3):
        began = synchronized(device)
        generate(models[0], [Request(PROMPT, number)], sampling=Sampling(), max_new_tokens=NEW)
        took = synchronized(device) - began
    found |= {"vanilla_share_of_bandwidth": bytes_read(target, NEW, context) / took / limit}
    return found


def test_share_of_the_memory_bandwidth(benchmark: Any) -> None:
    found = share_of_bandwidth(torch.device("cpu"), *PAIRS["12x384"], 2**28)
    tell(benchmark, **found)
    assert 0 < found["sss_share_of_bandwidth"] < 10  # weights that stay in the processor's cache are read faster
    benchmark.pedantic(lambda: None, rounds=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_share_of_the_memory_bandwidth_on_a_gpu() -> None:
    found = share_of_bandwidth(torch.device("cuda"), (24, 2048), (4, 512), 2**31)
    print("\n", {name: round(value, 3) for name, value in found.items()})
    assert 0 < found["sss_share_of_bandwidth"] <= 1.05
