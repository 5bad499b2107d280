"""The energy of a span by power readings, and a counter held against them.

The arithmetic of a sensor is `harness.sensor`; here its readings are cut out of a channel's polls, and the bound of a
counter learns what its sensor did not see.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Final

from harness.measuring.channel import SEES_ALL, Poll
from harness.measuring.plausibility import ABOVE_LIMIT, IMPLAUSIBLE, above_limit
from harness.power_limit import counter_disagrees
from harness.quantity import Amount, Method, Value
from harness.sample import Scope
from harness.sensor import IMPOSSIBLE, UNSEEN, Estimate, PowerSensor, estimate
from harness.units import nanoseconds, seconds

NOT_TESTED: Final = "sensor not tested"
"""Flag: the numbers of the sensor are those of its class; no meter card of this device has better ones."""

Outcome = tuple[Value, float | None, tuple[str, ...]]
"""Energy with its bound, share of the time covered, flags."""


def sampled_energy(
    name: str, scope: Scope, polls: Sequence[Poll], opened_ns: int, closed_ns: int, period_s: float | None
) -> Outcome:
    """The energy of an integrated scope between two moments, by its power readings.

    Args:
        name: of the scope.
        scope: its description; has a sensor.
        polls: of the channel, in order; those around the span are used too.
        opened_ns: begin of the span, on the monotonic clock.
        closed_ns: its end.
        period_s: of the load, where it is known: work in step with the sensor is the worst case.
    """
    assert scope.sensor is not None
    found = _estimated(name, scope.sensor, scope, polls, opened_ns, closed_ns, period_s)
    flags = [IMPLAUSIBLE if flag == IMPOSSIBLE else flag for flag in found.flags]
    amount, length_s = found.amount, seconds(closed_ns - opened_ns)
    if isinstance(amount, Amount):
        amount = replace(amount, composition={scope.method: amount.value})
        if amount.low is not None:
            shown_j = amount.low + scope.sensor.error_w(amount.value / length_s) * length_s
            flags += [ABOVE_LIMIT] if above_limit(scope, shown_j, length_s) else []
    return amount, found.coverage, (*flags, *_tested(scope))


def corrected(scope: Scope, found: Outcome, length_s: float) -> Outcome:
    """An energy with the gain and offset of its sensor undone, where a meter card knows them from a reference.

    The bound is that of the corrected reading: the card's sensor has what the reference itself leaves open.
    """
    value, coverage, flags = found
    if not isinstance(value, Amount) or (scope.scale == 1 and scope.shift_w == 0):
        return found
    shift_j = scope.shift_w * length_s

    def right(joules: float) -> float:
        return max(0.0, scope.scale * joules + shift_j)

    joules = right(value.value)
    share = joules / value.value if value.value > 0 else 0.0
    parts = {method: part * share for method, part in value.composition.items()} if share else {scope.method: joules}
    low, high = (None if end is None else right(end) for end in (value.low, value.high))
    return Amount(joules, value.unit, parts, low, high), coverage, flags


def held_against_power(
    name: str,
    scope: Scope,
    counted: Outcome,
    polls: Sequence[Poll],
    opened_ns: int,
    closed_ns: int,
    period_s: float | None,
) -> Outcome:
    """A counter's energy whose bound also holds what its sensor did not see; flagged where power says another energy.

    A counter on a sensor that looks at part of the time inherits what that sensor misses, until a meter card shows
    otherwise (arXiv 2312.02741 found the power readings of GA100 and GH100 to be such).

    Args:
        name: of the scope.
        scope: its description.
        counted: what the counter says, with its bound.
        polls: power readings of the channel.
        opened_ns: begin of the span.
        closed_ns: its end.
        period_s: of the load, where it is known.
    """
    value, coverage, flags = counted
    if scope.sensor is None:
        return counted
    flags = (*flags, *_tested(scope))
    if not isinstance(value, Amount) or value.low is None or value.high is None:
        return value, coverage, flags
    exact = replace(scope.sensor, gain=0.0, offset_w=0.0)
    power = _estimated(name, exact, scope, polls, opened_ns, closed_ns, period_s)
    other = power.amount
    if isinstance(other, Amount) and counter_disagrees(name, value, other) is not None:
        flags = (*flags, f"power readings say {other.value / value.value - 1:+.0%}")
    if scope.sensor.seen >= SEES_ALL:
        return value, coverage, flags
    if isinstance(other, Amount) and other.value > 0 and other.low is not None and other.high is not None:
        less, more = other.low / other.value, other.high / other.value
        flags = (*flags, *(flag for flag in power.flags if flag not in flags))
    else:
        less, more = _unseen(scope, scope.sensor, value, seconds(closed_ns - opened_ns))
        flags = (*flags, UNSEEN)
    step_j = _step_j(name, scope.sensor, polls, opened_ns, closed_ns)
    low = max(0.0, min(value.low * less, value.low - step_j))
    return replace(value, low=low, high=max(value.high * more, value.high + step_j)), coverage, flags


def _step_j(name: str, sensor: PowerSensor, polls: Sequence[Poll], opened_ns: int, closed_ns: int) -> float:
    """What one step of the power may add to a counter, or take: all that the sensor did not see of one update."""
    around_ns = nanoseconds(2 * sensor.update_s + sensor.lag_s + sensor.lag_error_s)
    first = bisect.bisect_left(polls, opened_ns - around_ns, key=itemgetter(0))
    last = bisect.bisect_right(polls, closed_ns + around_ns, key=itemgetter(0))
    read = [shown for _, watts in polls[first:last] if (shown := watts.get(name)) is not None]
    return (max(read) - min(read)) * (1 - sensor.seen) * sensor.update_s if read else 0.0


def _tested(scope: Scope) -> tuple[str, ...]:
    """Flags a sensor that nobody tested; a simulated one is what it was told to be."""
    return () if scope.card or scope.method is Method.SIMULATED else (NOT_TESTED,)


def _estimated(
    name: str,
    sensor: PowerSensor,
    scope: Scope,
    polls: Sequence[Poll],
    opened_ns: int,
    closed_ns: int,
    period_s: float | None,
) -> Estimate:
    """By the load's period where one is known, and as if it had others too: the wider of both."""
    around_ns = nanoseconds(5 * sensor.window_s + 20 * sensor.update_s + sensor.lag_s + sensor.lag_error_s + 2.0)
    first = bisect.bisect_left(polls, opened_ns - around_ns, key=itemgetter(0))
    last = bisect.bisect_right(polls, closed_ns + around_ns, key=itemgetter(0))
    read = [(at_ns, watts[name]) for at_ns, watts in polls[first:last] if name in watts]
    times_s = [seconds(at_ns - opened_ns) for at_ns, _ in read]
    watts_w = [watts for _, watts in read]
    length_s = seconds(closed_ns - opened_ns)
    found = estimate(sensor, times_s, watts_w, 0.0, length_s, max_w=scope.max_power_w)
    if period_s is None or not isinstance(found.amount, Amount):
        return found
    in_step = estimate(sensor, times_s, watts_w, 0.0, length_s, max_w=scope.max_power_w, period_s=period_s)
    if not isinstance(in_step.amount, Amount):
        return found
    lows = [amount.low for amount in (found.amount, in_step.amount) if amount.low is not None]
    highs = [amount.high for amount in (found.amount, in_step.amount) if amount.high is not None]
    wider = replace(found.amount, low=min(lows), high=max(highs))
    return Estimate(wider, found.coverage, tuple(dict.fromkeys((*found.flags, *in_step.flags))))


def _unseen(scope: Scope, sensor: PowerSensor, value: Amount, length_s: float) -> tuple[float, float]:
    """Without power readings nobody knows the unseen part: from nothing to what the device can draw."""
    if scope.max_power_w is None:
        return sensor.seen, math.inf if sensor.seen == 0 else 1 / sensor.seen
    most_j = (1 - sensor.seen) * scope.max_power_w * length_s
    return sensor.seen, 1 + most_j / value.value
