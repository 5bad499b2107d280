"""`dsd` under iteration batching: a ring of two devices and a serial link, with three queues in order of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from math import inf, isnan

from harness_disaggregated_serving.simulator.draws import course
from harness_disaggregated_serving.simulator.setup import FirstToken, Setup
from harness_disaggregated_serving.simulator.tally import Flight, Tally
from harness_disaggregated_serving.traffic import VERDICT_BYTES


class _Turn:
    """A request on its way around the ring."""

    __slots__ = ("context", "contexts", "flight", "pending", "round", "transfer_s")

    def __init__(self, flight: Flight, contexts: list[int], pending: int) -> None:
        self.flight = flight
        self.contexts = contexts
        """Tokens in its cache after each round."""
        self.context = 0
        self.round = 0
        self.pending = pending
        """Prefills that it still waits for."""
        self.transfer_s = 0.0


class _Pair:
    """Admission, prefills and ends."""

    def __init__(self, setup: Setup, tally: Tally) -> None:
        assert setup.speculation is not None
        assert setup.old is not None
        self.setup, self.tally, self.speculation = setup, tally, setup.speculation
        self.by_prefill = setup.first_token is FirstToken.PREFILL
        self.admission: deque[Flight] = deque()
        self.target_prompts: deque[_Turn] = deque()
        self.draft_prompts: deque[_Turn] = deque()
        self.ready: list[_Turn] = []
        """Requests that may draft."""
        self.running = self.held = 0
        limits = [device.kv_tokens for device in setup.devices.values() if device.kv_tokens is not None]
        self.capacity = min(limits) if limits else inf
        self.target_costs, self.draft_costs = setup.new.target_costs(), setup.old.draft_costs()

    def admit(self) -> None:
        """Takes in what has room."""
        while self.admission:
            flight = self.admission[0]
            size = flight.prompt + flight.output
            if self.running >= self.setup.max_batch or self.held + size > self.capacity:
                return
            self.admission.popleft()
            self.running += 1
            self.held += size
            left = flight.output - 1 if self.by_prefill else flight.output
            contexts: list[int] = []
            if left:
                found = course(self.speculation.seed, self.speculation.acceptance, flight.number, left)
                flight.rounds, flight.accepted = found.rounds, found.accepted
                contexts = (found.tokens + (flight.prompt + flight.output - left)).tolist()
            turn = _Turn(flight, contexts, 2 if left else 1)
            turn.context = flight.prompt + flight.output - left
            self.target_prompts.append(turn)
            if left:
                self.draft_prompts.append(turn)

    def prompts(self, waiting: deque[_Turn]) -> tuple[list[_Turn], int, int]:
        """The next prefill batch, its tokens and the sum of their squares."""
        batch = [waiting.popleft()]
        tokens, squares = batch[0].flight.prompt, batch[0].flight.prompt ** 2
        while waiting and tokens + waiting[0].flight.prompt <= self.setup.max_prefill_tokens:
            batch.append(waiting.popleft())
            tokens += batch[-1].flight.prompt
            squares += batch[-1].flight.prompt ** 2
        return batch, tokens, squares

    def start_prefill(self, role: str, now_s: float) -> tuple[list[_Turn], float]:
        """A prefill batch of a device, and when it ends."""
        target = role == "new"
        batch, tokens, squares = self.prompts(self.target_prompts if target else self.draft_prompts)
        costs = self.target_costs if target else self.draft_costs
        seconds = costs.prefill.seconds(tokens, squares)
        self.tally.busy[role].add("prefill", seconds, len(batch))
        for turn in batch:
            if isnan(turn.flight.started_s):
                turn.flight.started_s = now_s
        return batch, now_s + seconds

    def prefilled(self, batch: Sequence[_Turn], now_s: float, *, target: bool) -> None:
        """A prefill has ended."""
        for turn in batch:
            if target and self.by_prefill:
                turn.flight.first_s = now_s
            turn.pending -= 1
            if turn.pending == 0:
                if turn.contexts:
                    self.ready.append(turn)
                else:
                    self.end(turn, now_s)

    def end(self, turn: _Turn, now_s: float) -> None:
        """A request has all its tokens."""
        flight, speculation, link = turn.flight, self.speculation, self.setup.link
        assert link is not None
        flight.end_s = now_s
        flight.transfer_s = turn.transfer_s
        flight.proposed = flight.rounds * speculation.gamma
        flight.bytes_sent = flight.rounds * speculation.message_bytes
        flight.bytes_returned = flight.rounds * VERDICT_BYTES
        self.tally.link_busy_s += flight.rounds * (speculation.message_bytes / link.bandwidth)
        self.tally.finish(flight)
        self.running -= 1
        self.held -= flight.prompt + flight.output
        self.admit()


class _Ring(_Pair):
    """The rounds: draft, message, verdict, in turn.

    A device that is idle starts on the next message before its time has come, where nothing else can reach it sooner:
    messages and verdicts come in the order in which they are sent.
    """

    def __init__(self, setup: Setup, tally: Tally) -> None:
        super().__init__(setup, tally)
        link, speculation = setup.link, self.speculation
        assert link is not None
        self.message_s, self.half_s = speculation.message_bytes / link.bandwidth, link.rtt_s / 2
        self.drafted_s = [0.0] * (setup.max_batch + 1)
        self.verified_s = [0.0] * (setup.max_batch + 1)
        gamma, batches = speculation.gamma, range(setup.max_batch + 1)
        self.verify_base_s = [self.target_costs.verify_s(batch, gamma, 0) for batch in batches]
        self.verify_context_s = self.target_costs.decode.per_context_s
        self.draft_base_s = [self.draft_costs.decode.seconds(gamma, batch, 0) for batch in batches]
        self.draft_context_s = gamma * self.draft_costs.decode.per_context_s
        self.at_target: deque[tuple[float, _Turn]] = deque()
        self.verdicts: deque[tuple[float, _Turn]] = deque()
        self.target_job: list[_Turn] = []
        self.draft_job: list[_Turn] = []
        self.target_prefills = self.draft_prefills = False
        self.target_end = self.draft_end = inf
        self.link_free = -inf

    def run(self, incoming: Iterator[Flight]) -> None:
        """Serves requests that come in order of time, until all have ended."""
        upcoming = next(incoming, None)
        arrival = inf if upcoming is None else upcoming.arrival_s
        while True:
            now, target_end, draft_end = arrival, self.target_end, self.draft_end
            if target_end < now:
                now = target_end
            elif target_end == inf and self.at_target and self.at_target[0][0] < now:
                now = self.at_target[0][0]
            if draft_end < now:
                now = draft_end
            elif draft_end == inf and self.verdicts and self.verdicts[0][0] < now:
                now = self.verdicts[0][0]
            if now == inf:
                break
            if target_end == now:
                self._target_ended(now)
            if draft_end == now:
                self._draft_ended(now)
            while arrival <= now and upcoming is not None:
                self.admission.append(upcoming)
                self.admit()
                upcoming = next(incoming, None)
                arrival = inf if upcoming is None else upcoming.arrival_s
            if self.target_end == inf:
                self._start_target(now, arrival)
            if self.draft_end == inf:
                self._start_draft(now, arrival)
        self._book()

    def _come_back(self, now_s: float) -> None:
        """Requests whose verdict has arrived may draft."""
        while self.verdicts and self.verdicts[0][0] <= now_s:
            self.ready.append(self.verdicts.popleft()[1])

    def _target_ended(self, now: float) -> None:
        self.target_end = inf
        if self.target_prefills:
            self._come_back(now)
            self.prefilled(self.target_job, now, target=True)
            return
        back = now + self.half_s
        for turn in self.target_job:
            done = turn.round
            if done == 0 and not self.by_prefill:
                turn.flight.first_s = now
            turn.context = turn.contexts[done]
            turn.round = done = done + 1
            if done == turn.flight.rounds:
                self.end(turn, now)
            else:
                self.verdicts.append((back, turn))

    def _draft_ended(self, now: float) -> None:
        self.draft_end = inf
        if self.draft_prefills:
            self._come_back(now)
            self.prefilled(self.draft_job, now, target=False)
            return
        free, message_s, half_s = self.link_free, self.message_s, self.half_s
        for turn in self.draft_job:
            free = (free if free > now else now) + message_s  # noqa: FURB136 - a call for each message costs more
            turn.transfer_s += free + half_s - now
            self.at_target.append((free + half_s, turn))
        self.link_free = free

    def _start_target(self, now: float, arrival: float) -> None:
        if self.target_prompts:
            self.target_prefills = True
            self.target_job, self.target_end = self.start_prefill("new", now)
            return
        queue = self.at_target
        if not queue or (queue[0][0] > now and queue[0][0] >= arrival):
            return
        start, turn = queue.popleft()
        start = start if start > now else now  # noqa: FURB136 - as above
        job, context = [turn], turn.context
        while queue and queue[0][0] <= start:
            turn = queue.popleft()[1]
            job.append(turn)
            context += turn.context
        batch = len(job)
        seconds = self.verify_base_s[batch] + self.verify_context_s * context
        self.verified_s[batch] += seconds
        self.target_prefills, self.target_job, self.target_end = False, job, start + seconds

    def _start_draft(self, now: float, arrival: float) -> None:
        if self.draft_prompts:
            self.draft_prefills = True
            self.draft_job, self.draft_end = self.start_prefill("old", now)
            return
        start = now
        if not self.ready:
            if not self.verdicts:
                return
            start = self.verdicts[0][0]
            if start <= now:
                start = now
            elif start >= arrival or (self.target_prefills and start >= self.target_end):
                return
        verdicts, job = self.verdicts, self.ready
        while verdicts and verdicts[0][0] <= start:
            job.append(verdicts.popleft()[1])
        self.ready = []
        batch, context = len(job), 0
        for turn in job:
            context += turn.context
        seconds = self.draft_base_s[batch] + self.draft_context_s * context
        self.drafted_s[batch] += seconds
        self.draft_prefills, self.draft_job, self.draft_end = False, job, start + seconds

    def _book(self) -> None:
        for role, phase, spent in (("old", "draft", self.drafted_s), ("new", "verify", self.verified_s)):
            for batch, seconds in enumerate(spent):
                if seconds:
                    self.tally.busy[role].add(phase, seconds, batch)


def serve_pair(setup: Setup, incoming: Iterator[Flight], tally: Tally) -> None:
    """Serves requests that come in order of time, until all have ended; results go to `tally`."""
    _Ring(setup, tally).run(incoming)
