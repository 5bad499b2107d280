"""Meter `cpu_time`: CPU time of the work's process tree times a declared power per core. An estimate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import psutil
from pydantic import PositiveFloat

from harness.builtin.host import topology
from harness.counter import CounterTrack
from harness.machine.processor_time import clock_tick_s, tree_cpu_s
from harness.meter import Meter, MeterContext, MeterSpec
from harness.options import Options
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot, now_ns

JITTER_TICKS: Final = 10
"""CPU time is counted in whole ticks by mode, CPU and process, so that a sum of them may move by several at once."""


class CpuTimeOptions(Options):
    """Options of meter `cpu_time`."""

    watts_per_core: PositiveFloat
    """Declared power of one core at work, in W."""


@dataclass(slots=True)
class _Tree:
    """A process tree that is read: its root and its register."""

    pid: int
    track: CounterTrack


def _is_below(pid: int, root: int) -> bool:
    try:
        return any(parent.pid == root for parent in psutil.Process(pid).parents())
    except psutil.Error:
        return False


class CpuTimeMeter(Meter):
    """Estimates joules in scope `process`, and in `process:<role>` for each process that the workload names.

    Without a bound, since the declared power has none.

    Args:
        options: the declared power.
        read_cpu_s: CPU seconds of the process tree under a process id.
        clock: monotonic nanoseconds.
    """

    def __init__(
        self,
        options: CpuTimeOptions,
        read_cpu_s: Callable[[int], float | Unavailable] = tree_cpu_s,
        clock: Callable[[], int] = now_ns,
    ) -> None:
        self._watts = options.watts_per_core
        self._read_cpu_s = read_cpu_s
        self._clock = clock
        self._scope = ""
        self._packages: tuple[str, ...] = ()
        self._trees: dict[str, _Tree] = {}

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Starts from the CPU time spent so far."""
        self._scope = f"{context.node}/process"
        self._packages = tuple(f"{context.node}/cpu-package:{package}" for package in topology())
        self._trees = {}
        opened = self._follow(self._scope, context.pid or os.getpid(), self._packages)
        return opened if isinstance(opened, Unavailable) else {self._scope: opened}

    def attach(self, processes: Mapping[str, int]) -> Mapping[str, Scope | Unavailable]:
        """A scope for each role; one inside the work's own process tree lies within scope `process`."""
        found: dict[str, Scope | Unavailable] = {}
        work = self._trees[self._scope].pid
        for role, pid in processes.items():
            inside = _is_below(pid, work)
            name = f"{self._scope}:{role}"
            found[name] = self._follow(name, pid, (self._scope, *self._packages) if inside else self._packages)
        return found

    def _follow(self, name: str, pid: int, within: tuple[str, ...]) -> Scope | Unavailable:
        most_w = self._watts * (psutil.cpu_count() or 1)
        spent = self._read_cpu_s(pid)
        if isinstance(spent, Unavailable):
            return spent
        tree = self._trees[name] = _Tree(pid, CounterTrack(max_power_w=most_w, tick_s=JITTER_TICKS * clock_tick_s()))
        tree.track.update(self._clock(), spent * self._watts)
        return Scope(
            method=Method.ESTIMATED,
            within=within,
            tick_s=clock_tick_s(),
            max_power_w=most_w,
            note=f"model: CPU time of the process tree x {self._watts:g} W per core, declared",
        )

    def read(self) -> Snapshot:
        """Reads the CPU time of every tree."""
        began = self._clock()
        joules: dict[str, float | Cumulative | Unavailable] = {}
        for name, tree in self._trees.items():
            spent = self._read_cpu_s(tree.pid)
            state = tree.track.update(self._clock(), None if isinstance(spent, Unavailable) else spent * self._watts)
            joules[name] = spent if isinstance(spent, Unavailable) else state
        return Snapshot(began, joules, self._clock() - began)

    def facts(self) -> Mapping[str, object]:
        """The model behind the estimate."""
        pids = {name: tree.pid for name, tree in self._trees.items()}
        return {"model": "cpu time x declared power", "watts_per_core": self._watts, "pids": pids}

    def close(self) -> None:
        """Nothing is held."""
        self._trees = {}


METER: Final = MeterSpec(
    name="cpu_time",
    summary="estimate: CPU time of the work x declared watts per core",
    factory=CpuTimeMeter,
    options=CpuTimeOptions,
    fork_safe=True,
)
