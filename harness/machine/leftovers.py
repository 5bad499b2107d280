"""Processes that a trial started and did not end: found wherever they went, ended, and named."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

import psutil

MARK: Final = "HARNESS_TRIAL"
"""Environment variable that a worker and its children carry: the trial's folder."""
_SET_CHILD_SUBREAPER: Final = 36
"""prctl(2), Linux 3.4."""
_TRACKER: Final = "multiprocessing.resource_tracker"
"""Python's own child; it ends by itself with its parent."""
_WAIT_S: Final = 3.0


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant that loses its own, whatever session it moved to."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants() -> list[str]:
    """Ends what this process has left running; names of what nobody would have ended."""
    try:
        found = psutil.Process().children(recursive=True)
    except psutil.Error:
        return []
    return _end(found, expected=_daemons())


def end_strays(known: Collection[int]) -> list[str]:
    """Ends the children of this process that are not known, with their descendants; their names.

    For a process that forks trials and adopts what a killed one leaves behind.
    """
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children():
            if child.pid not in known:
                with contextlib.suppress(psutil.Error):
                    found += [*child.children(recursive=True), child]
    return _end(found, expected=set())


def end_of_trial(worker: int, mark: str) -> list[str]:
    """Ends the descendants of a worker that did not end well, and every process that carries its trial's mark.

    Args:
        worker: process id of the worker, alive or dead, 0 where it is not known; it is not ended here.
        mark: of its trial.
    """
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.Error):
        found.update({each.pid: each for each in psutil.Process(worker).children(recursive=True)})
    found.update({each.pid: each for each in marked(mark)})
    found.pop(worker, None)
    return _end(found.values(), expected=set())


def marked(mark: str) -> list[psutil.Process]:
    """Processes that carry a trial's mark."""
    return [process for process in psutil.process_iter() if mark_of(process) == mark]


def mark_of(process: psutil.Process) -> str:
    """The trial that a process belongs to; empty for none, or where it is not ours to read."""
    try:
        return process.environ().get(MARK, "")
    except (psutil.Error, OSError):
        return ""


def _daemons() -> set[int]:
    """Children that Python itself ends at exit, such as those that load data."""
    module: Any = sys.modules.get("multiprocessing.process")
    return {child.pid for child in module.active_children() if child.daemon} if module else set()


def _end(processes: Iterable[psutil.Process], expected: set[int]) -> list[str]:
    named = []
    ended = []
    for process in processes:
        try:
            command = process.cmdline()
            if any(_TRACKER in word for word in command) or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.pid not in expected:
                named.append(process.name())
            process.kill()
            ended.append(process)
        except psutil.Error:
            continue
    psutil.wait_procs(ended, timeout=_WAIT_S)
    return named


def kernel_kills() -> int:
    """How many processes the kernel has ended for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
