"""How the next token is chosen from logits: one warping function and one way to draw.

The law is p = softmax(logits / temperature) in float32, restricted to the `top_k` most likely tokens, then to the
smallest set of most likely tokens whose share of what is left reaches `top_p`, each time renormalised. Temperature 0 is
greedy: all mass on the most likely token. Ties go to the lower token id everywhere.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor


class SpeculationError(RuntimeError):
    """An invariant of the algorithm does not hold: a model that misbehaves, or a fault here."""


NO_LAW = "the models' logits leave no token possible, or are not numbers"


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of the sampling law.

    Attributes:
        temperature: 0 for greedy.
        top_k: how many tokens to keep; 0 for all.
        top_p: mass to keep, in (0, 1]; 1 for all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is finite and not negative, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k is not negative, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p lies in (0, 1], not {self.top_p}")


def warp(logits: Tensor, sampling: Sampling) -> Tensor:
    """The law that the next token is drawn from: float32 probabilities of the shape of `logits`, (..., vocabulary)."""
    logits = logits.float()
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    # Subtracting the maximum first keeps logits / temperature finite for temperatures close to 0.
    scaled = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    probabilities = scaled.softmax(-1)
    if sampling.top_k == 0 and sampling.top_p == 1:
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k:
        ordered[..., sampling.top_k :] = 0
        ordered /= ordered.sum(-1, keepdim=True)
    if sampling.top_p < 1:
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= sampling.top_p, 0)  # the first token has nothing before it: it stays
        ordered /= ordered.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, ordered)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draws by inverting the cumulative distribution, so that one uniform number decides one token.

    A request's tokens then depend on its own generator alone, whatever else is in its batch.

    Args:
        probabilities: shape (batch, vocabulary); a token of probability 0 is never drawn.
        uniform: numbers in [0, 1), shape (batch,), float64 where the device has it.

    Returns:
        Token ids, shape (batch,).
    """
    cumulative = probabilities.cumsum(-1, dtype=uniform.dtype)
    whole = cumulative[:, -1:]
    level = torch.minimum(uniform[:, None] * whole, torch.nextafter(whole, whole.new_zeros(())))
    found = torch.searchsorted(cumulative, level, right=True)[:, 0]
    return found.clamp_(max=probabilities.shape[-1] - 1)  # only where they are no numbers, which callers find out


def log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """The model's own log-probability of tokens, before any warping; logits (batch, vocabulary) -> (batch,)."""
    logits = logits.float()
    return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


class Uniforms:
    """Numbers in [0, 1) with 53 bits from a generator of their own, one after another.

    Args:
        seed: of the request.
        purpose: what they are for; another purpose has other numbers.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._next = random.Random(f"{seed}:{purpose}").random  # noqa: S311 - a reproducible sample, no secret

    def take(self, count: int) -> list[float]:
        """The next numbers."""
        return [self._next() for _ in range(count)]
