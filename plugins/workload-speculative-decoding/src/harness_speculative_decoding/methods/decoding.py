"""Autoregressive sampling with a key-value cache: the loop, its time stamps, nothing of the harness."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from harness_speculative_decoding.methods.sampling import (
    NO_LAW,
    Sampling,
    SpeculationError,
    draw,
    log_probability,
    warp,
)
from harness_speculative_decoding.methods.stopping import Stop, never
from harness_speculative_decoding.networks.cached import CausalModel


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and the seed of its random numbers.

    Attributes:
        prompt: token ids, at least one.
        seed: of this request's own generator; its tokens depend on no other request.
        reference: what a right answer says, for who chooses among several; no token depends on it.
    """

    prompt: Sequence[int]
    seed: int = 0
    reference: str | None = None


@dataclass(slots=True)
class Generation:
    """What a request produced.

    Attributes:
        tokens: generated token ids, an end token included.
        token_s: when each token was on the host, on the clock that the caller gave.
        logprob: sum of the model's own log-probabilities (temperature 1, nothing cut) of the tokens.
        stopped: by an end token, by a stop string, or by the length limit.
    """

    tokens: list[int] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)
    logprob: float = 0.0
    stopped: Literal["eos", "stop", "length"] = "length"


def context_length(model: PreTrainedModel) -> int | None:
    """The longest prompt and output together that the model was made for; None where its configuration says nothing."""
    config = model.config.get_text_config(decoder=True)
    length = getattr(config, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def check_request(model: PreTrainedModel, prompt: Sequence[int], max_new_tokens: int) -> None:
    """Raises ValueError for a prompt that is empty or, with its output, longer than the model's context."""
    if not prompt:
        raise ValueError("the prompt has no token")
    context = context_length(model)
    if context is not None and len(prompt) + max_new_tokens > context:
        raise ValueError(
            f"a prompt of {len(prompt)} tokens and {max_new_tokens} new ones do not fit the model's context "
            f"of {context} tokens"
        )


@torch.inference_mode()
def generate(
    model: PreTrainedModel | CausalModel,
    requests: Sequence[Request],
    *,
    sampling: Sampling,
    max_new_tokens: int,
    eos: Collection[int] = (),
    stop: Stop = never,
    cached: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> list[Generation]:
    """Samples from a causal language model for a batch of requests, all begun together.

    Prompts of different lengths are padded on the left and masked, or keep their own places in a wrapped model. A
    request that has ended keeps its row of the batch until all have.

    Args:
        model: in eval mode; or wrapped by `cached_model`, with a cache that is allocated once.
        requests: the batch.
        sampling: the law.
        max_new_tokens: limit of each request.
        eos: token ids that end a request.
        stop: whether a request ends with its last token.
        cached: False computes the whole sequence anew for every token: slow, for checking the cache. A wrapped model
            decides for itself.
        clock: seconds; read after each step's tokens have reached the host.

    Raises:
        ValueError: for a prompt that is empty or too long.
        SpeculationError: the model's logits are not numbers.
    """
    batch = _begun(model, requests, max_new_tokens, cached=cached)
    wide = torch.float32 if batch.device.type == "mps" else torch.float64  # MPS has no float64
    uniform = _uniform(requests, max_new_tokens).to(wide).to(batch.device)
    generations = [Generation() for _ in requests]
    sums = torch.zeros(len(requests), dtype=wide, device=batch.device)
    running = torch.ones_like(sums, dtype=torch.bool)
    for step in range(max_new_tokens):
        logits = batch.logits()
        tokens = draw(warp(logits, sampling), uniform[:, step])
        sums += torch.where(running, log_probability(logits, tokens), 0.0)
        on_host: list[int] = tokens.tolist()
        now = clock()
        for row, generation in enumerate(generations):
            if generation.stopped == "length":
                generation.tokens.append(on_host[row])
                generation.token_s.append(now)
                if on_host[row] in eos:
                    generation.stopped = "eos"
                elif stop(generation.tokens):
                    generation.stopped = "stop"
                running[row] = generation.stopped == "length"
        if all(generation.stopped != "length" for generation in generations):
            break
        batch.append(tokens)
    for generation, logprob in zip(generations, sums.tolist(), strict=True):
        if math.isnan(logprob):
            raise SpeculationError(NO_LAW)
        generation.logprob = logprob
    return generations


def _begun(
    model: PreTrainedModel | CausalModel, requests: Sequence[Request], max_new_tokens: int, *, cached: bool
) -> _Batch | _Wrapped:
    """The batch with its prompts checked and read."""
    if isinstance(model, PreTrainedModel):
        for request in requests:
            check_request(model, request.prompt, max_new_tokens)
        return _Batch(model, requests, cached=cached)
    if not all(request.prompt for request in requests):
        raise ValueError("the prompt has no token")
    return _Wrapped(model, requests, max_new_tokens)


class _Batch:
    """Token ids of a batch, its padding and its cache, for any model of transformers."""

    def __init__(self, model: PreTrainedModel, requests: Sequence[Request], *, cached: bool) -> None:
        self.device = model.device
        self._model = model
        lengths = [len(request.prompt) for request in requests]
        width = max(lengths)
        rows = [[0] * (width - len(request.prompt)) + list(request.prompt) for request in requests]
        self._ids = torch.tensor(rows, device=self.device)
        self._fed = 0
        self._cache = DynamicCache(config=model.config) if cached else None
        # Without padding no mask is given: the models' fast paths for causal attention want none.
        self._mask: Tensor | None = None
        if min(lengths) < width:
            padding = width - torch.tensor(lengths, device=self.device)
            self._mask = (torch.arange(width, device=self.device) >= padding[:, None]).long()
        self._extra = _last_logits_only(model)
        # The prompts but for their last token, so that every generated token takes one pass of its own.
        if cached and width > 1:
            self._read(width - 1)

    def append(self, tokens: Tensor) -> None:
        """Appends one token to every row."""
        self._ids = torch.cat([self._ids, tokens[:, None]], dim=1)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, torch.ones_like(tokens)[:, None]], dim=1)

    def logits(self) -> Tensor:
        """Logits of the next token, shape (batch, vocabulary), from the tokens that the cache has not seen."""
        return self._read(self._ids.shape[1])

    def _read(self, end: int) -> Tensor:
        cached = self._cache is not None
        first = self._fed if cached else 0
        arguments: dict[str, Any] = dict(self._extra)
        if self._mask is not None:
            mask = self._mask[:, :end]
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            arguments |= {"attention_mask": mask, "position_ids": positions[:, first:]}
        output = self._model(
            input_ids=self._ids[:, first:end], past_key_values=self._cache, use_cache=cached, **arguments
        )
        self._fed = end
        return output.logits[:, -1]  # type: ignore[no-any-return]


class _Wrapped:
    """The same of a model that keeps its own cache, each row at its own length."""

    def __init__(self, model: CausalModel, requests: Sequence[Request], max_new_tokens: int) -> None:
        self.device = model.device
        self._model = model
        longest = max(len(request.prompt) for request in requests)
        model.prefill([request.prompt[:-1] for request in requests], longest + max_new_tokens)
        self._last = torch.tensor([[request.prompt[-1]] for request in requests], device=self.device)

    def append(self, tokens: Tensor) -> None:
        """Appends one token to every row."""
        self._last = tokens[:, None]

    def logits(self) -> Tensor:
        """Logits of the next token, shape (batch, vocabulary)."""
        return self._model.extend(self._last, 1)[:, 0]


def _uniform(requests: Sequence[Request], count: int) -> Tensor:
    """One float64 number in [0, 1) per request and token, from the request's own generator; (batch, count)."""
    rows = []
    for request in requests:
        generator = torch.Generator().manual_seed(request.seed)
        rows.append(torch.rand(count, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def _last_logits_only(model: PreTrainedModel) -> dict[str, int]:
    """Spares the prompt's logits where the model's `forward` offers that."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
