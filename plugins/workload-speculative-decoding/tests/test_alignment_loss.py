"""The DPO loss, its gradient and the masked sums, against closed forms and against arithmetic without autograd."""

from __future__ import annotations

import math

import pytest
from harness_speculative_decoding.data.preferences import TokenPair
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global Parts, answer_log_probability, dpo_loss, margins, padded, pair_rows, torch
    import torch
    from harness_speculative_decoding.training.dpo import (
        Parts,
        answer_log_probability,
        dpo_loss,
        margins,
        padded,
        pair_rows,
    )


VALUES = st.floats(-40, 40)


def test_dpo_loss_worked_by_hand() -> None:
    """beta 0.5; chosen moved by +1, rejected by -3: margin 2, loss log(1 + e^-2) = 0.126928..."""
    policy = torch.tensor([-4.0, -9.0], dtype=torch.float64)
    reference = torch.tensor([-5.0, -6.0], dtype=torch.float64)
    margin = margins(policy, reference, 0.5)
    assert margin.tolist() == [2.0]
    assert dpo_loss(margin).item() == pytest.approx(0.126928011042972, abs=1e-14)


def test_chosen_rows_come_first() -> None:
    policy = torch.tensor([1.0, 2.0, 30.0, 40.0])
    assert margins(policy, torch.zeros(4), 1.0).tolist() == [-29.0, -38.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(VALUES, min_size=4, max_size=4), st.floats(0.01, 5))
def test_loss_and_gradient_are_those_of_the_closed_form(values: list[float], beta: float) -> None:
    """d loss / d log pi(y+) = -beta sigmoid(-margin), and the opposite for y-; written out without torch."""
    policy = torch.tensor(values[:2], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor(values[2:], dtype=torch.float64)
    margin = beta * ((values[0] - values[2]) - (values[1] - values[3]))
    loss = dpo_loss(margins(policy, reference, beta))
    expected = max(-margin, 0.0) + math.log1p(math.exp(-abs(margin)))
    assert loss.item() == pytest.approx(expected, rel=1e-12, abs=1e-15)
    loss.sum().backward()
    pull = beta / (1 + math.exp(margin)) if margin < 700 else 0.0
    assert policy.grad is not None
    assert policy.grad.tolist() == pytest.approx([-pull, pull], rel=1e-9, abs=1e-300)


@settings(max_examples=20, deadline=None)
@given(st.lists(VALUES, min_size=2, max_size=2), st.floats(0.01, 5))
def test_the_loss_is_log_2_where_policy_and_reference_agree(values: list[float], beta: float) -> None:
    both = torch.tensor(values, dtype=torch.float64)
    assert dpo_loss(margins(both, both, beta)).item() == math.log(2)


@pytest.mark.parametrize(("margin", "loss"), [(1e4, 0.0), (-1e4, 1e4)])
def test_the_loss_does_not_overflow(margin: float, loss: float) -> None:
    assert dpo_loss(torch.tensor([margin])).item() == pytest.approx(loss)


def test_only_answer_tokens_are_summed() -> None:
    """Against sums written out in Python; changing the prompt's targets or the padding changes nothing."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    rows = [((1, 2), (3, 4, 0)), ((2, 2, 2), (1,))]
    ids, answer = padded(rows)
    assert answer.tolist() == [[False, False, True, True, True], [False, False, False, True, False]]
    found = answer_log_probability(logits[:, :5], ids, answer).tolist()
    for number, (prompt, tokens) in enumerate(rows):
        whole = (*prompt, *tokens)
        total = 0.0
        for position in range(len(prompt), len(whole)):
            row = logits[number, position - 1].tolist()
            total += row[whole[position]] - math.log(sum(math.exp(value) for value in row))
        assert found[number] == pytest.approx(total, abs=1e-12)
    changed = ids.clone()
    changed[:, 1] = 4
    changed[1, 4] = 3
    assert answer_log_probability(logits[:, :5], changed, answer).tolist() == found


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(1)).bfloat16()
    ids, answer = padded([((1,), (2, 3, 4))])
    found = answer_log_probability(logits, ids, answer)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(answer_log_probability(logits.double(), ids, answer).item(), abs=1e-5)


def test_every_pass_holds_every_pair_once_and_every_batch_is_full() -> None:
    pairs = [TokenPair((number,), (1,), (2,)) for number in range(1, 8)]
    reference = torch.arange(14.0)
    parts = list(Parts(pairs, reference, steps=7, batch=5, accumulate=2, seed=3))
    seen = [part.ids[: len(part.ids) // 2, 0].tolist() for part in parts]
    assert [len(some) for some in seen] == [3, 2] * 7
    flat = [number for some in seen for number in some]
    for first in range(0, 35, 7):
        assert sorted(flat[first : first + 7]) == list(range(1, 8))
    for part in parts:
        half = len(part.ids) // 2
        assert part.reference[:half].tolist() == [number - 1 for number in part.ids[:half, 0].tolist()]
        assert (part.reference[half:] - part.reference[:half]).tolist() == [7.0] * half
        assert part.divisor.item() == 5


def test_a_resumed_run_sees_the_rest_of_the_same_order() -> None:
    pairs = [TokenPair((number,), (1,), (2,)) for number in range(1, 8)]
    whole, rest = (
        [part.ids.tolist() for part in Parts(pairs, None, steps=9, batch=3, accumulate=2, seed=3, skip=skip)]
        for skip in (0, 4)
    )
    assert rest == whole[8:]


def test_pair_rows_are_chosen_then_rejected() -> None:
    pairs = [TokenPair((1,), (2,), (3,)), TokenPair((4,), (5,), (6,))]
    assert pair_rows(pairs) == [((1,), (2,)), ((4,), (5,)), ((1,), (3,)), ((4,), (6,))]
