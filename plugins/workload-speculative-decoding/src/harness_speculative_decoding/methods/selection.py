"""Choosing among several answers to a prompt by their reward: best of n, and rejection up to n tries."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness_speculative_decoding.methods.decoding import Generation, Request

Decode = Callable[[Sequence[Request]], list[Generation]]
Score = Callable[[Sequence[Request], Sequence[Generation]], list[float]]


@dataclass(slots=True)
class Selected(Generation):
    """The answer that was kept, and what all took.

    Attributes:
        samples: answers made, each scored once.
        target_calls: passes of the model for all of them.
        reward: of the one that was kept.
    """

    samples: int = 0
    target_calls: int = 0
    reward: float = 0.0


def sample_seed(seed: int, sample: int) -> int:
    """The seed of a request's sample: the request's own for the first."""
    if sample == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:sample:{sample}".encode()).digest()[:8]) >> 1


def select_best(
    requests: Sequence[Request], samples: int, decode: Decode, score: Score, clock: Callable[[], float]
) -> list[Selected]:
    """The best of `samples` answers to each request, all decoded together; the first among equals.

    Nothing reaches the user before all are scored, so that every token carries the time of the choice.
    """
    copies = [
        dataclasses.replace(request, seed=sample_seed(request.seed, sample))
        for request in requests
        for sample in range(samples)
    ]
    answers = decode(copies)
    rewards = score(copies, answers)
    now = clock()
    chosen = []
    for first in range(0, len(copies), samples):
        own = range(first, first + samples)
        best = max(own, key=lambda number: rewards[number])
        calls = sum(len(answers[number].tokens) for number in own)
        chosen.append(_selected(answers[best], samples, calls, rewards[best], now))
    return chosen


def select_first(
    requests: Sequence[Request],
    samples: int,
    threshold: float,
    decode: Decode,
    score: Score,
    clock: Callable[[], float],
) -> list[Selected]:
    """The first answer to each request whose reward reaches the threshold, or the best of `samples`."""
    chosen: dict[int, Selected] = {}
    calls = [0] * len(requests)
    open_rows = list(range(len(requests)))
    for sample in range(samples):
        copies = [dataclasses.replace(requests[row], seed=sample_seed(requests[row].seed, sample)) for row in open_rows]
        answers = decode(copies)
        rewards = score(copies, answers)
        now = clock()
        for row, answer, reward in zip(open_rows, answers, rewards, strict=True):
            calls[row] += len(answer.tokens)
            if row not in chosen or reward > chosen[row].reward:
                chosen[row] = _selected(answer, sample + 1, calls[row], reward, now)
            else:
                kept = chosen[row]
                chosen[row] = _selected(kept, sample + 1, calls[row], kept.reward, now)
        open_rows = [row for row in open_rows if chosen[row].reward < threshold]
        if not open_rows:
            break
    return [chosen[row] for row in range(len(requests))]


def _selected(answer: Generation, samples: int, calls: int, reward: float, now: float) -> Selected:
    own = {field.name: getattr(answer, field.name) for field in dataclasses.fields(Generation)}
    own["token_s"] = [now] * len(answer.tokens)
    return Selected(**own, samples=samples, target_calls=calls, reward=reward)
