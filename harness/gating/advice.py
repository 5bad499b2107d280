"""What to raise where a gate ended without an answer: the warm-up, the windows, the tolerance or the pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from harness.gating.verdict import Judged, Verdict

_MOST_PAIRS: Final = 1000
"""An advice to measure more pairs than this is none."""
_SAID: Final = (
    ("the warm-up did not converge", "raise warm_up.max_seconds and warm_up.max_iterations, or warm_up.tolerance"),
    ("too short to gate", "raise windows.min_seconds, or windows.min_iterations"),
    ("low coverage", "raise windows.min_seconds, or name another meter: this one does not read often enough"),
    ("above the limit of", "set power_cap: expected if the device works at its limit by design"),
    ("not comparable", "name the meters in the suite, so that both sides are measured by the same method"),
    ("the control workload", "the machine was busy: measure again, or on a quieter one, with more pairs"),
    (
        "second trial of a pair",
        "raise warm_up.max_seconds, so that no trial begins in the heat of another",
    ),
)
"""Words of a reason -> what helps."""


def advice(reason: str, judged: Sequence[Judged], pairs: int) -> Iterator[str]:
    """What would help, each once.

    Args:
        reason: why the whole job is invalid; empty where it is not.
        judged: the cells.
        pairs: that were measured.
    """
    told = [reason, *(each.reason for each in judged if each.verdict is Verdict.INVALID)]
    yield from dict.fromkeys(helps for words, helps in _SAID if any(words in text for text in told))
    needed = [_pairs_needed(each, pairs) for each in judged if each.verdict is Verdict.INCONCLUSIVE]
    known = [number for number in needed if number is not None]
    if known and max(known) <= _MOST_PAIRS:
        yield f"about {max(known)} pairs would tell, if the noise stays what it was; so would a larger tolerance"
    elif needed:
        yield "raise the tolerance: no sensible number of pairs tells this change from it"


def _pairs_needed(cell: Judged, pairs: int) -> int | None:
    """So many pairs as shrink the interval until it leaves the tolerance out, by the root of their number."""
    if cell.estimate is None or cell.low is None or cell.high is None or cell.worse_by_at_most is None or not pairs:
        return None
    allowed = math.log1p(cell.worse_by_at_most)
    distance = abs(allowed - math.log1p(cell.estimate))
    half = (math.log1p(cell.high) - math.log1p(cell.low)) / 2
    return None if distance <= 0 else max(pairs + 1, math.ceil(pairs * (half / distance) ** 2))
