"""Passes of fixed shapes over a static cache, captured as CUDA graphs where there is a CUDA device.

A graph repeats the same kernels on the same memory: a pass therefore looks at a fixed part of the cache, with a mask
that hides what lies behind each row's end, and where the rows end is a tensor on the device. Elsewhere the same passes
run one operation at a time, which is how they are tested.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, cuda
from transformers import PreTrainedModel

from harness_speculative_decoding.networks.cached import TOKENS_AT_ONCE, StaticCacheModel, on_device, padded
from harness_speculative_decoding.networks.layouts import Layouts

WARM_UPS = 3
"""Runs before a capture, so that kernels are chosen and workspaces allocated."""

SLOTS_AT_ONCE = 16
"""Capacities are multiples of this: attention kernels want masks whose rows are aligned, and buffers fit more often."""

LEAST_SEEN = 256
"""Slots that a pass looks at are this many, twice as many and so on: a long cache is not read for a short text."""

Pass = Callable[[Tensor, Tensor], Tensor]
"""(tokens, ends of the rows) -> logits."""


class CapturedPass:
    """A pass as a CUDA graph.

    Args:
        run: does the work with tensors that stay on the device.
        tokens, ends: of the first call; later ones have the same shapes.

    Raises:
        RuntimeError: what the pass asked for cannot be captured; the process goes on with the stream it had.
    """

    def __init__(self, run: Pass, tokens: Tensor, ends: Tensor) -> None:
        self._tokens, self._ends = tokens.clone(), ends.clone()
        own = cuda.current_stream()
        aside = cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(own)
        with cuda.stream(aside):
            for _ in range(WARM_UPS):
                run(self._tokens, self._ends)
            cuda.synchronize()
            self._graph = cuda.CUDAGraph()
            self._graph.capture_begin()
            try:
                self._logits = run(self._tokens, self._ends)
            except BaseException:
                # Ending a capture that has failed fails again, and says less.
                with contextlib.suppress(RuntimeError):
                    self._graph.capture_end()
                raise
            self._graph.capture_end()
        own.wait_stream(aside)

    def __call__(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """Repeats the kernels; the logits are the caller's own."""
        self._tokens.copy_(tokens)
        self._ends.copy_(ends)
        self._graph.replay()
        return self._logits.clone()


class FixedShapeModel(StaticCacheModel):
    """A static cache whose passes have fixed shapes; the memory is kept for the next batch of as many rows.

    Rows that are let go of keep their place and are computed along, where nobody looks: shapes and memory of a batch
    stay, and so do its graphs.

    Attributes:
        eager_because: why no graph is captured; empty where graphs are.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: int | None = None,
        *,
        fused: bool = False,
        layouts: Layouts | None = None,
    ) -> None:
        super().__init__(model, vocabulary, fused=fused, layouts=layouts)
        self.eager_because = "" if self.device.type == "cuda" else f"CUDA graphs run on no {self.device.type} device"
        self._graphs: dict[tuple[int, ...], CapturedPass] = {}
        self._ends = torch.zeros(0, dtype=torch.long, device=self.device)
        self._places: list[int] = []
        self._index: Tensor | None = None

    @property
    def graphs(self) -> int:
        """Passes captured so far, one for each shape."""
        return len(self._graphs)

    def warm_up(self, rows: int, length: int, capacity: int, passes: Iterable[tuple[int, int]]) -> None:
        """Takes memory and captures passes ahead of the first request.

        Args:
            rows: of a batch.
            length: tokens of the shortest prompt, from which on passes are made.
            capacity: as in `prefill`, of the longest request.
            passes: tokens that a row reads, and logits that are kept, of each kind of pass.
        """
        kinds = [(count, keep) for count, keep in passes if count <= capacity]
        self.prefill([()] * rows, capacity)
        begin = min(length, capacity)
        while kinds and begin < self._layout.capacity:
            for count, keep in kinds:
                end = min(begin, self._layout.capacity - count)
                self.lengths = [end] * rows
                self._ends = torch.full_like(self._ends, end)
                self.extend(torch.zeros(rows, count, dtype=torch.long, device=self.device), keep)
            begin = self._seen(begin + 1)
        self.prefill([()] * rows, capacity)

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        """Reads the prompts; these passes are not captured, as their length varies."""
        rows = len(prompts)
        if self._take_memory(rows, -(-capacity // SLOTS_AT_ONCE) * SLOTS_AT_ONCE):
            self._graphs = {}
            self._layout.first = None
        self._places, self._index = list(range(rows)), None
        self._ends = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.lengths = [0] * rows
        if any(prompts):
            read = 0
            for piece in torch.split(padded(prompts, self.device), TOKENS_AT_ONCE, dim=1):
                read += piece.shape[1]
                self._fixed_pass(piece, self._ends, 1, self._seen(read))
                self._ends = self._ends + piece.shape[1]
            self.lengths = [len(prompt) for prompt in prompts]
            self._ends = on_device(self.lengths, self.device)

    def extend(self, tokens: Tensor, keep: int) -> Tensor:
        """Writes the tokens behind each row's end."""
        count = tokens.shape[1]
        longest = max(self.lengths) + count
        assert longest <= self._layout.capacity, f"{self.lengths} and {count} tokens are too many"
        if self._index is not None:
            tokens = tokens.new_zeros(len(self._ends), count).index_copy_(0, self._index, tokens)
        seen = self._seen(longest)
        logits = None if self.eager_because else self._replayed(tokens, keep, seen)
        if logits is None:
            logits = self._fixed_pass(tokens, self._ends, keep, seen)
        self.lengths = [length + count for length in self.lengths]
        if self._index is None:
            self._ends = self._ends + count
            return logits
        self._ends = self._ends.index_add(0, self._index, torch.full_like(self._index, count))
        return logits[self._index]

    def _seen(self, length: int) -> int:
        """Slots that a pass looks at so that it sees so many."""
        seen = LEAST_SEEN
        while seen < length:
            seen *= 2
        return min(seen, self._layout.capacity)

    def _replayed(self, tokens: Tensor, keep: int, seen: int) -> Tensor | None:
        """Logits from the graph of this shape, captured first if need be; None where that fails."""
        shape = (*tokens.shape, keep, seen)
        if shape not in self._graphs:

            def run(tokens: Tensor, ends: Tensor) -> Tensor:
                return self._fixed_pass(tokens, ends, keep, seen)

            try:
                self._graphs[shape] = CapturedPass(run, tokens, self._ends)
            except RuntimeError as error:  # an operation that asks the host; what else is wrong shows when run eagerly
                self.eager_because = f"the pass cannot be captured: {str(error).partition(chr(10))[0]}"
                return None
        return self._graphs[shape](tokens, self._ends)

    def _fixed_pass(self, tokens: Tensor, ends: Tensor, keep: int, seen: int) -> Tensor:
        positions = ends[:, None] + self._slots[: tokens.shape[1]]
        self._layout.rows, self._layout.slots = self._slots[: len(tokens), None], positions
        self._layout.width = seen
        return self._pass(tokens, keep, positions, self._mask(positions, seen))

    def drop(self, counts: Sequence[int]) -> None:
        """Moves the rows' ends, on the device too."""
        super().drop(counts)
        if any(counts):
            everywhere = [0] * len(self._ends)
            for place, count in zip(self._places, counts, strict=True):
                everywhere[place] = count
            self._ends = self._ends - on_device(everywhere, self.device)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps the places of these rows; the others go on from slot 0, so that they stay within the cache."""
        self.lengths = [self.lengths[row] for row in rows]
        self._places = [self._places[row] for row in rows]
        self._index = on_device(self._places, self.device)
        self._ends = torch.zeros_like(self._ends).index_copy_(0, self._index, self._ends[self._index])
