"""Stop strings: an answer ends where one of them stands in its text, and the text ends before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Stop = Callable[[Sequence[int]], bool]
"""Whether an answer ends with its last token; asked after each token, with all of them so far."""


def never(tokens: Sequence[int]) -> bool:
    """Nothing stops an answer but an end token and the length limit."""
    del tokens
    return False


class StopStrings:
    """Ends an answer with the token that completes a stop string in its text; special tokens do not count.

    Args:
        tokenizer: that turns ids into text.
        strings: none of them empty; one may begin in the middle of a token and end in the middle of another.
    """

    def __init__(self, tokenizer: Any, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._decode = tokenizer.decode
        self._special = frozenset(tokenizer.all_special_ids)
        # A token that is text has a byte at least, so these reach back to where a string that ends now began. One more
        # stands in front, since some tokenizers drop the space at the beginning of what they are given.
        self._reach = max(len(string.encode()) for string in self._strings) + 1

    def __call__(self, tokens: Sequence[int]) -> bool:
        """Whether a stop string is complete in the last tokens."""
        if tokens[-1] in self._special:
            return False
        tail: list[int] = []
        for token in reversed(tokens):
            if token not in self._special:
                tail.append(token)
                if len(tail) == self._reach:
                    break
        text = str(self._decode(tail[::-1], skip_special_tokens=True))
        return any(string in text for string in self._strings)

    def cut(self, text: str) -> str:
        """An answer's text up to its first stop string."""
        places = [place for string in self._strings if (place := text.find(string)) >= 0]
        return text[: min(places)] if places else text


def first_stop(tokens: Sequence[int], more: Sequence[int], stop: Stop) -> int | None:
    """Place of the first of more tokens with which an answer ends; None where it goes on."""
    if stop is never:
        return None
    so_far = list(tokens)
    for place, token in enumerate(more):
        so_far.append(token)
        if stop(so_far):
            return place
    return None
