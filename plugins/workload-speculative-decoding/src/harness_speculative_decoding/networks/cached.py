"""Sequences that a causal language model has read so far, and how the last tokens are taken back.

A decoder needs four things of a model: read prompts, read some more tokens and say what may follow each of them, forget
the last ones of each row, and let go of rows that have ended. `StaticCacheModel` writes keys and values into memory
that is allocated once, each row at its own length, so that taking tokens back moves a number; `DynamicCacheModel` does
it with transformers' own cache, one sequence at a time, for models that the former does not fit; `UncachedModel`
computes everything anew, to check the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from harness_speculative_decoding.networks.fused import Angles, FusedPass, fused_pass
from harness_speculative_decoding.networks.layouts import Layouts

TOKENS_AT_ONCE = 1024
"""Prompts are read in passes of so many tokens: no mask has more rows, however long the prompt."""

FEW_TOKENS = 32
"""Masks of passes with at most so many tokens a row are kept."""


class CausalModel(Protocol):
    """A batch of sequences and what a model says about their next tokens.

    Attributes:
        lengths: tokens read so far, a row.
        device: where the logits are.
    """

    lengths: list[int]
    device: torch.device

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        """Begins anew with one row a prompt, which may be empty; no row will grow beyond `capacity` tokens."""

    def extend(self, tokens: Tensor, keep: int) -> Tensor:
        """Reads tokens (rows, n) and returns the logits after the last `keep` of them, (rows, keep, vocabulary)."""

    def drop(self, counts: Sequence[int]) -> None:
        """Forgets the last tokens, so many a row; called after every round, also with zeros."""

    def select(self, rows: Sequence[int]) -> None:
        """Keeps only these rows, in this order."""


def on_device(values: Sequence[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers as a tensor; a CUDA device goes on with its work while they are copied."""
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Rows of different lengths as one tensor, filled up with token 0 on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)


class _Wrapped:
    """What the wrappers share: the model, its device, which logits it is asked for."""

    def __init__(self, model: PreTrainedModel, vocabulary: int | None = None) -> None:
        self.model = model
        self.device = model.device
        self.lengths: list[int] = []
        self._vocabulary = vocabulary
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def _logits(self, tokens: Tensor, keep: int, **arguments: Any) -> Tensor:
        if self._keeps:
            arguments["logits_to_keep"] = keep
        logits: Tensor = self.model(input_ids=tokens, **arguments).logits
        return logits[:, -keep:, : self._vocabulary]


class _Layout:
    """Where the next tokens go: shared by all layers of a static cache.

    Attributes:
        width: slots that are looked at.
        first: the first slot to be written, where all rows have the same length; None where they have not.
        rows, slots: indices of the slots to be written, where they have not.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.width = 0
        self.first: int | None = 0
        self.rows: Tensor | None = None
        self.slots: Tensor | None = None


class _StaticRows(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of a layer, each row at its own length; slots behind a row's end hold what nobody looks at."""

    is_sliding = False
    is_croppable = True

    def __init__(self, layout: _Layout) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layout = layout

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        def allocate(like: Tensor) -> Tensor:
            return like.new_zeros(*like.shape[:2], self.layout.capacity, like.shape[-1])

        self.keys, self.values = allocate(key_states), allocate(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None  # noqa: PT018 - for mypy
        layout = self.layout
        if layout.first is not None:
            count = layout.width - layout.first
            self.keys.narrow(2, layout.first, count).copy_(key_states)
            self.values.narrow(2, layout.first, count).copy_(value_states)
        else:
            self.keys[layout.rows, :, layout.slots] = key_states.transpose(1, 2)
            self.values[layout.rows, :, layout.slots] = value_states.transpose(1, 2)
        return self.keys.narrow(2, 0, layout.width), self.values.narrow(2, 0, layout.width)

    def selected(self, rows: Tensor) -> _StaticRows:
        """A copy of some rows; this one stays as it is."""
        copy = _StaticRows(self.layout)
        if self.keys is not None and self.values is not None:
            copy.keys, copy.values, copy.is_initialized = self.keys[rows], self.values[rows], True
        return copy

    def get_seq_length(self) -> int:
        return self.layout.width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002 - transformers' signature
        return self.layout.width, 0

    def get_max_length(self) -> int:
        return self.layout.capacity


class StaticCacheModel(_Wrapped):
    """A model with full attention and a cache in memory that is allocated once; any number of rows.

    Rows begin at slot 0 and have their own lengths. What a row has dropped stays behind the causal mask until it is
    written over, so dropping costs nothing. The memory is kept for the next batch of as many rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: int | None = None,
        *,
        fused: bool = False,
        layouts: Layouts | None = None,
    ) -> None:
        super().__init__(model, vocabulary)
        self._fused: FusedPass | None = fused_pass(model, layouts) if fused else None
        self._angles: Angles | None = None
        self._bands: dict[int, Tensor] = {}
        self._layers = len(DynamicCache(config=model.config).layers)
        context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        self._last_position = context - 1 if isinstance(context, int) and context > 0 else None
        self._kept: tuple[int, tuple[_StaticRows, ...]] | None = None
        self._layout = _Layout(0)

    @property
    def is_fused(self) -> bool:
        """Whether passes skip transformers' modules."""
        return self._fused is not None

    @property
    def layouts(self) -> Layouts | None:
        """How the weights of fused passes lie in memory; None where passes are transformers'."""
        return None if self._fused is None else self._fused.layouts

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        """Reads the prompts, filled up on the right, in passes of at most `TOKENS_AT_ONCE`."""
        self._take_memory(len(prompts), capacity)
        self.lengths = [0] * len(prompts)
        if any(prompts):
            for piece in torch.split(padded(prompts, self.device), TOKENS_AT_ONCE, dim=1):
                self.extend(piece, 1)
            self.lengths = [len(prompt) for prompt in prompts]

    def _take_memory(self, rows: int, capacity: int) -> bool:
        """Memory for a batch: that of the last one with as many rows where it is large enough. Whether it is new."""
        kept = self._kept
        if kept is not None and kept[0] == rows and self._layout.capacity >= capacity:
            self._static = list(kept[1])
            self._cache = Cache(layers=list(self._static))
            return False
        self._layout = _Layout(capacity)
        self._static = [_StaticRows(self._layout) for _ in range(self._layers)]
        self._cache = Cache(layers=list(self._static))
        self._kept = rows, tuple(self._static)
        self._slots = torch.arange(capacity, device=self.device)
        self._bands = {}
        # This table lives as long as this memory, whatever longer one others ask for: captured passes read both.
        self._angles = None if self._fused is None else self._fused.angles(capacity)
        return True

    def let_go(self) -> None:
        """Gives back the memory that is kept for the next batch."""
        self._kept = None

    def _mask(self, positions: Tensor, width: int) -> Tensor:
        """What is added to the attention scores of tokens at positions (rows, n): (rows, 1, n, width)."""
        mask = torch.zeros(*positions.shape, width, dtype=self.model.dtype, device=self.device)
        mask.masked_fill_(self._slots[:width] > positions[..., None], torch.finfo(self.model.dtype).min)
        return mask[:, None]

    def _band(self, first: int, count: int) -> Tensor:
        """The same for rows that all begin at slot `first`: a view of a mask that is made once, (1, 1, n, width)."""
        if count > FEW_TOKENS:
            return self._mask(self._slots[None, first : first + count], first + count)
        band = self._bands.get(count)
        if band is None:
            slots = torch.arange(-self._layout.capacity, self._layout.capacity, device=self.device)
            band = torch.zeros(count, len(slots), dtype=self.model.dtype, device=self.device)
            band.masked_fill_(slots > self._slots[:count, None], torch.finfo(self.model.dtype).min)
            self._bands[count] = band
        begin = self._layout.capacity - first
        return band[None, None, :, begin : begin + first + count]

    def extend(self, tokens: Tensor, keep: int) -> Tensor:
        """Writes the tokens behind each row's end."""
        count, layout = tokens.shape[1], self._layout
        layout.width = max(self.lengths) + count
        assert layout.width <= layout.capacity, f"{layout.width} tokens in a cache of {layout.capacity}"
        if min(self.lengths) == max(self.lengths):
            layout.first = self.lengths[0]
            positions = self._slots[None, layout.first : layout.width]
            # A single token sees everything: no mask is the fast path of the attention kernels.
            mask = None if count == 1 else self._band(layout.first, count)
        else:
            layout.first = None
            ends = on_device(self.lengths, self.device)
            positions = ends[:, None] + self._slots[:count]
            layout.rows, layout.slots = torch.arange(len(tokens), device=self.device)[:, None], positions
            mask = self._mask(positions, layout.width)
        self.lengths = [length + count for length in self.lengths]
        return self._pass(tokens, keep, positions, mask)

    def _pass(self, tokens: Tensor, keep: int, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Logits of the tokens; positions and mask have one row where all rows share them."""
        if self._fused is not None:
            assert self._angles is not None
            first, width = self._layout.first, self._layout.width
            place = positions if first is None else slice(first, width)
            cosine, sine = self._angles
            logits = self._fused(tokens, (cosine[place], sine[place]), mask, self._static, keep)
            return logits[..., : self._vocabulary]
        if self._last_position is not None:  # tokens that fill up a row that is nearly done; nobody reads them
            positions = positions.clamp(max=self._last_position)
        return self._logits(
            tokens,
            keep,
            past_key_values=self._cache,
            use_cache=True,
            position_ids=positions.expand(len(tokens), -1),
            attention_mask=None if mask is None else mask.expand(len(tokens), -1, -1, -1),
        )

    def drop(self, counts: Sequence[int]) -> None:
        """Moves the rows' ends."""
        self.lengths = [length - count for length, count in zip(self.lengths, counts, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """Copies the rows that stay."""
        index = torch.tensor(list(rows), device=self.device)
        self._static = [layer.selected(index) for layer in self._static]
        self._cache = Cache(layers=list(self._static))
        self.lengths = [self.lengths[row] for row in rows]


class DynamicCacheModel(_Wrapped):
    """A model with transformers' own cache, for one sequence at a time: sliding windows, convolutions and the like."""

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        """Reads the one prompt; raises ValueError for more."""
        del capacity  # this cache grows
        if len(prompts) != 1:
            raise ValueError(f"{type(self.model).__name__} with a dynamic cache decodes one request at a time")
        self._cache = DynamicCache(config=self.model.config)
        self.lengths = [0]
        if prompts[0]:
            self.extend(padded(prompts, self.device), 1)
        # Sliding windows and convolutions must keep what a rollback brings back; only now, or they keep all the prompt.
        self._cache.activate_past_recording()  # type: ignore[no-untyped-call]

    def extend(self, tokens: Tensor, keep: int) -> Tensor:
        """Appends the tokens."""
        self.lengths = [self.lengths[0] + tokens.shape[1]]
        return self._logits(tokens, keep, past_key_values=self._cache, use_cache=True)

    def drop(self, counts: Sequence[int]) -> None:
        """Crops by minus the number to remove; 0 is no no-op for sliding windows, which trim there."""
        self._cache.crop(-counts[0])
        self.lengths = [self.lengths[0] - counts[0]]

    def select(self, rows: Sequence[int]) -> None:
        """Nothing to let go of: the one row stays, or there is none."""
        self.lengths = [self.lengths[row] for row in rows]


class UncachedModel(_Wrapped):
    """A model that reads every row from its beginning each time: slow, to check the caches with."""

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        """Keeps the prompts."""
        del capacity
        self._ids = [list(prompt) for prompt in prompts]
        self.lengths = [len(prompt) for prompt in prompts]

    def extend(self, tokens: Tensor, keep: int) -> Tensor:
        """Reads each row alone, from its first token."""
        for row, new in zip(self._ids, tokens.tolist(), strict=True):
            row.extend(new)
        self.lengths = [len(row) for row in self._ids]
        alone = [self._logits(torch.tensor([row], device=self.device), keep, use_cache=False) for row in self._ids]
        return torch.cat(alone)

    def drop(self, counts: Sequence[int]) -> None:
        """Shortens the rows."""
        self._ids = [row[: len(row) - count] for row, count in zip(self._ids, counts, strict=True)]
        self.lengths = [len(row) for row in self._ids]

    def select(self, rows: Sequence[int]) -> None:
        """Keeps rows."""
        self._ids = [self._ids[row] for row in rows]
        self.lengths = [len(row) for row in self._ids]
