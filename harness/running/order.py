"""The order of trials, and those under way at the same time: one thread each, waiting for an executor."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.executor import Executor
from harness.planning.point import Point

_POLL_S: Final = 0.5
_STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One trial of one point."""

    point: Point
    trial: int

    @property
    def trial_id(self) -> str:
        """Unique in its run, the same after a resume."""
        return f"{self.point.id}-t{self.trial:03d}"


def schedule(points: Sequence[Point], seed: int) -> list[Scheduled]:
    """The trials that every point has in any case: rounds of one trial a point, each round in random order.

    So a slow hour of the machine falls on all points. The order is the same for one seed. Points whose number of trials
    is not fixed end the common rounds with their least number; `further` is what follows.
    """
    generator = random.Random(seed)  # noqa: S311 - an order, not a secret
    fixed = [point.at_least for point in points if point.precision is not None]
    rounds = min(fixed) if fixed else max((point.trials for point in points), default=0)
    order = []
    for trial in range(rounds):
        due = [Scheduled(point, trial) for point in points if trial < point.trials]
        generator.shuffle(due)
        order += due
    return order


def further(points: Sequence[Point], trial: int, seed: int) -> list[Scheduled]:
    """One more round of the points that go on, in random order, the same for one seed."""
    due = [Scheduled(point, trial) for point in points if trial < point.trials]
    random.Random(f"{seed}:{trial}").shuffle(due)  # noqa: S311 - an order, not a secret
    return due


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
