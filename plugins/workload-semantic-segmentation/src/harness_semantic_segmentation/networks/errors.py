"""What goes wrong with a network, as exceptions of Python alone: nothing in this folder knows the harness."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NetworkError(ValueError):
    """No such network, a choice that it does not have, or weights that do not fit it; the text says what would do."""


class WeightsError(OSError):
    """Trained weights that cannot be had; the text says what was asked for."""


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest to a wrong one, as a remark in brackets; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
