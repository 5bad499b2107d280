"""Workload `serve-endpoint`: requests to any server of the OpenAI API, whose energy is the server's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp

from harness.backend import Device
from harness.errors import MeasurementError
from harness.quantity import Unavailable
from harness.sample import Scope
from harness.workload import TrialContext, Window, Workload
from harness_disaggregated_serving.endpoint import engine_metrics, server
from harness_disaggregated_serving.endpoint.client import Policy
from harness_disaggregated_serving.endpoint.driving import Asked, Driver, new_session
from harness_disaggregated_serving.endpoint.options import EndpointOptions, MaxQps
from harness_disaggregated_serving.endpoint.planned import Load, Planned
from harness_disaggregated_serving.endpoint.rows import Stream, Writer
from harness_disaggregated_serving.endpoint.search import Probe, max_qps
from harness_disaggregated_serving.endpoint.steady import SteadySpan, why_unsteady
from harness_disaggregated_serving.endpoint.versions import version_of
from harness_disaggregated_serving.load.slo import targets

WINDOW_STRIDE: Final = 7919
"""Windows of a trial have streams of their own: a prompt that was sent before lies in the server's prefix cache."""
PROBES: Final = 1_000_000
"""Streams of the search are numbered from here, behind those of any window."""
LONGER: Final = 4
"""So many times as many requests are tried where a stream was too short to say whether its queue fills."""
Found = TypeVar("Found")


class ServeEndpoint(Workload):
    """Requests to a server that somebody else started, or that is started here."""

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        self._url = options.url
        self._slo = targets(options.slo)
        self._seed = options.seed
        self._key = ""
        self._pid: int | None = None
        self._server: server.LocalServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._metrics_path = ""
        self._plans: dict[int, tuple[Load, list[Planned]]] = {}
        self._qps: float | None = None
        self._done: tuple[Stream, Load] | None = None
        self._writer = Writer(options, self._slo)
        self._known: dict[str, object] = {}
        self._shared: Sequence[str] = ()

    # What is read

    def devices(self) -> Sequence[Device]:
        """The server's GPUs, where the suite names them."""
        return [Device(kind="gpu", uuid=uuid, name=name) for uuid, name in self._options.server.gpus.items()]

    def processes(self) -> Mapping[str, int]:
        """The server's process, where it is one of this machine."""
        return {} if self._pid is None else {server.ROLE: self._pid}

    def elsewhere(self) -> bool:
        """Whether the server is another machine's, which this one's processor and memory are no part of."""
        return server.elsewhere(self._options.server, self._pid)

    def charged(self, read: Mapping[tuple[str, str], Scope]) -> Collection[str] | Unavailable:
        """The server's scopes, never the load generator's own."""
        found = server.charged(self._options.server, self._url, self._pid, read)
        if not isinstance(found, Unavailable):
            self._shared = server.shared_with_client(found, read)
        return found

    # Before the windows

    def prepare(self, context: TrialContext) -> None:
        """Starts the server where it is to be started, opens the client, plans the first streams, searches the rate.

        Raises:
            MeasurementError: the server does not start, or none listens.
        """
        options = self._options
        self._seed = options.seed + context.seed
        self._key = os.environ.get(options.api_key_env, "")
        if options.server.command:
            self._server = server.LocalServer(
                options.server, self._url, context.folder, context.suite_folder, options.model
            )
            self._url = self._server.url
            self._server.start(self._is_healthy, lambda text: context.progress(text, None))
            self._pid = self._server.pid
        else:
            self._pid = server.running_pid(options.server)
        self._loop = asyncio.new_event_loop()
        self._wait(self._open())
        self._known = self._about_server()
        for index in (-1, 0):
            self._plan(index)
        if options.search is not None:
            self._wait(self._find_rate(options.search.max_qps, context))
            self._plans.clear()
            for index in (-1, 0):
                self._plan(index)

    def _wait(self, work: Awaitable[Found]) -> Found:
        assert self._loop is not None
        return self._loop.run_until_complete(work)

    def _is_healthy(self) -> bool:
        parts = urlsplit(self._url)
        try:
            address = f"{parts.scheme}://{parts.netloc}{self._options.server.health}"
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(address, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError, ValueError):
            return False

    async def _open(self) -> None:
        options = self._options
        context: ssl.SSLContext | bool = True
        if self._url.startswith("https:"):
            try:
                context = ssl.create_default_context(cafile=options.ca)
            except (OSError, ssl.SSLError) as error:
                raise MeasurementError(
                    f"{options.ca} cannot be read: {error}", where="ca", accepted="certificates in PEM form"
                ) from None
        self._session = new_session(
            {"Authorization": f"Bearer {self._key}"} if self._key else {},
            context,
            proxies=urlsplit(self._url).hostname not in server.LOOPBACK,  # none on the way to this very machine
        )
        try:
            timeout = aiohttp.ClientTimeout(total=30, sock_connect=options.connect_timeout)
            async with self._session.get(f"{self._url}/models", timeout=timeout, allow_redirects=False) as response:
                await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise MeasurementError(f"no answer from {self._url}: {type(error).__name__}: {error}") from None
        path = options.server.metrics
        if path:
            wanted = "/metrics" if path == "auto" else path
            page = engine_metrics.EngineMetrics(self._session, self._url, wanted, time.monotonic)
            if await page.known():
                self._metrics_path = wanted
            elif path != "auto":
                raise MeasurementError(f"{page.address} shows no metrics of an engine", where="server.metrics")

    def _about_server(self) -> dict[str, object]:
        assert self._session is not None
        found: dict[str, object] = {"url": self._url, "pid": self._pid, "metrics": self._metrics_path or None}
        version = self._wait(version_of(self._session, self._url))
        if self._server is not None:
            found |= {"command": self._server.words, "started_in_s": self._server.started_in_s}
            version = version or self._server.printed_version()
        return found | {"version": version or None}

    def _plan(self, index: int) -> None:
        load = Load(self._options, self._seed + (index + 1) * WINDOW_STRIDE)
        self._plans[index] = load, load.planned(self._qps)

    def _policy(self) -> Policy:
        options = self._options
        return Policy(
            api=options.api,
            base=self._url,
            request_timeout_s=options.request_timeout,
            connect_timeout_s=options.connect_timeout,
            silence_timeout_s=options.silence_timeout,
            retries=options.retries,
            retry_wait_s=options.retry_wait,
            secret=self._key,
            stream=options.stream,
        )

    # The rate

    async def _find_rate(self, search: MaxQps, context: TrialContext) -> None:
        async def probe(qps: float) -> Probe:
            context.progress(f"searching the rate: {qps:.3g} requests/s", None)
            return await self._probe(search, qps)

        found, tried = await max_qps(probe, self._options.qps, resolution=search.resolution, most=search.probes)
        self._known["search"] = [
            {"qps": each.qps, "attainment": each.attainment, "unsteady": each.unsteady, "holds": each.holds}
            for each in tried
        ]
        if found is None:
            best = max(tried, key=lambda each: each.attainment)
            queue = best.unsteady or "the load was steady"
            raise MeasurementError(
                f"no rate down to {tried[-1].qps:.3g} requests/s met the targets",
                where="search.max_qps",
                hint=f"at {best.qps:.3g} requests/s {best.attainment:.0%} did; {queue}",
            )
        self._qps = found

    async def _probe(self, search: MaxQps, qps: float) -> Probe:
        """One rate; a stream that is too short to judge its queue is followed by a longer one, twice at most."""
        requests = search.requests or self._options.requests or 40
        for again in range(3):
            load = Load(self._options, self._seed + (PROBES + again) * WINDOW_STRIDE)
            asked = await self._driver(time.monotonic).run(load.planned(qps, requests), load)
            answers = [each.answer for each in asked]
            judged = [self._writer.meets(answer) for answer in answers]
            if None in judged:
                raise MeasurementError(
                    f"the server sent no token count (usage) of {judged.count(None)} of {len(judged)} requests: "
                    "whether they met the targets is not known",
                    where="search.max_qps",
                    accepted="a server that answers stream_options: {include_usage: true}",
                )
            met = judged.count(True)
            sent = [answer.due_s for answer in answers]
            attainment, unsteady = met / len(asked), why_unsteady(answers, min(sent), max(sent))
            if "shorter than" not in unsteady or attainment < search.slo_attainment:
                break
            requests *= LONGER
        return Probe(qps, attainment, unsteady, attainment >= search.slo_attainment and not unsteady)

    # A window

    def step(self, window: Window) -> None:
        """One stream of requests."""
        self.run(window)

    def run(self, window: Window) -> None:
        """Sends one stream; latencies count from the scheduled arrival."""
        if window.index not in self._plans:
            self._plan(window.index)
        load, planned = self._plans[window.index]
        stream = self._wait(self._serve(load, planned, window))
        if self._server is not None:
            self._server.check()
        self._done = stream, load

    def after_window(self, window: Window) -> None:
        """Writes the rows and plans the next stream, neither of which the window is charged for."""
        if self._done is not None:
            self._writer.write(window, *self._done, self._qps)
            self._done = None
        self._plans = {-1: self._plans[-1]} if -1 in self._plans else {}
        self._plan(window.index + 1)

    def _driver(self, clock: Callable[[], float]) -> Driver:
        assert self._session is not None
        return Driver(self._session, self._policy(), self._options, clock)

    async def _serve(self, load: Load, planned: Sequence[Planned], window: Window) -> Stream:
        assert self._session is not None
        began_s = window.now_s()
        driver = self._driver(window.now_s)
        span = SteadySpan(window, driver.watch, self._options.warm_up_cut, began_s)
        metrics = engine_metrics.EngineMetrics(self._session, self._url, self._metrics_path, window.now_s)
        following = [asyncio.ensure_future(metrics.follow())] if self._metrics_path else []
        steady = asyncio.ensure_future(span.follow())
        try:
            asked: list[Asked] = await driver.run(planned, load)
            await steady
        finally:
            for task in (steady, *following):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        return Stream(began_s, asked, span.begin_s, span.end_s, driver.load, metrics.samples(), metrics.failed)

    # What is told

    def why_zero(self) -> Mapping[str, str]:
        """Why no token belongs to a steady span."""
        return {"steady_tokens": self._writer.unsteady} if self._writer.unsteady else {}

    def flags(self) -> Sequence[str]:
        """Where the load generator was in the way, or is in what was read."""
        return (
            *(f"{scope} holds the load generator too" for scope in self._shared),
            *dict.fromkeys(self._writer.flags),
        )

    def facts(self) -> Mapping[str, object]:
        """The server, how requests ended, the field's metrics over the last window. Never the key."""
        told: dict[str, Any] = {"model": self._options.model, "key_sent": bool(self._key), "max_qps": self._qps}
        return {**told, "server": self._known, "url": self._url, **self._writer.facts}

    def close(self) -> None:
        """Closes the client and ends a server that was started here."""
        loop, self._loop = self._loop, None
        try:
            if loop is not None:
                if self._session is not None:
                    loop.run_until_complete(self._session.close())
                loop.close()
        finally:
            if self._server is not None:
                self._server.stop()
