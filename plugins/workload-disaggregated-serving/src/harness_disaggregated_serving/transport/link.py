"""A link: authenticated, checked messages in both directions, over TCP and, on one host, a shared ring.

The messages of several links meet in an inbox, one queue that a single thread reads.
"""

from __future__ import annotations

import heapq
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from harness_disaggregated_serving.transport.faults import CorruptFrame, LinkClosed, LinkError, LinkStalled, Oversize
from harness_disaggregated_serving.transport.framing import (
    DESCRIPTION_LIMIT,
    HEADER_BYTES,
    PART_BYTES,
    FrameKind,
    Header,
    verify,
)
from harness_disaggregated_serving.transport.ring import RingReader, RingWriter
from harness_disaggregated_serving.transport.shaping import TokenBucket
from harness_disaggregated_serving.transport.stream import Stream, Traffic

_RING_FROM: Final = 1 << 15
"""Shorter pieces go inline: the socket is faster for them than a slot."""
_SHAPED_PART_S: Final = 0.02
"""A shaped link sends pieces of about so many seconds, so that the peer is never left in silence."""


class Carrier(StrEnum):
    """How bodies travel."""

    AUTO = "auto"
    """Through a shared ring where both ends are on one host, else over TCP."""
    TCP = "tcp"
    RING = "ring"
    """Through a shared ring; a peer that cannot map it is refused."""


def _new_body(_description: Mapping[str, Any], length: int) -> memoryview:
    return memoryview(bytearray(length))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """Settings of one end of a link.

    Attributes:
        carrier: how bodies travel.
        timeout_s: longest silence of the peer, longest time for one frame, longest wait for room in a queue or ring.
        max_message_bytes: largest body that is accepted.
        queued_bytes: bodies waiting to be sent before `send` blocks.
        bytes_per_s: shaped bandwidth of what this end sends; None for none.
        latency_s: emulated one-way delay of what this end receives.
        one_clock: whether both ends read the monotonic clock of one machine.
        allocate: description, length -> where a body is received; a bytearray if not given. It must be writable,
            contiguous and of that many bytes.
    """

    carrier: Carrier = Carrier.AUTO
    timeout_s: float = 10.0
    max_message_bytes: int = 1 << 32
    queued_bytes: int = 1 << 28
    bytes_per_s: float | None = None
    latency_s: float = 0.0
    one_clock: bool = True
    allocate: Callable[[Mapping[str, Any], int], memoryview] = _new_body


@dataclass(frozen=True, slots=True)
class Message:
    """A received message.

    Attributes:
        kind: what it is about.
        fields: its description; JSON values.
        body: raw bytes.
        transfer_s: from when its sender began to send it to when its last byte was here, the emulated latency
            included. None where the ends read different clocks.
    """

    kind: str
    fields: Mapping[str, Any]
    body: memoryview
    transfer_s: float | None


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


@dataclass(frozen=True, slots=True)
class _Outgoing:
    kind: str
    fields: Mapping[str, Any]
    pieces: Sequence[memoryview]
    length: int


@dataclass(slots=True)
class Rings:
    """The shared rings of one end; None for a direction that goes over TCP."""

    writer: RingWriter | None = None
    reader: RingReader | None = None


@dataclass(slots=True)
class _Queue:
    """What waits to be sent, bounded by bytes."""

    limit: int
    waiting: queue.SimpleQueue[_Outgoing | None] = field(default_factory=queue.SimpleQueue)
    room: threading.Condition = field(default_factory=threading.Condition)
    held: int = 0


class Link:
    """One end of a link. A thread sends, a thread receives into an inbox; a fault arrives there once and is final.

    Args:
        stream: connected and authenticated.
        rings: shared rings, where both ends agreed on them.
        inbox: receives messages and, at the end, the fault.
        options: of this end.
        name: of the peer, for messages to people.
    """

    def __init__(self, stream: Stream, rings: Rings, inbox: Inbox, options: LinkOptions, name: str) -> None:
        self.name = name
        self.latency_s = options.latency_s
        self.one_clock = options.one_clock
        self.sent = Traffic()
        self.received = Traffic()
        self.carrier = Carrier.RING if rings.writer is not None else Carrier.TCP
        self._stream = stream
        self._rings = rings
        self._inbox = inbox
        self._options = options
        self._bucket = TokenBucket(options.bytes_per_s) if options.bytes_per_s is not None else None
        self._outgoing = _Queue(options.queued_bytes)
        self._fault: LinkError | None = None
        self._lock = threading.Lock()
        stream.set_timeout(options.timeout_s)
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"link-{name}-{work.__name__}", daemon=True)
            for work in (self._send_all, self._receive_all)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, kind: str, fields: Mapping[str, Any] | None = None, pieces: Sequence[Any] = ()) -> None:
        """Queues a message; it is sent in order by the link's thread.

        Args:
            kind: what it is about.
            fields: JSON values, small.
            pieces: contiguous buffers that make up the body; they must not change until the message has been sent.

        Raises:
            LinkError: the link is gone, or the queue had no room in time.
        """
        views = [view for piece in pieces if len(view := memoryview(piece).cast("B"))]
        length = sum(map(len, views))
        waiting = self._outgoing
        deadline = time.monotonic() + self._options.timeout_s
        with waiting.room:
            while waiting.held and waiting.held + length > waiting.limit and self._fault is None:
                if not waiting.room.wait(deadline - time.monotonic()):
                    raise LinkStalled(f"{waiting.held} bytes wait for {self.name}, no room came free in time")
            self.check()
            waiting.held += length
        waiting.waiting.put(_Outgoing(kind, fields or {}, views, length))

    def check(self) -> None:
        """Raises the fault that ended the link, if one did."""
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Sends what is queued, as far as the peer takes it in time, and ends the link without a fault."""
        self._outgoing.waiting.put(None)
        if threading.current_thread() not in self._threads:
            self._threads[0].join(self._options.timeout_s)
        self._end(LinkClosed("this side closed the link"), told=False)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(self._options.timeout_s)
        if self._rings.writer is not None:
            self._rings.writer.close()
        if self._rings.reader is not None:
            self._rings.reader.close()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except LinkError as error:
            self._end(error, told=True)
        except Exception as error:  # noqa: BLE001 - a thread that ends in silence would leave its peer waiting
            self._end(LinkError(f"{type(error).__name__}: {error}"), told=True)

    def _end(self, fault: LinkError, *, told: bool) -> None:
        with self._lock:
            if self._fault is not None:
                return
            self._fault = fault
        self._stream.close()
        self._outgoing.waiting.put(None)
        with self._outgoing.room:
            self._outgoing.room.notify_all()
        if told:
            self._inbox.put(Arrival(self, fault))

    def _send_all(self) -> None:
        pulse_s = self._options.timeout_s / 4
        while self._fault is None:
            try:
                message = self._outgoing.waiting.get(timeout=pulse_s)
            except queue.Empty:
                self._stream.send(FrameKind.ALIVE)
                self.sent.overhead_bytes += HEADER_BYTES
                continue
            if message is None:
                if self._fault is None:
                    self._stream.send(FrameKind.GOODBYE)
                return
            self._send_message(message)
            with self._outgoing.room:
                self._outgoing.held -= message.length
                self._outgoing.room.notify_all()

    def _send_message(self, message: _Outgoing) -> None:
        began_ns = time.monotonic_ns()
        described = {"kind": message.kind, "fields": message.fields, "began_ns": began_ns}
        text = json.dumps(described, allow_nan=False, separators=(",", ":")).encode()
        if len(text) > DESCRIPTION_LIMIT:
            raise Oversize(f"the description of a {message.kind!r} has {len(text)} bytes, at most {DESCRIPTION_LIMIT}")
        self._stream.send(FrameKind.MESSAGE, text, message.length)
        overhead = HEADER_BYTES + len(text)
        for part in self._parts(message.pieces):
            if self._bucket is not None:
                self._bucket.take(len(part) + HEADER_BYTES)
            overhead += HEADER_BYTES
            if self._rings.writer is not None and len(part) >= _RING_FROM:
                number, slot = self._rings.writer.slot(self._options.timeout_s, self.check)
                filled = slot[: len(part)]
                filled[:] = part
                self._stream.announce(filled, number)
            else:
                self._stream.send(FrameKind.PART, part)
        self.sent.messages += 1
        self.sent.body_bytes += message.length
        self.sent.overhead_bytes += overhead

    def _parts(self, pieces: Sequence[memoryview]) -> Iterator[memoryview]:
        size = PART_BYTES
        if self._options.bytes_per_s is not None:
            size = min(size, max(1024, int(self._options.bytes_per_s * _SHAPED_PART_S)))
        for piece in pieces:
            for start in range(0, len(piece), size):
                yield piece[start : start + size]

    def _receive_all(self) -> None:
        while True:
            header = self._stream.header()
            if header.kind is FrameKind.GOODBYE:
                raise LinkClosed(f"{self.name} closed the link")
            if header.kind is FrameKind.ALIVE:
                self.received.overhead_bytes += HEADER_BYTES
            elif header.kind is FrameKind.MESSAGE:
                message = self._receive_message(header)
                self._inbox.put(Arrival(self, message), self._options.latency_s)
            else:
                raise CorruptFrame(f"a {header.kind.name} frame came outside of a message")

    def _receive_message(self, first: Header) -> Message:
        if first.extent > self._options.max_message_bytes:
            raise Oversize(
                f"{self.name} announced a message of {first.extent} bytes; "
                f"at most {self._options.max_message_bytes} are accepted"
            )
        text = self._stream.body(first, DESCRIPTION_LIMIT)
        kind, fields, began_ns = _described(text)
        body = self._options.allocate({"kind": kind, **fields}, first.extent) if first.extent else memoryview(b"")
        overhead = HEADER_BYTES + len(text)
        done = 0
        while done < first.extent:
            header = self._stream.header()
            overhead += HEADER_BYTES
            if header.kind is FrameKind.ALIVE:
                continue
            target = body[done : done + header.length]
            if not 0 < header.length == len(target):
                raise CorruptFrame(f"a part of {header.length} bytes, {len(target)} of the message are missing")
            if header.kind is FrameKind.PART:
                self._stream.body_into(header, target)
            elif header.kind is FrameKind.RING and self._rings.reader is not None:
                target[:] = self._rings.reader.slot(header.extent, header.length)
                verify(header, target)
                self._rings.reader.free()
            else:
                raise CorruptFrame(f"a {header.kind.name} frame came inside of a message")
            done += header.length
        self.received.messages += 1
        self.received.body_bytes += first.extent
        self.received.overhead_bytes += overhead
        taken_s = (time.monotonic_ns() - began_ns) / 1e9
        return Message(kind, fields, body, taken_s + self._options.latency_s if self._options.one_clock else None)


def _described(text: bytearray) -> tuple[str, Mapping[str, Any], int]:
    try:
        described = json.loads(text)
        kind, fields, began_ns = described["kind"], described["fields"], described["began_ns"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CorruptFrame("a message's description is not what this format says") from None
    if not (isinstance(kind, str) and isinstance(fields, dict) and isinstance(began_ns, int)):
        raise CorruptFrame("a message's description is not what this format says")
    return kind, fields, began_ns
