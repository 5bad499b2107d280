"""Which cache a model gets: the one allocated once, captured or not, where it gives the same logits, or another."""

from __future__ import annotations

import inspect
import re
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from harness_speculative_decoding.networks.cached import CausalModel, DynamicCacheModel, StaticCacheModel, UncachedModel
from harness_speculative_decoding.networks.captured import FixedShapeModel
from harness_speculative_decoding.networks.layouts import Layouts

CacheKind = Literal["auto", "static", "dynamic", "none"]
CompileWish = Literal["auto", "on", "off"]

SHORTEST_PROBE = 12
"""Tokens that a wrapper is tried with where the configuration names no window, and that a probe goes beyond one."""

LONGEST_PROBE = 4096 + SHORTEST_PROBE
"""A window that takes more tokens to try is not tried: such a model gets transformers' own cache."""

_WINDOW = re.compile("window(?!_layers)|chunk_size|local_attention")


def cached_model(
    model: PreTrainedModel,
    kind: CacheKind = "auto",
    vocabulary: int | None = None,
    *,
    fused: bool = True,
    compiled: CompileWish = "auto",
    layouts: Layouts | None = None,
) -> CausalModel:
    """Wraps a model in eval mode; `auto` takes the static cache where the model agrees with it.

    Args:
        model: a causal language model.
        kind: of the cache.
        vocabulary: how many of the logits are tokens; the others are padding and never come.
        fused: passes over a static cache skip transformers' modules where the logits stay the same. The model's weights
            are then laid out anew, with the same values.
        compiled: whether passes over a static cache have fixed shapes and are captured as CUDA graphs; `auto` on CUDA.
        layouts: of the weights in fused passes, as `layouts.layouts_for` finds them; the usual ones without it.

    Raises:
        ValueError: the model's state cannot be rolled back, or the static cache was asked for and does not fit.
    """
    if kind == "none":
        return UncachedModel(model, vocabulary)
    check_rollback(model)
    if kind != "dynamic":
        wish = compiled == "on" or (compiled == "auto" and model.device.type == "cuda")
        for made in (FixedShapeModel, StaticCacheModel) if wish else (StaticCacheModel,):
            for lean in (True, False) if fused else (False,):
                wrapped = _admitted(model, made, vocabulary, fused=lean, layouts=layouts)
                if wrapped is not None:
                    return wrapped
        if kind == "static":
            raise ValueError(f"{type(model).__name__} does not give the same logits with a static cache")
    return DynamicCacheModel(model, vocabulary)


@torch.inference_mode()
def check_rollback(model: PreTrainedModel) -> None:
    """Raises ValueError for a model with recurrent state: what it has read cannot be taken back."""
    recurrent = bool(getattr(model, "_is_stateful", False))
    if not recurrent:
        cache = DynamicCache(config=model.config)
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), past_key_values=cache, use_cache=True)
        recurrent = not cache.is_croppable
    if recurrent:
        raise ValueError(f"{type(model).__name__} keeps a recurrent state, which cannot be rolled back")


def fits_static_cache(model: PreTrainedModel, *, fused: bool = False) -> bool:
    """Whether all layers attend to everything before them, and ragged rows get the logits that they get alone."""
    return _admitted(model, StaticCacheModel, None, fused=fused) is not None


def _admitted(
    model: PreTrainedModel,
    made: type[StaticCacheModel],
    vocabulary: int | None,
    *,
    fused: bool,
    layouts: Layouts | None = None,
) -> StaticCacheModel | None:
    """A wrapper that was tried and gave the model's own logits; None where it does not."""
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return None
    length = probe_length(model)
    if length > LONGEST_PROBE:
        if not fused:
            return None
        length = SHORTEST_PROBE  # fused passes are written for layers that attend to everything, which is checked
    try:
        wrapped = made(model, vocabulary, fused=fused, layouts=layouts)
        agrees = _agrees(wrapped, model, length)
    except (TypeError, ValueError, RuntimeError, IndexError, AssertionError):
        return None
    wrapped.let_go()
    return wrapped if agrees else None


def probe_length(model: PreTrainedModel) -> int:
    """Tokens that a probe takes to go beyond every window or chunk that the configuration names.

    A layer may look at a window only and yet keep everything in its cache, as GPT-Neo's local attention does: within
    the window it cannot be told from a layer that looks at everything.
    """
    config = model.config.get_text_config(decoder=True)
    windows = [
        value
        for name, value in config.to_dict().items()
        if _WINDOW.search(name) and isinstance(value, int) and not isinstance(value, bool)
    ]
    context = getattr(config, "max_position_embeddings", None)
    wanted = max([SHORTEST_PROBE, *(window + SHORTEST_PROBE for window in windows)])
    return min(wanted, context) if isinstance(context, int) and context > 0 else wanted


@torch.inference_mode()
def _agrees(wrapped: StaticCacheModel, model: PreTrainedModel, length: int) -> bool:
    """Whether a wrapper gives one row, and two rows of different lengths, the logits that each gets alone.

    Args:
        wrapped: the very object that decodes later.
        model: what it wraps.
        length: tokens of the longer row.
    """
    size: int = model.get_input_embeddings().num_embeddings  # type: ignore[assignment]
    short = max(4, length // 2)
    rows = [[(7 * number + first) % size for number in range(count)] for first, count in ((1, length), (3, short))]
    alone = [_own_logits(model, row) for row in rows]
    for batch in ([0], [0, 1]):
        # Tokens that are read and taken back must leave nothing behind.
        wrapped.prefill([rows[row][:-3] for row in batch], length + SHORTEST_PROBE)
        wrapped.extend(torch.tensor([[rows[row][-3], 0, 0] for row in batch], device=model.device), 1)
        wrapped.drop([2] * len(batch))
        found = wrapped.extend(torch.tensor([rows[row][-2:] for row in batch], device=model.device), 2)
        for row, logits in zip(batch, found, strict=True):
            own = alone[row][:, : logits.shape[-1]]
            rough = wrapped.layouts is not None and wrapped.layouts.rough
            tolerance = 5e-2 if rough or own.dtype in {torch.bfloat16, torch.float16} else 1e-4
            if not torch.allclose(logits, own, rtol=tolerance, atol=tolerance * float(own.abs().max())):
                return False
    return True


def _own_logits(model: PreTrainedModel, row: list[int]) -> Tensor:
    """The logits after the last two tokens of a row that is read alone and without a cache, (2, vocabulary)."""
    only_last = {"logits_to_keep": 2} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    logits: Tensor = model(input_ids=torch.tensor([row], device=model.device), use_cache=False, **only_last).logits
    return logits[0, -2:]
