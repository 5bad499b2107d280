"""The gate: measures base and head in pairs, analyses at most three times, and says whether head got worse.

The order of thoughts: guards (pairs), the control workload, cells and their verdicts, the verdict of the build, and
whether a calibration vouches for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.errors import UsageError
from harness.gating.cells import Rules, comparison
from harness.gating.job_guards import CONTROL_ALPHA, control_moved, one_side_fails
from harness.gating.pairs import Pairs
from harness.gating.result import InterimAnalysis, Result
from harness.gating.verdict import (
    Cell,
    CellKey,
    Judged,
    Verdict,
    build,
    judge,
    needs_more,
    order_matters,
)
from harness.measuring.window import ITERATIONS, TIME_SECONDS
from harness.records.metric import Metric
from harness.statistics.paired import ALPHA, effect, fewest_pairs, look_sizes

CONTROL_METRIC = Metric("duration_s", "item")
_MOST_PAIRS: Final = 1000
"""An advice to measure more pairs than this is none."""
_SAID: Final = (
    ("the warm-up did not converge", "raise warm_up.max_seconds and warm_up.max_iterations, or warm_up.tolerance"),
    (
        "too short to gate",
        f"raise windows.min_seconds and min_iterations: a time takes {TIME_SECONDS:g} s and {ITERATIONS} iterations",
    ),
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


@dataclass(slots=True)
class Gate:
    """One gate, from its rules to its result.

    Attributes:
        rules: what is judged.
        pairs: measures.
        looks: pairs and error rate of each interim analysis, ascending.
        deadline_s: on the monotonic clock; no new round begins after it.
        control_bounds: what the control does when nothing changes, from calibration, on the logarithmic scale.
        uncalibrated: why no calibration vouches for a pass; empty where one does, or none is asked for.
        notes: known before anything was measured.
        clock: seconds, monotonic.
    """

    rules: Rules
    pairs: Pairs
    looks: Sequence[tuple[int, float]]
    deadline_s: float = math.inf
    control_bounds: tuple[float, float] | None = None
    uncalibrated: str = ""
    notes: Sequence[str] = ()
    clock: Callable[[], float] = time.monotonic
    _done: int = field(default=0, init=False)

    def run(self) -> Result:
        """Measures and analyses until the build is decided, the pairs are used up, or the time is.

        Raises:
            UsageError: a rule names a metric that no record has; told after the first pair.
            MeasurementError: scoring or costing failed.
        """
        taken: list[InterimAnalysis] = []
        judged: list[Judged] = []
        self.measure(min(fewest_pairs(ALPHA), self.looks[0][0]))
        if self._without_noise():
            taken.append(InterimAnalysis(self._done, self.looks[-1][1]))
            return self._result(judge(self.cells(), taken[0].alpha), taken)
        for n, alpha in self.looks:
            self.measure(n)
            cut_short = self._done < n
            # what earlier analyses spent and this share together stay within the error rate of all of them
            spend = self.looks[-1][1] if cut_short else alpha
            judged = judge(self.cells(), spend, self._done if cut_short else self.looks[-1][0])
            taken.append(InterimAnalysis(self._done, spend))
            if cut_short or not needs_more(judged):
                break
        return self._result(judged, taken)

    def measure(self, pairs: int) -> None:
        """Measures until there are so many pairs, the time is used up, or no further pair can tell anything."""
        while self._done < pairs and self.clock() < self.deadline_s and self._worthwhile():
            self.pairs.measure(1)
            self._done += 1
        self.pairs.finish()

    def cells(self) -> list[Cell]:
        """Every rule on every point that it applies to, from the pairs so far."""
        read = {
            series.label: [] if series.lost else list(self.pairs.records(series))
            for series in self.pairs.series
            if not series.control
        }
        return self.rules.cells(self.pairs.series, read)

    def _without_noise(self) -> bool:
        """Whether every cell that could be measured differs by the same in every pair, so that no more are needed."""
        cells = [cell for cell in self.cells() if not cell.missing]
        return bool(cells) and all(cell.constant for cell in cells)

    def _worthwhile(self) -> bool:
        """Whether a further pair can tell anything; after the first, a wrong rule is a usage error."""
        if all(series.control for series in self.pairs.going):
            return False
        if self._done != 1:
            return True
        self.pairs.finish()
        cells = self.cells()
        return not cells or any(not cell.missing for cell in cells)

    def _result(self, judged: Sequence[Judged], taken: Sequence[InterimAnalysis]) -> Result:
        tried, redone = self.pairs.tried, self.pairs.redone
        moved, shift = self._control()
        fails = one_side_fails(redone["base"], redone["head"], tried["base"], tried["head"])
        reason = moved or fails or order_matters(judged)
        verdict = Verdict.INVALID if reason else build(judged)
        if self.uncalibrated and verdict in {Verdict.PASS, Verdict.IMPROVED}:
            verdict, reason = Verdict.INCONCLUSIVE, f"uncalibrated: {self.uncalibrated}"
        redoings = [
            f"{count} of {tried[name]} trials of {name} did not count; their pairs were measured again"
            for name, count in sorted(redone.items())
            if count
        ]
        if shift is not None and self.control_bounds is None:
            least = fewest_pairs(CONTROL_ALPHA)
            by = "judged by its own spread" if self._done >= least else f"not judged: that takes {least} pairs"
            redoings.append(f"no calibration says what the control workload does by itself: it was {by}")
        return Result(
            verdict=verdict,
            cells=judged,
            pairs={series.label: series.pairs for series in self.pairs.series},
            looks=taken,
            control_change=shift,
            notes=[*self.notes, *redoings, *advice(reason, judged, self._done)],
            reason=reason,
        )

    def _control(self) -> tuple[str, float | None]:
        """Why the control makes the job invalid, and its change."""
        shift: float | None = None
        for series in self.pairs.controls:
            if series.lost:
                return f"the control workload: {series.lost}", shift
            cell = control_cell(self.pairs)
            if cell is None:
                continue
            if cell.missing:
                return f"the control workload: {cell.missing}", shift
            shift = effect(cell.differences).ratio[0]
            return control_moved(cell.differences, self.control_bounds), shift
        return "", shift


def control_cell(pairs: Pairs) -> Cell | None:
    """The control's differences; None where it was not measured."""
    for series in pairs.controls:
        if series.pairs:
            records = list(pairs.records(series))
            point = series.points["head"]
            key = CellKey(point.suite, point.label, CONTROL_METRIC.name, CONTROL_METRIC.per)
            return comparison(key, records, 0.0, higher_is_better=False)
    return None


def least_pairs(cells: int) -> int:
    """So many pairs can fail a gate of so many cells; see `looks_for`.

    Examples:
        >>> least_pairs(1), least_pairs(2)
        (5, 6)
    """
    least = fewest_pairs(ALPHA / max(1, cells))
    while 2.0**-least > look_sizes(least)[-1][1] / max(1, cells):  # where early analyses spend a share, less is left
        least += 1
    return least


def looks_for(pairs: int, cells: int = 1) -> list[tuple[int, float]]:
    """The interim analyses of a gate of so many pairs: after how many, at which error rate.

    Raises:
        UsageError: so few could only end inconclusive: Holm's first step asks for p <= alpha / cells, and no p-value
            lies below 2^-pairs.
    """
    least = least_pairs(cells)
    if pairs < least:
        of = f"one of {cells} comparisons" if cells > 1 else "one comparison"
        raise UsageError(
            f"{pairs} pairs cannot show a regression in {of} at an error rate of {ALPHA:g}",
            accepted=f"at least {least}",
        )
    return look_sizes(pairs)


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
