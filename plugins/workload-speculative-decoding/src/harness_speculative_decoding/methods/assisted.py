"""Transformers' assisted generation, set to the law and the K of the other methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from harness_speculative_decoding.methods.decoding import Request
from harness_speculative_decoding.methods.rule import Speculated
from harness_speculative_decoding.methods.sampling import Sampling
from harness_speculative_decoding.methods.stopping import Stop, first_stop, never


class _Stamps(BaseStreamer):
    """Notes when tokens arrive; the first thing put is the prompt."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._prompt_seen = False
        self.token_s: list[float] = []

    def put(self, value: Tensor) -> None:
        """Takes tokens."""
        if self._prompt_seen:
            self.token_s += [self._clock()] * value.numel()
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing is left to be told."""


class _Stopping(StoppingCriteria):
    """Ends a generation with a token of its last round; transformers' own stop strings look at its very end only."""

    def __init__(self, stop: Stop, prompt: int, round_tokens: int) -> None:
        self._stop, self._prompt, self._round_tokens = stop, prompt, round_tokens

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Whether each row has ended; there is one."""
        del scores, kwargs
        ended = _end(input_ids[0, self._prompt :].tolist(), self._round_tokens, self._stop) is not None
        return torch.tensor([ended], device=input_ids.device)


def _end(tokens: Sequence[int], round_tokens: int, stop: Stop) -> int | None:
    """Place of the first token of the last round with which an answer ends; None where it goes on."""
    known = max(0, len(tokens) - round_tokens)
    found = first_stop(tokens[:known], tokens[known:], stop)
    return None if found is None else known + found


@contextmanager
def _counted(model: PreTrainedModel) -> Iterator[list[int]]:
    """Counts a model's forward passes."""
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    hook = model.register_forward_pre_hook(count)
    try:
        yield calls
    finally:
        hook.remove()


@contextmanager
def _ending_at(models: Sequence[PreTrainedModel], eos: Collection[int]) -> Iterator[None]:
    """Sets the tokens that end a text: where a call says None, transformers takes the models' own settings."""
    settings = [model.generation_config for model in models if model.generation_config is not None]
    before = [setting.eos_token_id for setting in settings]
    for setting in settings:
        setting.eos_token_id = sorted(eos) or None
    try:
        yield
    finally:
        for setting, own in zip(settings, before, strict=True):
            setting.eos_token_id = own


def _settings(sampling: Sampling, max_new_tokens: int, eos: Collection[int]) -> GenerationConfig:
    """The law of the other methods, as transformers is told it."""
    greedy = sampling.temperature == 0
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=not greedy,
        **({} if greedy else {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}),
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(eos) or None,
        pad_token_id=0,
    )


def assisted(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    request: Request,
    *,
    sampling: Sampling,
    draft_tokens: int,
    max_new_tokens: int,
    eos: Collection[int] = (),
    stop: Stop = never,
    clock: Callable[[], float] = time.monotonic,
) -> Speculated:
    """Decodes one request with `generate(assistant_model=...)`.

    The assistant proposes `draft_tokens` in every round whatever its confidence, and nothing is truncated but what
    `sampling` says: transformers' defaults are 20 proposals, a confidence threshold of 0.4 and top_k 50.

    Returns:
        Tokens, their times and the passes of both models; the prompt is read with the first proposals.
    """
    own = draft.generation_config
    assert own is not None
    own.num_assistant_tokens = draft_tokens
    own.num_assistant_tokens_schedule = "constant"
    own.assistant_confidence_threshold = 0.0
    settings = _settings(sampling, max_new_tokens, eos)
    prompt = torch.tensor([list(request.prompt)], device=target.device)
    stamps, round_tokens = _Stamps(clock), draft_tokens + 1
    stopping = None if stop is never else StoppingCriteriaList([_Stopping(stop, prompt.shape[1], round_tokens)])
    with (
        torch.random.fork_rng(),
        _ending_at((target, draft), eos),
        _counted(target) as target_calls,
        _counted(draft) as draft_calls,
    ):
        torch.manual_seed(request.seed)
        ids = target.generate(  # type: ignore[operator]
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=settings,
            assistant_model=draft,
            streamer=stamps,
            stopping_criteria=stopping,
        )
    tokens = ids[0, prompt.shape[1] :].tolist()
    if len(stamps.token_s) != len(tokens):
        raise RuntimeError(f"transformers streamed {len(stamps.token_s)} tokens and returned {len(tokens)}")
    stopped: Literal["eos", "stop", "length"] = "eos" if tokens[-1] in eos else "length"
    if (end := _end(tokens, round_tokens, stop)) is not None:  # the round's tokens behind it belong to no answer
        tokens, stopped = tokens[: end + 1], "stop"
    return Speculated(
        tokens=tokens,
        token_s=stamps.token_s[: len(tokens)],
        stopped=stopped,
        target_calls=target_calls[0],
        draft_calls=draft_calls[0],
    )
