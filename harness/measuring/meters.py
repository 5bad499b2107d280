"""Reads the meters at the edges of spans and in between, and turns two edges into joules with a bound.

Order at an opening edge: wait for the tick of each counter that has one, read every meter, take the time. At a closing
edge: take the time, read every meter, then wait for the next tick, which bounds what the counters had not shown yet.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

from harness.discovery.guard import sorted_scopes
from harness.errors import MeasurementError
from harness.measuring.alignment import TICKS_TO_WAIT, await_tick
from harness.measuring.channel import Channel, Registers
from harness.measuring.edges import EdgeReading, Tick, span_energy
from harness.measuring.sampled import Outcome, corrected, held_against_power, sampled_energy
from harness.meter import Meter
from harness.quantity import Unavailable
from harness.records.record import Reading, SeenCondition
from harness.sample import Cumulative, Scope, disjoint, now_ns
from harness.units import nanoseconds, seconds

KEPT_S: Final = 30.0
"""Power readings from so long before a span help to tell how a load swings."""


_NOT_AWAITED: Final[Mapping[Channel, Mapping[str, Tick]]] = {}


@dataclass(slots=True, eq=False)
class Edge:
    """Every meter, read around one moment.

    Attributes:
        ns: the moment on the monotonic clock.
        registers: what each channel showed.
        ticks: by channel and scope, the change waited for, before an opening or after a closing edge; absent where
            none came.
    """

    ns: int
    registers: Mapping[Channel, Registers]
    ticks: Mapping[Channel, Mapping[str, Tick]]

    def reading(self, channel: Channel, scope: str) -> EdgeReading:
        """One scope of a channel at this edge."""
        registers = self.registers[channel]
        pace = registers.paces.get(scope)
        shown = registers[scope]
        still = pace is not None and isinstance(shown, Cumulative) and shown.joules == pace.joules
        return EdgeReading(
            edge_ns=self.ns,
            read_ns=registers.ended_ns,
            register=shown,
            recent_w=pace.recent_w if pace else (),
            tick=self.ticks.get(channel, {}).get(scope),
            still_s=max(0.0, seconds(self.ns - pace.at_ns)) if pace is not None and still else 0.0,
            track=pace.track if pace else None,
            coarse=pace.coarse if pace else False,
        )


class Meters:
    """The opened meters of a trial, in the suite's order, with their sampling thread.

    Args:
        channels: opened meters.
        log: receives cumulative joules as JSON Lines; None keeps no trace.
        watch: is told, after every wait of the sampling thread, until when it meant to wait (monotonic seconds).
    """

    def __init__(
        self,
        channels: Iterable[Channel],
        log: IO[str] | None = None,
        watch: Callable[[float], None] = lambda _due_s: None,
    ) -> None:
        self._watch = watch
        self.channels = list(channels)
        self._order()
        self._log = log
        self._log_lock = threading.Lock()
        self._unwritten: deque[tuple[Channel, Registers]] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost: Exception | None = None
        self._seen: dict[tuple[str, str, str], SeenCondition] = {}
        self.anchor_ns = now_ns()
        self.anchor_utc_s = time.time()
        self._notice(self.channels)
        self._write({"anchor": {"monotonic_ns": self.anchor_ns, "utc_s": self.anchor_utc_s}})

    def _notice(self, channels: Iterable[Channel]) -> None:
        for notice in (each for channel in channels for each in channel.notices):
            self._see(notice.kind, notice.scope, notice.detail, fails=notice.fails)

    def _order(self) -> None:
        # Cross-checks are read farther from the work, so that what they take widens no bound.
        checks = [channel for channel in self.channels if channel.cross_check]
        others = [channel for channel in self.channels if not channel.cross_check]
        self._inwards = [*checks, *others]
        self._outwards = [*others, *checks]

    def add(self, channels: Sequence[Channel]) -> None:
        """Reads more meters from now on; between two spans only, since the edges of one name the same channels."""
        if channels:
            self.stop()
            self._stop.clear()
            self.channels += channels
            self._notice(channels)
            self._order()
            self.start()

    def utc_s(self, ns: int) -> float:
        """Wall clock of a monotonic time, by the one anchor."""
        return self.anchor_utc_s + seconds(ns - self.anchor_ns)

    # Edges

    def opening(self, *, align: bool) -> Edge:
        """An opening edge; `align` waits for each counter's tick first."""
        ticks = self._await_ticks() if align else _NOT_AWAITED
        registers = self._read_all(self._inwards)
        return Edge(now_ns(), registers, ticks)

    def closing(self, *, align: bool) -> Edge:
        """A closing edge; `align` waits for each counter's next tick afterwards."""
        moment = now_ns()
        registers = self._read_all(self._outwards)
        return Edge(moment, registers, self._await_ticks() if align else _NOT_AWAITED)

    def _read_all(self, order: Sequence[Channel]) -> dict[Channel, Registers]:
        """Every channel, read in this order."""
        found = {}
        for channel in order:
            with channel.lock:
                found[channel] = channel.read()
        if self._log is not None:
            self._unwritten.extend(found.items())
        return found

    def _await_ticks(self) -> dict[Channel, Mapping[str, Tick]]:
        found: dict[Channel, Mapping[str, Tick]] = {}
        for channel in self.channels:
            if channel.ticking and not channel.keeps_readings:
                with channel.lock:
                    found[channel] = await_tick(channel)
        return found

    def settle(self, closed: Edge) -> None:
        """Waits until power readings, which the sampling thread goes on taking, tell of all that was before an edge."""
        late_s = max((channel.settle_s for channel in self.channels), default=0.0)
        if self._thread is not None and (left_s := late_s - seconds(now_ns() - closed.ns)) > 0:
            self._stop.wait(left_s)

    def forget(self, before: Edge) -> None:
        """Drops the power readings from before an edge, but for those that tell of it."""
        for channel in self.channels:
            channel.forget(before.ns - nanoseconds(KEPT_S + channel.settle_s))

    def attach(self, processes: Mapping[str, int]) -> list[str]:
        """Lets every meter read the work's processes, by role; what a meter raises costs its new scopes only."""
        faults = []
        for channel in self.channels if processes else ():
            with channel.lock:
                try:
                    read, missing = sorted_scopes(channel.name, channel.meter.attach(processes))
                except Exception as error:  # noqa: BLE001 - a plugin's fault must not end the trial
                    faults.append(f"meter {channel.name!r} did not attach: {type(error).__name__}: {error}")
                    continue
                channel.scopes, channel.missing = {**channel.scopes, **read}, {**channel.missing, **missing}
        return faults

    # Sampling

    def start(self) -> None:
        """Starts the sampling thread."""
        self._thread = threading.Thread(target=self._keep_sampling, name="harness-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the sampling thread; raises MeasurementError if it had ended by itself. May be called twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._lost is not None:
            raise MeasurementError(f"the sampling of meters ended early: {self._lost}") from self._lost
        self._flush()

    def close(self) -> list[str]:
        """Ends sampling and closes the meters in reverse order; what they raise is returned as text."""
        faults = []
        try:
            self.stop()
        finally:
            for channel in reversed(self.channels):
                try:
                    channel.meter.close()
                except Exception as error:  # noqa: BLE001 - the other meters must be closed too
                    faults.append(f"meter {channel.name!r} did not close: {type(error).__name__}: {error}")
        return faults

    def _keep_sampling(self) -> None:
        try:
            self._sample()
        except Exception as error:  # noqa: BLE001 - told when sampling is stopped: nobody sees what a thread raises
            self._lost = error

    def _sample(self) -> None:
        channels = [channel for channel in self.channels if channel.scopes]
        periods = [1.0 / max(channel.meter.sample_hz, 1.0) for channel in channels]
        due = [0.0] * len(channels)
        watched = [channel for channel in channels if type(channel.meter).conditions is not Meter.conditions]
        second = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            for index, channel in enumerate(channels):
                if now >= due[index]:
                    due[index] = max(due[index] + periods[index], now)
                    if channel.lock.acquire(blocking=False):  # an edge that waits for a tick reads it anyway
                        try:
                            registers = channel.read()
                            channel.follow(registers)
                        finally:
                            channel.lock.release()
                        if self._log is not None:
                            self._unwritten.append((channel, registers))
            if now >= second:
                second = now + 1.0
                for channel in watched:
                    self._look(channel)
                self._flush()
            until = min([*due, second])
            pause = until - time.monotonic()
            if pause > 0:
                self._stop.wait(pause)
                self._watch(until)

    def _look(self, channel: Channel) -> None:
        try:
            for condition in channel.meter.conditions():
                self._see(condition.kind, condition.scope, condition.detail, fails=condition.fails)
        except Exception as error:  # noqa: BLE001 - a plugin's fault must not end the trial
            self._see("conditions_unreadable", channel.name, f"{type(error).__name__}: {error}", fails=False)

    def _see(self, kind: str, scope: str, detail: str, *, fails: bool) -> None:
        key = (kind, scope, detail)
        before = self._seen.get(key)
        self._seen[key] = SeenCondition(
            kind=kind,
            scope=scope,
            detail=detail,
            fails=fails,
            count=before.count + 1 if before else 1,
            first_ns=before.first_ns if before else now_ns(),
        )

    def conditions(self) -> tuple[SeenCondition, ...]:
        """What was seen of the devices' state so far, after one more query."""
        for channel in self.channels:
            if channel.scopes and type(channel.meter).conditions is not Meter.conditions:
                self._look(channel)
        return tuple(self._seen.values())

    def temperatures(self) -> dict[str, float]:
        """Temperature of each scope that a meter can tell, in °C; what a meter raises becomes a condition."""
        found: dict[str, float] = {}
        for channel in self.channels:
            if channel.scopes and type(channel.meter).temperatures is not Meter.temperatures:
                try:
                    with channel.lock:
                        read = {str(scope): float(at) for scope, at in channel.meter.temperatures().items()}
                except Exception as error:  # noqa: BLE001 - a plugin's fault must not end the trial
                    self._see("temperature_unreadable", channel.name, f"{type(error).__name__}: {error}", fails=False)
                    continue
                found |= {scope: at for scope, at in read.items() if math.isfinite(at) and scope not in found}
        return found

    def _write(self, row: Mapping[str, object]) -> None:
        if self._log is not None:
            with self._log_lock:
                self._log.write(json.dumps(row) + "\n")

    def _flush(self) -> None:
        while self._unwritten:
            channel, registers = self._unwritten.popleft()
            joules = {
                scope: None if isinstance(known := registers[scope], Unavailable) else known.joules
                for scope in registers
            }
            self._write({"t": registers.began_ns, "m": channel.name, "j": joules})
        with self._log_lock:
            if self._log is not None:
                self._log.flush()

    # Readings

    def energies(
        self, opened: Edge, closed: Edge, span: str = "window", window: int = 0, *, period_s: float | None = None
    ) -> list[Reading]:
        """Energy per channel and scope between two edges.

        Args:
            opened: the earlier edge.
            closed: the later one.
            span: name of the span between them.
            window: index of the window it lies in; -1 outside of any.
            period_s: period of the work, where it is known.
        """
        primary = self.primaries()
        found = []
        for channel in self.channels:
            kept = _kept(channel, opened, closed, period_s)
            for name, scope in channel.scopes.items():
                outcome = kept.get(name) or _energy(channel, name, scope, opened, closed, period_s)
                value, coverage, flags = corrected(scope, outcome, seconds(closed.ns - opened.ns))
                found.append(
                    Reading(
                        span=span,
                        window=window,
                        meter=channel.name,
                        scope=name,
                        primary=primary.get(name) is channel,
                        value=value,
                        coverage=coverage,
                        flags=flags,
                    )
                )
        return found

    def scopes(self) -> dict[tuple[str, str], Scope]:
        """Description of each scope, by meter and name."""
        return {(channel.name, name): scope for channel in self.channels for name, scope in channel.scopes.items()}

    def primaries(self) -> dict[str, Channel]:
        """Scope -> its primary meter: the first listed that reads it; within `auto`, the strongest method."""
        chosen: dict[str, Channel] = {}
        for channel in self.channels:
            if channel.cross_check:
                continue
            for name, scope in channel.scopes.items():
                holder = chosen.get(name)
                both_auto = holder is not None and not holder.asked and not channel.asked
                if holder is None or (both_auto and scope.method.weakness < holder.scopes[name].method.weakness):
                    chosen[name] = channel
        return chosen

    def watts_between(self, before: Edge, after: Edge) -> float | None:
        """Mean power of all primary scopes together; None where one cannot be resolved between the edges."""
        primary = self.primaries()
        described = {name: channel.scopes[name] for name, channel in primary.items()}
        joules = 0.0
        for name in disjoint(described, described):
            first = before.registers[primary[name]][name]
            last = after.registers[primary[name]][name]
            tick = described[name].tick_s or 0.0
            if isinstance(first, Unavailable) or isinstance(last, Unavailable):
                return None
            if seconds(after.ns - before.ns) < max(TICKS_TO_WAIT * tick, 0.05):
                return None
            joules += last.joules - first.joules
        elapsed = seconds(after.ns - before.ns)
        return joules / elapsed if described and elapsed > 0 else None


def _energy(channel: Channel, name: str, scope: Scope, opened: Edge, closed: Edge, period_s: float | None) -> Outcome:
    """One scope between two edges: by its register, or by its power readings where these are what is read."""
    if scope.sampled:
        found = sampled_energy(name, scope, channel.polls, opened.ns, closed.ns, period_s)
    else:
        counted = span_energy(scope, opened.reading(channel, name), closed.reading(channel, name))
        found = held_against_power(name, scope, counted, channel.polls, opened.ns, closed.ns, period_s)
    return found


def _kept(channel: Channel, opened: Edge, closed: Edge, period_s: float | None) -> dict[str, Outcome]:
    """What a meter that keeps readings of its own says of the time between two edges."""
    if not channel.keeps_readings:
        return {}
    try:
        found = dict(channel.meter.between(opened.ns, closed.ns, period_s))
    except Exception as error:  # noqa: BLE001 - a plugin's fault must not end the trial
        lost = Unavailable(f"{type(error).__name__}: {error}")
        return dict.fromkeys(channel.scopes, (lost, None, ()))
    return {name: (each.amount, each.coverage, each.flags) for name, each in found.items()}
