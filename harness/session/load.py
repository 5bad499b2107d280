"""Processor times around short blocks: read anew only when the system's clock of them can have moved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from harness.machine.processor_time import MachineTimes, clock_tick_s, machine_times, times_now, trees_cpu_s
from harness.measuring.foreign_load import Times
from harness.quantity import Unavailable
from harness.sample import now_ns
from harness.units import nanoseconds

_CHILDREN: Final = f"/proc/self/task/{os.getpid()}/children"


class RecentTimes:
    """The times of the machine and of this process, at most a tick of their clock old."""

    def __init__(self) -> None:
        lost = machine_times()
        self._machine: Callable[[], MachineTimes | Unavailable] = (
            (lambda: lost) if isinstance(lost, Unavailable) else times_now
        )
        self._tick_ns = nanoseconds(clock_tick_s())
        self._read_ns = 0
        self._times: Times = (lost, 0.0)

    def now(self) -> Times:
        """Machine and process; the same object until the clock can have moved."""
        moment = now_ns()
        if moment - self._read_ns >= self._tick_ns:
            own, machine = own_cpu_s((os.getpid(),)), self._machine()
            if isinstance(machine, MachineTimes):  # it is used for up to a tick
                machine = replace(machine, resolution_s=2 * machine.resolution_s)
            self._times, self._read_ns = (machine, own), moment
        return self._times


def own_cpu_s(roots: Iterable[int]) -> float | Unavailable:
    """CPU time of this process and its children; without a look at every process where none of them is alive."""
    try:
        with open(_CHILDREN, "rb") as stream:  # noqa: PTH123 - an edge waits for it
            alone = not stream.read(1)
    except OSError:
        alone = False
    return sum(os.times()[:4]) if alone else trees_cpu_s(roots)
