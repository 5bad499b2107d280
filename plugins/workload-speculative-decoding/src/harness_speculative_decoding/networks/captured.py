"""Passes of fixed shapes over a static cache, captured as CUDA graphs where there is a CUDA device.

A graph repeats the same kernels on the same memory: a pass therefore looks at every slot of the cache, with a mask that
hides what lies behind each row's end, and where the rows end is a tensor on the device. Elsewhere the same passes run
one operation at a time, which is how they are tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness_speculative_decoding.networks.cached import TOKENS_AT_ONCE, StaticCacheModel, padded

WARM_UPS = 3
"""Runs before a capture, so that kernels are chosen and workspaces allocated."""

SLOTS_AT_ONCE = 16
"""Capacities are multiples of this: attention kernels want masks whose rows are aligned, and buffers fit more often."""

Pass = Callable[[Tensor, Tensor], Tensor]
"""(tokens, ends of the rows) -> logits."""


class CapturedPass:
    """A pass as a CUDA graph.

    Args:
        run: does the work with tensors that stay on the device.
        tokens, ends: of the first call; later ones have the same shapes.
    """

    def __init__(self, run: Pass, tokens: Tensor, ends: Tensor) -> None:
        self._tokens, self._ends = tokens.clone(), ends.clone()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                run(self._tokens, self._ends)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = run(self._tokens, self._ends)

    def __call__(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """Repeats the kernels; the logits are the caller's own."""
        self._tokens.copy_(tokens)
        self._ends.copy_(ends)
        self._graph.replay()
        return self._logits.clone()


class FixedShapeModel(StaticCacheModel):
    """A static cache whose passes have fixed shapes; the memory is kept for the next batch of as many rows.

    Graphs serve the whole batch: once a row has ended, the others' passes run without them.

    Attributes:
        eager_because: why no graph is captured; empty where graphs are.
    """

    def __init__(self, model: PreTrainedModel, vocabulary: int | None = None, *, fused: bool = False) -> None:
        super().__init__(model, vocabulary, fused=fused)
        self.eager_because = "" if self.device.type == "cuda" else f"CUDA graphs run on no {self.device.type} device"
        self._graphs: dict[tuple[int, ...], CapturedPass] = {}
        self._whole = True

    @property
    def graphs(self) -> int:
        """Passes captured so far, one for each shape."""
        return len(self._graphs)

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        """Reads the prompts; these passes are not captured, as their length varies."""
        rows = len(prompts)
        if self._take_memory(rows, -(-capacity // SLOTS_AT_ONCE) * SLOTS_AT_ONCE):
            self._graphs = {}
            self._layout.first = None
            self._layout.width = self._layout.capacity
        self._whole = True
        self._ends = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.lengths = [0] * rows
        if any(prompts):
            for piece in torch.split(padded(prompts, self.device), TOKENS_AT_ONCE, dim=1):
                self._fixed_pass(piece, self._ends, 1)
                self._ends = self._ends + piece.shape[1]
            self.lengths = [len(prompt) for prompt in prompts]
            self._ends = torch.tensor(self.lengths, device=self.device)

    def extend(self, tokens: Tensor, keep: int) -> Tensor:
        """Writes the tokens behind each row's end."""
        count = tokens.shape[1]
        assert max(self.lengths) + count <= self._layout.capacity, f"{self.lengths} and {count} tokens are too many"
        logits = self._replayed(tokens, keep) if self._whole and not self.eager_because else None
        if logits is None:
            logits = self._fixed_pass(tokens, self._ends, keep)
        self._ends = self._ends + count
        self.lengths = [length + count for length in self.lengths]
        return logits

    def _replayed(self, tokens: Tensor, keep: int) -> Tensor | None:
        """Logits from the graph of this shape, captured first if need be; None where that fails."""
        shape = (*tokens.shape, keep)
        if shape not in self._graphs:

            def run(tokens: Tensor, ends: Tensor) -> Tensor:
                return self._fixed_pass(tokens, ends, keep)

            try:
                self._graphs[shape] = CapturedPass(run, tokens, self._ends)
            except RuntimeError as error:  # an operation that asks the host; what else is wrong shows when run eagerly
                self.eager_because = f"the pass cannot be captured: {str(error).partition(chr(10))[0]}"
                return None
        return self._graphs[shape](tokens, self._ends)

    def _fixed_pass(self, tokens: Tensor, ends: Tensor, keep: int) -> Tensor:
        positions = ends[:, None] + self._slots[: tokens.shape[1]]
        self._layout.rows, self._layout.slots = self._slots[: len(tokens), None], positions
        return self._pass(tokens, keep, positions, self._mask(positions, self._layout.width))

    def drop(self, counts: Sequence[int]) -> None:
        """Moves the rows' ends, on the device too."""
        super().drop(counts)
        if any(counts):
            self._ends = self._ends - torch.tensor(list(counts), device=self.device)

    def select(self, rows: Sequence[int]) -> None:
        """Copies the rows that stay; the memory of the whole batch is kept beside them."""
        super().select(rows)
        self._ends = self._ends[torch.tensor(list(rows), device=self.device)]
        self._whole = False
