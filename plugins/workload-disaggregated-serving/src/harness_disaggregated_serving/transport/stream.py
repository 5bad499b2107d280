"""One connected socket that speaks frames, and the handshake that opens it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Final

from harness_disaggregated_serving.transport.faults import (
    AuthenticationFailed,
    CorruptFrame,
    LinkClosed,
    LinkError,
    LinkStalled,
    Oversize,
)
from harness_disaggregated_serving.transport.framing import (
    HEADER_BYTES,
    FrameKind,
    Header,
    checksum,
    pack,
    unpack,
    verify,
)

NONCE_BYTES: Final = 32
SECRET_BYTES: Final = 16
"""Shortest shared secret."""
_HANDSHAKE_BODY: Final = 256
"""Longest body that a peer may send before it is authenticated."""


@dataclass(slots=True)
class Traffic:
    """Bytes in one direction of a link.

    Attributes:
        messages: messages.
        body_bytes: their bodies: what formulas about caches and probability rows speak of.
        overhead_bytes: headers, descriptions, signs of life.
    """

    messages: int = 0
    body_bytes: int = 0
    overhead_bytes: int = 0


class Stream:
    """A socket that sends and receives checked frames; one thread may send while another receives.

    Args:
        connected: the socket; the stream closes it.
        timeout_s: how long one frame may take, and how long the peer may be silent.
    """

    def __init__(self, connected: socket.socket, timeout_s: float) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.settimeout(timeout_s)
        self._socket = connected
        self._timeout_s = timeout_s
        self._sent = 0
        self._received = 0
        self._header = bytearray(HEADER_BYTES)
        self.closed = False

    def send(self, kind: FrameKind, body: bytes | memoryview = b"", extent: int = 0) -> None:
        """Sends a frame with its bytes inline."""
        self._write(pack(kind, self._sent, len(body), extent, checksum(body)))
        if len(body):
            self._write(body)
        self._sent += 1

    def announce(self, body: memoryview, slot: int) -> None:
        """Sends the header of a frame whose bytes stand in the shared ring."""
        self._write(pack(FrameKind.RING, self._sent, len(body), slot, checksum(body)))
        self._sent += 1

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise LinkStalled(f"the peer took nothing for {self._timeout_s:g} s") from None
        except OSError as error:
            raise LinkClosed(f"sending failed: {error.strerror or error}") from None

    def header(self) -> Header:
        """The next frame's header, checked."""
        self._read_into(memoryview(self._header), inside=False)
        found = unpack(self._header, self._received)
        self._received += 1
        return found

    def body_into(self, header: Header, target: memoryview) -> None:
        """Receives a frame's inline bytes into place and checks them."""
        self._read_into(target, inside=True)
        verify(header, target)

    def body(self, header: Header, limit: int) -> bytearray:
        """A frame's inline bytes, checked; raises Oversize before anything is stored."""
        if header.length > limit:
            raise Oversize(f"a {header.kind.name} frame of {header.length} bytes; at most {limit} are taken here")
        data = bytearray(header.length)
        self.body_into(header, memoryview(data))
        return data

    def _read_into(self, target: memoryview, *, inside: bool) -> None:
        deadline = time.monotonic() + self._timeout_s
        done = 0
        while done < len(target):
            try:
                count = self._socket.recv_into(target[done:])
            except TimeoutError:
                count = -1
            except OSError as error:
                raise LinkClosed(f"receiving failed: {error.strerror or error}") from None
            if count == 0:
                where = f"{done} bytes into {len(target)}" if inside or done else "between two frames"
                raise LinkClosed(f"the peer closed the connection {where}")
            done += max(count, 0)
            if done < len(target) and (count < 0 or time.monotonic() > deadline):
                raise LinkStalled(f"the peer was silent for {self._timeout_s:g} s, {done} bytes into {len(target)}")

    def expect(self, kind: FrameKind) -> bytearray:
        """The body of the next frame, which must be of this kind; for the handshake."""
        header = self.header()
        if header.kind is not kind:
            raise CorruptFrame(f"a {header.kind.name} frame came where {kind.name} was due")
        return self.body(header, _HANDSHAKE_BODY)

    def set_timeout(self, timeout_s: float) -> None:
        """Changes how long one frame may take."""
        self._timeout_s = timeout_s
        self._socket.settimeout(timeout_s)

    def close(self) -> None:
        """Ends the connection; a thread that waits in it wakes up."""
        self.closed = True
        with contextlib.suppress(OSError):  # the peer was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def check_secret(secret: bytes) -> None:
    """Raises ValueError for a secret that is too short to be one."""
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"a shared secret has at least {SECRET_BYTES} bytes, this one {len(secret)}")


def _proof(secret: bytes, side: bytes, challenge: bytes, answer: bytes) -> bytes:
    """HMAC-SHA256 over both nonces and the side that speaks, so that no proof can be played back to its maker."""
    return hmac.new(secret, side + challenge + answer, hashlib.sha256).digest()


def authenticate_connector(stream: Stream, secret: bytes) -> None:
    """The listener's half: the peer proves that it knows the secret, then this side does."""
    challenge = secrets.token_bytes(NONCE_BYTES)
    stream.send(FrameKind.CHALLENGE, challenge)
    reply = bytes(stream.expect(FrameKind.ANSWER))
    answer, proof = reply[:NONCE_BYTES], reply[NONCE_BYTES:]
    if len(answer) != NONCE_BYTES or not hmac.compare_digest(proof, _proof(secret, b"connector", challenge, answer)):
        raise AuthenticationFailed("the connecting peer does not know the shared secret")
    stream.send(FrameKind.WELCOME, _proof(secret, b"listener", challenge, answer))


def authenticate_listener(stream: Stream, secret: bytes) -> None:
    """The connecting half."""
    challenge = bytes(stream.expect(FrameKind.CHALLENGE))
    if len(challenge) != NONCE_BYTES:
        raise AuthenticationFailed(f"the listener's challenge has {len(challenge)} bytes, not {NONCE_BYTES}")
    answer = secrets.token_bytes(NONCE_BYTES)
    stream.send(FrameKind.ANSWER, answer + _proof(secret, b"connector", challenge, answer))
    try:
        proof = bytes(stream.expect(FrameKind.WELCOME))
    except LinkClosed:
        raise AuthenticationFailed("the listener closed the connection: it did not accept the shared secret") from None
    if not hmac.compare_digest(proof, _proof(secret, b"listener", challenge, answer)):
        raise AuthenticationFailed("the listening peer does not know the shared secret")


def dial(host: str, port: int, timeout_s: float) -> socket.socket:
    """A connected socket; raises LinkError."""
    try:
        return socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise LinkError(f"cannot connect to {shown(host, port)}: {error.strerror or error}") from None


def shown(host: str, port: int) -> str:
    """An address for people; one of IPv6 stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
