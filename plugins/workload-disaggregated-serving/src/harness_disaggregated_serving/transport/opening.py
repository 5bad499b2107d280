"""How a link opens: connect or listen, prove the secret, agree on shared memory."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from typing import Final

from harness_disaggregated_serving.transport.faults import LinkError, LinkStalled
from harness_disaggregated_serving.transport.framing import FrameKind
from harness_disaggregated_serving.transport.link import Carrier, Inbox, Link, LinkOptions, Rings
from harness_disaggregated_serving.transport.ring import RingReader, RingWriter
from harness_disaggregated_serving.transport.stream import (
    Stream,
    authenticate_connector,
    authenticate_listener,
    check_secret,
    dial,
    shown,
)

_REFUSALS_KEPT: Final = 16
_HANDSHAKES: Final = 8
"""Peers that may be in their handshake at the same time: one more displaces the one that has been in it longest."""
_HANDSHAKE_S: Final = 5.0
"""Longest silence in a handshake: a peer that knows the secret answers at once."""
_POLL_S: Final = 0.05


def _agree_on_rings(stream: Stream, carrier: Carrier) -> Rings:
    """Each end offers a ring for what it sends; an end that cannot map the other's, or will not, says so."""
    rings = Rings(writer=None if carrier is Carrier.TCP else RingWriter())
    try:
        stream.send(FrameKind.RING_OFFER, b"" if rings.writer is None else rings.writer.name.encode())
        offered = bytes(stream.expect(FrameKind.RING_OFFER)).decode("ascii", errors="replace")
        if offered and carrier is not Carrier.TCP:
            with contextlib.suppress(LinkError):
                rings.reader = RingReader(offered)
        stream.send(FrameKind.RING_REPLY, b"\1" if rings.reader is not None else b"\0")
        mapped = bytes(stream.expect(FrameKind.RING_REPLY)) == b"\1"
        if rings.writer is not None:
            rings.writer.unlink()
            if not mapped:
                rings.writer.close()
                rings.writer = None
        if carrier is Carrier.RING and (rings.writer is None or rings.reader is None):
            raise LinkError(  # noqa: TRY301 - one place gives the rings back, for this fault as for others
                "the peer shares no memory with this host; take carrier `tcp` or `auto`"
            )
    except BaseException:
        if rings.writer is not None:
            rings.writer.close()
        if rings.reader is not None:
            rings.reader.close()
        raise
    return rings


def _open(
    connected: socket.socket,
    authenticate: Callable[[Stream, bytes], None],
    secret: bytes,
    inbox: Inbox,
    options: LinkOptions,
    name: str,
) -> Link:
    stream = Stream(connected, min(options.timeout_s, _HANDSHAKE_S))
    try:
        authenticate(stream, secret)
        stream.set_timeout(options.timeout_s)
        rings = _agree_on_rings(stream, options.carrier)
    except BaseException:
        stream.close()
        raise
    return Link(stream, rings, inbox, options, name)


def _server(host: str, port: int) -> socket.socket:
    """A listening socket of the host's own family, IPv4 or IPv6; raises OSError."""
    family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server((host, port), family=family)


def _hang_up(connected: socket.socket) -> None:
    """Ends a connection; the thread that waits in it wakes up."""
    with contextlib.suppress(OSError):  # it may have ended by itself
        connected.shutdown(socket.SHUT_RDWR)


def connect(
    host: str, port: int, secret: bytes, inbox: Inbox, options: LinkOptions | None = None, *, name: str = "peer"
) -> Link:
    """Opens a link to a listening peer; raises LinkError, AuthenticationFailed among them."""
    check_secret(secret)
    options = options or LinkOptions()
    connected = dial(host, port, options.timeout_s)
    return _open(connected, authenticate_listener, secret, inbox, options, name)


class Listener:
    """Waits for peers on one address.

    Peers are authenticated each in a thread of its own, so that one that says nothing keeps nobody waiting; where many
    say nothing, the one that has done so longest gives its place to the next that comes.

    Attributes:
        address: host and port that peers connect to.
        refused: why peers were refused, the last few.
    """

    def __init__(self, secret: bytes, inbox: Inbox, options: LinkOptions, host: str, port: int, name: str) -> None:
        check_secret(secret)
        self._secret = secret
        self._inbox = inbox
        self._options = options
        self._name = name
        self._socket = _server(host, port)
        self._socket.settimeout(_POLL_S)
        self._opened: queue.SimpleQueue[Link] = queue.SimpleQueue()
        self._greeted: dict[int, socket.socket] = {}
        """Connections in their handshake, oldest first."""
        self._greeting = threading.Lock()
        self._closed = threading.Event()
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self.refused: list[str] = []
        self._thread = threading.Thread(target=self._greet_all, name=f"listen-{name}", daemon=True)
        self._thread.start()

    def accept(self, timeout_s: float) -> Link:
        """The next peer that knows the secret; raises LinkStalled when none came in time."""
        try:
            return self._opened.get(timeout=timeout_s)
        except queue.Empty:
            refused = f"; refused: {self.refused[-1]}" if self.refused else ""
            where = shown(*self.address)
            raise LinkStalled(f"{self._name} did not connect to {where} in {timeout_s:g} s{refused}") from None

    def _greet_all(self) -> None:
        while not self._closed.is_set():
            try:
                connected, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            with self._greeting:
                if len(self._greeted) >= _HANDSHAKES:
                    _hang_up(self._greeted.pop(next(iter(self._greeted))))
                self._greeted[id(connected)] = connected
            threading.Thread(target=self._greet, args=(connected,), name="greet", daemon=True).start()

    def _greet(self, connected: socket.socket) -> None:
        try:
            link = _open(connected, authenticate_connector, self._secret, self._inbox, self._options, self._name)
            self._opened.put(link)
        except (LinkError, OSError) as error:
            self.refused = [*self.refused[1 - _REFUSALS_KEPT :], str(error)]
        finally:
            with self._greeting:
                self._greeted.pop(id(connected), None)

    def close(self) -> None:
        """Stops listening and drops peers that nobody accepted; accepted links go on."""
        self._closed.set()
        self._thread.join()
        self._socket.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._opened.get_nowait().close()


def listen(
    secret: bytes,
    inbox: Inbox,
    options: LinkOptions | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    name: str = "peer",
) -> Listener:
    """Listens for peers, on loopback and a free port unless told otherwise."""
    return Listener(secret, inbox, options or LinkOptions(), host, port, name)
