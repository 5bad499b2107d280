"""The file in a trial's folder through which its node talks to the driver: JSON lines, only ever appended.

The driver writes the first line, with the token of the submission: a job whose token is another's belongs to an earlier
driver and leaves the trial alone. The file is there before the job, so that no network file system's cache remembers
that it was not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

NAME: Final = "slurm.jsonl"
LIMIT_BYTES: Final = 4 * 2**20
"""Messages beyond this are dropped: they are news, and a worker may flood them. What ends a trial is always written."""
_CHUNK: Final = 2**18


def start(folder: Path, token: str) -> None:
    """Makes the journal of a trial."""
    (folder / NAME).write_text(json.dumps({"token": token}) + "\n", encoding="utf-8")


def entries(folder: Path) -> Iterator[dict[str, Any]]:
    """What has been written until now."""
    follower = Follower(folder)
    while found := follower.read():
        yield from found


class Journal:
    """The node's end."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / NAME, os.O_WRONLY | os.O_APPEND)
        self._first = True  # a node that died may have left half a line

    def write(self, **entry: object) -> None:
        """Appends an entry; a message is dropped where the file is long enough."""
        if "message" in entry and os.fstat(self._file).st_size > LIMIT_BYTES:
            return
        start = "\n" if self._first else ""
        self._first = False
        os.write(self._file, (start + json.dumps(entry, default=str) + "\n").encode())

    def close(self) -> None:
        """Makes sure that all of it is in the file."""
        os.fsync(self._file)
        os.close(self._file)


class Follower:
    """The driver's end: what was written since the last look.

    The file is opened anew each time: network file systems promise to show what was written before an `open`.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._offset = 0
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """Entries since the last call, of a bounded piece of the file; empty where there are none."""
        found: list[dict[str, Any]] = []
        try:
            with self._path.open("rb", buffering=0) as stream:
                stream.seek(self._offset)
                while not found and (chunk := stream.read(_CHUNK)):
                    self._offset += len(chunk)
                    *lines, self._rest = (self._rest + chunk).split(b"\n")
                    found = [entry for line in lines if isinstance(entry := _parsed(line), dict)]
        except OSError:
            return []  # the file system does not answer, or the folder is gone: Slurm knows how the job goes
        self._rest = self._rest[-_CHUNK:]
        return found


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
