"""Where the messages of several links meet: one queue that a single thread reads."""

from __future__ import annotations

import heapq
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from harness_disaggregated_serving.transport.faults import LinkError

if TYPE_CHECKING:
    from harness_disaggregated_serving.transport.link import Link, Message


class Arrival(NamedTuple):
    """What came over a link: a message, or the fault that ended the link."""

    link: Link
    content: Message | LinkError


class Inbox:
    """Arrivals in the order in which they become due; a link's emulated latency makes them due later."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Arrival]] = []
        self._count = 0

    def put(self, arrival: Arrival, delay_s: float = 0.0) -> None:
        """Adds an arrival that is due after a delay."""
        with self._condition:
            self._count += 1
            heapq.heappush(self._heap, (time.monotonic() + delay_s, self._count, arrival))
            self._condition.notify()

    def get(self, timeout_s: float | None = None) -> Arrival | None:
        """The next arrival; None when none became due in time. `timeout_s` None waits for ever, 0 does not wait."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._condition:
            while True:
                now = time.monotonic()
                if self._heap and self._heap[0][0] <= now:
                    return heapq.heappop(self._heap)[2]
                until = [
                    moment for moment in (deadline, self._heap[0][0] if self._heap else None) if moment is not None
                ]
                if deadline is not None and now >= deadline:
                    return None
                self._condition.wait(max(0.0, min(until) - now) if until else None)
