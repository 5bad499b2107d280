"""Service times of the phases, and how many decode steps fit into a time, both in closed form.

Prefill: a + b sum(n) + c sum(n^2) over the prompts of a batch. Decode step: a + b context + c batch, where the context
grows by one token per sequence and step, so that k steps take a sum of an arithmetic series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.errors import UsageError


def _checked(**coefficients: float) -> None:
    for name, value in coefficients.items():
        if not (value >= 0 and math.isfinite(value)):
            raise UsageError(f"{name} is {value}", accepted="a finite number, 0 or more")


@dataclass(frozen=True, slots=True)
class PrefillCost:
    """Time of one prefill batch."""

    fixed_s: float
    per_token_s: float = 0.0
    per_square_s: float = 0.0

    def __post_init__(self) -> None:
        _checked(fixed_s=self.fixed_s, per_token_s=self.per_token_s, per_square_s=self.per_square_s)

    def seconds(self, tokens: int, squares: int) -> float:
        """Time for prompts whose lengths sum to `tokens` and their squares to `squares`."""
        return self.fixed_s + self.per_token_s * tokens + self.per_square_s * squares


@dataclass(frozen=True, slots=True)
class DecodeCost:
    """Time of decode steps."""

    fixed_s: float
    per_context_s: float = 0.0
    per_sequence_s: float = 0.0

    def __post_init__(self) -> None:
        _checked(fixed_s=self.fixed_s, per_context_s=self.per_context_s, per_sequence_s=self.per_sequence_s)

    def seconds(self, steps: int, batch: int, context: int) -> float:
        """Time of `steps` steps of `batch` sequences whose contexts sum to `context` at the first of them."""
        first = self.fixed_s + self.per_context_s * context + self.per_sequence_s * batch
        return steps * first + self.per_context_s * batch * (steps * (steps - 1) / 2)

    def steps_within(self, duration_s: float, batch: int, context: int) -> int:
        """The least number of steps, at least 1, that take `duration_s` or longer; a huge number if none do."""
        first = self.fixed_s + self.per_context_s * context + self.per_sequence_s * batch
        growth = self.per_context_s * batch
        if duration_s <= first:
            return 1
        if first <= 0 and growth <= 0:
            return 1 << 62
        if growth <= 1e-9 * first:
            steps = math.ceil(duration_s / first)
        else:
            slope = first - growth / 2
            root = math.sqrt(slope * slope + 2 * growth * duration_s)
            steps = max(1, math.ceil(2 * duration_s / (root + slope)))
        # The root is rounded: one step too few or too many is put right by the sum itself.
        while self.seconds(steps, batch, context) < duration_s:
            steps += 1
        while steps > 1 and self.seconds(steps - 1, batch, context) >= duration_s:
            steps -= 1
        return steps


@dataclass(frozen=True, slots=True)
class PhaseCosts:
    """Service times of one model on one device."""

    prefill: PrefillCost
    decode: DecodeCost

    def verify_s(self, batch: int, proposals: int, context: int) -> float:
        """Time to judge `proposals` tokens of each of `batch` sequences: a short prefill that reads their contexts."""
        width = proposals + 1
        return self.prefill.seconds(batch * width, batch * width * width) + self.decode.per_context_s * context
