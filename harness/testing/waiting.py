"""Waiting in a test for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(
    condition: Callable[[], Found], *, limit_s: float = 60.0, every_s: float = 0.01, what: str | Callable[[], str] = ""
) -> Found:
    """Asks again and again until the answer is true, and returns it.

    The limit only ends a test that would hang: it is no claim about speed, so let it be long.

    >>> answers = iter([0, 0, 3])
    >>> until(lambda: next(answers))
    3

    Args:
        condition: what is asked.
        limit_s: after so long the test fails.
        every_s: pause between two questions.
        what: what was waited for, or a function that says more when it is known that it did not come.

    Raises:
        AssertionError: the limit is over.
    """
    deadline_s = time.monotonic() + limit_s
    while not (found := condition()):
        if time.monotonic() > deadline_s:
            said = what() if callable(what) else what
            raise AssertionError(f"{said or 'what was waited for'} did not come about in {limit_s:g} s")
        time.sleep(every_s)
    return found
