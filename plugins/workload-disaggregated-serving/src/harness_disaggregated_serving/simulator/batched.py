"""Iteration-level batching of `standalone` and `dpd`: from event to event, decoding advanced in closed form between.

A device does one iteration at a time: a prefill of waiting prompts where there are any with room, else decode steps of
its running batch; alternating, an iteration is one waiting prompt and one step. The next event is an arrival that finds
room, or the end of the request with fewest tokens left, so a request costs a handful of events however many tokens it
has. `dpd` is a tandem without feedback: the first device and the link yield requests in the order in which their caches
arrive at the second.
"""

from __future__ import annotations

import heapq
import sys
from collections import deque
from collections.abc import Iterable, Iterator

from harness_disaggregated_serving.load.arrivals import Request
from harness_disaggregated_serving.simulator.independent import send
from harness_disaggregated_serving.simulator.setup import Batching, FirstToken, Setup, SimulatedDevice
from harness_disaggregated_serving.simulator.tally import Busy, Flight, Tally


def serve(setup: Setup, incoming: Iterable[Request], tally: Tally) -> None:
    """`standalone` and `dpd`; results go to `tally`."""
    admitted = _admissible(setup, incoming, tally)
    if setup.configuration.needs_old and setup.old is not None:
        arriving = _prefill_and_send(setup, admitted, tally)
        IterationServer(setup, setup.old, tally, tally.busy["old"], prefills=False).run(arriving)
    else:
        IterationServer(setup, setup.new, tally, tally.busy["new"], prefills=True).run(admitted)


def _admissible(setup: Setup, incoming: Iterable[Request], tally: Tally) -> Iterator[Flight]:
    for request in incoming:
        flight = tally.arrive(request)
        reason = setup.rejection(flight.prompt + flight.output)
        if reason is None:
            yield flight
        else:
            tally.reject(reason)


class IterationServer:
    """A device that decodes, and prefills too unless the caches come from elsewhere.

    A request takes the memory of its prompt and its whole output when it is admitted, so that none is ever put back.
    """

    def __init__(self, setup: Setup, device: SimulatedDevice, tally: Tally, busy: Busy, *, prefills: bool) -> None:
        costs = device.target_costs()
        self._prefill, self._decode = costs.prefill, costs.decode
        self._prefills = prefills
        self._by_prefill = setup.first_token is FirstToken.PREFILL
        self._alternates = setup.batching is Batching.ALTERNATING
        self._max_batch = setup.max_batch
        self._max_prefill = 0 if self._alternates else setup.max_prefill_tokens
        self._capacity = device.kv_tokens
        self._tally, self._busy = tally, busy
        self._now = float("-inf")
        self._waiting: deque[Flight] = deque()
        self._held = 0
        """Tokens of cache that admitted requests hold."""
        self._steps = 0
        """Decode steps so far; a running request is due at a number of steps."""
        self._due: list[tuple[int, int, Flight]] = []
        self._context = 0
        """Sum of the running contexts at the next step."""
        self._fresh: list[Flight] = []
        """Running requests that have no token yet."""

    def run(self, incoming: Iterator[Flight]) -> None:
        """Serves requests that come in order of `ready_s`, until all have ended."""
        waiting = self._waiting
        upcoming = next(incoming, None)
        while True:
            while upcoming is not None and upcoming.ready_s <= self._now:
                waiting.append(upcoming)
                upcoming = next(incoming, None)
            if waiting and self._admit():
                if self._alternates and self._due:
                    self._advance(None, most=1)
                continue
            if self._due:
                self._advance(upcoming)
            elif upcoming is not None:
                self._now = upcoming.ready_s
            else:
                return

    def _room(self, flight: Flight) -> bool:
        if len(self._due) >= self._max_batch:
            return False
        return self._capacity is None or self._held + flight.prompt + flight.output <= self._capacity

    def _admit(self) -> bool:
        """Takes waiting requests in; True if that took a prefill, during which others may have come."""
        waiting = self._waiting
        if not self._prefills:
            while waiting and self._room(waiting[0]):
                flight = waiting.popleft()
                self._held += flight.prompt + flight.output
                self._join(flight)
            return False
        batch: list[Flight] = []
        tokens = squares = 0
        while waiting and len(self._due) + len(batch) < self._max_batch and self._room(waiting[0]):
            prompt = waiting[0].prompt
            if batch and tokens + prompt > self._max_prefill:
                break
            flight = waiting.popleft()
            self._held += flight.prompt + flight.output
            tokens += prompt
            squares += prompt * prompt
            batch.append(flight)
        if not batch:
            return False
        duration_s = self._prefill.seconds(tokens, squares)
        self._busy.add("prefill", duration_s, len(batch))
        started_s = self._now
        self._now += duration_s
        for flight in batch:
            flight.started_s = started_s
            if self._by_prefill:
                flight.first_s = self._now
            if self._by_prefill and flight.output == 1:
                flight.end_s = self._now
                self._held -= flight.prompt + flight.output
                self._tally.finish(flight)
            else:
                self._join(flight)
        return True

    def _join(self, flight: Flight) -> None:
        left = flight.output - 1 if self._by_prefill else flight.output
        self._context += flight.prompt + flight.output - left
        if not self._by_prefill:
            self._fresh.append(flight)
        heapq.heappush(self._due, (self._steps + left, flight.number, flight))

    def _advance(self, upcoming: Flight | None, most: int = sys.maxsize) -> None:
        """Decodes until the next request ends, one that has room comes, or so many steps are done."""
        due, batch = self._due, len(self._due)
        steps = min(most, due[0][0] - self._steps)
        if upcoming is not None and not self._waiting and self._room(upcoming):
            steps = min(steps, self._decode.steps_within(upcoming.ready_s - self._now, batch, self._context))
        if self._fresh:
            first_s = self._now + self._decode.seconds(1, batch, self._context)
            for flight in self._fresh:
                flight.first_s = first_s
            self._fresh.clear()
        duration_s = self._decode.seconds(steps, batch, self._context)
        self._busy.add("decode", duration_s, batch)
        self._now += duration_s
        self._steps += steps
        self._context += steps * batch
        while due and due[0][0] == self._steps:
            flight = heapq.heappop(due)[2]
            flight.end_s = self._now
            self._held -= flight.prompt + flight.output
            self._context -= flight.prompt + flight.output
            self._tally.finish(flight)


def _prefill_and_send(setup: Setup, incoming: Iterator[Flight], tally: Tally) -> Iterator[Flight]:
    """The first device and the link of `dpd`: requests in the order in which their caches have arrived.

    A prompt holds its memory on the first device until its message has left.
    """
    prefill, capacity = setup.new.target_costs().prefill, setup.new.kv_tokens
    by_prefill = setup.first_token is FirstToken.PREFILL
    leaving: deque[tuple[float, int]] = deque()
    waiting: deque[Flight] = deque()
    held, now, link_free = 0, float("-inf"), float("-inf")
    upcoming = next(incoming, None)
    while waiting or upcoming is not None:
        if not waiting and upcoming is not None:
            now = max(now, upcoming.ready_s)
        while upcoming is not None and upcoming.ready_s <= now:
            waiting.append(upcoming)
            upcoming = next(incoming, None)
        while leaving and leaving[0][0] <= now:
            held -= leaving.popleft()[1]
        if capacity is not None and held + waiting[0].prompt > capacity:
            now = leaving[0][0]
            continue
        batch = _take(waiting, setup, None if capacity is None else capacity - held)
        tokens = sum(flight.prompt for flight in batch)
        duration_s = prefill.seconds(tokens, sum(flight.prompt * flight.prompt for flight in batch))
        tally.busy["new"].add("prefill", duration_s, len(batch))
        started_s, now = now, now + duration_s
        held += tokens
        for flight in batch:
            flight.started_s = started_s
            if by_prefill:
                flight.first_s = now
            if by_prefill and flight.output == 1:
                flight.end_s = now
                held -= flight.prompt
                tally.finish(flight)
                continue
            link_free = send(setup, flight, now, link_free, tally)
            leaving.append((link_free, flight.prompt))
            yield flight


def _take(waiting: deque[Flight], setup: Setup, room: int | None) -> list[Flight]:
    """The next prefill batch: at least one, as many as the limits allow."""
    batch = [waiting.popleft()]
    tokens = batch[0].prompt
    while waiting and len(batch) < setup.max_batch and setup.batching is not Batching.ALTERNATING:
        more = tokens + waiting[0].prompt
        if more > setup.max_prefill_tokens or (room is not None and more > room):
            break
        batch.append(waiting.popleft())
        tokens = more
    return batch
