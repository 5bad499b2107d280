"""Random numbers of a request: its tokens depend on its own seed, whatever else is decoded beside it."""

from __future__ import annotations

import random


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
