"""The client of `serve-endpoint` against a server of known truth, interleaved with a plain aiohttp reader.

    python benchmarks/serving_client.py [--rounds 5] [--streams 16] [--tokens 100]

The server (mock_openai_server.py) sends the first token after 200 ms and one every 20 ms. In each round both clients
ask for the same streams, in an order that alternates. Printed are the mean errors of TTFT, of the gap between tokens
and of the end-to-end latency, and their paired difference with a 95 % interval. A last part has the server send as fast
as it can, where the processor time a chunk is that of reading alone. Run it on a machine that does nothing else: the
server's own lateness is in both clients' errors.

With --against another load generator takes the plain reader's place: a command, in whose words {url} is the server's
address without /v1, {port} its port and {results} a folder. It must send --streams requests of --tokens tokens, and
write what `serve-bench` reads: result.json, benchmarks.json or profile_export.jsonl of vllm bench serve, guidellm or
aiperf, each in an environment of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp
from harness_disaggregated_serving.endpoint import results
from harness_disaggregated_serving.endpoint.client import Asking, Policy, encoded
from harness_disaggregated_serving.endpoint.driving import new_session
from harness_disaggregated_serving.endpoint.latency import gaps_s

MOCK = Path(__file__).with_name("mock_openai_server.py")
TTFT_S, GAP_S = 0.2, 0.02
RESULTS = {"benchmarks.json", "profile_export.jsonl", "result.json"}
STUDENT = {4: 2.776, 5: 2.571, 9: 2.262, 19: 2.093}
"""Two-sided 95 % quantiles of Student's t by degrees of freedom; 1.96 above."""


class Seen(NamedTuple):
    """One stream: seconds from sending to the first chunk, between chunks on average, to the last; and chunks."""

    ttft_s: float
    gap_s: float
    latency_s: float
    chunks: int


Read = Callable[[aiohttp.ClientSession, str, bytes], Awaitable[Seen]]


async def ours(session: aiohttp.ClientSession, base: str, body: bytes) -> Seen:
    """The client of `serve-endpoint`."""
    policy = Policy(
        api="completions", base=base, request_timeout_s=60, connect_timeout_s=5, silence_timeout_s=30, retries=0,
        retry_wait_s=0,
    )  # fmt: skip
    answer = await Asking(session, body, policy, time.perf_counter).run()
    assert answer.finished, answer.reason
    assert answer.first_s is not None
    assert answer.last_s is not None
    assert answer.sent_s is not None
    gaps = gaps_s(answer)
    return Seen(
        answer.first_s - answer.sent_s, statistics.fmean(gaps), answer.last_s - answer.sent_s, len(answer.times)
    )


async def plain(session: aiohttp.ClientSession, base: str, body: bytes) -> Seen:
    """The least that reads a stream: lines, JSON, a time for each chunk with text."""
    sent_s = time.perf_counter()
    times = []
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{base}/completions", data=body, headers=headers) as response:
        async for line in response.content:
            if line.startswith(b"data: ") and line != b"data: [DONE]\n":
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["text"]:
                    times.append(time.perf_counter())
    return Seen(times[0] - sent_s, (times[-1] - times[0]) / (len(times) - 1), times[-1] - sent_s, len(times))


async def round_of(read: Read, base: str, streams: int, tokens: int, spread_s: float) -> tuple[list[Seen], float]:
    """All streams of one client, begun one after the other within `spread_s`; and processor seconds a chunk."""
    body = encoded(
        {
            "model": "mock",
            "prompt": "a b c",
            "max_tokens": tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    async with new_session({}, ssl_context=True, proxies=False) as session:

        async def one(number: int) -> Seen:
            await asyncio.sleep(spread_s * number / streams)
            return await read(session, base, body)

        cpu_s = time.thread_time()
        seen = await asyncio.gather(*(one(number) for number in range(streams)))
        return seen, (time.thread_time() - cpu_s) / sum(each.chunks for each in seen)


def errors_ms(seen: list[Seen], tokens: int) -> tuple[float, float, float]:
    """Mean errors against the truth, in ms."""
    truth = (TTFT_S, GAP_S, TTFT_S + GAP_S * (tokens - 1))
    return tuple(  # type: ignore[return-value]
        1e3 * statistics.fmean(abs(each[place] - truth[place]) for each in seen) for place in range(3)
    )


def against(command: str, base: str) -> list[Seen]:
    """What another load generator says of its requests."""
    with tempfile.TemporaryDirectory() as folder:
        port = base.rpartition(":")[2].partition("/")[0]
        known = {"{url}": base.removesuffix("/v1"), "{port}": port, "{results}": folder}
        words = shlex.split(command)
        for name, value in known.items():
            words = [word.replace(name, value) for word in words]
        subprocess.run(words, check=True, capture_output=True, timeout=300)
        (file,) = [path for path in Path(folder).rglob("*.json*") if path.name in RESULTS]
        told = [each for each in results.read(file).requests if each.ok]
    return [Seen(each.ttft_s or 0.0, each.tpot_s or 0.0, each.latency_s or 0.0, 0) for each in told]


def server(*given: str) -> tuple[subprocess.Popen[bytes], str]:
    """A mock server that listens, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(MOCK), "--port", str(port), *given])
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            break
    return process, f"http://127.0.0.1:{port}/v1"


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean difference of pairs with its 95 % interval."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, -math.inf, math.inf
    half = STUDENT.get(len(differences) - 1, 1.96) * statistics.stdev(differences) / math.sqrt(len(differences))
    return mean, mean - half, mean + half


def compare(base: str, given: argparse.Namespace) -> None:
    """Prints errors of both clients and their paired differences."""
    other = "theirs" if given.against else "plain"
    found: dict[str, list[tuple[float, float, float]]] = {"ours": [], other: []}
    for number in range(given.rounds):
        clients: list[tuple[str, Read]] = [("ours", ours), (other, plain)]
        for name, read in clients if number % 2 else clients[::-1]:
            if given.against and name == other:
                seen = against(given.against, base)
            else:
                seen, _ = asyncio.run(round_of(read, base, given.streams, given.tokens, 1.0))
            found[name].append(errors_ms(seen, given.tokens))
    for place, what in enumerate(("TTFT", "gap", "end-to-end")):
        means = {name: statistics.fmean(each[place] for each in rounds) for name, rounds in found.items()}
        pairs = [a[place] - b[place] for a, b in zip(found["ours"], found[other], strict=True)]
        mean, low, high = interval(pairs)
        print(
            f"{what:>10}: mean error {means['ours']:.3f} ms ours, {means[other]:.3f} ms {other}; "
            f"difference {mean:+.3f} ms ({low:+.3f} to {high:+.3f}), {given.rounds} rounds"
        )


def cost(base: str, given: argparse.Namespace) -> None:
    """Prints the processor time a chunk of both clients, on streams that come as fast as they are read."""
    spent: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(given.rounds):
        clients: list[tuple[str, Read]] = [("ours", ours), ("plain", plain)]
        for name, read in clients if number % 2 else clients[::-1]:
            spent[name].append(asyncio.run(round_of(read, base, given.streams, 1000, 0.0))[1])
    mine, theirs = (statistics.median(spent[name]) for name in ("ours", "plain"))
    print(f"processor time a chunk: {mine * 1e6:.1f} µs ours, {theirs * 1e6:.1f} µs plain: {mine / theirs:.2f} times")


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--against", default="", help="command of another load generator")
    given = parser.parse_args()
    for part, options in (
        (compare, ("--ttft", str(TTFT_S), "--gap", str(GAP_S))),
        *(() if given.against else ((cost, ("--ttft", "0", "--gap", "0")),)),
    ):
        process, base = server(*options)
        try:
            part(base, given)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
