"""What an engine says of itself under `/metrics`: requests that run and wait, and how full its cache is.

Names as the engines export them: vLLM (`vllm:kv_cache_usage_perc`, before its version 1 `vllm:gpu_cache_usage_perc`),
SGLang, llama.cpp's server. The bytes are kept while a window is open and read when it has closed.
"""

from __future__ import annotations

import asyncio
import bisect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from harness_disaggregated_serving.endpoint.client import whole_body

PERIOD_S: Final = 1.0
TIMEOUT_S: Final = 5.0
LARGEST_BYTES: Final = 8 << 20
COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "server_running": ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing"),
    "server_waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"),
    "server_cache_use": (
        "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage", "llamacpp:kv_cache_usage_ratio",
    ),
    "server_kv_transfer_s": ("vllm:nixl_xfer_time_seconds_sum",),
    "server_kv_transfer_bytes": ("vllm:nixl_bytes_transferred_sum",),
}  # fmt: skip
"""Column -> the names that it goes by."""
MEANS: Final = frozenset({"server_cache_use"})
"""Shares: of several engines behind one address the mean, where counts are added."""
TOTALS: Final = frozenset({"server_kv_transfer_s", "server_kv_transfer_bytes"})
"""Counters that only grow: the record holds by how much they grew in the window."""
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?[ \t]+(\S+)")


def parsed(text: str) -> dict[str, float]:
    """Column -> value, of a page in Prometheus' text format, whose lines end at LF."""
    seen: dict[str, list[float]] = {}
    wanted = {name for names in COLUMNS.values() for name in names}
    for line in text.split("\n"):
        match = _SAMPLE.match(line)
        if match is not None and match.group(1) in wanted:
            try:
                value = float(match.group(2))
            except ValueError:
                continue
            if math.isfinite(value):
                seen.setdefault(match.group(1), []).append(value)
    found = {}
    for column, names in COLUMNS.items():
        values = next((seen[name] for name in names if name in seen), None)
        if values is not None:
            found[column] = fmean(values) if column in MEANS else math.fsum(values)
    return found


class EngineMetrics:
    """Reads the page once a second while requests run.

    Args:
        session: that is open.
        url: base address of the API.
        path: of the page on the same server.
        clock: seconds since the window opened.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, path: str, clock: Callable[[], float]) -> None:
        parts = urlsplit(url)
        self.address = f"{parts.scheme}://{parts.netloc}{path}"
        self._session, self._clock = session, clock
        self._pages: list[tuple[float, bytes]] = []
        self.failed = 0

    async def read(self) -> bytes | None:
        """The page now; None where it cannot be had."""
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            async with self._session.get(self.address, timeout=timeout, allow_redirects=False) as response:
                return await whole_body(response, LARGEST_BYTES) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def known(self) -> bool:
        """Whether the page is there and an engine's."""
        page = await self.read()
        return page is not None and bool(parsed(page.decode("utf-8", "replace")))

    async def follow(self) -> None:
        """Reads the page again and again, until it is cancelled."""
        while True:
            at_s = self._clock()
            page = await self.read()
            if page is None:
                self.failed += 1
            else:
                self._pages.append((at_s, page))
            await asyncio.sleep(max(0.0, at_s + PERIOD_S - self._clock()))

    def samples(self) -> list[tuple[float, dict[str, float]]]:
        """(time, column -> value) of each page that was read."""
        return [(at, parsed(page.decode("utf-8", "replace"))) for at, page in self._pages]


def at(samples: Sequence[tuple[float, Mapping[str, float]]], when_s: float) -> dict[str, float]:
    """The gauges as they last were before a time; empty where nothing was read by then."""
    place = bisect.bisect_right([each for each, _ in samples], when_s)
    return {name: value for name, value in samples[place - 1][1].items() if name not in TOTALS} if place else {}


def summary(samples: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, dict[str, float] | float]:
    """Mean and greatest value of each gauge, and by how much each counter grew."""
    found: dict[str, dict[str, float] | float] = {}
    for name in COLUMNS:
        values = [sample[name] for _, sample in samples if name in sample]
        if values and name in TOTALS:
            found[name] = values[-1] - values[0]
        elif values:
            found[name] = {"mean": fmean(values), "max": max(values), "readings": len(values)}
    return found
