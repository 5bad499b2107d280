"""The span of a window in which the load is steady: found while the requests run, judged when they have ended.

It opens when requests have been running for twice as long as one takes, so that as many end as begin, and not before
the warm-up cut; it closes when the last request is sent, after which the queue only drains.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import fmean
from typing import Final

from harness.workload import Window
from harness_disaggregated_serving.endpoint.answer import Answer
from harness_disaggregated_serving.endpoint.driving import Watch

SPAN: Final = "steady"
LATENCIES: Final = 2.0
"""The span opens after so many mean latencies."""
SHORTEST: Final = 4.0
"""Less than so many mean latencies say nothing of a queue: its halves depend on each other."""
LOOK_S: Final = 0.02
STANDARD_ERRORS: Final = 3.0
GROWTH: Final = 0.25
"""Between the halves of a steady span the requests in flight differ by less than this share, or than chance allows."""


class SteadySpan:
    """Marks the span while requests run.

    Args:
        window: that is open.
        watch: of the stream.
        cut_s: the span begins no earlier after `began_s`.
        began_s: when the first request was due.
    """

    def __init__(self, window: Window, watch: Watch, cut_s: float, began_s: float) -> None:
        self._window, self._watch, self._cut_s, self._began_s = window, watch, cut_s, began_s
        self.begin_s: float | None = None
        self.end_s: float | None = None

    async def follow(self) -> None:
        """Opens and closes the span; the edges read meters in another thread, so that no chunk waits for them."""
        with ExitStack() as stack:
            while True:
                if self._due():
                    break
                if self._over():
                    return
                await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(stack.enter_context, self._window.mark(SPAN))
            self.begin_s = self._window.now_s()
            while not self._over():  # noqa: ASYNC110 - a clock decides as well
                await asyncio.sleep(self._pause_s())
            self.end_s = self._window.now_s()
            await asyncio.to_thread(stack.close)

    def _due(self) -> bool:
        running_s = self._window.now_s() - self._began_s
        if running_s < self._cut_s or not self._watch.ended:
            return False
        return running_s >= LATENCIES * fmean(self._watch.ended)

    def _over(self) -> bool:
        last_s = self._watch.last_due_s
        return self._watch.all_sent or (last_s is not None and self._window.now_s() >= last_s)

    def _pause_s(self) -> float:
        last_s = self._watch.last_due_s
        left_s = LOOK_S if last_s is None else last_s - self._window.now_s()
        return min(LOOK_S, max(left_s, 0.0005))


def why_unsteady(answers: Sequence[Answer], begin_s: float | None, end_s: float | None) -> str:
    """Why the load between two times was not steady; empty where nothing speaks against it.

    The mean number of requests in flight is compared between the halves. They may differ by what chance makes of
    independent arrivals: the number is then of Poisson's law, and moments two latencies apart hardly depend on each
    other.

    Args:
        answers: of all requests.
        begin_s: of the span; None where it never opened.
        end_s: of the span.
    """
    if begin_s is None or end_s is None or end_s <= begin_s:
        return "the requests ended before as many ended as began"
    spans = [(each.sent_s, each.end_s) for each in answers if each.sent_s is not None and each.end_s is not None]
    latency_s = fmean(end - begin for begin, end in spans) if spans else 0.0
    length_s = end_s - begin_s
    if not spans or length_s < SHORTEST * latency_s:
        return f"the span of {length_s:.3g} s is shorter than {SHORTEST:g} mean latencies of {latency_s:.3g} s"
    middle_s = (begin_s + end_s) / 2
    first, second = in_flight(spans, begin_s, middle_s), in_flight(spans, middle_s, end_s)
    independent = max(1.0, length_s / 2 / (2 * latency_s))
    chance = STANDARD_ERRORS * math.sqrt(2 * max(first, second) / independent)
    if abs(second - first) > max(chance, GROWTH * max(first, second)):
        how = "filled" if second > first else "drained"
        return f"the queue {how}: {first:.3g} requests in flight in its first half, {second:.3g} in its second"
    return ""


def in_flight(spans: Sequence[tuple[float, float]], begin_s: float, end_s: float) -> float:
    """Mean number of requests that were running between two times."""
    inside = sum(max(0.0, min(end, end_s) - max(begin, begin_s)) for begin, end in spans)
    return inside / (end_s - begin_s)
