"""Admission by memory: what does not fit is a result with a reason."""

from __future__ import annotations

import math
from typing import Final

from harness.quantity import Unavailable

CAPACITY_STEP: Final = 16
"""Caches hold a multiple of so many tokens, so that every layer's slab begins on a 64-byte boundary."""


def capacity_for(tokens: int) -> int:
    """Tokens that a cache for so many tokens has room for."""
    return math.ceil(tokens / CAPACITY_STEP) * CAPACITY_STEP


class KvBudget:
    """Memory for caches on one device: what the weights and an overhead leave.

    Args:
        memory_bytes: usable memory of the device; None for no limit.
        weight_bytes: all weights that live there.
        overhead_bytes: what the framework takes.
        bytes_per_token: of all caches that a token has an entry in.
        device: its name, for reasons.
    """

    def __init__(
        self, memory_bytes: int | None, weight_bytes: int, overhead_bytes: int, bytes_per_token: int, device: str
    ) -> None:
        if bytes_per_token <= 0:
            raise ValueError(f"a token takes room, not {bytes_per_token} bytes")
        self._device = device
        self._per_token = bytes_per_token
        self._held = 0
        self.total: int | None = None if memory_bytes is None else memory_bytes - weight_bytes - overhead_bytes

    @property
    def tokens(self) -> int | None:
        """Tokens that fit when nothing is held; None for no limit."""
        return None if self.total is None else max(0, self.total) // self._per_token

    def never_fits(self, tokens: int) -> Unavailable | None:
        """Why a request of so many tokens, prompt and output, can never be served here; None if it can."""
        needed = capacity_for(tokens) * self._per_token
        if self.total is None or needed <= self.total:
            return None
        if self.total <= 0:
            return Unavailable(f"does not fit: the model leaves no memory for caches on {self._device}")
        return Unavailable(
            f"does not fit: a cache of {tokens} tokens takes {needed} bytes, {self._device} has {self.total} for caches"
        )

    def take(self, tokens: int) -> bool:
        """Holds room for a request; False if there is none right now."""
        needed = capacity_for(tokens) * self._per_token
        if self.total is not None and self._held + needed > self.total:
            return False
        self._held += needed
        return True

    def give(self, tokens: int) -> None:
        """Gives back what `take` held."""
        self._held -= capacity_for(tokens) * self._per_token
        if self._held < 0:
            raise ValueError(f"more room was given back on {self._device} than was held")
