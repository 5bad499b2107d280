"""How the trials of a run ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from harness.errors import ExitCode

STATUSES: Final = ("measured", "invalid", "failed", "skipped", "kept")
"""How a trial can have ended, by the end of a run."""


@dataclass(slots=True)
class Tally:
    """How the trials of a run ended."""

    measured: int = 0
    kept: int = 0
    failed: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    interrupted: bool = False
    trials: Counter[str] = field(default_factory=Counter)
    """How many trials by status."""

    @property
    def exit_code(self) -> ExitCode:
        """0, 3 or 130."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.MEASUREMENT if self.failed or self.invalid else ExitCode.OK
