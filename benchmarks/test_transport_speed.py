"""What the serving transport makes of one host: 64 MB messages between two processes, beside the machine's memcpy.

Goal: the shared ring reaches at least half of the memcpy rate. Both are measured in turn, round by round, so that a
busy neighbour slows both. TCP over loopback stands beside them, and so does `multiprocessing.connection`, which
frames and authenticates too, but checks no body, shapes no bandwidth and has no shared memory.
"""

from __future__ import annotations

import secrets
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from multiprocessing.connection import Listener as StandardListener

import pytest
from harness_disaggregated_serving.transport.link import Carrier, Inbox, LinkOptions, Message
from harness_disaggregated_serving.transport.opening import listen
from pytest_benchmark.fixture import BenchmarkFixture

SIZE = 64 * 10**6
ROUNDS = 15
GOAL = 0.5
PEER = """
import sys
from harness_disaggregated_serving.transport.link import Carrier, Inbox, LinkOptions, Message
from harness_disaggregated_serving.transport.opening import connect
secret, port, carrier, size = bytes.fromhex(sys.argv[1]), int(sys.argv[2]), Carrier(sys.argv[3]), int(sys.argv[4])
inbox = Inbox()
body = memoryview(bytearray(size))
body[:] = b"1" * size
link = connect("127.0.0.1", port, secret, inbox, LinkOptions(carrier=carrier))
while isinstance((arrival := inbox.get()).content, Message):
    link.send("kv", pieces=[body])
"""


@pytest.mark.parametrize("carrier", [Carrier.RING, Carrier.TCP])
def test_same_host_transfer(benchmark: BenchmarkFixture, carrier: Carrier) -> None:
    source, place = memoryview(bytearray(b"1" * SIZE)), memoryview(bytearray(b"2" * SIZE))
    secret, inbox = secrets.token_bytes(32), Inbox()
    listener = listen(secret, inbox, LinkOptions(carrier=carrier, allocate=lambda _, length: place[:length]))
    arguments = [secret.hex(), str(listener.address[1]), carrier.value, str(SIZE)]
    peer = subprocess.Popen([sys.executable, "-c", PEER, *arguments])
    copies: list[float] = []
    transfers: list[float] = []
    try:
        link = listener.accept(20.0)

        def copy_and_transfer() -> None:
            began = time.perf_counter()
            place[:] = source
            copies.append(time.perf_counter() - began)
            began = time.perf_counter()
            link.send("go")
            arrival = inbox.get(20.0)
            transfers.append(time.perf_counter() - began)
            assert arrival is not None
            assert isinstance(arrival.content, Message), arrival.content

        benchmark.pedantic(copy_and_transfer, rounds=ROUNDS, warmup_rounds=2)  # type: ignore[no-untyped-call]
        link.close()
    finally:
        peer.kill()
        peer.wait()
        listener.close()
    share = statistics.median(copied / moved for copied, moved in zip(copies[2:], transfers[2:], strict=True))
    told = {
        "memcpy_GB_per_s": SIZE / 1e9 / statistics.median(copies[2:]),
        "transfer_GB_per_s": SIZE / 1e9 / statistics.median(transfers[2:]),
        "share_of_memcpy": share,
    }
    benchmark.extra_info.update({name: round(value, 3) for name, value in told.items()}, goal=GOAL)
    print(f"\n64 MB by {carrier.value}: {benchmark.extra_info}")
    if carrier is Carrier.RING:
        assert share >= GOAL


STANDARD = """
import sys
from multiprocessing.connection import Client
size = int(sys.argv[3])
body = memoryview(bytearray(b"1" * size))
with Client(("127.0.0.1", int(sys.argv[2])), authkey=bytes.fromhex(sys.argv[1])) as link:
    while True:
        try:
            link.recv_bytes()
        except EOFError:
            break
        link.send_bytes(body)
"""


@pytest.mark.parametrize("size", [1000, 256_000, SIZE])
def test_beside_the_standard_librarys_connection(benchmark: BenchmarkFixture, size: int) -> None:
    """A question and an answer of so many bytes, in turn by our TCP, our ring and the standard library."""
    source, secret = memoryview(bytearray(size)), secrets.token_bytes(32)
    seconds: dict[str, list[float]] = {"tcp": [], "ring": [], "connection": []}
    with ExitStack() as held:
        links = {}
        for carrier in (Carrier.TCP, Carrier.RING):
            inbox = Inbox()
            listener = listen(secret, inbox, LinkOptions(carrier=carrier, allocate=lambda _, length: source[:length]))
            held.callback(listener.close)
            arguments = [secret.hex(), str(listener.address[1]), carrier.value, str(size)]
            held.callback(_ended, subprocess.Popen([sys.executable, "-c", PEER, *arguments]))
            links[carrier.value] = (listener.accept(20.0), inbox)
            held.callback(links[carrier.value][0].close)
        standard = held.enter_context(StandardListener(("127.0.0.1", 0), authkey=secret))
        arguments = [secret.hex(), str(standard.address[1]), str(size)]
        held.callback(_ended, subprocess.Popen([sys.executable, "-c", STANDARD, *arguments]))
        connection = held.enter_context(standard.accept())

        def in_turn() -> None:
            for name, (link, inbox) in links.items():
                began = time.perf_counter()
                link.send("go")
                assert inbox.get(20.0) is not None
                seconds[name].append(time.perf_counter() - began)
            began = time.perf_counter()
            connection.send_bytes(b"go")
            connection.recv_bytes_into(source)
            seconds["connection"].append(time.perf_counter() - began)

        benchmark.pedantic(in_turn, rounds=ROUNDS * 4, warmup_rounds=2)  # type: ignore[no-untyped-call]
    told = {name: round(statistics.median(times) * 1e6, 1) for name, times in seconds.items()}
    benchmark.extra_info.update(told)
    print(f"\n{size} bytes, us a round trip: {told}")


def _ended(peer: subprocess.Popen[bytes]) -> None:
    peer.kill()
    peer.wait()
