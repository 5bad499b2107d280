"""One lock a device, shared by all runs of a user on this machine."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import MeasurementError
from harness.executor import Listener

if TYPE_CHECKING:
    from filelock import FileLock

_POLL_S: Final = 0.5


def lock_folder_path() -> Path:
    """Where the device locks of this user lie, shared by all runs on this machine."""
    return Path(tempfile.gettempdir()) / f"joule-harness-{os.getuid()}"


def _lock_folder() -> Path:
    """The folder of the locks, made if need be; refused where somebody else made it first in a shared place."""
    folder = lock_folder_path()
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise MeasurementError(
            "the folder of the device locks belongs to another user",
            where=str(folder),
            hint="set TMPDIR to a folder of your own",
        )
    return folder


@contextmanager
def device_locks(devices: tuple[str, ...], listener: Listener) -> Iterator[None]:
    """Holds one lock per device, shared by all runs of this user on this machine; names the holder while waiting."""
    folder = _lock_folder()
    with ExitStack() as stack:
        for device in sorted(set(devices)):
            name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in device)
            path = folder / f"{name}.lock"
            holder = path.with_suffix(".holder")
            stack.callback(_acquire(path, device, holder, listener).release)
            with contextlib.suppress(OSError):
                holder.write_text(f"process {os.getpid()}", encoding="utf-8")
        yield


def _acquire(path: Path, device: str, holder: Path, listener: Listener) -> FileLock:
    from filelock import FileLock, Timeout  # it imports asyncio, and few workers have a device to lock

    lock = FileLock(str(path))
    while True:
        try:
            lock.acquire(timeout=_POLL_S)
        except Timeout:
            with contextlib.suppress(OSError):
                listener({"type": "waiting", "device": device, "holder": holder.read_text(encoding="utf-8")})
        else:
            return lock
