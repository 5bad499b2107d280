"""Proposing and judging tokens so that what is kept has the target's law.

The rule of speculative sampling (Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318): a
proposal x drawn from q is kept with probability min(1, p(x) / q(x)); at the first rejection the token is drawn from
the residual max(0, p - q), renormalised; after the last proposal one more token is drawn from p. Each token needs the
draft to have sampled from the very row that it is judged with: rows are rounded to the wire's precision *before* the
draft samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from harness_speculative_decoding.methods.sampling import draw
from torch import Tensor


def wire_row(law: Tensor, dtype: torch.dtype) -> Tensor:
    """A probability row as it is sent: rounded to `dtype`, shape (..., vocabulary)."""
    return law.to(dtype)


def judged_law(row: Tensor) -> Tensor:
    """The law that a sent row stands for: renormalised, in float64. Both ends compute it from the same bits."""
    wide = row.double()
    total: Tensor = wide.sum(-1, keepdim=True)
    return wide / total


def pick(law: Tensor, uniform: float) -> int:
    """The token that a number in [0, 1) picks from a law of shape (vocabulary,)."""
    return int(draw(law[None], torch.tensor([uniform], dtype=torch.float64))[0])


def residual(target: Tensor, draft: Tensor) -> Tensor:
    """The law of the token at a rejection, shape (vocabulary,).

    Where the two laws are equal nothing can be rejected but by rounding; the target's law is then taken.
    """
    left = (target.double() - draft).clamp(min=0)
    total = left.sum()
    return left / total if total > 0 else target.double()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many proposals are kept, and the token after them; None while the rejected row is missing."""

    kept: int
    token: int | None


def judge(
    target_rows: Tensor,
    proposals: Sequence[int],
    chances: Sequence[float],
    draft_rows: Tensor | None,
    uniforms: Sequence[float],
) -> Verdict:
    """Judges a round.

    Args:
        target_rows: the target's law before each proposal and after the last, (proposals + 1, vocabulary).
        proposals: proposed tokens.
        chances: the draft's probability of each proposal, in the law it was drawn from.
        draft_rows: that law, (proposals, vocabulary), float64; None where rows stayed with the draft.
        uniforms: one number in [0, 1) per proposal and one for the last token.
    """
    for place, (token, chance) in enumerate(zip(proposals, chances, strict=True)):
        if uniforms[place] * chance < float(target_rows[place, token]):
            continue
        if draft_rows is None:
            return Verdict(place, None)
        return Verdict(place, pick(residual(target_rows[place], draft_rows[place]), uniforms[-1]))
    return Verdict(len(proposals), pick(target_rows[len(proposals)].double(), uniforms[-1]))
