"""What kept the worker from running while it measured: stops, suspends, stalls; and steps of the wall clock.

A process that was stopped for a second measures a second too much, and no counter says so. Three signs are looked for:
SIGCONT (somebody stopped the process and let it go on), the time since boot that CLOCK_MONOTONIC leaves out (the
machine slept; clock_gettime(2)), and a sampling thread that woke late while the process had no processor time (a
frozen control group, a paused virtual machine, a machine that thrashes).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from harness.records.record import SeenCondition, Span
from harness.sample import now_ns
from harness.units import seconds

SLEPT_S: Final = 0.05
"""Time asleep below this is noise of reading two clocks."""
STALL_S: Final = 1.0
"""A sampling thread later than this, in a process that did not run meanwhile, is a stall."""
IDLE_SHARE: Final = 0.8
"""Share of a stall in which the process had no processor time; a native call that holds the interpreter has it."""
STEP_S: Final = 1.0
"""The wall clock may differ by so much from the time since boot; slewing (500 ppm at most) takes half an hour."""


class Moment(NamedTuple):
    """Four clocks read together, in nanoseconds: monotonic, since boot, wall, and processor time of this process."""

    monotonic_ns: int
    boot_ns: int
    wall_ns: int
    cpu_ns: int


def read_clocks() -> Moment:
    """The clocks now; where the system has no clock of the time since boot, the monotonic one stands in."""
    monotonic = time.monotonic_ns()
    boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else monotonic
    return Moment(monotonic, boot, time.time_ns(), time.process_time_ns())


class _Seen(NamedTuple):
    kind: str
    since_ns: int
    until_ns: int
    detail: str


class Interruptions:
    """Watches from its making to the end of the measurement.

    Args:
        clocks: reads them.
        process: scope of this process.
        host: scope of this machine.
    """

    def __init__(
        self, clocks: Callable[[], Moment] = read_clocks, process: str = "n0/process", host: str = "n0/host"
    ) -> None:
        self._clocks = clocks
        self._scopes = {"stopped": process, "stalled": process, "suspended": host, "clock stepped": host}
        self._first = self._last = self._clocks()
        self._seen: list[_Seen] = []
        self._step_ns = 0

    def watch_signals(self) -> None:
        """Notes every SIGCONT from now on. Main thread only."""
        signal.signal(signal.SIGCONT, self._continued)
        signal.siginterrupt(signal.SIGCONT, False)  # noqa: FBT003 - a system call that it meets goes on

    def _continued(self, *_: object) -> None:
        now = self._clocks().monotonic_ns
        self._seen.append(_Seen("stopped", now, now, "the worker was stopped and let go on"))

    def look(self, due_s: float | None = None) -> None:
        """Compares the clocks with their last readings.

        Args:
            due_s: when the caller meant to call, on the monotonic clock; None if it did not wait.
        """
        last, now = self._last, self._clocks()
        self._last = now
        elapsed_ns = now.monotonic_ns - last.monotonic_ns
        slept_s = seconds(now.boot_ns - last.boot_ns - elapsed_ns)
        if slept_s > SLEPT_S:
            self._note("suspended", last, now, f"the machine slept for {slept_s:.1f} s")
        late_s = seconds(now.monotonic_ns) - due_s if due_s is not None else 0.0
        idle_s = seconds(elapsed_ns - (now.cpu_ns - last.cpu_ns))
        if late_s > STALL_S and idle_s > IDLE_SHARE * late_s:
            self._note("stalled", last, now, f"the worker did not run for {late_s:.1f} s")
        step_ns = (now.wall_ns - now.boot_ns) - (self._first.wall_ns - self._first.boot_ns)
        self._step_ns = max(self._step_ns, step_ns, key=abs)

    def _note(self, kind: str, last: Moment, now: Moment, detail: str) -> None:
        self._seen.append(_Seen(kind, last.monotonic_ns, now.monotonic_ns, detail))

    def conditions(self, spans: Iterable[Span]) -> tuple[SeenCondition, ...]:
        """What was seen; what lay in a measured window, even in part, makes the trial not valid."""
        self.look()
        windows = [(span.start_ns, span.end_ns) for span in spans if span.window >= 0]
        found = [
            SeenCondition(
                kind=seen.kind,
                scope=self._scopes[seen.kind],
                detail=seen.detail,
                fails=any(start <= seen.until_ns and seen.since_ns <= end for start, end in windows),
                count=1,
                first_ns=seen.until_ns,
            )
            for seen in self._seen
        ]
        if abs(self._step_ns) > STEP_S * 1e9:
            detail = (
                f"the wall clock moved by {seconds(self._step_ns):+.1f} s against the monotonic one; durations hold"
            )
            found.append(
                SeenCondition(
                    kind="clock stepped",
                    scope=self._scopes["clock stepped"],
                    detail=detail,
                    fails=False,
                    count=1,
                    first_ns=self._last.monotonic_ns,
                )
            )
        return tuple(found)


def not_excluded(locks: Sequence[Mapping[str, Any]], scope: str) -> list[SeenCondition]:
    """Said where nothing keeps other users' runs off the devices of this one."""
    told = dict.fromkeys(str(held.get("not_excluded", "")) for held in locks if held.get("fallback"))
    return [
        SeenCondition(
            kind="device_lock_not_shared",
            scope=scope,
            detail=f"the device locks do not exclude {text}",
            fails=False,
            count=1,
            first_ns=now_ns(),
        )
        for text in told
    ]
