"""The laws of reward-shifted speculative sampling, as functions of rows of next-token log-probabilities.

After Li, Wu, Luo and Zhang, "Reward-Shifted Speculative Sampling Is An Efficient Test-Time Weak-to-Strong Aligner"
(arXiv 2508.15044). The paper's equations are known here from secondary sources only; `exact` is derived for this
project and is the default.

Three models share a vocabulary: a large `target`, a small `sft` draft, and the same small model after preference
optimisation, `aligned`, which writes the proposals. With q~ = target * aligned / sft and Z = sum(q~), the **tilted
target** is p = q~ / Z: the large model moved by the small model's preference shift.

| mode | a proposal v is kept with probability | replacement at the first rejection | law of one token |
|---|---|---|---|
| `exact` | min(1, p / aligned) | (p - aligned)+ | p |
| `paper` | min(1, target / sft) | (q~ - aligned)+ | p only where Z = 1 |
| `released` | min(1, target / aligned) | q~, nothing subtracted | neither p nor target |

Rows are logarithms, shape (..., vocabulary), -inf for a token that cannot come. The proposal row is always the one that
was really sampled from, truncated and renormalised; in `paper` and `released` it stands for `aligned` throughout.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Mode = Literal["exact", "paper", "released"]
INFINITY = float("inf")

ROUNDING = 16
"""By how many units in the last place a sum of three log-probabilities may be wrong, relative to 1 + |log proposal|."""


def promoted(logits: Tensor) -> Tensor:
    """The logits in at least float32: half precision would lose the ratios of the tail."""
    return logits if logits.dtype in {torch.float32, torch.float64} else logits.float()


def log_law(logits: Tensor, temperature: float) -> Tensor:
    """Logarithm of softmax(logits / temperature); at temperature 0 all mass lies on the first most likely token."""
    logits = promoted(logits)
    if temperature == 0:
        chosen = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, -INFINITY).scatter_(-1, chosen, 0.0)
    if temperature == 1:
        return logits.log_softmax(-1)
    # Subtracting the maximum first keeps logits / temperature finite for temperatures close to 0.
    return ((logits - logits.amax(-1, keepdim=True)) / temperature).log_softmax(-1)


def truncate(log_p: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Keeps the `top_k` most likely tokens, then the fewest that reach mass `top_p`, each time renormalised.

    Ties go to the lower token id. 0 and 1 keep everything.
    """
    if 0 < top_k < log_p.shape[-1]:
        least = log_p.topk(top_k, dim=-1, sorted=True).values[..., -1:]
        above = log_p > least
        tied = log_p == least
        room = top_k - above.sum(-1, keepdim=True)
        log_p = torch.where(above | (tied & (tied.cumsum(-1) <= room)), log_p, -INFINITY).log_softmax(-1)
    if top_p < 1:
        ordered, order = log_p.sort(dim=-1, descending=True, stable=True)
        mass = ordered.exp()
        ordered = ordered.masked_fill(
            mass.cumsum(-1) - mass >= top_p, -INFINITY
        )  # nothing precedes the first: it stays
        log_p = torch.full_like(log_p, -INFINITY).scatter_(-1, order, ordered).log_softmax(-1)
    return log_p


class Tilt(NamedTuple):
    """The product of target and preference shift, normalised.

    Attributes:
        log_p: the law, shape (..., vocabulary).
        log_z: logarithm of what it was divided by, shape (...).
    """

    log_p: Tensor
    log_z: Tensor


def product(target: Tensor, aligned: Tensor, sft: Tensor) -> Tensor:
    """log(target * aligned / sft); a token that is impossible in any of the three is impossible in the product."""
    # Where target or aligned is -inf and sft is not, so is the sum; only minus an infinity must not be evaluated.
    return torch.where(sft == -INFINITY, -INFINITY, target + aligned - sft)


def tilt(target: Tensor, aligned: Tensor, sft: Tensor) -> Tilt:
    """The tilted target p and log Z from rows of log-probabilities."""
    shifted = product(target, aligned, sft)
    log_z = shifted.logsumexp(-1)
    return Tilt(shifted - log_z[..., None], log_z)


class Judged(NamedTuple):
    """What decides over a row of proposals.

    Attributes:
        log_ratio: a proposal is kept iff log(uniform) <= min(0, log_ratio); shape (..., positions).
        log_weight: what a replacement is drawn from, before the proposals' mass is taken off it; shape (..., positions,
            vocabulary).
        log_p: the law drawn from where nothing is left to replace with, likewise.
    """

    log_ratio: Tensor
    log_weight: Tensor
    log_p: Tensor


def judge(
    mode: Mode, tokens: Tensor, proposal: Tensor, log_p: Tensor, target: Tensor, sft: Tensor | None = None
) -> Judged:
    """How a mode judges proposed tokens.

    Args:
        mode: the rule; `exact` is ordinary speculative sampling from `proposal` to `log_p`.
        tokens: proposed ids, shape (..., positions).
        proposal: the rows they were drawn from, (..., positions, vocabulary).
        log_p: the tilted target (for `exact` any law), of the same shape.
        target: rows of the target.
        sft: rows of the SFT draft; not needed in `exact`.
    """
    if mode == "exact":
        return Judged(_at(log_p, tokens) - _at(proposal, tokens), log_p, log_p)
    assert sft is not None, "only mode exact does without the SFT draft's rows"
    shifted = product(target, proposal, sft)
    p = shifted.log_softmax(-1)
    if mode == "released":
        return Judged(_at(target, tokens) - _at(proposal, tokens), shifted, p)
    ratio = torch.where(_at(shifted, tokens) == -INFINITY, -INFINITY, _at(target, tokens) - _at(sft, tokens))
    return Judged(ratio, shifted, p)


def replacement(mode: Mode, log_weight: Tensor, proposal: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor]:
    """Unnormalised probabilities of the token that replaces the first rejected one, and where the residual was empty.

    Args:
        mode: the rule.
        log_weight: the rejected position's row of `Judged.log_weight`, (..., vocabulary).
        proposal: its proposal row; all -inf after a round in which every proposal was kept, which makes the
            replacement the bonus token's law.
        log_p: the law that stands in for an empty residual.

    Returns:
        Weights of shape (..., vocabulary), and a mask (...) of rows that fell back to `log_p`.
    """
    weight = log_weight.exp()
    if mode != "released":  # the authors' public code subtracts nothing
        weight = (weight - proposal.exp()).clamp_(min=0)
    if mode == "paper":  # q~ may lie nowhere above the proposal: what rounding leaves of nothing is no residual
        slack = ROUNDING * torch.finfo(proposal.dtype).eps * (1 + proposal.abs())
        weight = weight.masked_fill(log_weight - proposal <= slack, 0)
    empty = weight.sum(-1) <= 0
    return torch.where(empty[..., None], log_p.exp(), weight), empty


def token_law(mode: Mode, target: Tensor, aligned: Tensor, sft: Tensor, proposal: Tensor | None = None) -> Tensor:
    """The closed-form law of one token that a mode puts out: probabilities, from rows of log-probabilities.

    Args:
        mode: the rule; the replacement of `released` is sampled.
        target: of the large model.
        aligned: of the aligned draft.
        sft: of the SFT draft.
        proposal: what the proposals are drawn from; `aligned` itself where it is not given.
    """
    proposal = aligned if proposal is None else proposal
    log_p, _ = tilt(target, aligned, sft)
    everything = torch.arange(target.shape[-1], device=target.device)
    kept = proposal.exp() * _acceptances(mode, everything, proposal, log_p, target, sft)
    if mode == "exact":
        weights, _ = replacement(mode, log_p, proposal, log_p)
    else:
        shifted = product(target, proposal, sft)
        weights, _ = replacement(mode, shifted, proposal, shifted.log_softmax(-1))
    rejected = 1 - kept.sum(-1, keepdim=True)
    return kept + rejected.clamp(min=0) * weights / weights.sum(-1, keepdim=True)


def acceptance(mode: Mode, target: Tensor, aligned: Tensor, sft: Tensor, proposal: Tensor | None = None) -> Tensor:
    """The expected share of judged proposals that a mode keeps, shape (...)."""
    proposal = aligned if proposal is None else proposal
    log_p, _ = tilt(target, aligned, sft)
    everything = torch.arange(target.shape[-1], device=target.device)
    return (proposal.exp() * _acceptances(mode, everything, proposal, log_p, target, sft)).sum(-1)


def tokens_per_round(acceptance: float, draft_tokens: int, *, bonus: bool) -> float:
    """Expected tokens of a round at constant acceptance a: (1 - a^(K+1)) / (1 - a); without bonus K is the exponent."""
    terms = draft_tokens + 1 if bonus else draft_tokens
    return float(sum(acceptance**power for power in range(terms)))


def _acceptances(mode: Mode, tokens: Tensor, proposal: Tensor, log_p: Tensor, target: Tensor, sft: Tensor) -> Tensor:
    """Probability with which each token of the vocabulary would be kept; 0 where it is never proposed."""
    rows = (row[..., None, :].expand(*row.shape[:-1], tokens.numel(), -1) for row in (proposal, log_p, target, sft))
    ids = tokens.expand(proposal.shape)
    ratio = judge(mode, ids, *rows).log_ratio
    return torch.where(proposal == -INFINITY, 0.0, ratio.clamp(max=0).exp())


def _at(rows: Tensor, tokens: Tensor) -> Tensor:
    """The entries of rows (..., vocabulary) at tokens (...)."""
    return rows.gather(-1, tokens[..., None])[..., 0]
