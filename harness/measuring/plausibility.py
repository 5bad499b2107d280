"""Holds every meter's joules against the power limit that its scope declares, and sees resets, whoever wrote the meter.

A `CounterTrack` follows each register in the sampling thread. At an edge nothing is done but to keep what the sampling
thread knew; when energies are computed, the edge's own reading is judged as the one that comes next.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from harness.counter import CounterTrack
from harness.power_limit import PowerLimit
from harness.records.record import Reading, SeenCondition, Span
from harness.sample import Cumulative, Scope

SLACK_S: Final = 0.1
"""Two readings may lie so much closer than their times say: a reading takes time, and a message to a node more."""
ABOVE_LIMIT: Final = "power above limit"
"""Flag of a reading whose mean power no sensor may show: above limit x (1 + gain) + offset."""
IMPLAUSIBLE: Final = "implausible readings"
"""Flag of a reading in whose span the meter showed what no device can have drawn."""


class Followed(NamedTuple):
    """A register at an edge.

    Attributes:
        track: what followed it until then; None before its first sample.
        read_ns: when the edge read it.
        register: what it showed.
    """

    track: CounterTrack | None
    read_ns: int
    register: Cumulative


def makes_no_excuse(register: Cumulative) -> bool:
    """Whether a register is bare joules. A meter that states gaps and bounds has judged its readings itself."""
    return not (
        register.over_j or register.under_j or register.gap_s or register.resets or register.dropped or register.other_j
    )


def judged(track: CounterTrack | None, scope: Scope, t_ns: int, register: Cumulative) -> CounterTrack | None:
    """What follows the register from here on, as a copy: one kept by an edge never changes.

    None for a register that its meter has judged. Without a limit a reset is all that can be seen.
    """
    if not makes_no_excuse(register):
        return None
    if track is None:
        taken = CounterTrack(
            max_power_w=scope.max_power_w,
            tick_s=(scope.tick_s or 0.0) + SLACK_S,
            gain=scope.gain or 0.0,
            offset_w=scope.offset_w,
        )
    else:
        taken = copy.copy(track)
    taken.update(t_ns, register.joules)
    return taken


def held(scope: Scope, opened: Followed, closed: Followed) -> tuple[Cumulative, Cumulative] | None:
    """Both edges' registers without what cannot be; None where there is nothing of it between them."""
    first = judged(opened.track, scope, opened.read_ns, opened.register)
    if first is None:
        return None
    # Without a sample before the opening edge, that edge is where the register is followed from.
    track = first if opened.track is None else closed.track
    last = judged(track, scope, closed.read_ns, closed.register)
    if last is None:
        return None
    begun, ended = first.state, last.state
    return (begun, ended) if (ended.dropped, ended.resets) != (begun.dropped, begun.resets) else None


def above_limit(scope: Scope, least_j: float, duration_s: float) -> bool:
    """Whether the least that a sensor showed over a span is more than it may show at the device's limit.

    A device exceeds its limit for a second or two, no window's mean does. The sensor's update period is allowed for.
    """
    limit = PowerLimit(scope.max_power_w, scope.gain or 0.0, scope.offset_w)
    return least_j > limit.most_j(duration_s + (scope.tick_s or 0.0), short_time=False) * (1 + 1e-9)


def conditions(
    readings: Iterable[Reading], spans: Iterable[Span], scopes: Mapping[tuple[str, str], Scope]
) -> list[SeenCondition]:
    """A condition `power_above_limit` for each meter and scope whose mean power over a window lies beyond its limit.

    It fails the trial where the meter counts for the scope.

    Args:
        readings: of a trial.
        spans: of the same trial.
        scopes: description of each scope, by meter and name.
    """
    begun = {span.window: span.start_ns for span in spans if span.name == "window"}
    found: dict[tuple[str, str], SeenCondition] = {}
    for reading in readings:
        if reading.span != "window" or ABOVE_LIMIT not in reading.flags:
            continue
        key = (reading.meter, reading.scope)
        before = found.get(key)
        limit_w = scopes[key].max_power_w or 0.0
        found[key] = SeenCondition(
            kind="power_above_limit",
            scope=reading.scope,
            detail=f"meter {reading.meter!r} shows a mean power that its limit of {limit_w:g} W does not allow",
            fails=reading.primary,
            count=before.count + 1 if before else 1,
            first_ns=before.first_ns if before else begun[reading.window],
        )
    return list(found.values())
