"""Preference pairs from a reward function: a model writes several answers to each prompt, the reward ranks them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness_speculative_decoding.data.preferences import TokenPair
from harness_speculative_decoding.methods.decoding import Request, generate
from harness_speculative_decoding.methods.sampling import Sampling
from harness_speculative_decoding.rewards import RewardFunction

AT_ONCE = 512
"""Answers decoded together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that a model wrote, an end token included, and its reward."""

    tokens: tuple[int, ...]
    reward: float


@dataclass(frozen=True, slots=True)
class MeanReward:
    """The mean reward, its standard error (from the means of the prompts), and of how many answers it is."""

    mean: float
    standard_error: float
    answers: int


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[int, ...]],
    reward: RewardFunction,
    *,
    samples: int,
    max_new_tokens: int,
    eos: Collection[int],
    seed: int,
) -> list[list[Answer]]:
    """So many answers to each prompt, sampled at temperature 1 from the model's whole law.

    An answer depends on its prompt, its number and the seed, and on no other answer.
    """
    requests = [
        Request(prompt, seed + number * samples + sample)
        for number, prompt in enumerate(prompts)
        for sample in range(samples)
    ]
    found: list[Answer] = []
    for some in _at_once(requests):
        written = generate(model, some, sampling=Sampling(), max_new_tokens=max_new_tokens, eos=eos)
        for request, generation in zip(some, written, strict=True):
            text = _text(tokenizer, generation.tokens)
            found.append(Answer(tuple(generation.tokens), reward(_text(tokenizer, request.prompt), text, None)))
    return [found[first : first + samples] for first in range(0, len(found), samples)]


def ranked(prompts: Sequence[tuple[int, ...]], written: Sequence[Sequence[Answer]]) -> list[TokenPair]:
    """The best answer to each prompt over the worst; the earlier one where several are; none where all are equal."""
    pairs = []
    for prompt, several in zip(prompts, written, strict=True):
        best = max(several, key=lambda answer: answer.reward)
        worst = min(several, key=lambda answer: answer.reward)
        if best.reward > worst.reward:
            pairs.append(TokenPair(prompt, best.tokens, worst.tokens))
    return pairs


def mean_reward(written: Sequence[Sequence[Answer]]) -> MeanReward:
    """Mean and standard error of the rewards of answers to at least two prompts."""
    means = [statistics.fmean(answer.reward for answer in several) for several in written]
    error = statistics.stdev(means) / math.sqrt(len(means))
    return MeanReward(statistics.fmean(means), error, sum(map(len, written)))


def _at_once(requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    for first in range(0, len(requests), AT_ONCE):
        yield requests[first : first + AT_ONCE]


def _text(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))
