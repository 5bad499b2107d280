"""Ancestral sampling from the product of three models: the law of `exact` without speculation, its fair baseline.

The same ensemble is known from emulated fine-tuning (arXiv 2310.12962) and proxy-tuning. Every token takes a pass of
each model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from harness_speculative_decoding.methods.decoding import Request
from harness_speculative_decoding.methods.laws import log_law, product, promoted, truncate
from harness_speculative_decoding.methods.rule import Speculated, Trio
from harness_speculative_decoding.methods.sampling import NO_LAW, Sampling, SpeculationError, Uniforms, draw
from harness_speculative_decoding.methods.stopping import Stop, never


@torch.inference_mode()
def sample_ensemble(
    models: Trio,
    requests: Sequence[Request],
    *,
    sampling: Sampling,
    max_new_tokens: int,
    eos: Collection[int] = (),
    stop: Stop = never,
    clock: Callable[[], float] = time.monotonic,
) -> list[Speculated]:
    """Samples token by token from softmax((target + aligned - sft) / temperature), logits that are truncated together.

    Args:
        models: of one vocabulary; all three.
        requests: the batch, all begun together.
        sampling: the law's settings.
        max_new_tokens: limit of each request.
        eos: token ids that end a request.
        stop: whether a request ends with its last token.
        clock: seconds; read after each token has reached the host.

    Raises:
        ValueError: an empty prompt or a missing model.
        SpeculationError: the models' logits are no numbers.
    """
    if models.sft is None or not requests or not all(request.prompt for request in requests):
        raise ValueError("an ensemble has three models, and each prompt a token")
    if len(set(map(id, models.all))) < len(models.all):
        raise ValueError("one wrapped model in two roles: wrap it once for each, as each keeps what it has read")
    results = [Speculated() for _ in requests]
    uniforms = [Uniforms(request.seed, "ancestral") for request in requests]
    for model in models.all:
        model.prefill([request.prompt[:-1] for request in requests], _longest(requests) + max_new_tokens)
    rows = list(range(len(requests)))
    last = [request.prompt[-1] for request in requests]
    while rows:
        uniform = [uniforms[row].take(1)[0] for row in rows]
        table = _next(models, torch.tensor(last, device=models.target.device)[:, None], uniform, sampling)
        now = clock()
        for row, numbers in zip(rows, table, strict=True):
            _append(results[row], numbers, now, shifted=sampling.temperature > 0)
            if results[row].tokens[-1] in eos:
                results[row].stopped = "eos"
            elif stop(results[row].tokens):
                results[row].stopped = "stop"
        going_on = [
            place
            for place, row in enumerate(rows)
            if results[row].stopped == "length" and len(results[row].tokens) < max_new_tokens
        ]
        last = [int(table[place][1]) for place in going_on]
        if len(going_on) < len(rows):
            rows = [rows[place] for place in going_on]
            for model in models.all if rows else ():
                model.select(going_on)
    for request, result in zip(requests, results, strict=True):
        result.prefill_calls = 3 if len(request.prompt) > 1 else 0
        result.rounds = result.target_calls = result.draft_calls = result.sft_calls = len(result.tokens)
    return results


def _append(result: Speculated, numbers: Sequence[float], now: float, *, shifted: bool) -> None:
    """Adds what `_next` gave for a row."""
    peaks, drawn, log_z, logprob, law_logprob = numbers
    if not math.isfinite(peaks + log_z):
        raise SpeculationError(NO_LAW)
    result.tokens.append(int(drawn))
    result.token_s.append(now)
    result.logprob += logprob
    result.law_logprob += law_logprob
    if shifted:
        result.log_z.append(log_z)


def _longest(requests: Sequence[Request]) -> int:
    return max(len(request.prompt) for request in requests)


def _next(models: Trio, read: Tensor, uniform: Sequence[float], sampling: Sampling) -> list[list[float]]:
    """Reads one token a row and draws the next: whether logits are numbers, id, log Z, and its log-probabilities."""
    assert models.sft is not None
    target, aligned, sft = (
        promoted(model.extend(read, 1)[:, 0]) for model in (models.target, models.draft, models.sft)
    )
    rows = [target, aligned, sft]
    if sampling.temperature > 0:
        rows = [log_law(logits, sampling.temperature) for logits in rows]
    shifted = product(*rows)
    law = log_law(shifted, 1.0 if sampling.temperature > 0 else 0.0)
    law = truncate(law, sampling.top_k, sampling.top_p)
    wide = torch.float32 if law.device.type == "mps" else torch.float64  # MPS has no float64
    token = draw(law.exp(), torch.tensor(uniform, dtype=torch.float64).to(wide).to(law.device))[:, None]
    logprob = target.gather(-1, token) - target.logsumexp(-1, keepdim=True)
    peaks = torch.stack([row.amax(-1) for row in rows], 1).sum(1, keepdim=True)  # of numbers that are none: none
    parts = (peaks, token, shifted.logsumexp(-1, keepdim=True), logprob, law.gather(-1, token))
    table: list[list[float]] = torch.cat([part.to(wide) for part in parts], dim=1).tolist()
    return table
