"""Direct preference optimisation as arithmetic: the loss, log-probabilities of answers, batches. No training loop.

The loss of a pair is -log sigmoid(margin) with

    margin = beta * [(log pi(y+) - log pi_ref(y+)) - (log pi(y-) - log pi_ref(y-))]

(Rafailov et al., arXiv 2305.18290), log-probabilities summed over the tokens of the answer alone. `margin` is the
implicit reward of the chosen answer over that of the rejected one. Where pairs are labelled by a Bradley-Terry model of
a reward r, the optimum is pi = pi_ref * exp(r / beta) / C: the tilt that reward-shifted sampling carries over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from harness_speculative_decoding.data.preferences import TokenPair

Row = tuple[tuple[int, ...], tuple[int, ...]]
"""A prompt and one answer to it, as token ids."""


class Part(NamedTuple):
    """What goes through the model at once: a batch, or one of the parts that a batch is accumulated from.

    Attributes:
        ids: prompt and answer, padded on the right; shape (rows, width). For pairs the chosen rows come first, then the
            rejected ones in the same order.
        answer: True at the tokens of the answer; shape (rows, width).
        reference: the reference's log-probabilities of the answers, shape (rows,); empty for fine-tuning.
        divisor: what the sum over the rows is divided by: pairs or answer tokens of the whole batch.
    """

    ids: Tensor
    answer: Tensor
    reference: Tensor
    divisor: Tensor


def margins(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Implicit reward margin of each pair.

    Args:
        policy: log-probabilities of the answers, chosen rows first, then rejected ones; shape (2 * pairs,).
        reference: the same of the frozen reference.
        beta: weight of the divergence from the reference.

    Returns:
        Shape (pairs,).
    """
    chosen, rejected = (policy - reference).chunk(2)
    return beta * (chosen - rejected)


def dpo_loss(margin: Tensor) -> Tensor:
    """-log sigmoid(margin), without overflow; the shape of `margin`."""
    return -logsigmoid(margin)


def rpo_term(chosen: Tensor, answer: Tensor) -> Tensor:
    """Mean negative log-likelihood per token of each chosen answer: what keeps DPO from making both answers unlikely.

    DPO's loss knows only the difference of two answers; it also falls while both lose their likelihood to anything else
    (likelihood displacement, Razin et al., arXiv 2410.08847). Added with a weight, this term holds the chosen ones (the
    NLL term of Pang et al., arXiv 2404.19733; `rpo_alpha` in TRL).

    Args:
        chosen: log-probabilities of the chosen answers, shape (pairs,).
        answer: True at their tokens, shape (pairs, width).
    """
    return -chosen / answer.sum(-1)


def answer_log_probability(logits: Tensor, ids: Tensor, answer: Tensor) -> Tensor:
    """Log-probability of each row's answer: the sum over its tokens, in float32 at least; shape (rows,).

    Args:
        logits: shape (rows, width, vocabulary); those at position t judge the token at t + 1.
        ids: shape (rows, width).
        answer: True at the tokens to sum; the first column cannot be judged and must be False.
    """
    wide = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    chosen = wide.gather(-1, ids[:, 1:, None])[..., 0] - wide.logsumexp(-1)
    return chosen.masked_fill(~answer[:, 1:], 0).sum(-1)


def log_probability(model: PreTrainedModel, ids: Tensor, answer: Tensor) -> Tensor:
    """`answer_log_probability` under a model. Padding is on the right, where no token of a row looks, so no mask is."""
    return answer_log_probability(model(input_ids=ids, use_cache=False).logits, ids, answer)


def padded(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Token ids, padded on the right with 0, and the mask of the answers; shapes (rows, width)."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, (prompt, answer) in enumerate(rows):
        whole = len(prompt) + len(answer)
        ids[number, :whole] = torch.tensor((*prompt, *answer))
        mask[number, len(prompt) : whole] = True
    return ids, mask


def chosen_rows(pairs: Sequence[TokenPair]) -> list[Row]:
    """The chosen answers."""
    return [(pair.prompt, pair.chosen) for pair in pairs]


def pair_rows(pairs: Sequence[TokenPair]) -> list[Row]:
    """The chosen answers, then the rejected ones."""
    return chosen_rows(pairs) + [(pair.prompt, pair.rejected) for pair in pairs]


@torch.inference_mode()
def log_probabilities(model: PreTrainedModel, rows: Sequence[Row], batch: int) -> Tensor:
    """Log-probabilities of the answers, on the host, shape (rows,); computed in batches."""
    found = []
    for first in range(0, len(rows), batch):
        ids, answer = padded(rows[first : first + batch])
        found.append(log_probability(model, ids.to(model.device), answer.to(model.device)).cpu())
    return torch.cat(found)


class Parts:
    """The parts of every batch of a training run, in a fixed order that depends on the seed alone.

    Batches are taken from shuffled passes over the pairs, one pass after the other, so that every batch is full. Each
    is cut into `accumulate` parts of nearly equal size, whose gradients add up to the batch's.

    `state_dict` and `load_state_dict` tell Lightning that a resumed training may begin here in the middle; where is
    decided by `skip`, from the number of finished steps, because Lightning may have fetched parts ahead.

    Args:
        pairs: to train on.
        reference: log-probabilities of `pair_rows(pairs)`; None trains on the chosen answers alone.
        steps: batches.
        batch: pairs in a batch.
        accumulate: parts in a batch.
        seed: of the order.
        skip: batches that a resumed run has behind it.
        rank: number of this process among those that share every batch.
        ranks: how many there are; each takes `accumulate` parts of a batch.
    """

    def __init__(
        self,
        pairs: Sequence[TokenPair],
        reference: Tensor | None,
        *,
        steps: int,
        batch: int,
        accumulate: int,
        seed: int,
        skip: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._pairs = pairs
        self._reference = reference
        self._steps, self._batch, self._accumulate, self._seed, self._skip = steps, batch, accumulate, seed, skip
        self._rank, self._ranks = rank, ranks

    def __len__(self) -> int:
        return self._steps * self._accumulate

    def __iter__(self) -> Iterator[Part]:
        generator = torch.Generator().manual_seed(self._seed)
        order = torch.empty(0, dtype=torch.long)
        for step in range(self._steps):
            while len(order) < self._batch:
                order = torch.cat([order, torch.randperm(len(self._pairs), generator=generator)])
            if step >= self._skip:
                yield from self._parts(order[: self._batch])
            order = order[self._batch :]

    def state_dict(self) -> dict[str, int]:
        """Nothing that `skip` does not say."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Takes nothing over."""

    def _parts(self, numbers: Tensor) -> Iterator[Part]:
        whole = [self._pairs[number] for number in numbers.tolist()]
        tokens = sum(len(pair.chosen) for pair in whole)
        for part in torch.tensor_split(numbers, self._accumulate * self._ranks)[self._rank :: self._ranks]:
            pairs = [self._pairs[number] for number in part.tolist()]
            if self._reference is None:
                ids, answer = padded(chosen_rows(pairs))
                yield Part(ids, answer, torch.empty(0), torch.tensor(tokens))
            else:
                ids, answer = padded(pair_rows(pairs))
                both = torch.cat([part, part + len(self._pairs)])
                yield Part(ids, answer, self._reference[both], torch.tensor(len(whole)))
