"""Closed-form laws, worked numbers C1, C2, C7, and samples drawn by the rule itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global Mode, Tensor, acceptance, draw, judge, log_law, product, replacement, tilt, token_law, tokens_per_round
    global torch, truncate
    import torch
    from harness_speculative_decoding.methods.laws import (
        Mode,
        acceptance,
        judge,
        log_law,
        product,
        replacement,
        tilt,
        token_law,
        tokens_per_round,
        truncate,
    )
    from harness_speculative_decoding.methods.sampling import draw
    from torch import Tensor


MODES: tuple[Mode, ...] = ("exact", "paper", "released")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def row(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def distance(found: Tensor, wanted: Sequence[float] | Tensor) -> float:
    """Total variation."""
    return float((found - torch.as_tensor(wanted, dtype=found.dtype)).abs().sum()) / 2


def sampled(
    mode: Mode, target: Tensor, aligned: Tensor, sft: Tensor, proposal: Tensor, count: int, seed: int
) -> Tensor:
    """One token by draft, test and replacement, so many times; returns counts per token."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(3, count, generator=generator, dtype=torch.float64)
    drafted = draw(proposal.exp().expand(count, -1), uniform[0])
    log_p = tilt(target, aligned, sft).log_p
    rows = [part.expand(count, -1) for part in (proposal, log_p, target, sft)]
    judged = judge(mode, drafted, *rows)
    weights, _ = replacement(mode, judged.log_weight, rows[0], judged.log_p)
    kept = uniform[1].log() <= judged.log_ratio.clamp(max=0)
    return torch.where(kept, drafted, draw(weights, uniform[2])).bincount(minlength=len(target))


def p_value(counts: Tensor, law: Tensor) -> float:
    """Chi-square test with cells of expected count below 5 pooled; a token of probability 0 must not occur."""
    assert int(counts[law <= 0].sum()) == 0
    expected, seen = law * counts.sum(), counts.double()
    small = expected < 5
    if bool(small.any()):
        expected = torch.cat([expected[~small], expected[small].sum()[None]])
        seen = torch.cat([seen[~small], seen[small].sum()[None]])
        expected, seen = expected[expected > 0], seen[expected > 0]
    statistic = ((seen - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(expected) - 1) / 2, dtype=torch.float64), statistic / 2))


A, B = (0.5, 0.3, 0.2), (0.2, 0.5, 0.3)


@pytest.mark.parametrize("mode", ["exact", "paper"])
def test_c1_equal_drafts_reduce_to_speculative_sampling(mode: Mode) -> None:
    a, b = row(*A), row(*B)
    assert float(tilt(a, b, b).log_z) == pytest.approx(0, abs=1e-15)
    assert distance(token_law(mode, a, b, b), A) < 1e-15
    assert float(acceptance(mode, a, b, b)) == pytest.approx(0.7, abs=1e-15)
    log_p = tilt(a, b, b).log_p
    weights, empty = replacement(mode, log_p, b, log_p)
    assert weights.tolist() == pytest.approx([0.3, 0, 0], abs=1e-15)
    assert not empty


def test_c1_released_is_a_negative_control() -> None:
    a, b = row(*A), row(*B)
    assert token_law("released", a, b, b).tolist() == pytest.approx([0.35, 0.39, 0.26], abs=1e-15)
    assert distance(token_law("released", a, b, b), A) == pytest.approx(0.15)
    assert token_law("released", a, b, a).tolist() == pytest.approx([0.26, 0.45, 0.29], abs=1e-15)
    assert distance(token_law("released", a, b, a), B) == pytest.approx(0.06)


@pytest.mark.parametrize("mode", ["exact", "paper"])
def test_c1_equal_target_and_sft_keep_every_proposal(mode: Mode) -> None:
    a, b = row(*A), row(*B)
    assert float(acceptance(mode, a, b, a)) == pytest.approx(1, abs=1e-15)
    assert distance(token_law(mode, a, b, a), B) < 1e-15


def outer(first: Sequence[float], second: Sequence[float]) -> Tensor:
    return row(*(x * y for x in first for y in second))


S, U, S_SHIFTED, U_SHIFTED = (0.6, 0.4), (0.7, 0.3), (0.8, 0.2), (0.4, 0.6)


def factorised() -> tuple[Tensor, Tensor, Tensor]:
    return outer(S, U_SHIFTED), outer(S_SHIFTED, U), outer(S, U)


@pytest.mark.parametrize("mode", ["exact", "paper"])
def test_c2_factorised(mode: Mode) -> None:
    target, aligned, sft = factorised()
    assert distance(token_law(mode, target, aligned, sft), (0.32, 0.48, 0.08, 0.12)) < 1e-15
    assert float(acceptance(mode, target, aligned, sft)) == pytest.approx(0.7, abs=1e-15)
    log_p = tilt(target, aligned, sft).log_p
    weights, _ = replacement(mode, log_p, aligned, log_p)
    assert (weights / weights.sum()).tolist() == pytest.approx([0, 0.8, 0, 0.2], abs=1e-14)


def test_c2_released() -> None:
    law = token_law("released", *factorised())
    assert law.tolist() == pytest.approx([0.3424, 0.3936, 0.1656, 0.0984], abs=1e-15)
    assert distance(law, (0.32, 0.48, 0.08, 0.12)) == pytest.approx(0.108)


@pytest.mark.parametrize("mode", MODES)
def test_c2_sampled(mode: Mode) -> None:
    target, aligned, sft = factorised()
    count = 200_000
    counts = sampled(mode, target, aligned, sft, aligned, count, seed=2)
    law = token_law(mode, target, aligned, sft)
    assert p_value(counts, law) > 1e-3
    assert distance(counts / count, law) < 0.005
    if mode == "released":
        assert p_value(counts, tilt(target, aligned, sft).log_p.exp()) < 1e-9


def random_models(seed: int, vocabulary: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = 1.5 * torch.randn(3, vocabulary, generator=generator, dtype=torch.float64)
    target, aligned, sft = rows.log_softmax(-1)
    return target, aligned, sft


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_mode_samples_its_own_law_where_z_is_not_1(mode: Mode, seed: int) -> None:
    target, aligned, sft = random_models(seed)
    proposal = truncate(aligned, top_k=5)
    for number, proposed in enumerate((aligned, proposal)):
        counts = sampled(mode, target, aligned, sft, proposed, 100_000, seed=10 * seed + number)
        assert p_value(counts, token_law(mode, target, aligned, sft, proposed)) > 1e-3


@pytest.mark.parametrize("mode", ["paper", "released"])
def test_other_modes_are_told_from_p_where_z_is_not_1(mode: Mode) -> None:
    target, aligned, sft = random_models(1)
    log_p, log_z = tilt(target, aligned, sft)
    assert abs(float(log_z)) > 0.1
    assert distance(token_law(mode, target, aligned, sft), log_p.exp()) > 0.02
    assert p_value(sampled(mode, target, aligned, sft, aligned, 100_000, seed=5), log_p.exp()) < 1e-6


def test_paper_law_is_the_closed_form_of_the_table() -> None:
    target, aligned, sft = random_models(4)
    shifted = product(target, aligned, sft).exp()
    kept = torch.minimum(aligned.exp(), shifted)
    z, a = shifted.sum(), kept.sum()
    wanted = kept + (1 - a) * (shifted - aligned.exp()).clamp(min=0) / (z - a)
    assert distance(token_law("paper", target, aligned, sft), wanted) < 1e-14


finite = st.floats(-6, 6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(finite, finite, finite), min_size=2, max_size=9), st.integers(1, 9))
def test_exact_has_law_p_for_any_three_models_and_any_proposal(logits: list[tuple[float, ...]], top_k: int) -> None:
    target, aligned, sft = torch.tensor(logits, dtype=torch.float64).T.log_softmax(-1)
    log_p = tilt(target, aligned, sft).log_p
    proposal = truncate(aligned, top_k=top_k)
    assert distance(token_law("exact", target, aligned, sft, proposal), log_p.exp()) < 1e-12
    expected = 1 - distance(log_p.exp(), proposal.exp())
    assert float(acceptance("exact", target, aligned, sft, proposal)) == pytest.approx(expected, abs=1e-12)


def test_c7_paper_has_zero_residuals() -> None:
    sft, target, aligned = row(0.4, 0.4, 0.1, 0.1), row(0.3, 0.2, 0.25, 0.25), row(0.5, 0.5, 0, 0)
    log_p, log_z = tilt(target, aligned, sft)
    assert float(log_z.exp()) == pytest.approx(0.625)
    assert log_p.exp().tolist() == pytest.approx([0.6, 0.4, 0, 0], abs=1e-15)
    assert float(acceptance("paper", target, aligned, sft)) == pytest.approx(1 - 0.375)
    shifted = product(target, aligned, sft)
    weights, empty = replacement("paper", shifted, aligned, log_p)
    assert bool(empty)
    assert weights.tolist() == pytest.approx([0.6, 0.4, 0, 0], abs=1e-15)
    assert token_law("paper", target, aligned, sft).tolist() == pytest.approx([0.6, 0.4, 0, 0], abs=1e-15)
    assert float(acceptance("exact", target, aligned, sft)) == pytest.approx(0.9)
    weights, empty = replacement("exact", log_p, aligned, log_p)
    assert not empty
    assert weights.tolist() == pytest.approx([0.1, 0, 0, 0], abs=1e-15)
    assert token_law("exact", target, aligned, sft).tolist() == pytest.approx([0.6, 0.4, 0, 0], abs=1e-15)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("masked", ["aligned", "aligned and sft", "target", "sft"])
def test_c7_impossible_tokens_never_come_and_give_no_nan(mode: Mode, masked: str) -> None:
    rows = dict(zip(("target", "aligned", "sft"), random_models(6), strict=True))
    for name in masked.split(" and "):
        rows[name] = rows[name].clone()
        rows[name][2] = -math.inf
        rows[name] = rows[name].log_softmax(-1)
    law = token_law(mode, rows["target"], rows["aligned"], rows["sft"])
    assert bool(law.isfinite().all())
    assert float(law.sum()) == pytest.approx(1)
    if mode != "released":
        assert float(law[2]) == 0


@pytest.mark.parametrize("mode", MODES)
def test_c7_bf16_logits_decide_like_float64(mode: Mode) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = (2 * torch.randn(3, 4000, 16, generator=generator)).bfloat16()
    tokens = torch.randint(16, (4000,), generator=generator)
    uniform = torch.rand(4000, generator=generator, dtype=torch.float64).log()

    def ratios(given: Tensor) -> Tensor:
        target, aligned, sft = (log_law(part, 0.8) for part in given)
        return judge(mode, tokens, aligned, tilt(target, aligned, sft).log_p, target, sft).log_ratio.double()

    half, full = ratios(logits), ratios(logits.double())
    clear = (uniform - full).abs() > 1e-5
    assert torch.equal((uniform <= half)[clear], (uniform <= full)[clear])
    assert int(clear.sum()) > 3980


def test_c7_judging_a_truncated_proposal_by_the_untruncated_row_is_wrong() -> None:
    p, aligned = row(0.3, 0.3, 0.4), row(0.5, 0.3, 0.2)
    proposal = truncate(aligned, top_k=2)
    assert proposal.exp().tolist() == pytest.approx([0.625, 0.375, 0])
    assert distance(token_law("exact", p, aligned, aligned, proposal), (0.3, 0.3, 0.4)) < 1e-15
    count = 200_000
    consistent = sampled("exact", p, aligned, aligned, proposal, count, seed=1) / count
    assert distance(consistent, (0.3, 0.3, 0.4)) < 0.005
    kept = proposal.exp() * (p - aligned).clamp(max=0).exp()
    residual = (p.exp() - aligned.exp()).clamp(min=0)
    slipped = kept + (1 - kept.sum()) * residual / residual.sum()
    assert slipped.tolist() == pytest.approx([0.375, 0.375, 0.25])
    assert distance(slipped, p.exp()) == pytest.approx(0.15)


def test_temperature_0_keeps_the_argmax_of_the_product_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(8)
    logits = torch.randn(3, 50, 12, generator=generator, dtype=torch.float64)
    tempered = log_law(logits[0] + logits[1] - logits[2], 0.0)
    proposal = log_law(logits[1], 0.0)
    tokens = proposal.argmax(-1)
    judged = judge("exact", tokens, proposal, tempered, tempered)
    kept = judged.log_ratio >= 0
    assert torch.equal(kept, tokens == tempered.argmax(-1))
    weights, _ = replacement("exact", judged.log_weight, proposal, judged.log_p)
    assert torch.equal(weights.argmax(-1), tempered.argmax(-1))


def test_truncation_ties_go_to_the_lower_id_and_top_p_follows_top_k() -> None:
    even = row(0.25, 0.25, 0.25, 0.25)
    assert truncate(even, top_k=2).exp().tolist() == pytest.approx([0.5, 0.5, 0, 0])
    mixed = row(0.1, 0.4, 0.2, 0.3)
    assert truncate(mixed, top_k=3, top_p=0.5).exp().tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert truncate(mixed, top_p=0.39).exp().tolist() == pytest.approx([0, 1, 0, 0])
    assert truncate(mixed, top_k=9) is mixed


@pytest.mark.parametrize(
    ("share", "k", "with_bonus", "without"),
    [(0.5, 4, 1.94, 1.88), (0.7, 4, 2.77, 2.53), (0.9, 4, 4.10, 3.44), (0.9, 8, 6.13, 5.70), (1.0, 4, 5.0, 4.0)],
)
def test_tokens_per_round(share: float, k: int, with_bonus: float, without: float) -> None:
    assert tokens_per_round(share, k, bonus=True) == pytest.approx(with_bonus, abs=0.005)
    assert tokens_per_round(share, k, bonus=False) == pytest.approx(without, abs=0.005)


def sequence_tilt(reward: Tensor, sft: Tensor, beta: float) -> Tensor:
    """The joint law sft * exp(reward / beta), normalised over all sequences."""
    weight = sft * (reward / beta).exp()
    return weight / weight.sum()


def conditionals(joint: Tensor) -> list[Tensor]:
    """Next-token log laws of a joint law over (V, V) two-token sequences: one row, then one a first token."""
    first = joint.sum(1)
    return [first.log()[None], (joint / first[:, None]).log()]


def test_c6_sequence_law_gap_closes_as_beta_grows() -> None:
    generator = torch.Generator().manual_seed(11)
    gaps: dict[tuple[str, float], list[float]] = {}
    for _ in range(20):
        logits = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
        target, sft = (part.flatten().softmax(0).view(4, 4) for part in logits)
        reward = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        for beta in (0.5, 2.0, 8.0):
            aligned = sequence_tilt(reward, sft, beta)
            wanted = sequence_tilt(reward, target, beta)
            for mode in MODES:
                rows = zip(*(conditionals(joint) for joint in (target, aligned, sft)), strict=True)
                first, second = (token_law(mode, *each) for each in rows)
                gaps.setdefault((mode, beta), []).append(distance(first[0][:, None] * second, wanted))
    mean = {key: sum(values) / len(values) for key, values in gaps.items()}
    for beta in (0.5, 2.0, 8.0):
        assert mean["exact", beta] <= mean["paper", beta] + 1e-12
    assert mean["exact", 0.5] > mean["exact", 2.0] > mean["exact", 8.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_empty_residual_of_paper_is_found_in_spite_of_rounding(dtype: str) -> None:
    """target <= sft wherever the aligned draft proposes, so that q~ lies nowhere above it; often it lies on it."""
    generator = torch.Generator().manual_seed(0)
    half = 32
    for _ in range(1000):
        aligned, sft = (torch.randn(2 * half, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
        aligned[half:] = -math.inf
        aligned, sft = aligned.log_softmax(-1), sft.log_softmax(-1)
        shrink = torch.rand(2 * half, generator=generator, dtype=torch.float64)
        shrink[:4] = 1
        target = sft + shrink.log()
        target[half:] = torch.log((1 - target[:half].exp().sum()) / half)
        rows = [one.to(getattr(torch, dtype)) for one in (target, aligned, sft)]
        shifted = product(*rows)
        weights, empty = replacement("paper", shifted, rows[1], shifted.log_softmax(-1))
        assert bool(empty)
        assert torch.allclose(weights, shifted.softmax(-1))


def test_a_small_residual_of_paper_is_kept() -> None:
    aligned, sft, target = row(0.5, 0.4999, 0.0001), row(0.4, 0.4, 0.2), row(0.4, 0.3, 0.3)
    shifted = product(target, aligned, sft).float()
    weights, empty = replacement("paper", shifted, aligned.float(), shifted.log_softmax(-1))
    assert not bool(empty)
    assert weights.tolist() == pytest.approx([0, 0, 0.00005], abs=1e-8)
