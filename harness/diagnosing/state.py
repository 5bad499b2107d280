"""What could cost a run its results or its numbers on this machine: locks, stale workers, store, clock, disk, memory.

Reads only: nothing is ended, deleted or repaired. Each finding that is wrong says what to do.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import psutil
from platformdirs import user_cache_path
from rich.console import Console

from harness.diagnosing.store_findings import store_findings
from harness.errors import ExitCode, HarnessError
from harness.executor import WORKER
from harness.machine.device_locks import PREFIX, holder_of, lock_files, lock_place
from harness.machine.device_settings import left_behind
from harness.machine.leftovers import mark_of
from harness.reporting.tables import Item, Section
from harness.reporting.terminal import print_section
from harness.units import si

State = Literal["well", "wrong", "not known"]

LEAST_DISK_BYTES: Final = 1 << 30
"""Below this a run of any length may fill the disk."""
LEAST_MEMORY_BYTES: Final = 1 << 30
_FIRST_SANE_YEAR: Final = 2026
_STATUS_OFFSET: Final = 40
"""Of `status` in `struct timex` on 64-bit Linux (adjtimex(2)): int, padding, four longs."""
_UNSYNCHRONISED: Final = 0x40
"""`STA_UNSYNC` of adjtimex(2)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        area: `locks`, `workers`, `store`, `clock`, `disk` or `memory`.
        what: lock, process, file, or quantity.
        state: `well`, `wrong` or `not known`.
        detail: what was found.
        remedy: what to do; empty where all is well.
    """

    area: str
    what: str
    state: State
    detail: str
    remedy: str = ""


def command(store: Path, *, as_json: bool) -> int:
    """Prints what is found; the exit code of `harness doctor --deep`: 0 if all is well, 3 if not."""
    found = examine(store)
    if as_json:
        sys.stdout.write(json.dumps(to_json(found), indent=1) + "\n")
    else:
        render(Console(), found)
    return int(ExitCode.OK if healthy(found) else ExitCode.MEASUREMENT)


def examine(store: Path) -> list[Finding]:
    """Everything, of this machine and of one store."""
    return [
        *lock_findings(),
        *settings_findings(),
        *worker_findings(running_workers()),
        *stray_findings(),
        *(Finding("store", *found) for found in store_findings(store)),
        *clock_findings(),
        *disk_findings({"store": store, "temporary files": Path(tempfile.gettempdir()), "cache": _cache()}),
        *memory_findings(),
    ]


def _cache() -> Path:
    return user_cache_path("joule-harness")


# Locks


def lock_findings() -> Iterator[Finding]:
    """Each device lock of this machine: free, or held by whom; and whom the locks do not exclude."""
    try:
        place = lock_place()
    except HarnessError as error:
        yield Finding("locks", error.where or "device locks", "wrong", error.message, error.hint)
        return
    if place.fallback:
        remedy = "let root make a folder that everybody may write, sticky (chmod 1777), such as /run/lock"
        yield Finding("locks", str(place.folder), "not known", f"not excluded: {place.not_excluded}", remedy)
    files = lock_files(place.folder)
    if not files:
        yield Finding("locks", "device locks", "well", f"none was ever taken in {place.folder}")
    for path in files:
        yield _lock(path)


def _lock(path: Path) -> Finding:
    name = path.stem.removeprefix(PREFIX)
    try:
        held = holder_of(path)
    except FileNotFoundError:
        return Finding("locks", name, "well", "removed meanwhile")
    except (HarnessError, OSError) as error:
        return Finding("locks", name, "wrong", f"cannot be tried: {error}", f"repair or delete {path}")
    if held is None:
        return Finding("locks", name, "well", "free")
    text, seen = held
    if seen:
        return Finding("locks", name, "well", f"held by {text}")
    return Finding(
        "locks",
        name,
        "wrong",
        f"held by {text}",
        f"if it runs in no container, a process that it started holds the lock on: `fuser {path}` names it; end it",
    )


def settings_findings() -> Iterator[Finding]:
    """Settings of devices that a process which was killed did not put back."""
    for path, changed in left_behind():
        held = holder_of(lock) if (lock := path.with_suffix(".lock")).exists() else None
        for each in changed:
            text = f"{each.name} is {si(each.value, each.unit, 4)}, before {each.was}"
            if held is not None:
                yield Finding("settings", each.device, "well", f"{text}; set by {held[0]}")
                continue
            remedy = "any `harness run` by the same user puts it back"
            yield Finding("settings", each.device, "wrong", f"{text}; left behind by a process that was killed", remedy)


# Workers


def running_workers() -> Iterator[tuple[str, psutil.Process]]:
    """Folder and process of every worker that runs here."""
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if WORKER in command[1:-1]:
            yield command[-1], process


def worker_findings(workers: Iterable[tuple[str, psutil.Process]]) -> Iterator[Finding]:
    """Workers whose driver is gone, or that are stopped."""
    count = 0
    for folder, process in workers:
        name = f"process {process.pid}"
        try:
            orphan, stopped = _orphan(process), process.status() == psutil.STATUS_STOPPED
        except psutil.Error:
            continue
        if orphan:
            yield Finding(
                "workers", name, "wrong", f"works for {folder}, and its driver is gone", f"kill -KILL {process.pid}"
            )
        elif stopped:
            yield Finding("workers", name, "wrong", f"is stopped, for {folder}", f"kill -CONT {process.pid}")
        else:
            count += 1
    yield Finding("workers", "workers", "well", f"{count} at work" if count else "none at work")


def stray_findings() -> Iterator[Finding]:
    """Processes that a trial started and that outlived its worker: they take from what is measured next."""
    for process in psutil.process_iter():
        if not (mark := mark_of(process)):
            continue
        try:
            family = [process, *process.parents()]
            if not any(WORKER in each.cmdline()[1:-1] for each in family):
                detail = f"{process.name()} was started by the trial {mark}, which is over"
                yield Finding("workers", f"process {process.pid}", "wrong", detail, f"kill -KILL {process.pid}")
        except psutil.Error:
            continue


def _orphan(process: psutil.Process) -> bool:
    """Whether the parent is none that could have started a worker: processes without a parent go to init."""
    parent = process.parent()
    return parent is None or (not any("python" in word or "harness" in word for word in parent.cmdline()[:1]))


# Clock


def clock_findings(clocks: Mapping[str, float] | None = None, status: int | None = None) -> Iterator[Finding]:
    """Whether the wall clock is set and kept, and whether the machine slept.

    Args:
        clocks: seconds of `wall`, `monotonic` and `boot`; this machine's by default.
        status: of adjtimex(2); this machine's by default.
    """
    now = clocks or _clocks()
    year = datetime.fromtimestamp(now["wall"], UTC).year
    sane = year >= _FIRST_SANE_YEAR
    yield Finding(
        "clock",
        "date",
        "well" if sane else "wrong",
        datetime.fromtimestamp(now["wall"], UTC).isoformat(timespec="seconds"),
        "" if sane else "set the clock: records are named and ordered by it",
    )
    status = _adjtimex() if status is None else status
    if status is None:
        yield Finding("clock", "synchronised", "not known", "this system does not say")
    elif status & _UNSYNCHRONISED:
        remedy = "start chrony, ntpd or systemd-timesyncd; else carbon by the hour is only as good as the clock"
        said = "the kernel says that nothing here keeps the clock; the host of a virtual machine may"
        yield Finding("clock", "synchronised", "not known", said, remedy)
    else:
        yield Finding("clock", "synchronised", "well", "the kernel says so")
    asleep_s = now["boot"] - now["monotonic"]
    if asleep_s < -0.001:
        yield Finding(
            "clock", "steady", "wrong", "more monotonic time than time since boot", "this kernel cannot time runs"
        )
    else:
        yield Finding("clock", "steady", "well", f"asleep for {asleep_s:.0f} s since it was started")


def _clocks() -> dict[str, float]:
    monotonic = time.monotonic()
    boot = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else monotonic
    return {"wall": time.time(), "monotonic": monotonic, "boot": boot}


def _adjtimex() -> int | None:
    """The kernel's clock status, asked without changing it; None where it does not say."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return None
    asked = ctypes.create_string_buffer(512)  # modes = 0: nothing is set
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(asked) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return int.from_bytes(asked.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], sys.byteorder)


# Disk and memory


def disk_findings(places: Mapping[str, Path]) -> Iterator[Finding]:
    """Room, and whether files can be made, where runs write."""
    for name, path in places.items():
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free
        nodes = os.statvfs(there)
        full = free < LEAST_DISK_BYTES or (nodes.f_files > 0 and nodes.f_favail < 1000)
        detail = f"{si(float(free), 'B')} free at {there}"
        if nodes.f_files > 0 and nodes.f_favail < 1000:
            detail += f", room for {nodes.f_favail} files"
        if not os.access(there, os.W_OK):
            yield Finding("disk", name, "wrong", f"{there} cannot be written", "name another folder")
        else:
            yield Finding("disk", name, "wrong" if full else "well", detail, "make room" if full else "")


def memory_findings(free: int | None = None) -> Iterator[Finding]:
    """Memory to be had."""
    free = psutil.virtual_memory().available if free is None else free
    low = free < LEAST_MEMORY_BYTES
    remedy = "end what holds it: a worker that is swapped or ended measures nothing" if low else ""
    yield Finding("memory", "available", "wrong" if low else "well", si(float(free), "B"), remedy)


# Showing


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing is wrong."""
    return not any(finding.state == "wrong" for finding in findings)


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as JSON values."""
    return {"healthy": healthy(findings), "findings": [asdict(finding) for finding in findings]}


def render(console: Console, findings: Sequence[Finding]) -> None:
    """Prints what is wrong with what to do, then what was found well."""
    wrong = [Item(f"{each.area}: {each.what}", f"{each.detail}; {each.remedy}") for each in findings if _bad(each)]
    rest = [Item(f"{each.area}: {each.what}", f"{each.state}: {each.detail}") for each in findings if not _bad(each)]
    print_section(console, Section("Wrong, and what to do", items=wrong, paragraphs=() if wrong else ("nothing",)))
    console.print()
    print_section(console, Section("Looked at", items=rest))


def _bad(finding: Finding) -> bool:
    return finding.state == "wrong"
