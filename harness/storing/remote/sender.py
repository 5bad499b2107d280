"""Sends a run's files to its store while the run goes on: retries with growing pauses, and never stops a measurement.

A thread sends; the run only puts folders on its list. Where this machine measures, the thread rests during a trial: the
work of sending would be measured with it.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from harness.errors import HarnessError
from harness.storing.remote.files import UnreachableError

BETWEEN_TRIALS_S: Final = 5.0
"""How long the next trial waits, at most, for files to be sent."""
FIRST_PAUSE_S: Final = 0.5
"""After the first failure; it doubles, and is cut by chance: many writers must not return at one instant."""
LONGEST_PAUSE_S: Final = 30.0

Task = Callable[[], None]


class Sender:
    """A list of tasks and the thread that does them in order, each until it succeeds.

    Args:
        quiet: rest except in `between_trials` and `finish`.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.refused: list[str] = []
        self.last_fault = ""
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition()
        self._quiet = quiet
        self._open = not quiet
        self._stopped = False
        self._failures = 0
        self._not_before = 0.0
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def add(self, task: Task) -> None:
        """Puts a task on the list."""
        with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()

    def between_trials(self, seconds: float = BETWEEN_TRIALS_S) -> None:
        """Lets a resting sender work for a while, unless the store has just failed."""
        if not self._quiet:
            return
        with self._changed:
            self._open = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._tasks or time.monotonic() < self._not_before, seconds)
            self._open = False

    def finish(self, seconds: float) -> int:
        """Works until all is sent or the time is over, and ends; returns how many tasks are left."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._open, self._failures, self._not_before = True, 0, 0.0
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._tasks, max(0.0, deadline - time.monotonic()))
            self._stopped = True
            self._changed.notify_all()
            return len(self._tasks)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except UnreachableError as error:
                self._pause(str(error))
            except HarnessError as error:
                self._done(str(error))
            except Exception as error:  # noqa: BLE001 - a fault of sending must not lose the tasks behind it
                self._done(f"{type(error).__name__}: {error}")
            else:
                self._done("")

    def _next(self) -> Task | None:
        with self._changed:
            while not self._stopped:
                wait = self._not_before - time.monotonic()
                if self._open and self._tasks and wait <= 0:
                    return self._tasks[0]
                self._changed.wait(wait if self._open and self._tasks else None)
            return None

    def _done(self, refused: str) -> None:
        with self._changed:
            self._tasks.popleft()
            self._failures = 0
            if refused:
                self.refused.append(refused)
            self._changed.notify_all()

    def _pause(self, fault: str) -> None:
        with self._changed:
            self.last_fault = fault
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 10))
            self._failures += 1
            self._not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
            self._changed.notify_all()
