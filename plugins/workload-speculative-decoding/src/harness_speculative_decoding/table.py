"""A language model written down as a table, to check laws whose closed form is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class TableModel:
    """Next-token logits by the tokens generated so far; implements `harness_speculative_decoding.networks.cached.CausalModel`.

    Args:
        tables: `tables[d]` holds the logits after d tokens, shape (vocabulary ** d, vocabulary); a prefix is read as a
            number in base `vocabulary`, its first token the most significant digit. After the last table, its rows are
            looked up by the last tokens alone.
        prompt: tokens in front that do not count.
    """

    def __init__(self, tables: Sequence[Tensor], prompt: int = 1) -> None:
        self._tables = list(tables)
        self._vocabulary = tables[0].shape[-1]
        self._prompt = prompt
        self.device = tables[0].device
        self.lengths: list[int] = []

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        """Keeps the prompts."""
        self._ids = torch.zeros(len(prompts), capacity, dtype=torch.long, device=self.device)
        for row, prompt in enumerate(prompts):
            self._ids[row, : len(prompt)] = torch.tensor(prompt, dtype=torch.long)
        self.lengths = [len(prompt) for prompt in prompts]

    def extend(self, tokens: Tensor, keep: int) -> Tensor:
        """Looks up the rows after the last `keep` tokens."""
        count = tokens.shape[1]
        ends = torch.tensor(self.lengths, device=self.device)
        slots = ends[:, None] + torch.arange(count, device=self.device)
        self._ids.scatter_(1, slots, tokens)
        self.lengths = [length + count for length in self.lengths]
        return torch.stack([self._row(slots[:, position]) for position in range(count - keep, count)], dim=1)

    def _row(self, last: Tensor) -> Tensor:
        """Logits after the token in slot `last`, (rows,) -> (rows, vocabulary)."""
        found = torch.empty(len(last), self._vocabulary, dtype=self._tables[0].dtype, device=self.device)
        depth = (last + 1 - self._prompt).clamp(max=len(self._tables) - 1)
        for looked_at in sorted(set(depth.tolist())):
            rows = (depth == looked_at).nonzero()[:, 0]
            number = torch.zeros(len(rows), dtype=torch.long, device=self.device)
            for back in range(looked_at - 1, -1, -1):
                number = number * self._vocabulary + self._ids[rows, last[rows] - back]
            found[rows] = self._tables[looked_at][number]
        return found

    def drop(self, counts: Sequence[int]) -> None:
        """Moves the rows' ends."""
        self.lengths = [length - count for length, count in zip(self.lengths, counts, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """Keeps rows."""
        self._ids = self._ids[list(rows)]
        self.lengths = [self.lengths[row] for row in rows]
