"""The passes of a model as they were made, to be made again in a span of their own: energy by role as a measurement."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness_speculative_decoding.networks.cached import CausalModel


class Traced:
    """A `CausalModel` that remembers what it was asked; implements the same protocol.

    Args:
        model: does the work.
    """

    def __init__(self, model: CausalModel) -> None:
        self.model = model
        self.device = model.device
        self._calls: list[tuple[str, tuple[object, ...]]] = []

    @property
    def lengths(self) -> list[int]:
        """Tokens read so far, a row."""
        return self.model.lengths

    @lengths.setter
    def lengths(self, lengths: list[int]) -> None:
        self.model.lengths = lengths

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        """Begins anew."""
        self._calls.append(("prefill", (prompts, capacity)))
        self.model.prefill(prompts, capacity)

    def extend(self, tokens: Tensor, keep: int) -> Tensor:
        """Reads tokens."""
        self._calls.append(("extend", (tokens, keep)))
        return self.model.extend(tokens, keep)

    def drop(self, counts: Sequence[int]) -> None:
        """Forgets tokens."""
        self._calls.append(("drop", (counts,)))
        self.model.drop(counts)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps rows."""
        self._calls.append(("select", (rows,)))
        self.model.select(rows)

    def forget(self) -> None:
        """Lets go of the trace."""
        self._calls = []

    @torch.inference_mode()
    def replay(self) -> int:
        """Makes all passes again in their order, and returns how many there were, those over prompts included."""
        passes = 0
        for name, arguments in self._calls:
            getattr(self.model, name)(*arguments)
            passes += name in {"prefill", "extend"}
        return passes
