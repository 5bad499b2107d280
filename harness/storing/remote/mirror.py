"""What of a mirror is also in its store: a journal for each run of the files that were sent or fetched."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Synced:
    """A file that the mirror and the store had in common.

    Attributes:
        stamp: of the local file then.
        token: of the file in the store then.
        stamps: of every local file of that name that once was in the store.
    """

    stamp: str
    token: str
    stamps: frozenset[str]


def unsent(local: str, known: Synced | None) -> bool:
    """Whether a local file of that stamp was never in the store."""
    return bool(local) and (known is None or local not in known.stamps)


class Journal:
    """Files in common, a line each; the last line of a file counts, and a torn one is as if it were not there.

    A line that is lost costs a comparison or a download, nothing else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Synced]:
        """Path -> what was in common."""
        found: dict[str, Synced] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return found
        for line in lines:
            try:
                name, stamp, token = json.loads(line)
            except (ValueError, TypeError):
                continue
            before = found[name].stamps if name in found else frozenset()
            found[str(name)] = Synced(str(stamp), str(token), before | {str(stamp)})
        return found

    def note(self, name: str, stamp: str, token: str) -> None:
        """Adds a file; several processes may."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps([name, stamp, token]) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
