"""One model serving many requests: packed decoding whose results do not depend on what else is in the batch.

How a request's tokens come out bit-equal alone, in every batch and configuration, with one model and one dtype:

- A prompt is computed by itself, in one pass: nothing of another request enters.
- Every later token is one row of a *tile* of a fixed number of rows; a tile that is not full is filled up with rows
  whose results are dropped. Matrix products thus always have the same shape, so the library takes the same kernel and
  the same order of summation for a row, whatever the other rows hold. That the place in the tile makes no difference
  either is tried when the engine starts (`rows_are_equal`); where it does, tiles have one row.
- Attention is computed row by row, over exactly the keys that the row may see: there is no padding whose length could
  change a sum.

A verified token is such a row too. Verifying therefore gives the very logits that decoding would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from harness_disaggregated_serving.runtime.memory import capacity_for
from harness_disaggregated_serving.traffic import ModelShape

_ATTENTION: Final = "joule_rows"
_UNSUPPORTED: Final = ("sliding_window", "softcap", "s_aux", "position_bias")
"""Settings of an attention layer that change its result and that row-wise attention does not apply."""


@dataclass(slots=True)
class Cache:
    """Keys and values of one request.

    Attributes:
        slabs: shape (layers, 2, capacity, KV heads, head width): the tokens of one layer's keys are contiguous.
        length: tokens that are in it.
    """

    slabs: Tensor
    length: int = 0

    def pieces(self) -> list[Tensor]:
        """Keys and values of the tokens held, layer by layer: contiguous views, as they go over a link."""
        return [slab[: self.length] for layer in self.slabs for slab in layer]


@dataclass(slots=True)
class Running:
    """A request's tokens and, for the first of them, their keys and values."""

    tokens: list[int]
    cache: Cache = field(repr=False)

    @property
    def unseen(self) -> list[int]:
        """Tokens that the model has not computed yet."""
        return self.tokens[self.cache.length :]


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A pass over one whole prompt."""

    cache: Cache


@dataclass(frozen=True, slots=True)
class _Tile:
    """A pass over rows: the cache and the position of each; rows beyond them are filling."""

    rows: Sequence[tuple[Cache, int]]


def _row_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    scaling: float | None = None,
    packed: _Prompt | _Tile | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attention in the signature of transformers' attention functions; query (1, heads, rows, width)."""
    found = [name for name in _UNSUPPORTED if settings.get(name) is not None]
    if packed is None or found:
        raise ValueError(
            f"row-wise attention has no {', '.join(found) or 'rows: the model was not called by an engine'}"
        )
    keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)
    if isinstance(packed, _Prompt):
        slabs, count = packed.cache.slabs[module.layer_idx], keys.shape[0]
        slabs[0, :count], slabs[1, :count] = keys, values
        return _attend(query, slabs, count, scaling, causal=True).transpose(1, 2), None
    output = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[-1])
    for row, (cache, position) in enumerate(packed.rows):
        slabs = cache.slabs[module.layer_idx]
        slabs[0, position], slabs[1, position] = keys[row], values[row]
    for row, (cache, position) in enumerate(packed.rows):
        slabs = cache.slabs[module.layer_idx]
        output[0, row] = _attend(query[:, :, row : row + 1], slabs, position + 1, scaling, causal=False)[0, :, 0]
    return output, None


def _attend(query: Tensor, slabs: Tensor, count: int, scaling: float | None, *, causal: bool) -> Tensor:
    keys, values = slabs[0, :count].transpose(0, 1)[None], slabs[1, :count].transpose(0, 1)[None]
    grouped = query.shape[1] != keys.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(
        query, keys, values, is_causal=causal and count > 1, scale=scaling, enable_gqa=grouped
    )


AttentionInterface.register(_ATTENTION, _row_attention)


def shape_of(model: PreTrainedModel) -> ModelShape:
    """The shape of a model's cache."""
    config = model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelShape(
        layers=config.num_hidden_layers,
        kv_heads=kv_heads,
        head_width=width,
        element_bytes=model.dtype.itemsize,
        parameters=float(sum(weight.numel() for weight in model.parameters())),
        vocabulary=config.vocab_size,
    )


class Engine:
    """A causal language model of transformers that computes packed rows.

    Args:
        model: in eval mode, with full attention in every layer; the engine changes its attention function.
        rows: rows of a tile.

    Raises:
        ValueError: for a model whose attention cannot be exchanged.
    """

    def __init__(self, model: PreTrainedModel, rows: int = 8) -> None:
        model.set_attn_implementation(_ATTENTION)
        if model.config.get_text_config(decoder=True)._attn_implementation != _ATTENTION:  # noqa: SLF001 - transformers has no public reading of it
            raise ValueError(f"{type(model).__name__} has attention of its own that cannot be exchanged")
        self.model = model
        self.shape = shape_of(model)
        self.bytes_per_token = self.shape.kv_bytes_per_token
        self.vocabulary = self.shape.vocabulary
        self.weight_bytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        self.rows = rows if rows_are_equal(model, rows) else 1

    def new_cache(self, tokens: int) -> Cache:
        """An empty cache with room for so many tokens."""
        shape = self.shape
        size = (shape.layers, 2, capacity_for(tokens), shape.kv_heads, shape.head_width)
        return Cache(torch.empty(size, dtype=self.model.dtype, device=self.model.device))

    @torch.inference_mode()
    def prefill(self, sequence: Running) -> Tensor:
        """Computes all tokens of a sequence whose cache is empty; logits of the next token, (vocabulary,)."""
        if sequence.cache.length:
            raise ValueError("a prompt is computed once, into an empty cache")
        logits = self._forward(sequence.tokens, range(len(sequence.tokens)), _Prompt(sequence.cache), keep=1)
        sequence.cache.length = len(sequence.tokens)
        return logits[0]

    @torch.inference_mode()
    def advance(self, sequences: Sequence[Running]) -> list[Tensor]:
        """Computes the unseen tokens of each sequence, tile by tile; their logits, (unseen tokens, vocabulary) each."""
        rows = [
            (sequence.cache, sequence.cache.length + offset, token)
            for sequence in sequences
            for offset, token in enumerate(sequence.unseen)
        ]
        counts = [len(sequence.unseen) for sequence in sequences]
        results = []
        for start in range(0, len(rows), self.rows):
            tile = rows[start : start + self.rows]
            filling = self.rows - len(tile)
            tokens = [token for _, _, token in tile] + [0] * filling
            positions = [position for _, position, _ in tile] + [0] * filling
            packed = _Tile([(cache, position) for cache, position, _ in tile])
            results.append(self._forward(tokens, positions, packed, keep=self.rows)[: len(tile)])
        for sequence in sequences:
            sequence.cache.length = len(sequence.tokens)
        return list(torch.split(torch.cat(results), counts)) if results else []

    def _forward(self, tokens: Sequence[int], positions: Sequence[int], packed: _Prompt | _Tile, keep: int) -> Tensor:
        device = self.model.device
        output = self.model(
            input_ids=torch.tensor([list(tokens)], device=device),
            position_ids=torch.tensor([list(positions)], device=device),
            use_cache=False,
            logits_to_keep=keep,
            packed=packed,
        )
        logits: Tensor = output.logits[0]
        return logits

    @staticmethod
    def rewind(sequence: Running, length: int) -> None:
        """Forgets all tokens after the first `length`, in the cache too."""
        del sequence.tokens[length:]
        sequence.cache.length = min(sequence.cache.length, length)


@torch.inference_mode()
def rows_are_equal(model: PreTrainedModel, rows: int) -> bool:
    """Whether every linear layer gives a row the same bits at every place of a tile of so many rows.

    The order of summation depends on shapes and not on values, so that one trial with random values decides it.
    """
    seen: set[tuple[int, ...]] = set()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if not isinstance(module, torch.nn.Linear) or tuple(module.weight.shape) in seen:
            continue
        seen.add(tuple(module.weight.shape))
        values = torch.randn(rows, module.in_features, generator=generator).to(model.device, model.dtype)
        straight = module(values)
        for shift in range(1, rows):
            if not torch.equal(module(values.roll(shift, 0)).roll(-shift, 0), straight):
                return False
    return True
