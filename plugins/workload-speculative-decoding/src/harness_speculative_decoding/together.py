"""The models of a method beside each other: one vocabulary, one ancestor, caches that can be rolled back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from harness.errors import UsageError
from harness_speculative_decoding.loading import Loaded
from harness_speculative_decoding.methods.decoding import check_request
from harness_speculative_decoding.networks.cache_choice import CacheKind, CompileWish, cached_model
from harness_speculative_decoding.networks.cached import CausalModel, DynamicCacheModel, StaticCacheModel
from harness_speculative_decoding.networks.captured import FixedShapeModel
from harness_speculative_decoding.networks.fused import why_not
from harness_speculative_decoding.networks.layouts import Layouts, int8_layouts, layouts_for
from harness_speculative_decoding.networks.trace import Traced


def vocabulary_of(loaded: Loaded) -> dict[str, int]:
    """Tokens of a model's tokenizer and their ids."""
    found: dict[str, int] = loaded.tokenizer.get_vocab()
    return found


def tokenizer_digest(loaded: Loaded) -> str:
    """Digest of the tokens and their ids."""
    return hashlib.sha256(json.dumps(sorted(vocabulary_of(loaded).items())).encode()).hexdigest()


def shared_vocabulary(models: Mapping[str, Loaded]) -> int:
    """How many ids all models know; ids above are padding in one of them and must not come.

    Tokens whose ids some model has no logit for cannot come either and are not compared: a tokenizer may add some.

    Args:
        models: by the option that names them.

    Raises:
        UsageError: two models number their tokens differently.
    """
    width = min(map(logit_count, models.values()))
    (first, reference), *others = models.items()
    known = {token: number for token, number in vocabulary_of(reference).items() if number < width}
    for name, other in others:
        found = {token: number for token, number in vocabulary_of(other).items() if number < width}
        if found != known:
            odd = min(known.items() ^ found.items(), key=lambda item: item[1])
            raise UsageError(
                f"{first} and {name} have different vocabularies: {len(known)} and {len(found)} tokens; "
                f"token {odd[1]} ({odd[0]!r}) is not the same in both",
                accepted="models that share a tokenizer, ids included",
            )
    return max(known.values()) + 1


def logit_count(loaded: Loaded) -> int:
    """Width of a model's logits, padding of its vocabulary included."""
    width = loaded.model.config.get_text_config(decoder=True).vocab_size
    assert isinstance(width, int)
    return width


def ancestry(sft: Loaded, aligned: Loaded) -> list[str]:
    """Why the SFT draft cannot be what the aligned draft was trained from; empty where nothing speaks against it.

    Shapes and tokenizer are looked at; that one was really trained from the other cannot be seen in the weights.
    """
    reasons = []
    shapes = [
        {name: tuple(weight.shape) for name, weight in loaded.model.named_parameters()} for loaded in (sft, aligned)
    ]
    if shapes[0] != shapes[1]:
        name = min(key for key in shapes[0].keys() | shapes[1].keys() if shapes[0].get(key) != shapes[1].get(key))
        reasons.append(f"their parameters have different shapes, {name} for one")
    if tokenizer_digest(sft) != tokenizer_digest(aligned):
        reasons.append("their tokenizers differ")
    return reasons


def wrap(
    models: Mapping[str, Loaded],
    kind: CacheKind,
    batch: int,
    *,
    fused: bool = True,
    compiled: CompileWish = "auto",
    tokens: Sequence[int] = (),
    cache: Path | None = None,
) -> dict[str, CausalModel]:
    """Each model with a cache that can be rolled back.

    Args:
        models: by the option that names them.
        kind: of cache.
        batch: requests decoded together; more than one need the static cache.
        fused: as in `cached_model`.
        compiled: likewise.
        tokens: that each model's passes read of a request, in the models' order; needed where there is a `cache`.
        cache: folder shared between runs, in which the fastest layouts of weights are kept; the usual ones without it.

    Raises:
        UsageError: vocabularies that differ, a recurrent state, a cache that does not fit.
    """
    vocabulary = shared_vocabulary(models)
    wrapped: dict[str, CausalModel] = {}
    for number, (name, loaded) in enumerate(models.items()):
        layouts = layouts_of(loaded, batch * tokens[number] if tokens else 1, cache, fused=fused)
        try:
            wrapped[name] = cached_model(
                loaded.model, kind, vocabulary, fused=fused, compiled=compiled, layouts=layouts
            )
            if batch > 1:
                wrapped[name].prefill([(0,), (0,)], 2)
            _check_int8(loaded, wrapped[name], layouts)
        except ValueError as error:
            accepted = "`batch: 1`" if "one request at a time" in str(error) else "`cache: auto`, or another model"
            raise UsageError(f"{name}: {error}", accepted=accepted) from None
    return wrapped


def layouts_of(loaded: Loaded, rows: int, cache: Path | None, *, fused: bool) -> Layouts | None:
    """The layouts of a model that is computed from fused weights; None for another.

    Raises:
        UsageError: 8-bit weights of a model whose passes cannot be fused here.
    """
    reason = why_not(loaded.model) if fused else "the option fused says no"
    if loaded.facts.get("quantization") == "int8-fused":
        if loaded.model.device.type != "cpu":
            reason = f"its passes run on {loaded.model.device.type}"
        if reason:
            raise _no_int8(loaded, reason)
        return int8_layouts(loaded.model, rows)
    return None if reason or cache is None else layouts_for(loaded.model, rows, cache)


def _check_int8(loaded: Loaded, wrapped: CausalModel, layouts: Layouts | None) -> None:
    """Raises UsageError where 8-bit weights were asked for and the passes were admitted without them."""
    if layouts is not None and layouts.rough and not (isinstance(wrapped, StaticCacheModel) and wrapped.is_fused):
        raise _no_int8(loaded, "its fused passes do not give its logits")


def _no_int8(loaded: Loaded, reason: str) -> UsageError:
    return UsageError(
        f"quantization int8-fused does not fit {loaded.facts.get('source')}: {reason}",
        accepted="`quantization: int8-weight-only`, or a Llama or Qwen2 model on a CPU with `fused: true`",
    )


def wrap_alone(
    loaded: Loaded,
    *,
    fused: bool = True,
    compiled: CompileWish = "auto",
    rows: int = 1,
    cache: Path | None = None,
) -> CausalModel | PreTrainedModel:
    """A model that decodes by itself: with a static cache where it fits, or as it is; nothing need be rolled back.

    Args:
        loaded: the model.
        fused: as in `cached_model`.
        compiled: likewise.
        rows: requests decoded together.
        cache: as in `wrap`.
    """
    layouts = layouts_of(loaded, rows, cache, fused=fused)
    try:
        wrapped = cached_model(loaded.model, fused=fused, compiled=compiled, layouts=layouts)
    except ValueError:  # a recurrent state
        return loaded.model
    _check_int8(loaded, wrapped, layouts)
    return wrapped if isinstance(wrapped, StaticCacheModel) else loaded.model


@torch.inference_mode()
def warm_up(model: object, rows: int, lengths: Sequence[int], capacity: int, passes: Sequence[tuple[int, int]]) -> None:
    """Takes memory and captures every pass of a model with fixed shapes; others need none of that.

    Args:
        model: a wrapped one.
        rows: requests decoded together.
        lengths: of the prompts, in tokens.
        capacity: that the longest request needs.
        passes: tokens that a row reads, and logits that are kept, of each kind of pass.
    """
    if isinstance(model, Traced):
        model = model.model
    if isinstance(model, FixedShapeModel):
        model.warm_up(rows, min(lengths) - 1, capacity, passes)


def pass_facts(model: object) -> dict[str, object]:
    """How a model's passes are made, for the record."""
    if isinstance(model, Traced):
        model = model.model
    if not isinstance(model, StaticCacheModel):
        cache = "dynamic" if isinstance(model, PreTrainedModel | DynamicCacheModel) else "none"
        return {"cache": cache, "fused": False, "graphs": {"unavailable": "passes over a static cache only"}}
    facts: dict[str, object] = {"cache": "static", "fused": model.is_fused}
    graphs: object = {"unavailable": "the option compile says no"}
    if isinstance(model, FixedShapeModel):
        facts["cache"] = "static, fixed shapes"
        graphs = {"unavailable": model.eager_because} if model.eager_because else model.graphs
    facts["graphs"] = graphs
    if model.layouts is not None and model.layouts != Layouts():
        facts["layouts"] = model.layouts.facts()
    return facts


def check_contexts(models: Mapping[str, Loaded], prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
    """Raises UsageError where a prompt and its output do not fit the context of one of the models."""
    longest = max(prompts, key=len)
    for name, loaded in models.items():
        try:
            check_request(loaded.model, longest, new_tokens)
        except ValueError as error:
            raise UsageError(
                f"{name}: {error}", accepted="shorter prompts, or smaller `prompt_tokens` and `max_new_tokens`"
            ) from None
