"""Speculative rounds under iteration batching, many at a time: the same results as `rounds`, far sooner.

A request's rounds are drawn when it is admitted, so that its context before each of them is known. `spec-local` runs
one round after another on one device: coming rounds are a calendar of how many requests each holds and of how much
context, and all rounds until the next admission are timed at once. `dsd` is a ring of two devices and a serial link
whose messages arrive in the order in which they leave, so that three queues in order of time take the place of a heap.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.arrivals import Request
from harness_disaggregated_serving.simulator.costs import PhaseCosts
from harness_disaggregated_serving.simulator.draws import course
from harness_disaggregated_serving.simulator.quick_pair import serve_pair
from harness_disaggregated_serving.simulator.setup import Batching, FirstToken, Setup
from harness_disaggregated_serving.simulator.tally import Flight, Tally
from harness_disaggregated_serving.traffic import Wire

CALENDAR: Final = 1 << 14
"""Rounds that the calendar holds at first; it grows with the longest request."""


def can(setup: Setup) -> bool:
    """Whether the set-up is one for this path: a lazy wire asks back over the link, so its messages have no order."""
    lazy = setup.speculation is not None and setup.speculation.wire is Wire.LAZY
    pair = setup.configuration is Configuration.DSD
    return setup.configuration.speculates and setup.batching is Batching.ITERATION and not (lazy and pair)


def serve(setup: Setup, incoming: Iterable[Request], tally: Tally) -> None:
    """`spec-local` and `dsd`; results go to `tally`."""
    flights = _admissible(setup, incoming, tally)
    if setup.configuration.needs_old:
        serve_pair(setup, flights, tally)
    else:
        _LocalRounds(setup, tally).run(flights)


def _admissible(setup: Setup, incoming: Iterable[Request], tally: Tally) -> Iterator[Flight]:
    for request in incoming:
        flight = tally.arrive(request)
        reason = setup.rejection(flight.prompt + flight.output)
        if reason is None:
            yield flight
        else:
            tally.reject(reason)


class _Calendar:
    """Requests and context tokens of coming rounds, by the number of the round."""

    def __init__(self) -> None:
        self._first = 0
        self._requests = np.zeros(CALENDAR, np.int64)
        self._context = np.zeros(CALENDAR)

    def add(self, start: int, rounds: int, context: int, tokens: np.ndarray) -> None:
        """Rounds of a request from number `start` on; before each, its context is `context` and its tokens so far."""
        at = start - self._first
        if at + rounds > len(self._requests):
            self._forget(start, rounds)
            at = start - self._first
        self._requests[at : at + rounds] += 1
        self._context[at : at + rounds] += context
        self._context[at + 1 : at + rounds] += tokens[:-1]

    def _forget(self, start: int, rounds: int) -> None:
        """Drops what has passed, and makes room."""
        at = start - self._first
        kept_requests, kept_context = self._requests[at:], self._context[at:]
        size = max(CALENDAR, 2 * (len(kept_requests) + rounds))
        self._requests, self._context = np.zeros(size, np.int64), np.zeros(size)
        self._requests[: len(kept_requests)] = kept_requests
        self._context[: len(kept_context)] = kept_context
        self._first = start

    def ahead(self, start: int, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        """Requests and context of so many rounds from number `start` on."""
        at = start - self._first
        return self._requests[at : at + rounds], self._context[at : at + rounds]


class _Linear:
    """Time of a round's part: fixed + per request + per token of context."""

    def __init__(self, fixed_s: float, per_request_s: float, per_context_s: float) -> None:
        self.fixed_s, self.per_request_s, self.per_context_s = fixed_s, per_request_s, per_context_s

    @classmethod
    def draft(cls, costs: PhaseCosts, gamma: int) -> _Linear:
        """`gamma` decode steps."""
        decode = costs.decode
        growth_s = decode.per_context_s * gamma * (gamma - 1) / 2
        return cls(gamma * decode.fixed_s, gamma * decode.per_sequence_s + growth_s, gamma * decode.per_context_s)

    @classmethod
    def verify(cls, costs: PhaseCosts, gamma: int) -> _Linear:
        """A short prefill that reads its contexts."""
        width, prefill = gamma + 1, costs.prefill
        each_s = prefill.per_token_s * width + prefill.per_square_s * width * width
        return cls(prefill.fixed_s, each_s, costs.decode.per_context_s)


class _LocalRounds:
    """`spec-local`: prompts first, then a round of all that run."""

    def __init__(self, setup: Setup, tally: Tally) -> None:
        assert setup.speculation is not None
        self._setup, self._tally, self._speculation = setup, tally, setup.speculation
        self._target, self._draft = setup.new.target_costs(), setup.new.draft_costs()
        self._parts = {
            "draft": _Linear.draft(self._draft, setup.speculation.gamma),
            "verify": _Linear.verify(self._target, setup.speculation.gamma),
        }
        self._by_prefill = setup.first_token is FirstToken.PREFILL
        self._now = float("-inf")
        self._waiting: deque[Flight] = deque()
        self._prompts: deque[Flight] = deque()
        self._running = self._held = 0
        self._rounds = self._last = 0
        """Rounds so far, and the number of the last one that is planned."""
        self._due: list[tuple[int, int, Flight]] = []
        self._calendar = _Calendar()
        self._fresh: list[Flight] = []
        self._counts = np.zeros(setup.max_batch + 1)
        self._contexts = np.zeros(setup.max_batch + 1)
        """Rounds by the requests they held, and the context of all of them."""

    def run(self, incoming: Iterator[Flight]) -> None:
        """Serves requests that come in order of time, until all have ended."""
        upcoming = next(incoming, None)
        while True:
            while upcoming is not None and upcoming.arrival_s <= self._now:
                self._waiting.append(upcoming)
                upcoming = next(incoming, None)
            while self._waiting and self._room(self._waiting[0]):
                flight = self._waiting.popleft()
                self._running += 1
                self._held += flight.prompt + flight.output
                self._prompts.append(flight)
            if self._prompts:
                self._prefill()
            elif self._due:
                self._advance(upcoming)
            elif upcoming is not None:
                self._now = upcoming.arrival_s
            else:
                break
        self._book()

    def _room(self, flight: Flight) -> bool:
        if self._running >= self._setup.max_batch:
            return False
        capacity = self._setup.new.kv_tokens
        return capacity is None or self._held + flight.prompt + flight.output <= capacity

    def _prefill(self) -> None:
        batch = [self._prompts.popleft()]
        tokens, squares = batch[0].prompt, batch[0].prompt ** 2
        while self._prompts and tokens + self._prompts[0].prompt <= self._setup.max_prefill_tokens:
            batch.append(self._prompts.popleft())
            tokens += batch[-1].prompt
            squares += batch[-1].prompt ** 2
        duration_s = self._target.prefill.seconds(tokens, squares) + self._draft.prefill.seconds(tokens, squares)
        self._tally.busy["new"].add("prefill", duration_s, len(batch))
        for flight in batch:
            flight.started_s = self._now
        self._now += duration_s
        for flight in batch:
            if self._by_prefill:
                flight.first_s = self._now
            self._join(flight)

    def _join(self, flight: Flight) -> None:
        left = flight.output - 1 if self._by_prefill else flight.output
        if left == 0:
            self._end(flight, self._now)
            return
        rounds, accepted, tokens = course(self._speculation.seed, self._speculation.acceptance, flight.number, left)
        flight.rounds, flight.accepted, flight.proposed = rounds, accepted, rounds * self._speculation.gamma
        self._calendar.add(self._rounds, rounds, flight.prompt + flight.output - left, tokens)
        heapq.heappush(self._due, (self._rounds + rounds, flight.number, flight))
        self._last = max(self._last, self._rounds + rounds)
        if not self._by_prefill:
            self._fresh.append(flight)

    def _advance(self, upcoming: Flight | None) -> None:
        """All rounds until a request that has room comes, one that waits may get room, or nothing is left."""
        blocked = bool(self._waiting) or (upcoming is not None and not self._room(upcoming))
        most = (self._due[0][0] if blocked else self._last) - self._rounds
        requests, context = self._calendar.ahead(self._rounds, most)
        draft, verify = self._parts["draft"], self._parts["verify"]
        each_s = (draft.fixed_s + verify.fixed_s) + (draft.per_request_s + verify.per_request_s) * requests
        each_s += (draft.per_context_s + verify.per_context_s) * context
        ends = np.cumsum(each_s)
        if upcoming is not None and not blocked:
            most = min(most, int(ends.searchsorted(upcoming.arrival_s - self._now)) + 1)
        self._counts += np.bincount(requests[:most], minlength=len(self._counts))
        self._contexts += np.bincount(requests[:most], weights=context[:most], minlength=len(self._counts))
        for flight in self._fresh:
            flight.first_s = self._now + float(ends[0])
        self._fresh.clear()
        began_s, began = self._now, self._rounds
        self._now += float(ends[most - 1])
        self._rounds += most
        while self._due and self._due[0][0] <= self._rounds:
            due, _, flight = heapq.heappop(self._due)
            self._end(flight, began_s + float(ends[due - began - 1]))

    def _end(self, flight: Flight, now_s: float) -> None:
        flight.end_s = now_s
        self._tally.finish(flight)
        self._running -= 1
        self._held -= flight.prompt + flight.output

    def _book(self) -> None:
        for batch in np.flatnonzero(self._counts).tolist():
            count, context = float(self._counts[batch]), float(self._contexts[batch])
            for phase, part in self._parts.items():
                seconds = count * (part.fixed_s + part.per_request_s * batch) + part.per_context_s * context
                self._tally.busy["new"].add(phase, seconds, batch)
