"""A ring of slots in memory that two processes of one host share; one side writes, the other reads.

The ring is a file of the shared-memory file system (else of the folder for temporary files), readable by its owner only
and unlinked as soon as the peer has mapped it, so that nothing is left behind when either side is killed. Which slots
are filled is said on the socket; which are free again stands in the ring's first 8 bytes, written by the reader after
it has copied and checked a slot.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness_disaggregated_serving.transport.faults import CorruptFrame, LinkError, LinkStalled
from harness_disaggregated_serving.transport.framing import PART_BYTES

SLOTS: Final = 6
_COUNTER: Final = struct.Struct("=Q")
_HEAD: Final = 4096
_SIZE: Final = _HEAD + SLOTS * PART_BYTES
_NAME: Final = re.compile(r"joule-ring-[A-Za-z0-9_]{8}")
_POLL_S: Final = 20e-6


def _folder() -> Path:
    shared = Path("/dev/shm")  # noqa: S108 - the shared-memory file system; the file is made by mkstemp
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


class RingWriter:
    """The side that makes the ring and fills its slots."""

    def __init__(self) -> None:
        handle, path = tempfile.mkstemp(prefix="joule-ring-", dir=_folder())
        self._path: Path | None = Path(path)
        self.name = self._path.name
        try:
            os.ftruncate(handle, _SIZE)
            self._map = mmap.mmap(handle, _SIZE)
        except BaseException:
            self._path.unlink()
            raise
        finally:
            os.close(handle)
        self._view = memoryview(self._map)
        self._written = 0

    def unlink(self) -> None:
        """Takes the name away; the mapping stays."""
        path, self._path = self._path, None
        if path is not None:
            path.unlink(missing_ok=True)

    def slot(self, timeout_s: float, still_open: Callable[[], None]) -> tuple[int, memoryview]:
        """The next slot to fill, as soon as the peer has freed it.

        Args:
            timeout_s: how long the peer may leave the ring full.
            still_open: raises when the link is gone, so that nobody waits for the dead.

        Raises:
            LinkStalled: the peer freed nothing in time.
        """
        deadline = time.monotonic() + timeout_s
        while self._written - self._freed() >= SLOTS:
            still_open()
            if time.monotonic() > deadline:
                raise LinkStalled(f"the peer took nothing from the shared ring for {timeout_s:g} s")
            time.sleep(_POLL_S)
        number = self._written % SLOTS
        self._written += 1
        start = _HEAD + number * PART_BYTES
        return number, self._view[start : start + PART_BYTES]

    def _freed(self) -> int:
        freed: int = _COUNTER.unpack_from(self._view)[0]
        if freed > self._written:
            raise CorruptFrame(f"the shared ring says {freed} slots were read, {self._written} were written")
        return freed

    def close(self) -> None:
        """Gives the memory back."""
        self.unlink()
        with contextlib.suppress(BufferError):  # a slot is still being filled; the mapping goes with the process
            self._view.release()
            self._map.close()


class RingReader:
    """The side that reads what a peer wrote.

    Raises:
        LinkError: there is no such ring on this host, or it is not a file of this user and of the right size.
    """

    def __init__(self, name: str) -> None:
        if _NAME.fullmatch(name) is None:
            raise LinkError(f"{name!r} is not the name of a shared ring")
        try:
            handle = os.open(_folder() / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise LinkError(f"the shared ring cannot be opened: {error.strerror}") from None
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size != _SIZE or found.st_uid != os.geteuid():
                raise LinkError("the shared ring is not a file of this user and of the right size")
            self._map = mmap.mmap(handle, _SIZE)
        finally:
            os.close(handle)
        self._view = memoryview(self._map)
        self._read = 0

    def slot(self, number: int, length: int) -> memoryview:
        """The filled part of a slot; raises CorruptFrame for one that is not due."""
        if number != self._read % SLOTS or length > PART_BYTES:
            raise CorruptFrame(f"slot {number} with {length} bytes came where slot {self._read % SLOTS} was due")
        start = _HEAD + number * PART_BYTES
        return self._view[start : start + length]

    def free(self) -> None:
        """Gives the oldest filled slot back to the writer. Call it after the slot was copied and the copy checked."""
        self._read += 1
        _COUNTER.pack_into(self._view, 0, self._read)

    def close(self) -> None:
        """Gives the memory back."""
        with contextlib.suppress(BufferError):
            self._view.release()
            self._map.close()
