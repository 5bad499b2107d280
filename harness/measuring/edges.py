"""Two readings of a cumulative register, turned into joules with a bound. No clock, no device: arithmetic only.

With an update period u and power P0 before the start, P1 before the end, an unaligned counter gives measured minus true
within -u*P1 .. +u*P0; a counter aligned to its tick at both edges leaves only the unread part of its last period open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from harness.counter import CounterTrack
from harness.measuring.plausibility import ABOVE_LIMIT, IMPLAUSIBLE, Followed, above_limit, held
from harness.quantity import Amount, Method, Unavailable, Value
from harness.sample import TOO_LITTLE, Cumulative, Scope
from harness.units import nanoseconds, seconds

LOW_COVERAGE: Final = 0.95
"""Below this share of valid data a reading is flagged."""
NO_COVERAGE: Final = 0.80
"""Below this share of valid data there is no reading."""
RESET: Final = "counter reset"
AT_LEAST: Final = "incomplete: at least what the counter showed before and after its reset"
"""Flag of a reading whose reset no power readings bridge: what is certain is summed, and no upper end is known."""

Register = Cumulative | Unavailable


@dataclass(frozen=True, slots=True)
class Tick:
    """A change of a counter, seen by polling.

    Attributes:
        before_ns: begin of the last reading that did not show the change.
        at_ns: begin of the first that did.
        register: what that one read.
    """

    before_ns: int
    at_ns: int
    register: Cumulative


def register(value: float | Cumulative | Unavailable | None) -> Register:
    """What a snapshot says of a scope, in its full form; what is no number of joules is Unavailable."""
    if value is None:
        return Unavailable("the meter left this scope out")
    if isinstance(value, Unavailable):
        return value
    found = value if isinstance(value, Cumulative) else Cumulative(value)
    try:
        known = math.isfinite(found.joules)
    except TypeError:
        known = False
    return found if known else Unavailable(f"the meter returned {found.joules!r:.60}, which is not a number of joules")


@dataclass(frozen=True, slots=True)
class EdgeReading:
    """One scope at one edge of a span.

    Attributes:
        edge_ns: the moment of the edge.
        read_ns: when the register had been read.
        register: what it showed.
        recent_w: power between its latest changes, oldest first.
        tick: the change waited for; None where none came.
        still_s: for how long it had shown the same, as far as samples saw.
        track: what held it against its scope's power limit until then.
        coarse: whether the latest of these powers are means over several update periods, which may hide a peak.
    """

    edge_ns: int
    read_ns: int
    register: Register
    recent_w: tuple[float, ...]
    tick: Tick | None
    still_s: float = 0.0
    track: CounterTrack | None = None
    coarse: bool = False

    @property
    def watts(self) -> float | None:
        """Power drawn last; None before the register has changed twice."""
        return self.recent_w[-1] if self.recent_w else None

    def at_most_w(self, mean_w: float, limit_w: float | None) -> float:
        """What may have been drawn in a period not yet shown: the most seen lately, at least the span's mean.

        Sampled about once a period, a register may be seen to move by two periods in the time of one: what was seen is
        up to twice the truth, and is held to what the device can draw. Sampled more rarely, means hide their peaks:
        then it is what the device can draw, or twice the most seen where nobody says that.
        """
        seen_w = max(self.recent_w, default=0.0)
        if self.coarse or not self.recent_w:
            return max(mean_w, 2 * max(seen_w, mean_w) if limit_w is None else limit_w)
        return max(mean_w, seen_w if limit_w is None else min(seen_w, limit_w))

    def hidden_j(self, scope: Scope, tick_s: float, most_w: float) -> float:
        """What a counter may not show yet: a period's energy, or that of all the time that a stuck one stood still."""
        if self.still_s <= 2 * tick_s or scope.method is Method.ESTIMATED:  # a model's process may rightly rest
            return tick_s * most_w
        return (self.still_s + tick_s) * max(most_w, scope.max_power_w or 0.0)


def span_energy(scope: Scope, opened: EdgeReading, closed: EdgeReading) -> tuple[Value, float | None, tuple[str, ...]]:
    """Joules of one scope between two edges: value with bound, share of time covered, flags.

    The bound holds what the instrument cannot know: the unread part of a counter's last period, bridged gaps,
    smoothing, and the sensor's gain. Without a declared gain there is no bound.
    """
    first = opened.tick.register if opened.tick else opened.register
    last = closed.register
    if isinstance(first, Unavailable):
        return Unavailable(f"opening edge: {first.reason}"), None, ()
    if isinstance(last, Unavailable):
        return Unavailable(f"closing edge: {last.reason}"), None, ()
    duration_s = seconds(closed.edge_ns - opened.edge_ns)
    raw = last.joules - first.joules
    if raw < 0 and not _seen_to_restart(opened, closed):
        return Unavailable(f"the meter went back by {-raw:.6g} J"), None, ("went backwards",)
    if scope.tick_s and raw == 0:
        still = f"the counter did not move in {duration_s:.3g} s; its period is {scope.tick_s:.3g} s"
        small = duration_s <= 2 * scope.tick_s or scope.method is Method.ESTIMATED  # else it is stuck
        return Unavailable(f"{TOO_LITTLE}: {still}" if small else still), None, ("no tick",)
    flags = _beyond_limit(scope, opened, closed, max(0.0, raw), last.over_j - first.over_j, duration_s)
    first, last = _without_the_impossible(scope, opened, closed, first, last)
    raw = last.joules - first.joules
    gap_s = last.gap_s - first.gap_s
    coverage = max(0.0, 1.0 - gap_s / duration_s) if duration_s > 0 else 0.0
    flags += [IMPLAUSIBLE] if last.dropped > first.dropped else []
    reset = last.resets > first.resets
    flags += [RESET] if reset else []
    if coverage < NO_COVERAGE and not (reset and raw > 0):
        return Unavailable(f"valid data for {coverage:.0%} of the span only"), coverage, ("low coverage", *flags)
    value, low, high, aligned = _edges(scope, opened, closed, raw, raw / duration_s)
    low = max(0.0, low - (last.over_j - first.over_j))
    high += last.under_j - first.under_j
    flags = [*aligned, *flags]
    if coverage < NO_COVERAGE:
        flags.append(AT_LEAST)
    if coverage < LOW_COVERAGE:
        flags.append("low coverage")
    parts = {method: max(0.0, joules - first.other_j.get(method, 0.0)) for method, joules in last.other_j.items()}
    other = {method: min(joules, value) for method, joules in parts.items() if joules > 0}
    composition: dict[Method, float] = {scope.method: value - sum(other.values()), **other}
    value = sum(composition.values())
    if scope.sensor is not None:
        error_j = scope.sensor.error_w(value / duration_s) * duration_s
        low, high = max(0.0, low - error_j), high + error_j
    elif scope.gain is not None:
        low, high = low / (1 + scope.gain), high / (1 - scope.gain)
    else:
        return Amount(value, "J", composition), coverage, (*flags, "bound not known")
    if coverage < NO_COVERAGE:
        return Amount(value, "J", composition, min(low, value)), coverage, tuple(flags)
    return Amount(value, "J", composition, min(low, value), max(high, value)), coverage, tuple(flags)


def _seen_to_restart(opened: EdgeReading, closed: EdgeReading) -> bool:
    """Whether samples between the edges saw the counter begin again; a closing edge alone may be a bad reading."""
    if closed.track is None:
        return False
    before = opened.track.state.resets if opened.track is not None else 0
    return closed.track.state.resets > before


def _beyond_limit(
    scope: Scope, opened: EdgeReading, closed: EdgeReading, raw: float, over_j: float, duration_s: float
) -> list[str]:
    if scope.max_power_w is None or not duration_s > 0:
        return []
    _, low, _, _ = _edges(scope, opened, closed, raw, scope.max_power_w)
    return [ABOVE_LIMIT] if above_limit(scope, low - over_j, duration_s) else []


def _without_the_impossible(
    scope: Scope, opened: EdgeReading, closed: EdgeReading, first: Cumulative, last: Cumulative
) -> tuple[Cumulative, Cumulative]:
    """The registers at both edges, held against the power limit where the meter has not done it itself."""
    if not isinstance(opened.register, Cumulative):
        return first, last
    begun = Followed(opened.track, opened.read_ns, opened.register)
    return held(scope, begun, Followed(closed.track, closed.read_ns, last)) or (first, last)


def _edges(
    scope: Scope, opened: EdgeReading, closed: EdgeReading, raw: float, mean_w: float
) -> tuple[float, float, float, list[str]]:
    """Value and bound from what the edges leave open; before gaps and gain."""
    before_w = opened.at_most_w(mean_w, scope.max_power_w)
    after_w = closed.at_most_w(mean_w, scope.max_power_w)
    # True energy less raw is what was drawn in the lag before the end, less what was drawn in the lag before the begin;
    # the register had shown neither when the edges were read, so that its pace bounds neither.
    lag_s = scope.sensor.lag_s + scope.sensor.lag_error_s if scope.sensor is not None else 0.0
    most_w = max(before_w, after_w, 2 * max(before_w, after_w) if scope.max_power_w is None else scope.max_power_w)
    lag_j = lag_s * most_w
    late_close = after_w * seconds(max(0, closed.read_ns - closed.edge_ns))
    if not scope.tick_s:
        early_open = before_w * seconds(max(0, opened.edge_ns - opened.read_ns))
        smoothed = scope.smoothing_s * max(0.0, mean_w - (opened.watts or 0.0)) / 2
        return raw, raw - early_open - late_close - lag_j, raw + smoothed + lag_j, []
    if opened.tick is None or closed.tick is None:
        low = raw - opened.hidden_j(scope, scope.tick_s, before_w) - late_close - lag_j
        return raw, low, raw + closed.hidden_j(scope, scope.tick_s, after_w) + lag_j, ["not aligned"]
    early_open = before_w * seconds(max(0, opened.edge_ns - opened.tick.before_ns))
    shown = closed.register
    late_j = closed.tick.register.joules - shown.joules if isinstance(shown, Cumulative) else 0.0
    upper = raw + max(0.0, late_j)
    last_tick_ns = closed.tick.at_ns - nanoseconds(scope.tick_s)
    unread_s = min(max(seconds(closed.edge_ns - last_tick_ns), 0.0), scope.tick_s)
    value = min(raw + unread_s * (closed.watts if closed.watts is not None else mean_w), upper)
    return value, raw - early_open - late_close - lag_j, upper + lag_j, []
