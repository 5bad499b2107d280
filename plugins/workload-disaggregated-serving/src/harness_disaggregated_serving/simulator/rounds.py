"""Speculative rounds, `spec-local` and `dsd`, one event at a time: for every rule, and what `quick_rounds` is held to.

Both devices prefill the prompt, since the draft has a cache of its own; then draft, message, verdict, in turn. The
first token comes from the target's prefill, or from the first round under the rule `decode`. The prompt's ids and the
verdict's 8 bytes are not timed on the link, half a round trip lies on each way. The prompts of the two devices are
prefilled at the same time in `dsd`, one after the other in `spec-local`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from math import isnan

from harness_disaggregated_serving.load.arrivals import Request
from harness_disaggregated_serving.simulator.draws import course
from harness_disaggregated_serving.simulator.setup import Batching, FirstToken, Setup, SimulatedDevice, Speculation
from harness_disaggregated_serving.simulator.tally import Busy, Flight, Tally
from harness_disaggregated_serving.traffic import VERDICT_BYTES, Wire


class _Speculating:
    """A request between its rounds."""

    __slots__ = ("flight", "kept", "left", "prefills")

    def __init__(self, flight: Flight, left: int, prefills: int, kept: Sequence[int]) -> None:
        self.flight = flight
        self.left = left
        self.prefills = prefills
        self.kept = kept
        """Proposals kept in each of its rounds."""

    @property
    def context(self) -> int:
        """Tokens in its cache."""
        return self.flight.prompt + self.flight.output - self.left


Done = Callable[[Sequence[_Speculating]], None]
Parts = Mapping[str, float]
"""Seconds of a job by phase."""
Duration = Callable[[Sequence[_Speculating]], Parts]


class Clock:
    """Events in order of time, first planned first among equals. Time never goes back."""

    def __init__(self) -> None:
        self.now_s = float("-inf")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, moment_s: float, event: Callable[[], None]) -> None:
        """Plans an event; raises RuntimeError for one in the past."""
        if not moment_s >= self.now_s:
            raise RuntimeError(f"an event at {moment_s} s is planned at {self.now_s} s")
        self._number += 1
        heapq.heappush(self._events, (moment_s, self._number, event))

    def run(self) -> None:
        """Until no event is left."""
        while self._events:
            self.now_s, _, event = heapq.heappop(self._events)
            event()


class Device:
    """A device that prefills and does its part of rounds, one job at a time or without slowdown."""

    def __init__(self, clock: Clock, setup: Setup, busy: Busy, part: str, prefill: Duration, work: Duration) -> None:
        self._clock, self._busy = clock, busy
        self._together = setup.batching is Batching.ITERATION
        self._most_tokens = setup.max_prefill_tokens
        self._part = part
        self._durations = {"prefill": prefill, part: work}
        self._waiting: dict[str, deque[_Speculating]] = {"prefill": deque(), part: deque()}
        self._done: dict[str, Done] = {}
        self._occupied = self._planned = False

    def tell(self, prefilled: Done, worked: Done) -> None:
        """Says whom to call with the requests of a finished job."""
        self._done = {"prefill": prefilled, self._part: worked}

    def prefill(self, one: _Speculating) -> None:
        """A prompt comes."""
        self._waiting["prefill"].append(one)
        self._look()

    def work(self, one: _Speculating) -> None:
        """A request wants its part of a round."""
        self._waiting[self._part].append(one)
        self._look()

    def _look(self) -> None:
        """Looks for work after everything of this moment has come, so that one batch holds it all."""
        if not self._planned:
            self._planned = True
            self._clock.at(self._clock.now_s, self._start)

    def _start(self) -> None:
        self._planned = False
        if not self._occupied and self._waiting["prefill"]:
            self._occupied = True
            self._job("prefill", self._prompts())
        if self._together and self._occupied:
            return
        waiting = self._waiting[self._part]
        while waiting:
            batch = list(waiting) if self._together else [waiting.popleft()]
            if self._together:
                waiting.clear()
                self._occupied = True  # one job at a time, of either kind
            self._job(self._part, batch)

    def _prompts(self) -> list[_Speculating]:
        waiting = self._waiting["prefill"]
        batch = [waiting.popleft()]
        tokens = batch[0].flight.prompt
        while self._together and waiting and tokens + waiting[0].flight.prompt <= self._most_tokens:
            batch.append(waiting.popleft())
            tokens += batch[-1].flight.prompt
        return batch

    def _job(self, phase: str, batch: list[_Speculating]) -> None:
        parts = self._durations[phase](batch)
        duration_s = sum(parts.values())
        now = self._clock.now_s
        if phase == "prefill":
            for one in batch:
                if isnan(one.flight.started_s):
                    one.flight.started_s = now
        if self._together:
            for part, seconds in parts.items():
                self._busy.add(part, seconds, len(batch))
        else:
            self._busy.begin(now)

        def ended() -> None:
            if not self._together:
                self._busy.end(self._clock.now_s)
            if self._together or phase == "prefill":
                self._occupied = False
            self._done[phase](batch)
            self._look()

        self._clock.at(now + duration_s, ended)


class Rounds:
    """One simulation of `spec-local` or `dsd`."""

    def __init__(self, setup: Setup, tally: Tally) -> None:
        assert setup.speculation is not None
        self._setup, self._tally = setup, tally
        self._speculation: Speculation = setup.speculation
        self._clock = Clock()
        self._by_prefill = setup.first_token is FirstToken.PREFILL
        self._admission: deque[Flight] = deque()
        self._running = self._held = 0
        limits = [device.kv_tokens for device in setup.devices.values() if device.kv_tokens is not None]
        self._capacity = min(limits) if limits else None
        self._link_free_s = float("-inf")
        self._drafter: Device | None = None
        target, speculation = setup.new.target_costs(), self._speculation

        def verify_s(batch: Sequence[_Speculating]) -> Parts:
            return {"verify": target.verify_s(len(batch), speculation.gamma, sum(one.context for one in batch))}

        def target_prefill_s(batch: Sequence[_Speculating]) -> Parts:
            return {"prefill": target.prefill.seconds(*_prompt_sums(batch))}

        if setup.configuration.needs_old and setup.old is not None:
            draft_s, draft_prefill_s = _draft_times(setup.old, speculation)
            self._target = Device(self._clock, setup, tally.busy["new"], "verify", target_prefill_s, verify_s)
            self._drafter = Device(self._clock, setup, tally.busy["old"], "draft", draft_prefill_s, draft_s)
            self._drafter.tell(self._draft_prefilled, self._drafted)
        else:
            draft_s, draft_prefill_s = _draft_times(setup.new, speculation)
            self._target = Device(
                self._clock,
                setup,
                tally.busy["new"],
                "round",
                lambda batch: {"prefill": target_prefill_s(batch)["prefill"] + draft_prefill_s(batch)["prefill"]},
                lambda batch: {**draft_s(batch), **verify_s(batch)},
            )
        self._target.tell(self._target_prefilled, self._judged)

    def run(self, incoming: Iterable[Request]) -> None:
        """Serves requests that come in order of time, until all have ended."""
        self._next_arrival(iter(incoming))
        self._clock.run()

    def _next_arrival(self, incoming: Iterator[Request]) -> None:
        request = next(incoming, None)
        if request is None:
            return
        flight = self._tally.arrive(request)

        def arrived() -> None:
            reason = self._setup.rejection(flight.prompt + flight.output)
            if reason is None:
                self._admission.append(flight)
                self._admit()
            else:
                self._tally.reject(reason)
            self._next_arrival(incoming)

        self._clock.at(flight.arrival_s, arrived)

    def _admit(self) -> None:
        limited = self._setup.batching is Batching.ITERATION
        while self._admission:
            size = self._admission[0].prompt + self._admission[0].output
            full = self._running >= self._setup.max_batch
            if limited and (full or (self._capacity is not None and self._held + size > self._capacity)):
                return
            flight = self._admission.popleft()
            self._running += 1
            self._held += size
            left = flight.output - 1 if self._by_prefill else flight.output
            drafts = self._drafter is not None and left > 0
            one = _Speculating(flight, left, 2 if drafts else 1, self._kept(flight, left))
            self._target.prefill(one)
            if drafts and self._drafter is not None:
                self._drafter.prefill(one)

    def _kept(self, flight: Flight, left: int) -> Sequence[int]:
        if not left:
            return ()
        found = course(self._speculation.seed, self._speculation.acceptance, flight.number, left)
        return [after - before - 1 for before, after in pairwise([0, *found.tokens.tolist()])]

    # Events

    def _target_prefilled(self, batch: Sequence[_Speculating]) -> None:
        for one in batch:
            if self._by_prefill:
                one.flight.first_s = self._clock.now_s
            self._prefilled(one)

    def _draft_prefilled(self, batch: Sequence[_Speculating]) -> None:
        for one in batch:
            self._prefilled(one)

    def _prefilled(self, one: _Speculating) -> None:
        one.prefills -= 1
        if one.prefills == 0:
            if one.left == 0:
                self._end(one)
            else:
                self._propose(one)

    def _propose(self, one: _Speculating) -> None:
        (self._drafter or self._target).work(one)

    def _drafted(self, batch: Sequence[_Speculating]) -> None:
        for one in batch:
            self._send(one, self._speculation.message_bytes, partial(self._target.work, one))

    def _send(self, one: _Speculating, size: int, arrived: Callable[[], None]) -> None:
        link = self._setup.link
        assert link is not None
        now = self._clock.now_s
        self._link_free_s = max(now, self._link_free_s) + size / link.bandwidth
        self._tally.link_busy_s += size / link.bandwidth
        one.flight.bytes_sent += size
        one.flight.transfer_s += self._link_free_s + link.rtt_s / 2 - now
        self._clock.at(self._link_free_s + link.rtt_s / 2, arrived)

    def _judged(self, batch: Sequence[_Speculating]) -> None:
        for one in batch:
            flight = one.flight
            kept = one.kept[flight.rounds]
            flight.rounds += 1
            flight.proposed += self._speculation.gamma
            flight.accepted += kept
            if self._drafter is None:
                self._emit(one, kept + 1)
            elif self._speculation.wire is Wire.LAZY and kept < self._speculation.gamma:
                self._after_half_a_trip(partial(self._ask_row, one, kept))
            else:
                self._emit(one, kept + 1)

    def _ask_row(self, one: _Speculating, kept: int) -> None:
        """The lazy wire's second trip: the row of the rejected proposal, from which the target draws its own token."""
        self._send(one, self._speculation.row_bytes, partial(self._emit, one, kept + 1))

    def _after_half_a_trip(self, event: Callable[[], None]) -> None:
        assert self._setup.link is not None
        self._clock.at(self._clock.now_s + self._setup.link.rtt_s / 2, event)

    def _emit(self, one: _Speculating, tokens: int) -> None:
        flight = one.flight
        if isnan(flight.first_s):
            flight.first_s = self._clock.now_s
        one.left -= min(tokens, one.left)
        if self._drafter is not None:
            flight.bytes_returned += VERDICT_BYTES
        if one.left == 0:
            self._end(one)
        elif self._drafter is not None:
            self._after_half_a_trip(partial(self._propose, one))
        else:
            self._propose(one)

    def _end(self, one: _Speculating) -> None:
        one.flight.end_s = self._clock.now_s
        self._tally.finish(one.flight)
        self._running -= 1
        self._held -= one.flight.prompt + one.flight.output
        self._admit()


def _prompt_sums(batch: Sequence[_Speculating]) -> tuple[int, int]:
    prompts = [one.flight.prompt for one in batch]
    return sum(prompts), sum(prompt * prompt for prompt in prompts)


def _draft_times(device: SimulatedDevice, speculation: Speculation) -> tuple[Duration, Duration]:
    costs = device.draft_costs()

    def draft_s(batch: Sequence[_Speculating]) -> Parts:
        return {"draft": costs.decode.seconds(speculation.gamma, len(batch), sum(one.context for one in batch))}

    return draft_s, lambda batch: {"prefill": costs.prefill.seconds(*_prompt_sums(batch))}
