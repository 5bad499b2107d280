"""Which cache a model gets: the one allocated once, captured or not, where it gives the same logits, or another."""

from __future__ import annotations

from typing import Literal

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from harness_speculative_decoding.networks.cached import CausalModel, DynamicCacheModel, StaticCacheModel, UncachedModel
from harness_speculative_decoding.networks.captured import FixedShapeModel

CacheKind = Literal["auto", "static", "dynamic", "none"]
CompileWish = Literal["auto", "on", "off"]


def cached_model(
    model: PreTrainedModel,
    kind: CacheKind = "auto",
    vocabulary: int | None = None,
    *,
    fused: bool = True,
    compiled: CompileWish = "auto",
) -> CausalModel:
    """Wraps a model in eval mode; `auto` takes the static cache where the model agrees with it.

    Args:
        model: a causal language model.
        kind: of the cache.
        vocabulary: how many of the logits are tokens; the others are padding and never come.
        fused: passes over a static cache skip transformers' modules where the logits stay the same. The model's weights
            are then laid out anew, with the same values.
        compiled: whether passes over a static cache have fixed shapes and are captured as CUDA graphs; `auto` on CUDA.

    Raises:
        ValueError: the model's state cannot be rolled back, or the static cache was asked for and does not fit.
    """
    if kind == "none":
        return UncachedModel(model, vocabulary)
    check_rollback(model)
    if kind != "dynamic":
        wish = compiled == "on" or (compiled == "auto" and model.device.type == "cuda")
        for lean in (True, False) if fused else (False,):
            if fits_static_cache(model, fused=lean):
                if wish:
                    return FixedShapeModel(model, vocabulary, fused=lean)
                return StaticCacheModel(model, vocabulary, fused=lean)
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


@torch.inference_mode()
def fits_static_cache(model: PreTrainedModel, *, fused: bool = False) -> bool:
    """Whether all layers attend to everything before them, and two ragged rows get the logits they get alone."""
    layers = DynamicCache(config=model.config).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        return False
    size: int = model.get_input_embeddings().num_embeddings  # type: ignore[assignment]
    rows = [[number % size for number in range(first, first + length)] for first, length in ((1, 5), (3, 3))]
    try:
        together = StaticCacheModel(model, fused=fused)
        together.prefill([row[:-2] for row in rows], 5)
        last = torch.tensor([row[-2:] for row in rows], device=model.device)
        found = together.extend(last, 2)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    for number, row in enumerate(rows):
        alone = model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[0, -2:]
        tolerance = 5e-2 if alone.dtype in {torch.bfloat16, torch.float16} else 1e-4
        if not torch.allclose(found[number], alone, rtol=tolerance, atol=tolerance * float(alone.abs().max())):
            return False
    return True
