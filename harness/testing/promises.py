"""What holds of an offer: promises, each kept, broken or not tried, in the words of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

KEPT: Final = "holds"
BROKEN: Final = "broken"
NOT_TRIED: Final = "not tried"
_ORDER: Final = (NOT_TRIED, KEPT, BROKEN)


class NotTriedError(Exception):
    """A promise cannot be tried here; the message says why."""


@dataclass(frozen=True, slots=True)
class Promise:
    """One sentence of a contract and what became of it.

    Attributes:
        sentence: what is promised.
        state: `holds`, `broken` or `not tried`.
        detail: how it was broken, or why it was not tried.
    """

    sentence: str
    state: str
    detail: str = ""


class Promises:
    """Collects what became of each promise; one that is tried several times keeps its worst outcome.

    Args:
        strict: a broken promise raises AssertionError at once, as a test wants it.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self._found: dict[str, Promise] = {}

    @property
    def found(self) -> list[Promise]:
        """Every promise that was tried, in the order of the first attempts."""
        return list(self._found.values())

    @property
    def broken(self) -> list[Promise]:
        """Those that do not hold."""
        return [promise for promise in self.found if promise.state == BROKEN]

    @contextmanager
    def that(self, sentence: str) -> Iterator[None]:
        """Tries a promise: the block raises AssertionError, or anything else, where it is broken."""
        state, detail = KEPT, ""
        try:
            yield
        except NotTriedError as reason:
            state, detail = NOT_TRIED, str(reason)
        except (Exception, SystemExit) as error:  # whatever a plugin raises breaks its promise
            if self.strict:
                raise
            own_words = isinstance(error, AssertionError) and str(error)
            state, detail = BROKEN, str(error).partition("\n")[0] if own_words else f"{type(error).__name__}: {error}"
        self._keep(sentence, state, detail)

    def skip(self, sentence: str, reason: str) -> None:
        """Says that a promise cannot be tried, and why."""
        self._keep(sentence, NOT_TRIED, reason)

    def _keep(self, sentence: str, state: str, detail: str) -> None:
        before = self._found.get(sentence)
        if before is None or _ORDER.index(state) > _ORDER.index(before.state):
            self._found[sentence] = Promise(sentence, state, detail)
