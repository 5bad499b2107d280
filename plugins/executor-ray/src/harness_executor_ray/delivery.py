"""A trial's files, from the node that wrote them into its folder: in pieces, checked, each whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from harness import MeasurementError
from harness.executor import MEASUREMENT

PIECE_BYTES: Final = 4 * 2**20
"""What is in memory at a time, whatever a side-car's size."""
LAST: Final = MEASUREMENT
"""What says that a trial is complete: a run that is resumed looks for it."""

Read = Callable[[str, int, int], bytes]
"""Name, offset and length -> that piece of a file."""
Listed = tuple[str, int, str]
"""Name below the folder, size in bytes, SHA-256 in hex."""


def receive(folder: Path, listed: Iterable[Listed], read: Read) -> None:
    """Fetches files into a folder, the measurement last.

    Raises:
        MeasurementError: a name leads out of the folder, or what came is not what was sent.
        OSError: a file cannot be written.
    """
    for name, size, digest in sorted(listed, key=lambda each: (each[0] == LAST, each[0])):
        target = _target(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        try:
            found = _fetch(part, name, size, read)
            if found != digest:
                raise MeasurementError(f"{name} arrived damaged: SHA-256 {found[:12]}, sent as {digest[:12]}")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        _sync(target.parent)


def _target(folder: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts:
        raise MeasurementError(f"the node names a file outside of the trial's folder: {name!r}")
    return folder / pure


def _fetch(part: Path, name: str, size: int, read: Read) -> str:
    whole = hashlib.sha256()
    got = 0
    with part.open("wb") as stream:
        while got < size:
            piece = read(name, got, min(PIECE_BYTES, size - got))
            if not piece:
                raise MeasurementError(f"{name} ended after {got} of {size} bytes")
            whole.update(piece)
            stream.write(piece)
            got += len(piece)
        stream.flush()
        os.fsync(stream.fileno())
    return whole.hexdigest()


def _sync(folder: Path) -> None:
    """Makes a renamed file last through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
