"""Conformance checks and their outcomes: each passed, failed or was not tried, in the words of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

PASSED: Final = "passed"
FAILED: Final = "failed"
NOT_TRIED: Final = "not tried"
_ORDER: Final = (NOT_TRIED, PASSED, FAILED)


class NotTriedError(Exception):
    """A check cannot be made here; the message says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One sentence of a contract and what became of it.

    Attributes:
        sentence: what must hold.
        state: `passed`, `failed` or `not tried`.
        detail: how it failed, or why it was not tried.
    """

    sentence: str
    state: str
    detail: str = ""


class Checks:
    """Collects the outcome of each check; one that is made several times keeps its worst outcome.

    Args:
        strict: a check that fails raises AssertionError at once, as a test wants it.

    Examples:
        >>> checks = Checks()
        >>> with checks.that("close() may be called twice"):
        ...     raise ValueError("already closed")
        >>> [(check.state, check.detail) for check in checks.found]
        [('failed', 'ValueError: already closed')]
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self._found: dict[str, Check] = {}

    @property
    def found(self) -> list[Check]:
        """Every check, in the order of the first attempts."""
        return list(self._found.values())

    @property
    def failed(self) -> list[Check]:
        """Those that failed."""
        return [check for check in self.found if check.state == FAILED]

    @contextmanager
    def that(self, sentence: str) -> Iterator[None]:
        """Makes a check: it fails where the block raises AssertionError, or anything else."""
        state, detail = PASSED, ""
        try:
            yield
        except NotTriedError as reason:
            state, detail = NOT_TRIED, str(reason)
        except (Exception, SystemExit) as error:  # whatever a plugin raises fails the check
            if self.strict:
                raise
            own_words = isinstance(error, AssertionError) and str(error)
            state, detail = FAILED, str(error).partition("\n")[0] if own_words else f"{type(error).__name__}: {error}"
        self._keep(sentence, state, detail)

    def skip(self, sentence: str, reason: str) -> None:
        """Says that a check cannot be made, and why."""
        self._keep(sentence, NOT_TRIED, reason)

    def _keep(self, sentence: str, state: str, detail: str) -> None:
        before = self._found.get(sentence)
        if before is None or _ORDER.index(state) > _ORDER.index(before.state):
            self._found[sentence] = Check(sentence, state, detail)
