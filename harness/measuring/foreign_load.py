"""Whose processor time a window was: the work's, other processes', or a hypervisor's.

Counters of a package, of memory or of a host count whatever runs there. The times are read before a window's opening
edge and after its closing one, never inside of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.machine.processor_time import MachineTimes, machine_times, trees_cpu_s
from harness.planning.trial_rules import ForeignLoad
from harness.quantity import Amount, Method, Unavailable, Value
from harness.records.record import FOREIGN_LOAD, Reading, SeenCondition, WindowLoad
from harness.sample import Scope, counts_every_process, node_of, now_ns

UNKNOWN: Final = "foreign_load_unknown"
APPORTIONED: Final = "apportioned by processor time"
"""Flag of a reading that was, and note of its scope."""
ELSEWHERE: Final = "foreign load not known: it is measured on the worker's own node"
STILL: Final = "the system's CPU times stood still, in less than a tick, or went back"

Times = tuple[MachineTimes | Unavailable, float | Unavailable]
"""Of the machine, and of the work, read one after the other."""


class LoadWatch:
    """Reads the processor times around the windows of a trial.

    Args:
        rule: of the suite.
        node: that the worker runs on.
        machine: reads the times of the machine.
        own: reads the seconds of process trees, by the ids of their roots.
        pid: of the worker.
    """

    def __init__(
        self,
        rule: ForeignLoad,
        node: str = "n0",
        machine: Callable[[], MachineTimes | Unavailable] = machine_times,
        own: Callable[[Iterable[int]], float | Unavailable] = trees_cpu_s,
        pid: int | None = None,
    ) -> None:
        self._rule = rule
        self.node = node
        self._machine = machine
        self._own = own
        self._roots = [pid or os.getpid()]
        self._opened: Times | None = None
        self._closed_ns: dict[int, int] = {}
        self.loads: list[WindowLoad] = []

    def attach(self, pids: Iterable[int]) -> None:
        """Counts also these processes, with what they started, as the work's."""
        self._roots = list(dict.fromkeys([*self._roots, *pids]))

    def open(self) -> None:
        """Before a window's opening edge."""
        self._opened = self._now()

    def close(self, window: int) -> None:
        """After its closing edge."""
        assert self._opened is not None, "open() comes first"
        opened, self._opened = self._opened, None
        self.between(opened, self._now(), window, now_ns())

    def _now(self) -> Times:
        own = self._own(self._roots)
        return self._machine(), own

    def between(self, opened: Times, closed: Times, window: int, closed_ns: int) -> None:
        """A window between two readings of the times, of which the later one was taken at `closed_ns`."""
        (before, own_before), (after, own_after) = opened, closed
        self._closed_ns[window] = closed_ns
        lost = next((each for each in (before, after, own_before, own_after) if isinstance(each, Unavailable)), None)
        if lost is not None:
            self.loads.append(WindowLoad(window=window, unknown=lost.reason))
            return
        assert isinstance(before, MachineTimes)
        assert isinstance(after, MachineTimes)
        assert isinstance(own_before, float | int)
        assert isinstance(own_after, float | int)
        machine_s, busy_s = after.elapsed_s - before.elapsed_s, after.busy_s - before.busy_s
        own_s, stolen_s = own_after - own_before, after.stolen_s - before.stolen_s
        if machine_s <= 0 or min(busy_s, own_s, stolen_s) < 0:
            self.loads.append(WindowLoad(window=window, unknown=STILL))
            return
        self.loads.append(
            WindowLoad(
                window=window,
                own_s=own_s,
                others_s=max(busy_s - own_s, 0.0),
                stolen_s=stolen_s,
                machine_s=machine_s,
                resolution_s=after.resolution_s,
            )
        )

    def conditions(self, scopes: Mapping[str, Scope], *, modelled: bool = False) -> tuple[SeenCondition, ...]:
        """What a reader, and a gate, must know: on each scope that counts every process, else on the host.

        Args:
            scopes: that meters read.
            modelled: whether only a model of hardware did the work, so that others disturb no time of it.
        """
        if self._rule.at_most >= 1:  # nothing can be above it, and nobody asks how close it came
            return ()
        shared = [name for name, scope in scopes.items() if counts_every_process(name, scope)]
        here = [name for name in shared if node_of(name) == self.node]
        found = self._of(FOREIGN_LOAD, here or ([] if modelled else [f"{self.node}/host"]), self._above())
        found += self._of(UNKNOWN, here, self._not_known())
        away = [name for name in shared if name not in here]
        return (*found, *self._of(UNKNOWN, away, {load.window: ELSEWHERE for load in self.loads}))

    def _of(self, kind: str, scopes: Sequence[str], said: Mapping[int, str]) -> list[SeenCondition]:
        if not said:
            return []
        first = min(said)
        return [
            SeenCondition(
                kind=kind,
                scope=scope,
                detail=next(iter(said.values())),
                fails=False,
                count=len(said),
                first_ns=self._closed_ns[first],
            )
            for scope in scopes
        ]

    def _above(self) -> dict[int, str]:
        """Windows in which others had more than they may, worst first, with the numbers."""
        found = []
        for load in self.loads:
            others, stolen, doubt = shares(load)
            if others + stolen - doubt > self._rule.at_most:
                text = (
                    f"other processes had {others:.1%} and a hypervisor {stolen:.1%} of the machine's processor time "
                    f"in window {load.window}, above {self._rule.at_most:.1%}"
                )
                found.append((others + stolen, load.window, text))
        return {window: text for _, window, text in sorted(found, reverse=True)}

    def _not_known(self) -> dict[int, str]:
        found = {}
        for load in self.loads:
            others, stolen, doubt = shares(load)
            if load.unknown:
                found[load.window] = f"foreign load not known: {load.unknown}"
            elif others + stolen - doubt <= self._rule.at_most < others + stolen + doubt:
                found[load.window] = (
                    f"foreign load not known: {others + stolen:.1%} ± {doubt:.1%}, since the window is short for the "
                    "clock of CPU times"
                )
        return found

    def apportioned(self, readings: Iterable[Reading], scopes: Mapping[str, Scope]) -> list[Reading]:
        """Readings of whole machines as the work's share of them, where the suite asks for it; others as they are."""
        listed = list(readings)
        if not self._rule.apportion:
            return listed
        by_window = {load.window: load for load in self.loads}
        return [
            _share(reading, by_window.get(reading.window) if node_of(reading.scope) == self.node else None)
            if reading.window >= 0
            and reading.scope in scopes
            and counts_every_process(reading.scope, scopes[reading.scope])
            else reading
            for reading in listed
        ]

    def described(self, scopes: Mapping[str, Scope]) -> dict[str, Scope]:
        """Scopes as their readings are now: an apportioned one is an estimate."""
        if not self._rule.apportion:
            return dict(scopes)
        return {
            name: replace(scope, method=Method.ESTIMATED, note="; ".join(filter(None, (scope.note, APPORTIONED))))
            if counts_every_process(name, scope)
            else scope
            for name, scope in scopes.items()
        }


def shares(load: WindowLoad) -> tuple[float, float, float]:
    """Others' and a hypervisor's share of the machine's time, and how well they are known; 0 if they are not."""
    if not load.machine_s or load.others_s is None or load.stolen_s is None or load.resolution_s is None:
        return 0.0, 0.0, 0.0
    return load.others_s / load.machine_s, load.stolen_s / load.machine_s, load.resolution_s / load.machine_s


def _share(reading: Reading, load: WindowLoad | None) -> Reading:
    """The part of a reading that is the work's by processor time; its bound reaches from nothing to the whole."""
    flags = (*reading.flags, APPORTIONED)
    whole = reading.value
    if not isinstance(whole, Amount):
        return reading
    value: Value
    if load is None or load.own_s is None or load.others_s is None:
        reason = load.unknown if load is not None and load.unknown else ELSEWHERE
        value = Unavailable(f"not apportioned: {reason}")
    elif load.own_s + load.others_s <= 0:
        value = Unavailable("not apportioned: no processor time was spent")
    else:
        part = whole.value * load.own_s / (load.own_s + load.others_s)
        high = None if whole.high is None else max(whole.high, part)
        value = Amount.of(part, whole.unit, Method.ESTIMATED, low=min(0.0, part), high=high)
    return replace(reading, value=value, whole=whole, flags=flags)
