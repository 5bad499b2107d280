"""What a worker tells its driver, as JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import IO

from harness.executor import MESSAGES


class Messenger:
    """Sends JSON lines to the parent; silent when there is none."""

    def __init__(self) -> None:
        number = os.environ.pop(MESSAGES, "")
        self._stream: IO[str] | None = os.fdopen(int(number), "w", buffering=1) if number else None
        if number:
            os.set_inheritable(int(number), False)  # noqa: FBT003 - what the work starts cannot write into it
        self._lock = threading.Lock()

    def send(self, message: str, /, **content: object) -> None:
        """Sends one message; a parent that is gone is no error here (the watch on it ends this process)."""
        if self._stream is None:
            return
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._stream.write(json.dumps({"type": message, **content}, default=str) + "\n")
