"""Which trials are not begun because others failed: of a point whose first two crashed alike, or of the whole run."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

ALIKE: Final = 2
"""So many first trials of a point that fail alike end it; one failure may be chance, and is tried again."""
_CHANGING: Final = re.compile(r"0x[0-9a-fA-F]+|\d+")
"""Addresses, process ids, times: what differs between two messages of one fault."""


class Rule(StrEnum):
    """What a failed trial ends."""

    POINT = "point"
    RUN = "run"
    NEVER = "never"


class FailFast:
    """Watches how the trials of a run end, and says which are not worth beginning.

    Args:
        rule: what a failure ends.
    """

    def __init__(self, rule: Rule = Rule.POINT) -> None:
        self._rule = rule
        self._ends: dict[str, list[str]] = {}
        self._failed = ""

    def ended(self, point: str, label: str, fault: str) -> None:
        """Takes note of a trial of a point that ended; an empty fault is a success."""
        self._ends.setdefault(point, []).append(_CHANGING.sub("#", fault))
        if fault and not self._failed:
            self._failed = label

    def why_not(self, point: str) -> str:
        """Why no further trial of a point is begun; empty where one is."""
        if self._rule is Rule.RUN and self._failed:
            return f"a trial of {self._failed} failed, and --fail-fast run ends the run at the first failure"
        first = self._ends.get(point, [])[:ALIKE]
        if self._rule is Rule.POINT and len(first) == ALIKE and first[0] and len(set(first)) == 1:
            return f"its first {ALIKE} trials failed alike (--fail-fast never goes on)"
        return ""
