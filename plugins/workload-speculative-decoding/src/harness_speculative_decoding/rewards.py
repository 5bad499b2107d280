"""Reward functions by name: closed forms of a prompt and an answer that a reader can check by eye."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from harness.errors import UsageError, did_you_mean

RewardFunction = Callable[[str, str], float]
"""(prompt, answer) -> how good the answer is; higher is better."""

PLAIN_WORD = re.compile(r"[A-Za-z][a-z]*(?:['-][a-z]+)*[,.;:!?]?")
"""Letters, a capital only in front, parts joined by an apostrophe or hyphen, and at the end one mark at most."""

FEWEST_WORDS = 8
"""A shorter text is judged as if it had so many words, so that falling silent is not a way to win."""


def prose(text: str) -> float:
    """How much of a text is plain prose rather than code: a number in [0, 1].

        prose = plain words / max(words, 8)

    Words are what white space separates; `PLAIN_WORD` says which are plain. `Don't use it, please.` has four plain
    words, and `f(x) self._name HTTP 3.11` has none: a bracket, a digit, an underscore, a star, a quotation mark or a
    capital inside makes a word code-like. An empty text has reward 0.
    """
    words = text.split()
    plain = sum(PLAIN_WORD.fullmatch(word) is not None for word in words)
    return plain / max(len(words), FEWEST_WORDS)


def prose_of_answer(prompt: str, answer: str) -> float:
    """`prose` of the answer; the prompt does not count."""
    del prompt
    return prose(answer)


def brevity(prompt: str, answer: str) -> float:
    """Minus the number of words in the answer."""
    del prompt
    return -float(len(answer.split()))


FUNCTIONS: Mapping[str, RewardFunction] = {"prose": prose_of_answer, "brevity": brevity}
"""Reward functions that an option may name."""


def reward_function(name: str) -> RewardFunction:
    """A reward function by its name; raises UsageError."""
    if name not in FUNCTIONS:
        raise UsageError(
            f"there is no reward function {name!r}", accepted=", ".join(FUNCTIONS), hint=did_you_mean(name, FUNCTIONS)
        )
    return FUNCTIONS[name]
