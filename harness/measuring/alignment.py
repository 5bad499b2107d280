"""Waiting for the tick of a counter, so that an edge lies where the counter has just been renewed."""

from __future__ import annotations

import time
from typing import Final

from harness.measuring.channel import Channel
from harness.measuring.edges import Tick
from harness.sample import Cumulative
from harness.units import nanoseconds

TICKS_TO_WAIT: Final = 10
"""A counter that has not moved for so many of its periods is not aligned to."""


def await_tick(channel: Channel) -> dict[str, Tick]:
    """Polls a meter until each of its ticking scopes has changed once, or ten periods have passed. Hold its lock."""
    waiting = channel.ticking
    period = min(waiting.values())
    first = channel.read()
    seen = {scope: first[scope] for scope in waiting}
    before = dict.fromkeys(waiting, first.began_ns)
    deadline = {scope: first.began_ns + nanoseconds(TICKS_TO_WAIT * tick) for scope, tick in waiting.items()}
    found: dict[str, Tick] = {}
    while waiting:
        if period >= 0.01:
            time.sleep(period / 500)
        registers = channel.read()
        for scope in list(waiting):
            new = registers[scope]
            old = seen[scope]
            if isinstance(new, Cumulative):
                if isinstance(old, Cumulative) and new.joules != old.joules:
                    found[scope] = Tick(before[scope], registers.ended_ns, new)
                    del waiting[scope]
                    continue
                seen[scope] = new
                before[scope] = registers.began_ns
            if registers.began_ns > deadline[scope]:
                del waiting[scope]
    return found
