"""The transport: what arrives is what was sent, and every fault ends the link with its reason and in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from harness_disaggregated_serving.transport.faults import (
    AuthenticationFailed,
    CorruptFrame,
    LinkClosed,
    LinkError,
    LinkStalled,
    Oversize,
)
from harness_disaggregated_serving.transport.framing import (
    DESCRIPTION_LIMIT,
    HEADER_BYTES,
    PART_BYTES,
    FrameKind,
    checksum,
    pack,
    unpack,
)
from harness_disaggregated_serving.transport.link import Carrier, Inbox, Link, LinkOptions, Message
from harness_disaggregated_serving.transport.opening import connect, listen
from harness_disaggregated_serving.transport.shaping import TokenBucket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SECRET = b"a secret of the tests"


class Pair:
    """Two connected ends, each with its inbox; `spoil` may change or drop the bytes from connector to listener."""

    def __init__(
        self,
        options: LinkOptions | None = None,
        far_options: LinkOptions | None = None,
        spoil: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self.options = options or LinkOptions(timeout_s=2.0)
        self.near_inbox, self.far_inbox = Inbox(), Inbox()
        self.listener = listen(SECRET, self.far_inbox, far_options or self.options, name="near")
        self.proxy = Proxy(self.listener.address, spoil) if spoil is not None else None
        host, port = self.proxy.address if self.proxy is not None else self.listener.address
        self.near = connect(host, port, SECRET, self.near_inbox, self.options, name="far")
        self.far = self.listener.accept(2.0)

    def close(self) -> None:
        self.near.close()
        self.far.close()
        self.listener.close()
        if self.proxy is not None:
            self.proxy.close()


class Proxy:
    """Sits between two ends; once `armed`, every chunk towards the listener passes through `spoil`."""

    def __init__(self, target: tuple[str, int], spoil: Callable[[bytes], bytes | None]) -> None:
        self.armed = False
        self.spoil = spoil
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.server.getsockname()[:2]
        self.target = target
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        with suppress(OSError):
            near, _ = self.server.accept()
            far = socket.create_connection(self.target)
            self.sockets += [near, far]
            threading.Thread(target=self.pump, args=(far, near, False), daemon=True).start()
            self.pump(near, far, True)

    def pump(self, source: socket.socket, sink: socket.socket, forth: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if forth and self.armed:
                    spoiled = self.spoil(data)
                    if spoiled is None:
                        break
                    data = spoiled
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in [self.server, *self.sockets]:
            end.close()


@pytest.fixture(scope="module", params=[Carrier.TCP, Carrier.RING])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with closing(Pair(LinkOptions(carrier=request.param, timeout_s=5.0))) as made:
        yield made


def message(inbox: Inbox, timeout_s: float = 5.0) -> Message:
    arrival = inbox.get(timeout_s)
    assert arrival is not None, "nothing arrived"
    assert isinstance(arrival.content, Message), arrival.content
    return arrival.content


def fault(inbox: Inbox, timeout_s: float = 5.0) -> LinkError:
    arrival = inbox.get(timeout_s)
    assert arrival is not None, "no fault was told"
    assert isinstance(arrival.content, LinkError), arrival.content
    return arrival.content


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(max_size=2000), max_size=4), repeat=st.sampled_from([1, 1, 40, 700]))
def test_what_arrives_is_what_was_sent(pair: Pair, pieces: list[bytes], repeat: int) -> None:
    bodies = [piece * repeat for piece in pieces]
    before = (pair.near.sent.body_bytes, pair.far.received.body_bytes)
    pair.near.send("kv", {"request": "r1", "n": [1, 2]}, bodies)
    got = message(pair.far_inbox)
    assert (got.kind, got.fields, bytes(got.body)) == ("kv", {"request": "r1", "n": [1, 2]}, b"".join(bodies))
    length = sum(map(len, bodies))
    assert pair.far.received.body_bytes - before[1] == length
    assert pair.far.received.overhead_bytes > 0


def test_messages_keep_their_order_in_both_directions(pair: Pair) -> None:
    for number in range(50):
        pair.near.send("a", {"n": number}, [bytes(number * 1000)])
        pair.far.send("b", {"n": number})
    assert [message(pair.far_inbox).fields["n"] for _ in range(50)] == list(range(50))
    assert [message(pair.near_inbox).fields["n"] for _ in range(50)] == list(range(50))


def test_a_message_larger_than_the_ring(pair: Pair) -> None:
    body = bytes(range(256)) * (20 * PART_BYTES // 256)
    pair.near.send("large", pieces=[body])
    assert bytes(message(pair.far_inbox).body) == body


@pytest.mark.parametrize("carrier", [Carrier.TCP, Carrier.RING])
def test_both_ends_count_the_same_bytes(carrier: Carrier) -> None:
    with closing(Pair(LinkOptions(carrier=carrier, timeout_s=5.0))) as pair:
        for _ in range(3):
            pair.near.send("kv", {"n": 1}, [b"x" * 100_000, b"y"])
            message(pair.far_inbox)
        pair.near.close()
        assert (pair.near.sent.messages, pair.near.sent.body_bytes) == (3, 300_003)
        assert pair.near.sent == pair.far.received


def test_a_body_is_received_where_the_receiver_says(pair: Pair) -> None:
    place = bytearray(300_000)
    far = LinkOptions(carrier=pair.options.carrier, timeout_s=5.0, allocate=lambda fields, n: memoryview(place)[:n])
    with closing(Pair(far, far)) as other:
        other.near.send("kv", pieces=[b"7" * 300_000])
        message(other.far_inbox)
    assert place == b"7" * 300_000


def test_the_ring_leaves_no_file() -> None:
    before = set(Path("/dev/shm").glob("joule-ring-*"))
    with closing(Pair(LinkOptions(carrier=Carrier.RING, timeout_s=2.0))) as pair:
        assert pair.near.carrier is Carrier.RING
        assert set(Path("/dev/shm").glob("joule-ring-*")) <= before


def test_carriers_meet_at_tcp() -> None:
    with closing(Pair(LinkOptions(timeout_s=2.0), LinkOptions(carrier=Carrier.TCP, timeout_s=2.0))) as pair:
        assert (pair.near.carrier, pair.far.carrier) == (Carrier.TCP, Carrier.TCP)
    with pytest.raises(LinkError, match="shares no memory"):
        Pair(LinkOptions(carrier=Carrier.RING, timeout_s=0.5), LinkOptions(carrier=Carrier.TCP, timeout_s=0.5))


def test_wrong_secret_is_refused_by_both_sides() -> None:
    inbox = Inbox()
    with closing(listen(SECRET, inbox, LinkOptions(timeout_s=1.0))) as listener:
        outcome: list[BaseException] = []

        def try_it() -> None:
            try:
                connect(*listener.address, b"another secret.....", Inbox(), LinkOptions(timeout_s=1.0))
            except LinkError as error:
                outcome.append(error)

        thread = threading.Thread(target=try_it)
        thread.start()
        with pytest.raises(LinkStalled, match="does not know the shared secret"):
            listener.accept(0.7)
        thread.join(3.0)
    assert isinstance(outcome[0], AuthenticationFailed)


def test_an_impostor_that_listens_is_refused() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def impostor() -> None:
            peer, _ = server.accept()
            with closing(peer):
                peer.sendall(pack(FrameKind.CHALLENGE, 0, 32, 0, checksum(bytes(32))) + bytes(32))
                peer.recv(4096)
                peer.sendall(pack(FrameKind.WELCOME, 1, 32, 0, checksum(bytes(32))) + bytes(32))
                peer.recv(4096)

        threading.Thread(target=impostor, daemon=True).start()
        with pytest.raises(AuthenticationFailed, match="listening peer"):
            connect(*server.getsockname()[:2], SECRET, Inbox(), LinkOptions(timeout_s=1.0))


def test_a_stranger_may_send_a_few_bytes_only() -> None:
    with (
        closing(listen(SECRET, Inbox(), LinkOptions(timeout_s=1.0))) as listener,
        closing(socket.create_connection(listener.address)) as stranger,
    ):
        stranger.sendall(pack(FrameKind.ANSWER, 0, 1 << 19, 0, 0))
        with pytest.raises(LinkStalled, match="at most 256"):
            listener.accept(0.5)


def test_a_silent_stranger_keeps_nobody_waiting() -> None:
    inbox = Inbox()
    with (
        closing(listen(SECRET, inbox, LinkOptions(timeout_s=60.0))) as listener,
        closing(socket.create_connection(listener.address)),
    ):
        opened: list[Link] = []
        thread = threading.Thread(target=lambda: opened.append(connect(*listener.address, SECRET, Inbox())))
        thread.start()
        far = listener.accept(30.0)
        thread.join(30.0)
        far.close()
        opened[0].close()


def test_nobody_listens() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = server.getsockname()[:2]
    with pytest.raises(LinkError, match="cannot connect"):
        connect(*address, SECRET, Inbox(), LinkOptions(timeout_s=0.5))


def test_short_secrets_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes"):
        listen(b"short", Inbox())


def test_listens_on_loopback_unless_told_otherwise() -> None:
    with closing(listen(SECRET, Inbox())) as listener:
        assert listener.address[0] == "127.0.0.1"


def flip_one_bit_of(chunk: bytes) -> bytes:
    middle = len(chunk) // 2
    return chunk[:middle] + bytes([chunk[middle] ^ 1]) + chunk[middle + 1 :]


@pytest.mark.parametrize("size", [0, 10, 200_000])
def test_a_flipped_bit_is_found(size: int) -> None:
    options = LinkOptions(carrier=Carrier.TCP, timeout_s=1.0)
    with closing(Pair(options, spoil=flip_one_bit_of)) as pair:
        assert pair.proxy is not None
        pair.proxy.armed = True
        pair.near.send("kv", pieces=[bytes(size)])
        assert isinstance(fault(pair.far_inbox), CorruptFrame | Oversize)
        assert isinstance(fault(pair.near_inbox), LinkClosed)
        with pytest.raises(LinkError):
            pair.near.send("kv")


def test_a_truncated_message() -> None:
    options = LinkOptions(carrier=Carrier.TCP, timeout_s=1.0)
    sizes: list[int] = []

    def cut(chunk: bytes) -> bytes | None:
        sizes.append(len(chunk))
        return chunk if sum(sizes) < 100_000 else None

    with closing(Pair(options, spoil=cut)) as pair:
        assert pair.proxy is not None
        pair.proxy.armed = True
        pair.near.send("kv", pieces=[bytes(500_000)])
        found = fault(pair.far_inbox)
        assert isinstance(found, LinkClosed)
        assert "bytes into" not in str(found) or "closed the connection" in str(found)


def test_a_stalled_peer_is_noticed_in_time() -> None:
    def swallow(chunk: bytes) -> bytes:
        return b""

    with closing(Pair(LinkOptions(carrier=Carrier.TCP, timeout_s=0.6), spoil=swallow)) as pair:
        assert pair.proxy is not None
        time.sleep(1.5)  # idle links live: each side gives signs of life
        assert pair.far_inbox.get(0) is None
        pair.proxy.armed = True
        assert isinstance(fault(pair.far_inbox), LinkStalled)


def test_a_peer_that_takes_nothing_is_noticed_in_time() -> None:
    gate = threading.Event()

    def held(fields: object, length: int) -> memoryview:
        gate.wait(4.0)
        return memoryview(bytearray(length))

    near = LinkOptions(carrier=Carrier.RING, timeout_s=0.5)
    far = LinkOptions(carrier=Carrier.RING, timeout_s=5.0, allocate=held)
    with closing(Pair(near, far)) as pair:
        pair.near.send("kv", pieces=[bytes(20 * PART_BYTES)])
        found = fault(pair.near_inbox, 3.0)
        gate.set()
        assert isinstance(found, LinkStalled)


def test_a_full_queue_blocks_and_then_says_so() -> None:
    options = LinkOptions(carrier=Carrier.TCP, timeout_s=0.3, queued_bytes=1000, bytes_per_s=100.0)
    with closing(Pair(options)) as pair:
        pair.near.send("a", pieces=[bytes(900)])
        with pytest.raises(LinkStalled, match="no room"):
            pair.near.send("b", pieces=[bytes(900)])


def test_an_oversize_message_is_refused_before_it_is_stored() -> None:
    asked: list[int] = []

    def allocate(fields: object, length: int) -> memoryview:
        asked.append(length)
        return memoryview(bytearray(length))

    options = LinkOptions(timeout_s=1.0, max_message_bytes=1000, allocate=allocate)
    with closing(Pair(options)) as pair:
        pair.near.send("fits", pieces=[bytes(1000)])
        assert len(message(pair.far_inbox).body) == 1000
        pair.near.send("does not", pieces=[bytes(1001)])
        found = fault(pair.far_inbox)
        assert isinstance(found, Oversize)
        assert "1001" in str(found)
        assert asked == [1000]


def test_an_oversize_description_ends_the_link() -> None:
    with closing(Pair()) as pair:
        pair.near.send("x", {"text": "y" * DESCRIPTION_LIMIT})
        assert isinstance(fault(pair.near_inbox), Oversize)


def test_a_dropped_link_is_told_to_both_sides() -> None:
    with closing(Pair(LinkOptions(carrier=Carrier.TCP, timeout_s=1.0), spoil=lambda chunk: None)) as pair:
        assert pair.proxy is not None
        pair.proxy.armed = True
        pair.near.send("kv", pieces=[bytes(10)])
        assert isinstance(fault(pair.far_inbox), LinkClosed)
        assert isinstance(fault(pair.near_inbox), LinkClosed)


def test_closing_sends_what_is_queued() -> None:
    with closing(Pair()) as pair:
        for number in range(20):
            pair.near.send("n", {"n": number}, [bytes(10_000)])
        pair.near.close()
        assert [message(pair.far_inbox).fields["n"] for _ in range(20)] == list(range(20))
        assert "closed the link" in str(fault(pair.far_inbox))


@given(data=st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
def test_no_random_header_is_taken(data: bytes) -> None:
    with pytest.raises(CorruptFrame):
        unpack(data, 0)


@given(position=st.integers(0, HEADER_BYTES * 8 - 1))
def test_every_flipped_bit_of_a_header_is_found(position: int) -> None:
    header = bytearray(pack(FrameKind.PART, 5, 100, 0, 42))
    assert unpack(header, 5).checksum == 42
    header[position // 8] ^= 1 << (position % 8)
    with pytest.raises(CorruptFrame):
        unpack(header, 5)


def test_a_repeated_frame_is_found() -> None:
    with pytest.raises(CorruptFrame, match="lost or repeated"):
        unpack(pack(FrameKind.PART, 4, 0, 0, 0), 5)


def test_shaped_bandwidth_is_kept() -> None:
    options = LinkOptions(timeout_s=5.0, bytes_per_s=2e6)
    with closing(Pair(options)) as pair:
        pair.near.send("kv", pieces=[bytes(1_000_000)])
        got = message(pair.far_inbox)
        assert got.transfer_s >= 0.5


def test_emulated_latency_delays_every_message_once() -> None:
    options = LinkOptions(timeout_s=5.0, latency_s=0.2)
    with closing(Pair(options)) as pair:
        for _ in range(50):
            pair.near.send("a")
        transfers_s = [message(pair.far_inbox).transfer_s for _ in range(50)]
        assert min(transfers_s) >= 0.2
        assert max(transfers_s) < 50 * 0.2  # one after another would wait for all of them


def test_token_bucket_spec_transfer_times() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    for gigabits, expected in ((1, 2.147483648), (10, 0.2147483648), (16, 0.134217728), (100, 0.02147483648)):
        start = now[0]
        bucket = TokenBucket(gigabits * 1e9 / 8, clock=lambda: now[0], sleep=sleep)
        for _ in range(512):
            bucket.take(524_288)
        assert now[0] - start == pytest.approx(expected, rel=1e-9)


def test_token_bucket_burst() -> None:
    now = [0.0]
    bucket = TokenBucket(100.0, burst_bytes=50, clock=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s))
    now[0] = 10.0  # saved up: 50 bytes, not 1000
    assert bucket.take(50) == 0.0
    assert bucket.take(50) == pytest.approx(0.5)


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 0), (-1.0, 0), (float("inf"), 0), (1.0, -1)])
def test_token_bucket_refuses_nonsense(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="not"):
        TokenBucket(rate, burst)


def test_many_silent_strangers_do_not_lock_the_peer_out() -> None:
    inbox, near = Inbox(), Inbox()
    with (
        closing(listen(SECRET, inbox, LinkOptions(timeout_s=60.0))) as listener,
        ExitStack() as strangers,
    ):
        for _ in range(40):
            strangers.enter_context(closing(socket.create_connection(listener.address, timeout=5)))
        with closing(connect(*listener.address, SECRET, near, LinkOptions(timeout_s=5.0))) as link:
            accepted = listener.accept(10.0)
            link.send("hello")
            arrival = inbox.get(5.0)
            assert arrival is not None
            assert isinstance(arrival.content, Message)
            accepted.close()


def test_a_link_over_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this host has no IPv6 loopback")
    inbox = Inbox()
    with closing(listen(SECRET, inbox, LinkOptions(timeout_s=5.0), host="::1")) as listener:
        with closing(connect(*listener.address, SECRET, Inbox(), LinkOptions(timeout_s=5.0))) as link:
            listener.accept(10.0)
            link.send("hello", {"over": 6})
            arrival = inbox.get(5.0)
            assert arrival is not None
            assert isinstance(arrival.content, Message)
            assert arrival.content.fields == {"over": 6}
        with pytest.raises(LinkStalled, match=r"\[::1\]:"):
            listener.accept(0.01)
