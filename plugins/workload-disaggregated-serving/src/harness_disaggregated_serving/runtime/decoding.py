"""Duties that decode token by token: the whole model on one role, prefill on one and decoding on the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from harness_disaggregated_serving.runtime.desk import Desk, Duty, Served, from_wire, prompt_of, to_wire
from harness_disaggregated_serving.runtime.engine import Running
from harness_disaggregated_serving.transport.link import Message


class Standalone(Duty):
    """Prefill and decoding of one model: an iteration computes at most one waiting prompt, then a token for all."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.engine = desk.engines["target"]
        self.waiting: deque[Served] = deque()
        self.running: list[Served] = []

    def take(self, message: Message) -> None:
        """Queues the request."""
        room = int(message.fields["output_tokens"])
        self.waiting.append(self.desk.admit(message.fields, prompt_of(message), self.engine, room))

    def has_work(self) -> bool:
        """Whether a prompt waits or a request is running."""
        return bool(self.waiting or self.running)

    def iterate(self) -> None:
        """A prompt, then a token for every running request."""
        if self.waiting:
            self.prefill(self.waiting.popleft())
        self.decode()

    def prefill(self, served: Served) -> None:
        """Computes a prompt and emits its first token."""
        self.desk.tell("begun", name=served.name)
        with self.desk.working():
            token = served.choose(self.engine.prefill(served.running))
        self.emit([(served, token)])

    def decode(self) -> None:
        """One token for every running request."""
        if not self.running:
            return
        with self.desk.working():
            rows = self.engine.advance([served.running for served in self.running])
            drawn = [(served, served.choose(row[-1])) for served, row in zip(self.running, rows, strict=True)]
        self.emit(drawn)

    def emit(self, drawn: list[tuple[Served, int]]) -> None:
        """Tells the client new tokens and keeps the requests that want more."""
        for served, token in drawn:
            served.running.tokens.append(token)
        self.desk.tell("tokens", events=[[served.name, served.generated - 1, [token]] for served, token in drawn])
        new = [served for served, _ in drawn if served.generated == 1]
        self.running = [s for s in [*self.running, *new] if s.generated < s.output_tokens]

    def drop(self, name: str) -> None:
        """Forgets a request."""
        self.waiting = deque(served for served in self.waiting if served.name != name)
        self.running = [served for served in self.running if served.name != name]


class Prefiller(Standalone):
    """Computes prompts and sends each one's cache to the decoding role."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._fields: dict[str, Mapping[str, Any]] = {}
        self._sent_s: dict[str, float] = {}

    @property
    def handlers(self) -> Mapping[str, Callable[[Message], None]]:
        """Requests from the client; from the decoding role on another machine, that a cache is there."""
        return {"request": self.take, "placed": self.placed}

    def take(self, message: Message) -> None:
        """Queues the request; its cache holds the prompt only."""
        self.waiting.append(self.desk.admit(message.fields, prompt_of(message), self.engine, 0))
        self._fields[message.fields["name"]] = message.fields

    def emit(self, drawn: list[tuple[Served, int]]) -> None:
        """Emits the first token, unless the decoding role does, and moves the cache."""
        for served, token in drawn:
            fields = self._fields.pop(served.name)
            if self.desk.settings.first_token == "prefill":  # noqa: S105 - no password
                self.desk.tell("tokens", events=[[served.name, 0, [token]]])
                if served.output_tokens == 1:
                    continue
            prompt = list(served.running.tokens)
            pieces = [to_wire(piece) for piece in served.running.cache.pieces()]
            if self.desk.peer is not None and not self.desk.peer.one_clock:
                self._sent_s[served.name] = time.monotonic()
            # The generator has spent one number on the first token; the decoder skips it.
            self.desk.to_peer("cache", {"request": dict(fields), "prompt": prompt, "first": token}, pieces)

    def placed(self, message: Message) -> None:
        """Tells a transfer's time where the machines' clocks differ: until the answer came, its way back included."""
        assert self.desk.peer is not None, "the answer came from it"
        name = message.fields["name"]
        taken_s = time.monotonic() - self._sent_s.pop(name) - self.desk.peer.latency_s
        self.desk.tell("timed", name=name, transfer_s=taken_s)


class Decoder(Standalone):
    """Receives caches and decodes."""

    @property
    def handlers(self) -> Mapping[str, Callable[[Message], None]]:
        """Caches come from the prefilling role; the client sends nothing here."""
        return {"cache": self.receive}

    def receive(self, message: Message) -> None:
        """Puts a moved cache in place and continues where the prefilling role stopped."""
        fields: Mapping[str, Any] = message.fields["request"]
        prompt = list(message.fields["prompt"])
        served = self.desk.admit(fields, prompt, self.engine, int(fields["output_tokens"]))
        with self.desk.working():
            self._place(served.running, message.body)
            served.uniform()
        if message.transfer_s is None:
            self.desk.to_peer("placed", {"name": served.name})
        self.desk.tell("moved", name=served.name, transfer_s=message.transfer_s, bytes=len(message.body))
        token = int(message.fields["first"])
        if self.desk.settings.first_token == "decode":  # noqa: S105 - no password
            self.emit([(served, token)])
        else:
            served.running.tokens.append(token)
            self.running.append(served)

    def _place(self, running: Running, body: memoryview) -> None:
        cache = running.cache
        cache.length = len(running.tokens)
        pieces = cache.pieces()
        values = from_wire(body, self.engine.model.dtype)
        for target, source in zip(pieces, values.chunk(len(pieces)), strict=True):
            target.copy_(source.view(target.shape))
