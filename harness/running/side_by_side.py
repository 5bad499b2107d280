"""Trials under way at the same time: one thread each, waiting for an executor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from harness.executor import Executor

_POLL_S: Final = 0.5
_STOP_S: Final = 10.0


class SideBySide:
    """Calls a function for each of many trials, from several threads; the first exception ends all of them.

    Args:
        call: runs one.
        trials: what it is called with, in order.
        executor: closed when the rest is not to be run.
        stopping: set before that, so that a trial which ends then is known not to have failed.
    """

    def __init__(
        self, call: Callable[[Any], None], trials: Iterator[Any], executor: Executor, stopping: threading.Event
    ) -> None:
        self._call = call
        self._trials = trials
        self._executor = executor
        self._stopping = stopping
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def run(self, threads: int) -> None:
        """Returns when all are done; Ctrl-C closes the executor, so that no thread waits for a trial any more."""
        pool = [threading.Thread(target=self._work, name=f"harness-trial-{n}", daemon=True) for n in range(threads)]
        for thread in pool:
            thread.start()
        try:
            for thread in pool:
                while thread.is_alive():
                    thread.join(_POLL_S)
        except KeyboardInterrupt as interrupt:
            self._stop(interrupt)
            for thread in pool:
                thread.join(_STOP_S)
        if self._failure is not None:
            raise self._failure

    def _stop(self, failure: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or failure
            self._trials = iter(())
            self._stopping.set()
        self._executor.close()

    def _work(self) -> None:
        while True:
            with self._lock:
                trial = next(self._trials, None)
            if trial is None:
                return
            try:
                self._call(trial)
            except BaseException as error:  # noqa: BLE001 - raised again where the threads are joined
                self._stop(error)
                return
