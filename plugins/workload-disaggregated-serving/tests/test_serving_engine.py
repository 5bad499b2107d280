"""The engine: equal bits in every batch, agreement with transformers, memory and speculation in closed form."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from harness_disaggregated_serving.runtime.memory import KvBudget, capacity_for
from harness_disaggregated_serving.runtime.options import FolderModel, SeededModel

from harness.quantity import Unavailable

if TYPE_CHECKING:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine, Running


SMALL = SeededModel(layers=2, hidden=64, draft_layers=1, context=128)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def engine() -> Engine:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine
    from harness_disaggregated_serving.runtime.models import build_target

    return Engine(build_target(SMALL, torch.float32, torch.device("cpu")))


def prompt(length: int, seed: int) -> list[int]:
    return [random.Random(seed * 1000 + place).randrange(512) for place in range(length)]


def start(engine: Engine, tokens: Sequence[int], room: int = 40) -> tuple[Running, torch.Tensor]:
    from harness_disaggregated_serving.runtime.engine import Running

    running = Running(list(tokens), engine.new_cache(len(tokens) + room))
    return running, engine.prefill(running)


def alone(engine: Engine, tokens: Sequence[int], count: int) -> tuple[list[int], list[torch.Tensor]]:
    running, logits = start(engine, tokens)
    seen = [logits]
    running.tokens.append(int(logits.argmax()))
    while len(running.tokens) < len(tokens) + count:
        seen.append(engine.advance([running])[0][-1])
        running.tokens.append(int(seen[-1].argmax()))
    return running.tokens[len(tokens) :], seen


def test_tiles_have_many_rows_here(engine: Engine) -> None:
    assert engine.rows == 8, "the machine's library orders sums by place: tiles of one row are exact and slow"


@pytest.mark.parametrize("others", [1, 2, 6, 7, 8, 20])
def test_logits_are_equal_alone_and_in_any_batch(engine: Engine, others: int) -> None:
    import torch

    tokens, expected = alone(engine, prompt(17, 0), 12)
    chance = random.Random(others)
    company = [start(engine, prompt(chance.randrange(1, 30), seed))[0] for seed in range(1, others + 1)]
    for one in company:
        one.tokens.append(7)
    mine, logits = start(engine, prompt(17, 0))
    mine.tokens.append(int(logits.argmax()))
    for step in range(1, 12):
        chance.shuffle(company)
        place = chance.randrange(len(company) + 1)
        batch = [*company[:place], mine, *company[place:]]
        results = engine.advance(batch)
        for one, result in zip(batch, results, strict=True):
            one.tokens.append(int(result[-1].argmax()))
        assert torch.equal(results[place][-1], expected[step])
    assert mine.tokens[17:] == tokens


def test_agrees_with_transformers_own_generation(engine: Engine) -> None:
    import torch
    from harness_disaggregated_serving.runtime.models import build_target

    reference = build_target(SMALL, torch.float32, torch.device("cpu"))
    ids = torch.tensor([prompt(9, 3)])
    expected = reference.generate(ids, max_new_tokens=16, do_sample=False, attention_mask=torch.ones_like(ids))
    assert alone(engine, prompt(9, 3), 16)[0] == expected[0, 9:].tolist()


def test_verifying_gives_the_bits_of_decoding(engine: Engine) -> None:
    import torch

    tokens, expected = alone(engine, prompt(11, 4), 10)
    mine, _ = start(engine, prompt(11, 4))
    company, _ = start(engine, prompt(3, 5))
    company.tokens += prompt(6, 6)
    mine.tokens += tokens[:-1]
    logits = engine.advance([company, mine])[1]
    assert torch.equal(logits, torch.stack(expected[1:]))


def test_rewinding_forgets(engine: Engine) -> None:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine

    tokens, expected = alone(engine, prompt(5, 7), 6)
    mine, _ = start(engine, prompt(5, 7))
    mine.tokens += [*tokens[:2], 1, 2, 3]
    engine.advance([mine])
    Engine.rewind(mine, 7)
    mine.tokens.append(tokens[2])
    assert torch.equal(engine.advance([mine])[0][-1], expected[3])


def test_a_moved_cache_gives_equal_bits(engine: Engine) -> None:
    import torch
    from harness_disaggregated_serving.runtime.engine import Running

    mine, logits = start(engine, prompt(13, 8))
    moved = Running(list(mine.tokens), engine.new_cache(90))
    moved.cache.length = 13
    for target, source in zip(moved.cache.pieces(), mine.cache.pieces(), strict=True):
        target.copy_(source)
    for one in (mine, moved):
        one.tokens.append(int(logits.argmax()))
    first, second = engine.advance([mine, moved])
    assert torch.equal(first, second)


def test_other_families() -> None:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    grouped = MistralForCausalLM(
        MistralConfig(
            vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=None, initializer_range=0.2, eos_token_id=None,
        )
    ).eval()  # fmt: skip
    ids = torch.tensor([[1, 2, 3, 4]])
    expected = grouped.generate(
        ids, max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(ids), pad_token_id=0
    )
    tokens = alone(Engine(grouped), [1, 2, 3, 4], 8)[0]
    assert tokens == expected[0, 4:].tolist()


def test_a_sliding_window_is_refused() -> None:
    from harness_disaggregated_serving.runtime.engine import Engine
    from transformers import MistralConfig, MistralForCausalLM

    windowed = MistralForCausalLM(
        MistralConfig(
            vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=4,
        )
    ).eval()  # fmt: skip
    with pytest.raises(ValueError, match="sliding_window"):
        start(Engine(windowed), [1, 2, 3])


def test_a_prompt_is_computed_once(engine: Engine) -> None:
    mine, _ = start(engine, [1, 2])
    with pytest.raises(ValueError, match="empty cache"):
        engine.prefill(mine)


def test_nothing_to_do(engine: Engine) -> None:
    assert engine.advance([]) == []


def test_the_draft_is_the_targets_beginning() -> None:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine
    from harness_disaggregated_serving.runtime.models import build_draft, build_target

    exact = SeededModel(layers=3, hidden=64, draft_layers=1, eps=0.0)
    target, draft = (
        Engine(build_target(exact, torch.float32, torch.device("cpu"))),
        Engine(build_draft(exact, torch.float32, torch.device("cpu"))),
    )
    assert draft.shape.layers == 1
    assert alone(target, prompt(6, 1), 8)[0] == alone(draft, prompt(6, 1), 8)[0]


def test_a_folder_model_without_a_draft() -> None:
    import torch
    from harness_disaggregated_serving.runtime.models import build_draft

    with pytest.raises(ValueError, match="no draft"):
        build_draft(FolderModel(target="x"), torch.float32, torch.device("cpu"))


def test_spec_kv_bytes_of_a_real_cache() -> None:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine, shape_of
    from harness_disaggregated_serving.runtime.models import build_target
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(build_target(SeededModel(layers=1), torch.float32, torch.device("cpu")).config)
    assert shape_of(model).kv_bytes_per_token == 2 * 1 * 2 * 16 * 4
    wide = Engine(
        build_target(SeededModel(layers=8, hidden=128, heads=4, kv_heads=4), torch.float32, torch.device("cpu"))
    )
    running, _ = start(wide, prompt(300, 1))
    assert sum(piece.numel() * piece.element_size() for piece in running.cache.pieces()) == 2_457_600


def test_spec_llama_7b_on_a_16_gb_card() -> None:
    gib = 2**30
    budget = KvBudget(15 * gib, round(12.55 * gib), gib // 2, 524_288, "the old card")
    assert budget.tokens == pytest.approx(3990, abs=10)
    held = 0
    while budget.take(512):
        held += 1
    assert held == 7
    reason = budget.never_fits(4096)
    assert isinstance(reason, Unavailable)
    assert "does not fit" in reason.reason
    assert budget.never_fits(512) is None


def test_memory_that_the_weights_fill() -> None:
    budget = KvBudget(100, 200, 0, 10, "old")
    reason = budget.never_fits(1)
    assert reason is not None
    assert "leaves no memory" in reason.reason


def test_memory_is_given_back() -> None:
    budget = KvBudget(1000, 0, 0, 10, "old")
    assert capacity_for(17) == 32
    assert budget.take(33)
    assert budget.take(33)
    assert not budget.take(1)
    budget.give(33)
    assert budget.take(1)
    with pytest.raises(ValueError, match="more room"):
        budget.give(200)


def laws() -> tuple[torch.Tensor, torch.Tensor]:
    """Target p and draft q of the specification's worked example."""
    import torch

    return torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def test_spec_residual_lies_on_the_first_token() -> None:
    import torch
    from harness_disaggregated_serving.runtime.speculation import residual

    p, q = laws()
    assert torch.allclose(residual(p, q), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    assert torch.equal(residual(p, p), p)


def test_spec_acceptance_and_law() -> None:
    import torch
    from harness_disaggregated_serving.runtime.speculation import judge, pick
    from scipy import stats

    p, q = laws()
    chance = random.Random(1)
    counts, kept, rounds = [0, 0, 0], 0, 6_000
    for _ in range(rounds):
        proposal = pick(q, chance.random())
        verdict = judge(
            torch.stack([p, p]), [proposal], [float(q[proposal])], q[None], [chance.random(), chance.random()]
        )
        kept += verdict.kept
        token = proposal if verdict.kept else verdict.token
        assert token is not None
        counts[token] += 1
    assert kept / rounds == pytest.approx(0.7, abs=0.025)
    assert stats.chisquare(counts, [rounds * float(chance_of) for chance_of in p]).pvalue > 1e-4


def test_gamma_kept_proposals_yield_one_more() -> None:
    import torch
    from harness_disaggregated_serving.runtime.speculation import Verdict, judge

    p, q = laws()
    rows = torch.stack([p] * 4)
    verdict = judge(rows, [0, 0, 0], [0.2] * 3, torch.stack([q] * 3), [0.9, 0.9, 0.9, 0.99])
    assert verdict == Verdict(3, 2)


def test_a_missing_row_is_asked_for() -> None:
    import torch
    from harness_disaggregated_serving.runtime.speculation import Verdict, judge

    p, _ = laws()
    assert judge(torch.stack([p, p]), [1], [0.5], None, [0.9, 0.1]) == Verdict(0, None)


def test_rounded_rows_are_judged_as_they_were_sent() -> None:
    import torch
    from harness_disaggregated_serving.runtime.speculation import judged_law, wire_row

    law = torch.softmax(torch.randn(512, generator=torch.Generator().manual_seed(1)) * 3, -1)
    row = wire_row(law, torch.float16)
    judged = judged_law(row)
    assert float(judged.sum()) == pytest.approx(1.0, abs=1e-12)
    assert torch.equal(judged, judged_law(torch.frombuffer(bytearray(row.numpy().tobytes()), dtype=torch.float16)))


def test_a_library_whose_rows_differ_gets_single_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine, rows_are_equal
    from harness_disaggregated_serving.runtime.models import build_target

    model = build_target(SMALL, torch.float32, torch.device("cpu"))
    assert rows_are_equal(model, 8)
    plain = torch.nn.Linear.forward

    def by_place(self: torch.nn.Linear, values: torch.Tensor) -> torch.Tensor:
        return plain(self, values) + torch.arange(values.shape[-2])[:, None] * 1e-6

    monkeypatch.setattr(torch.nn.Linear, "forward", by_place)
    assert Engine(model).rows == 1


def test_gpt2_runs_too() -> None:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()
    reference, _ = model(torch.tensor([[1, 2, 3]])).logits[0, -1], None
    running = Engine(model)
    _, logits = start(running, [1, 2, 3])
    assert torch.allclose(logits, reference, atol=1e-5)
