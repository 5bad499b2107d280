"""An opened meter, and how fast each of its registers moves."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Final

from harness.counter import CounterTrack
from harness.measuring.edges import Register, register
from harness.measuring.plausibility import judged
from harness.meter import Meter
from harness.quantity import Unavailable
from harness.sample import Condition, Cumulative, Scope, Snapshot, now_ns
from harness.units import seconds

CHANGES_KEPT: Final = 10
"""So many changes of a register say how much a device draws at its busiest."""
SEES_ALL: Final = 0.9
"""A sensor that looks at less of the time than this may be in step with the work."""
COARSE: Final = 2.5
"""Changes that lie so many update periods apart are means over several of them."""


Poll = tuple[int, Mapping[str, float | None]]
"""When power was read, and what each scope showed."""


@dataclass(slots=True)
class Pace:
    """How a register moved lately.

    Attributes:
        at_ns: when its last change was seen.
        joules: what it showed then.
        recent_w: power drawn between its latest changes, oldest first.
        track: holds it against its scope's power limit; None for a scope or a meter that is not held against one.
        coarse: whether the latest of these powers is a mean over several update periods, which may hide a higher peak.
    """

    at_ns: int
    joules: float
    recent_w: tuple[float, ...] = ()
    track: CounterTrack | None = None
    coarse: bool = False


@dataclass(slots=True, eq=False)
class Registers:
    """The registers of a meter, read at one moment.

    What a meter says of a register is put into its full form here and nowhere else, and only when it is looked at: an
    edge of a window costs little more than the reading itself.

    Attributes:
        began_ns: when the reading began, on the monotonic clock.
        ended_ns: when it was done.
        said: what the meter returned, in a mapping that it cannot change any more.
        paces: how fast each register moved lately.
    """

    began_ns: int
    ended_ns: int
    said: Mapping[str, float | Cumulative | Unavailable]
    paces: Mapping[str, Pace]

    def __getitem__(self, scope: str) -> Register:
        return register(self.said.get(scope))

    def __iter__(self) -> Iterator[str]:
        return iter(self.said)


@dataclass(slots=True, eq=False)
class Channel:
    """One opened meter.

    Attributes:
        name: of the meter.
        asked: whether the suite named it, rather than `auto`.
        meter: the meter.
        scopes: what it reads.
        missing: what it does not read, and why; `*` for all of it.
        cross_check: whether it never counts for a scope.
        notices: what was to be said of it when it was opened.
        polls: when power was read (monotonic ns), and what was shown by scope, oldest first.
    """

    name: str
    asked: bool
    meter: Meter
    scopes: Mapping[str, Scope]
    missing: Mapping[str, str] = field(default_factory=dict)
    cross_check: bool = False
    notices: tuple[Condition, ...] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)
    pace: Mapping[str, Pace] = field(default_factory=dict)
    polls: list[Poll] = field(default_factory=list)

    @property
    def sample_s(self) -> float:
        """Longest time between two readings, between edges."""
        return 1.0 / max(self.meter.sample_hz, 1.0)

    @property
    def settle_s(self) -> float:
        """How long power readings go on to tell of a moment after it; 0 where no energy rests on them."""
        sensors = [
            scope.sensor
            for scope in self.scopes.values()
            if scope.sensor is not None and (scope.sampled or scope.sensor.seen < SEES_ALL)
        ]
        late_s = [each.window_s + each.update_s + each.lag_s + each.lag_error_s for each in sensors]
        return max(max(late_s) + self.sample_s if late_s else 0.0, self.meter.settle_s)

    @property
    def keeps_readings(self) -> bool:
        """Whether the meter says itself what was drawn between two moments; then no edge waits for its ticks."""
        return type(self.meter).between is not Meter.between

    def forget(self, before_ns: int) -> None:
        """Drops power readings from before a moment."""
        del self.polls[: bisect.bisect_left(self.polls, before_ns, key=itemgetter(0))]

    @property
    def ticking(self) -> dict[str, float]:
        """Update period in seconds of each scope that has one."""
        return {name: scope.tick_s for name, scope in self.scopes.items() if scope.tick_s}

    def read(self) -> Registers:
        """Reads the meter; what it raises becomes Unavailable in every scope. Hold `lock`."""
        try:
            found: object = self.meter.read()
            if isinstance(found, Snapshot):
                began_ns, joules, took_ns, watts = found
                if watts:
                    self.polls.append((began_ns + took_ns // 2, watts))
                if type(joules) is dict or isinstance(joules, Mapping):  # the first takes a tenth of the time
                    return Registers(began_ns, began_ns + took_ns, {**joules}, self.pace)
            lost = Unavailable(f"meter {self.name!r} returned {found!r:.60}, which is not a Snapshot")
        except Exception as error:  # noqa: BLE001 - a plugin's fault must not end the trial
            lost = Unavailable(f"{type(error).__name__}: {error}")
        now = now_ns()
        return Registers(now, now, dict.fromkeys(self.scopes, lost), self.pace)

    def follow(self, registers: Registers) -> None:
        """Notes how fast each register moves; done by the sampling thread, never at an edge.

        The mapping is replaced and never changed, so that an edge keeps it without a copy.
        """
        paces = dict(self.pace)
        for name in registers:
            if name not in self.scopes or isinstance(known := registers[name], Unavailable):
                continue
            joules = known.joules
            pace = paces.get(name)
            track = judged(pace.track if pace else None, self.scopes[name], registers.ended_ns, known)
            if pace is None:
                paces[name] = Pace(registers.began_ns, joules, track=track)
            elif joules != pace.joules and registers.began_ns > pace.at_ns:
                # two changes lie at least a tick apart, however soon after each other they were seen
                since, tick = seconds(registers.began_ns - pace.at_ns), self.scopes[name].tick_s or 0.0
                watts = (joules - pace.joules) / max(since, tick)
                recent_w = (*pace.recent_w[1 - CHANGES_KEPT :], watts)
                paces[name] = Pace(registers.began_ns, joules, recent_w, track, since > COARSE * tick)
            elif track is not None:
                paces[name] = replace(pace, track=track)
        self.pace = paces
