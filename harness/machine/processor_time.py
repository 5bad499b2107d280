"""Processor time: of a process tree, its ended children included, and of the whole machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from harness.quantity import Unavailable

ATTEMPTS: Final = 3
"""How often a process tree that changes while it is read is read again."""
BUSY: Final = ("user", "nice", "system", "irq", "softirq")
"""Times in which a logical CPU works for this system; `user` and `nice` hold those of its guests, proc(5)."""
WAITING: Final = ("idle", "iowait")
_MOUNTS: Final = Path("/proc/self/mountinfo")


def clock_tick_s() -> float:
    """Resolution of the CPU times that the system reports, in seconds."""
    return 1.0 / os.sysconf("SC_CLK_TCK")


def _spent_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    ended_s = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return float(times.user + times.system + ended_s)


def tree_cpu_s(pid: int) -> float | Unavailable:
    """CPU seconds of a process, its living descendants and its ended children."""
    return trees_cpu_s((pid,))


def trees_cpu_s(pids: Iterable[int]) -> float | Unavailable:
    """CPU seconds of several process trees together; one that lies in another is counted once.

    A tree that changes while it is read would count an ended child twice or not at all: it is read again, and is
    Unavailable when it does not come to rest.
    """
    roots: list[psutil.Process] = []
    pid = 0
    try:
        for pid in pids:
            roots.append(psutil.Process(pid))
        for _ in range(ATTEMPTS):
            before = _living(roots)
            try:
                total = sum(map(_spent_s, before))
            except psutil.NoSuchProcess:
                if gone := next((root for root in roots if not root.is_running()), None):
                    return Unavailable(f"process {gone.pid} is gone")
                continue
            if _living(roots) == before:
                return total
    except psutil.NoSuchProcess as error:
        return Unavailable(f"process {error.pid or pid} is gone")
    except psutil.AccessDenied as error:
        return Unavailable(f"the CPU times of process {error.pid or pid} may not be read by this user")
    return Unavailable(f"the processes under {pid} come and go faster than they can be read")


def _living(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    return list(dict.fromkeys(each for root in roots for each in (root, *root.children(recursive=True))))


@dataclass(frozen=True, slots=True)
class MachineTimes:
    """Seconds of all logical CPUs together, since the machine was started.

    Attributes:
        busy_s: in which they worked for this system.
        stolen_s: in which the hypervisor gave them to others; 0 on a machine that is not virtual.
        elapsed_s: all of it, waiting included.
        resolution_s: the difference of two readings is known to so much: a tick of each CPU.
    """

    busy_s: float
    stolen_s: float
    elapsed_s: float
    resolution_s: float


def machine_times() -> MachineTimes | Unavailable:
    """The machine's times now, all processes of all users and containers included."""
    if shown := _shown_by_container():
        return Unavailable(shown)
    return times_now()


def times_now() -> MachineTimes | Unavailable:
    """Likewise, where it is known that no container shows its own in their place."""
    try:
        times = psutil.cpu_times()
        tick_s = clock_tick_s()
    except (OSError, RuntimeError, ValueError, AttributeError, psutil.Error) as error:
        return Unavailable(f"this system shows no CPU times: {type(error).__name__}: {error}")
    busy_s = float(sum(getattr(times, name, 0.0) for name in BUSY))
    stolen_s = float(getattr(times, "steal", 0.0))
    waited_s = float(sum(getattr(times, name, 0.0) for name in WAITING))
    if busy_s <= 0 or waited_s <= 0:  # some sandboxes show zeros
        return Unavailable("this system shows no CPU times of the whole machine")
    return MachineTimes(busy_s, stolen_s, busy_s + stolen_s + waited_s, (psutil.cpu_count() or 1) * tick_s)


def _shown_by_container() -> str:
    """Why /proc/stat is not the machine's: lxcfs mounts a file over it that shows the container's own times alone."""
    if sys.platform != "linux":
        return ""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    over = any(fields[4:5] == ["/proc/stat"] for fields in map(str.split, mounts))
    return "/proc/stat is mounted over, so it shows the container and not the machine" if over else ""
