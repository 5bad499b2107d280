"""Who holds a lock: written by the holder, read by those who wait, and never trusted further than to be shown."""

from __future__ import annotations

import getpass
import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Self

import psutil

LIMIT_BYTES: Final = 4096
_WORDS: Final = 4
_LETTERS: Final = 120


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        pid: its id, where it runs.
        user: its login name.
        command: its program and first words.
        since_utc: when it took the lock, ISO 8601.
    """

    pid: int
    user: str
    command: str
    since_utc: str

    def to_bytes(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, file: int) -> Self | None:
        """What the open file of a lock says; None where it says nothing that makes sense."""
        try:
            raw: Any = json.loads(os.pread(file, LIMIT_BYTES, 0))
            since = datetime.fromisoformat(str(raw["since_utc"]))
            if since.tzinfo is None:
                return None
            return cls(int(raw["pid"]), _shown(raw["user"]), _shown(raw["command"]), since.isoformat())
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    @property
    def seen(self) -> bool:
        """Whether a process with this id is seen from here."""
        return self.pid > 0 and psutil.pid_exists(self.pid)

    def __str__(self) -> str:
        held = max(datetime.now(UTC) - datetime.fromisoformat(self.since_utc), timedelta())
        gone = "" if self.seen else "; not seen from here: in another container, or gone with a child left"
        return (
            f"process {self.pid} of {self.user} ({self.command}) since {self.since_utc}, for "
            f"{timedelta(seconds=round(held.total_seconds()))}{gone}"
        )


def here() -> Holder:
    """This process."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(os.getpid(), _user(), command_words(sys.argv), now)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without an entry
        return str(os.getuid())


def command_words(words: list[str]) -> str:
    """The program and its first plain words: others read this, and options or addresses may hold secrets."""
    program = Path(words[0]).name if words and words[0] else "python"
    if program == "__main__.py":
        program = Path(words[0]).parent.name
    plain = takewhile(lambda word: word[:1] != "-" and not set("@=?:") & set(word), words[1:_WORDS])
    return " ".join([program, *plain])[:_LETTERS]


def _shown(text: object) -> str:
    """A stranger's text without what would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))[:_LETTERS]
