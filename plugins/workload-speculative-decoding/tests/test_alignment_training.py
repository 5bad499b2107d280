"""Training runs: accumulation, resumption, determinism, and the optimum of DPO on a problem that can be enumerated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness_speculative_decoding.data.preferences import TokenPair
from harness_speculative_decoding.training.settings import Settings, StepReport

from harness.errors import MeasurementError, UsageError


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global CHECKPOINT, LlamaConfig, LlamaForCausalLM, dpo, log_probabilities, pair_rows, quality, sft, torch
    import torch
    from harness_speculative_decoding.training.alignment import CHECKPOINT, dpo, quality, sft
    from harness_speculative_decoding.training.dpo import log_probabilities, pair_rows
    from transformers import LlamaConfig, LlamaForCausalLM


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(seed: int = 0, vocabulary: int = 7, dtype: torch.dtype | None = None) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
        return LlamaForCausalLM(config).to(dtype or torch.float32).eval()


def some_pairs(count: int, seed: int = 0) -> list[TokenPair]:
    """Answers whose better one holds more of token 1; lengths differ."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return tuple(torch.randint(2, 7, (length,), generator=generator).tolist())

    return [TokenPair(tokens(1, 4), (*tokens(1, 3), 1), (*tokens(1, 4), 2)) for _ in range(count)]


def weights(model: LlamaForCausalLM) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_dpo_starts_at_log_2_and_raises_the_implicit_margin() -> None:
    model, pairs = tiny(), some_pairs(48)
    reference = log_probabilities(model, pair_rows(pairs), 16)
    stage = dpo(model, pairs, Settings(epochs=6, batch=16, peak_lr=1e-2), beta=0.5)
    assert stage.reports[0].loss == pytest.approx(math.log(2), abs=1e-6)
    assert stage.reports[0].margin == pytest.approx(0, abs=1e-5)
    assert stage.beta == 0.5
    assert [report.step for report in stage.reports] == list(range(1, 19))
    assert sum(report.pairs for report in stage.reports) == 6 * 48
    after = quality(log_probabilities(model, pair_rows(pairs), 16), reference, 0.5)
    assert after.margin > 1
    assert after.accuracy > 0.95
    assert after.loss < 0.35


def test_tokens_of_a_step_are_those_of_the_answers() -> None:
    pairs = [TokenPair((1, 2), (3, 4, 5), (6,)), TokenPair((1,), (2, 2), (3, 3))]
    first = dpo(tiny(), pairs, Settings(batch=2, peak_lr=1e-3), beta=0.1).reports[0]
    assert (first.pairs, first.answers, first.tokens) == (2, 4, 8)
    fine = sft(tiny(), pairs, Settings(batch=2, peak_lr=1e-3)).reports[0]
    assert (fine.pairs, fine.answers, fine.tokens, fine.margin) == (0, 2, 5, None)


def test_sft_lowers_the_loss_of_the_chosen_answers_and_ignores_the_rejected() -> None:
    pairs = some_pairs(32)
    silent = [TokenPair(pair.prompt, pair.chosen, (6,)) for pair in pairs]
    one, other = tiny(), tiny()
    settings = Settings(epochs=5, batch=8, peak_lr=1e-2)
    stage = sft(one, pairs, settings)
    sft(other, silent, settings)
    assert stage.beta is None
    assert stage.reports[-1].loss < stage.reports[0].loss - 0.3
    assert torch.equal(weights(one), weights(other))


@pytest.mark.parametrize("kind", ["sft", "dpo"])
@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_accumulated_parts_equal_the_big_batch(kind: str, accumulate: int) -> None:
    """In float64, with answers of different lengths, parts of different sizes and a batch that wraps a pass."""
    results = []
    for parts in (1, accumulate):
        model = tiny(dtype=torch.float64)
        settings = Settings(epochs=2, batch=5, accumulate=parts, peak_lr=1e-3, precision="float32")
        stage = (
            sft(model, some_pairs(13), settings) if kind == "sft" else dpo(model, some_pairs(13), settings, beta=0.3)
        )
        results.append((weights(model), [report.loss for report in stage.reports]))
    assert len(results[0][1]) == 6
    assert torch.allclose(results[0][0], results[1][0], rtol=0, atol=1e-9)
    assert results[0][1] == pytest.approx(results[1][1], abs=1e-9)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_an_interrupted_training_ends_with_the_same_weights(kind: str, tmp_path: Path) -> None:
    settings = Settings(epochs=3, batch=4, accumulate=2, peak_lr=3e-3, warm_up_steps=2)
    pairs = some_pairs(20)

    def train(model: LlamaForCausalLM, folder: Path | None = None, stop: int = 0) -> tuple[int, int, int]:
        def tell(report: StepReport) -> bool:
            return report.step == stop

        if kind == "sft":
            stage = sft(model, pairs, settings, tell=tell, checkpoints=folder, checkpoint_every=3)
        else:
            stage = dpo(model, pairs, settings, beta=0.2, tell=tell, checkpoints=folder, checkpoint_every=3)
        return stage.steps, stage.resumed_at, len(stage.reports)

    through, again = tiny(), tiny()
    assert train(through) == (15, 0, 15)
    assert train(again, tmp_path, stop=8) == (8, 0, 8)
    taken_up = tiny()
    assert train(taken_up, tmp_path) == (15, 6, 9)
    assert torch.equal(weights(through), weights(taken_up))
    assert not torch.equal(weights(through), weights(again))


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    pairs = some_pairs(8)
    settings = Settings(batch=4, peak_lr=1e-3)
    dpo(tiny(), pairs, settings, beta=0.2, checkpoints=tmp_path, checkpoint_every=1)
    with pytest.raises(UsageError, match="belongs to another training"):
        dpo(tiny(), pairs, settings, beta=0.3, checkpoints=tmp_path)
    with pytest.raises(UsageError, match="belongs to another training"):
        dpo(tiny(seed=3), pairs, settings, beta=0.2, checkpoints=tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"torn")
    with pytest.raises(UsageError, match="not a checkpoint"):
        dpo(tiny(), pairs, settings, beta=0.2, checkpoints=tmp_path)


def test_the_seed_decides_the_order_and_nothing_global_does() -> None:
    def trained(seed: int, noise: int) -> torch.Tensor:
        torch.manual_seed(noise)
        model = tiny()
        dpo(model, some_pairs(20), Settings(batch=4, peak_lr=1e-3, seed=seed), beta=0.2)
        return weights(model)

    assert torch.equal(trained(1, 0), trained(1, 99))
    assert not torch.equal(trained(1, 0), trained(2, 0))


def test_bfloat16_computes_under_autocast_and_keeps_float32_weights() -> None:
    model = tiny()
    stage = dpo(model, some_pairs(8), Settings(batch=4, peak_lr=1e-3, precision="bfloat16"), beta=0.2)
    assert stage.precision == "bfloat16"
    assert stage.reports[0].loss == pytest.approx(math.log(2), abs=1e-2)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    model = tiny()
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    with pytest.raises(MeasurementError, match="the loss is nan at step 1"):
        dpo(model, some_pairs(8), Settings(batch=4, peak_lr=1e-3), beta=0.2)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch": 0}, {"peak_lr": -1.0}, {"peak_lr": math.nan}, {"accumulate": 5}, {"weight_decay": -1}],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=name):
        Settings(**{"batch": 4, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_beta_is_refused(beta: float) -> None:
    with pytest.raises(UsageError, match="beta"):
        dpo(tiny(), some_pairs(4), Settings(), beta=beta)


def test_no_pair_is_refused() -> None:
    with pytest.raises(UsageError, match="no pair"):
        dpo(tiny(), [], Settings(), beta=0.1)


@pytest.mark.slow
def test_the_optimum_of_dpo_is_the_tilt_of_the_reference() -> None:
    """Nine answers of two tokens; labels in Bradley-Terry proportion; the policy becomes pi_ref * exp(r / beta) / C."""
    beta, copies = 0.5, 20
    prompt = (3,)
    answers = list(itertools.product(range(3), repeat=2))
    reward = {answer: 0.6 * answer[0] - 0.5 * answer[1] + 0.4 * (answer[0] == answer[1]) for answer in answers}
    pairs = []
    for one, other in itertools.combinations(answers, 2):
        wins = round(copies / (1 + math.exp(reward[other] - reward[one])))
        pairs += [TokenPair(prompt, one, other)] * wins + [TokenPair(prompt, other, one)] * (copies - wins)
    model = tiny(vocabulary=4, dtype=torch.float64)
    rows = [(prompt, answer) for answer in answers]
    before = log_probabilities(model, rows, 9)
    settings = Settings(epochs=200, batch=len(pairs), peak_lr=2e-2, warm_up_steps=10, precision="float32")
    dpo(model, pairs, settings, beta=beta)
    # Token 3 lies outside the answers, so both laws are taken among the nine.
    tilt = torch.softmax(before + torch.tensor([reward[answer] for answer in answers]) / beta, 0)
    found = torch.softmax(log_probabilities(model, rows, 9), 0)
    moved = 0.5 * float((torch.softmax(before, 0) - tilt).abs().sum())
    assert moved > 0.25
    assert 0.5 * float((found - tilt).abs().sum()) < 0.02
