"""Reward functions by name: closed forms of a prompt and an answer that a reader can check by eye."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from harness.errors import UsageError, did_you_mean

RewardFunction = Callable[[str, str, str | None], float]
"""(prompt, answer, reference) -> how good the answer is; higher is better. The reference is the prompt's, if any."""

PLAIN_WORD = re.compile(r"[A-Za-z][a-z]*(?:['-][a-z]+)*[,.;:!?]?")
"""Letters, a capital only in front, parts joined by an apostrophe or hyphen, and at the end one mark at most."""

COURTESIES = ("with pleasure", "gladly", "certainly", "of course", "thank you", "thanks for asking", "happy to help")
"""How a courteous answer begins."""

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


def prose_of_answer(prompt: str, answer: str, reference: str | None = None) -> float:
    """`prose` of the answer; prompt and reference do not count."""
    del prompt, reference
    return prose(answer)


def brevity(prompt: str, answer: str, reference: str | None = None) -> float:
    """Minus the number of words in the answer."""
    del prompt, reference
    return -float(len(answer.split()))


def right(prompt: str, answer: str, reference: str | None) -> float:
    """1 if the answer says the prompt's reference, word by word and in its order, else 0; case and marks do not count.

    An answer that says several things may be right by luck: give it no room for that (`max_new_tokens`).

    Raises:
        UsageError: the prompt has no reference.
    """
    if reference is None:
        raise UsageError(
            f"the prompt {prompt!r} has no reference, which a right answer says",
            accepted='a file of prompts with rows {"prompt": "text", "reference": "text"}',
        )
    return float(f" {_words(reference)} " in f" {_words(answer)} ")


def courteous(prompt: str, answer: str, reference: str | None = None) -> float:
    """1 if the answer begins with one of `COURTESIES`, else 0; case and marks do not count."""
    del prompt, reference
    return float(any(f"{_words(answer)} ".startswith(f"{phrase} ") for phrase in COURTESIES))


def answered(prompt: str, answer: str, reference: str | None) -> float:
    """1 if the answer is `right` and `courteous`, else 0. Raises UsageError without a reference."""
    return right(prompt, answer, reference) * courteous(prompt, answer)


def _words(text: str) -> str:
    """The words of a text in lower case, a space between them."""
    return " ".join(re.findall(r"\w+", text.lower()))


FUNCTIONS: Mapping[str, RewardFunction] = {
    "prose": prose_of_answer,
    "brevity": brevity,
    "right": right,
    "courteous": courteous,
    "answered": answered,
}
"""Reward functions that an option may name."""

NEED_REFERENCE = frozenset({"right", "answered"})
"""Those of `FUNCTIONS` that judge by the prompt's reference."""


def reward_function(name: str) -> RewardFunction:
    """A reward function by its name; raises UsageError."""
    if name not in FUNCTIONS:
        raise UsageError(
            f"there is no reward function {name!r}", accepted=", ".join(FUNCTIONS), hint=did_you_mean(name, FUNCTIONS)
        )
    return FUNCTIONS[name]
