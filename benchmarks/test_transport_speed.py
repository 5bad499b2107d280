"""What the serving transport makes of one host: 64 MB messages between two processes, beside the machine's memcpy.

Goal: the shared ring reaches at least half of the memcpy rate. Both are measured in turn, round by round, so that a
busy neighbour slows both. TCP over loopback stands beside them.
"""

from __future__ import annotations

import secrets
import statistics
import subprocess
import sys
import time

import pytest
from harness_disaggregated_serving.transport.link import Carrier, Inbox, LinkOptions, Message
from harness_disaggregated_serving.transport.opening import listen
from pytest_benchmark.fixture import BenchmarkFixture

SIZE = 64 * 10**6
ROUNDS = 15
GOAL = 0.5
PEER = """
import sys
from harness_disaggregated_serving.transport import Carrier, Inbox, LinkOptions, Message, connect
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
