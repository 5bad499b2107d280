"""What a query reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sources:
    """What a query reads.

    Attributes:
        indexed: files of the index, one a run.
        plain: folders of runs that could not be indexed, because a record does not read.
        missing: runs that were indexed only now.
    """

    indexed: Sequence[Path]
    plain: Sequence[Path]
    missing: Sequence[str] = ()
