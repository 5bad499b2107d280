"""Sends the requests of a window: an open loop, where arrivals never wait, or a closed one of so many users."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from harness_disaggregated_serving.endpoint.answer import Answer
from harness_disaggregated_serving.endpoint.client import Asking, Policy, encoded
from harness_disaggregated_serving.endpoint.options import EndpointOptions
from harness_disaggregated_serving.endpoint.planned import Load, Planned, body_of


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was sent.

    Attributes:
        item_id: of its row.
        turn: which of its conversation, from 0.
        answer: what came of it.
    """

    item_id: str
    turn: int
    answer: Answer


@dataclass(slots=True)
class Watch:
    """What is seen of a stream while it runs, for whoever decides when it is steady.

    Attributes:
        sent: requests so far.
        ended: latencies of those that ended.
        last_due_s: when the last request is due, where that is known beforehand.
        all_sent: whether no further request will be sent by schedule.
    """

    sent: int = 0
    ended: list[float] = field(default_factory=list)
    last_due_s: float | None = None
    all_sent: bool = False

    @property
    def in_flight(self) -> int:
        """Requests that were sent and have not ended."""
        return self.sent - len(self.ended)


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """What the client itself took.

    Attributes:
        cpu_s: processor time of its thread.
        elapsed_s: from the first request to the last answer.
        chunks: chunks that it read.
    """

    cpu_s: float
    elapsed_s: float
    chunks: int

    @property
    def per_chunk_s(self) -> float | None:
        """Processor time a chunk; None where none came."""
        return self.cpu_s / self.chunks if self.chunks else None


class Driver:
    """Sends requests over one session.

    Args:
        session: that is open.
        policy: how each request is asked.
        options: of the workload.
        clock: seconds since the window opened.
    """

    def __init__(
        self, session: aiohttp.ClientSession, policy: Policy, options: EndpointOptions, clock: Callable[[], float]
    ) -> None:
        self._session, self._policy, self._options, self._clock = session, policy, options, clock
        self.watch = Watch()
        self.asked: list[Asked] = []
        self.load = ClientLoad(0.0, 0.0, 0)

    async def run(self, planned: Sequence[Planned], load: Load) -> list[Asked]:
        """Sends all of it and waits for every answer; the requests in the order of their rows."""
        cpu_s, began_s = time.thread_time(), self._clock()
        if self._options.concurrency is None:
            await self._open(planned, began_s)
        else:
            await self._closed(planned, load, began_s)
        chunks = sum(len(asked.answer.times) for asked in self.asked)
        self.load = ClientLoad(time.thread_time() - cpu_s, self._clock() - began_s, chunks)
        self.asked.sort(key=lambda asked: (asked.answer.due_s, asked.item_id))
        return self.asked

    async def _open(self, planned: Sequence[Planned], began_s: float) -> None:
        self.watch.last_due_s = began_s + max((each.arrival_s or 0.0 for each in planned), default=0.0)

        async def one(each: Planned) -> None:
            due_s = began_s + (each.arrival_s or 0.0)
            await self._until(due_s)
            await self._talk(each, due_s)

        tasks = [asyncio.ensure_future(one(each)) for each in planned]
        await asyncio.gather(*tasks)
        self.watch.all_sent = True

    async def _closed(self, planned: Sequence[Planned], load: Load, began_s: float) -> None:
        users, options = self._options.concurrency or 1, self._options
        ends_s = None if options.duration is None else began_s + options.duration
        self.watch.last_due_s = ends_s
        waiting = _endless(planned, load) if ends_s is not None else iter(planned)

        async def user(number: int) -> None:
            await self._until(began_s + options.ramp * number / users)
            while ends_s is None or self._clock() < ends_s:
                each = next(waiting, None)
                if each is None:
                    break
                await self._talk(each, self._clock())
            self.watch.all_sent = True

        await asyncio.gather(*(user(number) for number in range(users)))

    async def _until(self, due_s: float) -> None:
        left_s = due_s - self._clock()
        if left_s > 0:
            await asyncio.sleep(left_s)

    async def _talk(self, each: Planned, due_s: float) -> None:
        """The turns of a conversation; what fails ends it, since the next turn would have nothing to follow."""
        said: list[str] = []
        for turn in range(len(each.turns)):
            body = each.body if turn == 0 else encoded(body_of(self._options, each.turns, tuple(said)))
            answer = await self._ask(body, due_s)
            name = f"r{each.number}" if len(each.turns) == 1 else f"r{each.number}.{turn}"
            self.asked.append(Asked(name, turn, answer))
            if not answer.finished:
                return
            said.append(answer.text)
            if turn + 1 < len(each.turns):
                due_s = self._clock() + self._options.prompts.think_time
                await self._until(due_s)

    async def _ask(self, body: bytes, due_s: float) -> Answer:
        self.watch.sent += 1
        began_s = self._clock()
        answer = await Asking(self._session, body, self._policy, self._clock).run()
        answer.due_s = due_s
        if answer.end_s is None:
            answer.end_s = self._clock()
        self.watch.ended.append(self._clock() - began_s)
        return answer


def _endless(planned: Sequence[Planned], load: Load) -> Iterator[Planned]:
    yield from planned
    yield from load.further(len(planned))


def new_session(headers: dict[str, str], ssl_context: Any, *, proxies: bool) -> aiohttp.ClientSession:
    """A session whose requests never wait for each other's connections; made in a running loop."""
    connector = aiohttp.TCPConnector(limit=0, ssl=ssl_context, keepalive_timeout=30)
    return aiohttp.ClientSession(connector=connector, headers=headers, trust_env=proxies, auto_decompress=True)
