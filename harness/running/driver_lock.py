"""One driver a run: a lock in the run's folder; and a disk that fails under a driver is said as what it is."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from harness.errors import MeasurementError, UsageError
from harness.records.paths import DRIVER, DRIVER_LOCK

DISK_FAULTS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE})
"""Errors that say something of the disk, not of the harness."""


@contextmanager
def driven(folder: Path) -> Iterator[None]:
    """Holds a run while this process drives it.

    Raises:
        UsageError: another process drives it.
        MeasurementError: the disk is full or failed; what is finished stands, and the run can be resumed.
    """
    lock = FileLock(str(folder / DRIVER_LOCK), timeout=0)
    try:
        with _held(lock, folder):
            yield
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        raise MeasurementError(
            f"cannot be written: {error.strerror}",
            where=str(error.filename or folder),
            hint=f"finished trials are kept; make room, then continue with: harness run --resume {folder}",
        ) from error


@contextmanager
def _held(lock: FileLock, folder: Path) -> Iterator[None]:
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"this run is already in progress, driven by {_holder(folder)}",
            where=str(folder),
            hint="wait until it ends, or end that process",
        ) from None
    try:
        with contextlib.suppress(OSError):
            (folder / DRIVER).write_text(f"process {os.getpid()}", encoding="utf-8")
        yield
    finally:
        lock.release()


def is_driven(folder: Path) -> bool:
    """Whether some process drives a run now; leaves no trace in the folder."""
    path = folder / DRIVER_LOCK
    if not path.exists():
        return False
    try:
        with FileLock(str(path), timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _holder(folder: Path) -> str:
    try:
        return (folder / DRIVER).read_text(encoding="utf-8")
    except OSError:
        return "another process"
