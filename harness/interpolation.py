"""The energy between two moments by a counter that is read now and then, from elsewhere.

A reading is known by an interval of this machine's clock: it was true not before the last request that did not show it
yet, less what the source may be late, and not after the answer that showed it first. Clocks of other machines are never
used. An edge of a window lies between two readings; the energy up to it lies between those of the reading before and
the reading after it, and is interpolated.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from harness.quantity import Amount, Unavailable
from harness.sample import Cumulative, Scope
from harness.sensor import LOW_COVERAGE, NO_COVERAGE, Estimate
from harness.units import nanoseconds, seconds

LATELY_S: Final = 60.0
"""Where no limit is known, a source may draw up to twice the most that was seen so long before an edge."""
IMPLAUSIBLE: Final = "implausible readings"
"""Flag: some readings cannot be true, and are not counted."""
UNIT: Final = "far below its limit: is the unit right?"
"""Flag: less than `LEAST` of the power limit, as milliwatts taken for watts show."""
LEAST: Final = 1 / 500
_STILL: Final = 3.0
"""A counter that stood still over so many of its updates has stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """A register that is polled.

    Attributes:
        scope: as the meter announces it; one that shows watts has a sensor.
        counts: whether it counts joules; else it shows watts.
        update_s: how often the source renews it, in seconds; 0 for one that is current in every answer.
        late_s: greatest time from the moment that a reading is true of until an answer can show it.
        range_j: where a counter wraps; None for one that never does.
        step_j: what a counter counts in, such as 3,600 J for one of whole watt-hours; 0 for one that is fine.
    """

    scope: Scope
    counts: bool
    update_s: float
    late_s: float = 0.0
    range_j: float | None = None
    step_j: float = 0.0


class Shown(NamedTuple):
    """A register in an answer.

    Attributes:
        value: joules or watts.
        stamp: tells one renewal from the next, such as the source's own time; it is compared with nothing else. None
            where each answer is a reading of its own.
    """

    value: float
    stamp: object = None


class Sample(NamedTuple):
    """What a counter had counted, and between which moments of this machine's clock that was so."""

    earliest_ns: int
    latest_ns: int
    state: Cumulative

    @property
    def middle_ns(self) -> int:
        """The best guess of when it was so."""
        return (self.earliest_ns + self.latest_ns) // 2


def counted_between(what: Polled, samples: Sequence[Sample], opened_ns: int, closed_ns: int) -> Estimate:
    """The energy between two moments by a polled counter.

    The bound holds one interval between readings at either edge, what resets and gaps leave open, and the class.

    Examples:
        A counter of a steady 100 W, read every second, over a window whose edges lie between two readings:

        >>> from harness.quantity import Method
        >>> what = Polled(scope=Scope(method=Method.COUNTER, gain=0.0), counts=True, update_s=1.0)
        >>> second = 1_000_000_000
        >>> read = [Sample(at * second, at * second, Cumulative(100.0 * at)) for at in range(15)]
        >>> found = counted_between(what, read, 2 * second + second // 2, 12 * second + second // 2).amount
        >>> found.low, found.value, found.high
        (900.0, 1000.0, 1100.0)

    Args:
        what: the register.
        samples: its readings, in order; those around the window are used too.
        opened_ns: begin of the window, on the monotonic clock.
        closed_ns: its end.
    """
    length_s = seconds(closed_ns - opened_ns)
    if not length_s > 0 or len(samples) < 2:
        return Estimate(Unavailable("fewer than two readings" if length_s > 0 else "the window has no length"))
    scope = what.scope
    most_w = _most_w(what, samples, closed_ns)
    first = max(0, bisect.bisect_right(samples, opened_ns, key=lambda one: one.latest_ns) - 1)
    last = min(len(samples) - 1, bisect.bisect_left(samples, closed_ns, key=lambda one: one.earliest_ns))
    begun, ended = samples[first].state, samples[last].state
    late_ns = nanoseconds(2.5 * what.update_s + what.late_s)
    unread_ns = max(0, samples[0].earliest_ns - late_ns - opened_ns) + max(
        0, closed_ns - samples[-1].latest_ns - late_ns
    )
    coverage = max(0.0, 1 - (ended.gap_s - begun.gap_s + seconds(unread_ns)) / length_s)
    flags = [IMPLAUSIBLE] if ended.dropped > begun.dropped else []
    flags += ["counter reset"] if ended.resets > begun.resets else []
    if coverage < NO_COVERAGE:
        return Estimate(
            Unavailable(f"readings for {coverage:.0%} of the window only"), coverage, ("low coverage", *flags)
        )
    if ended.joules == begun.joules and length_s > _STILL * what.update_s and not what.step_j:
        return Estimate(Unavailable(f"the counter did not move in {length_s:.3g} s"), coverage, ("no tick",))
    flags += ["low coverage"] if coverage < LOW_COVERAGE else []
    opening, closing = (_at(what, samples, edge_ns, most_w) for edge_ns in (opened_ns, closed_ns))
    value = max(0.0, closing[1] - opening[1])
    low = max(0.0, closing[0] - opening[2] - (ended.over_j - begun.over_j) - what.step_j)
    under_j = ended.under_j - begun.under_j
    if scope.max_power_w is None:  # the counter's own sum knows no limit for what it did not see
        under_j = max(under_j, most_w * (ended.gap_s - begun.gap_s))
    high = closing[2] - opening[0] + under_j + what.step_j
    flags += unit_flags(scope, value, length_s)
    if scope.gain is None:
        flags.append("bound not known")
        return Estimate(Amount.of(value, "J", scope.method), coverage, tuple(flags))
    offset_j = scope.offset_w * length_s
    low, high = max(0.0, low / (1 + scope.gain) - offset_j), high / (1 - scope.gain) + offset_j
    amount = Amount.of(value, "J", scope.method, low=min(low, value), high=max(high, value))
    return Estimate(amount, coverage, tuple(flags))


def unit_flags(scope: Scope, joules: float, length_s: float) -> list[str]:
    """Flags an energy so little that its unit is in doubt; none where no limit is known."""
    return [UNIT] if scope.max_power_w and joules < LEAST * scope.max_power_w * length_s else []


def _most_w(what: Polled, samples: Sequence[Sample], closed_ns: int) -> float:
    """What may have been drawn while nobody looked: the limit, or twice the most seen lately."""
    if what.scope.max_power_w is not None:
        return what.scope.max_power_w
    begin = bisect.bisect_left(samples, closed_ns - nanoseconds(LATELY_S + 4 * what.update_s), key=lambda one: one[1])
    end = bisect.bisect_left(samples, closed_ns, key=lambda one: one.earliest_ns) + 1
    near = samples[max(0, begin - 1) : end]
    steps = [
        (after.state.joules - before.state.joules) / seconds(after.middle_ns - before.middle_ns)
        for before, after in pairwise(near)
        if after.middle_ns > before.middle_ns
    ]
    return 2 * max(steps, default=0.0)


def _at(what: Polled, samples: Sequence[Sample], edge_ns: int, most_w: float) -> tuple[float, float, float]:
    """Least, likely and greatest energy up to a moment."""
    before = bisect.bisect_right(samples, edge_ns, key=lambda one: one.latest_ns) - 1
    after = bisect.bisect_left(samples, edge_ns, key=lambda one: one.earliest_ns)
    low = samples[before].state.joules if before >= 0 else -float("inf")
    high = samples[after].state.joules if after < len(samples) else float("inf")
    sharp_ns = nanoseconds(what.update_s / 2) if what.scope.max_power_w is None else edge_ns
    ends = [samples[0], *samples[before + 1 : after], samples[-1]]
    for index, (earliest_ns, latest_ns, state) in enumerate(ends):
        outside = (index == 0 and edge_ns < latest_ns) or (index == len(ends) - 1 and edge_ns > earliest_ns)
        if outside or (0 < index < len(ends) - 1 and latest_ns - earliest_ns <= sharp_ns):
            low = max(low, state.joules - most_w * seconds(max(0, latest_ns - edge_ns)))
            high = min(high, state.joules + most_w * seconds(max(0, edge_ns - earliest_ns)))
    value = _interpolated(samples, edge_ns)
    return low, min(max(value, low), high), high


def _interpolated(samples: Sequence[Sample], edge_ns: int) -> float:
    """Linear between the middles of readings; at either end, at the pace of the nearest interval."""
    index = bisect.bisect_left(samples, edge_ns, key=lambda one: one.middle_ns)
    one, other = samples[min(max(index, 1), len(samples) - 1) - 1 :][:2]
    length_ns = other.middle_ns - one.middle_ns
    share = (edge_ns - one.middle_ns) / length_ns if length_ns > 0 else 1.0
    return one.state.joules + share * (other.state.joules - one.state.joules)
