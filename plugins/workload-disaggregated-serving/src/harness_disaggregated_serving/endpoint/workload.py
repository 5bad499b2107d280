"""Workload `serve-endpoint`: open-loop requests to any server of the OpenAI API."""

from __future__ import annotations

import asyncio
import math
import os
import random
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from harness.backend import Device
from harness.errors import MeasurementError
from harness.workload import TrialContext, Window, Workload
from harness_disaggregated_serving.endpoint.client import Answer, Asking, Policy
from harness_disaggregated_serving.endpoint.options import EndpointOptions
from harness_disaggregated_serving.load import arrivals
from harness_disaggregated_serving.load.lengths import application
from harness_disaggregated_serving.load.slo import Slo, named

WORDS: Final = ("time", "year", "people", "way", "day", "man", "thing", "life", "child", "world", "school", "state")
"""Prompts are drawn from these: most tokenizers take one token for each; the true number is the server's."""
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def stream_of(options: EndpointOptions, seed: int) -> Iterable[arrivals.Request]:
    """The requests of a window, the same for every endpoint with the same seed."""
    if options.trace is not None:
        return arrivals.trace(Path(options.trace))
    process: dict[str, arrivals.Arrivals] = {
        "poisson": arrivals.Poisson(options.qps),
        "constant": arrivals.Constant(options.qps),
        "all_at_once": arrivals.AllAtOnce(),
    }
    return arrivals.requests(process[options.arrivals], application(options.sizes), options.requests, seed)


def body_of(options: EndpointOptions, prompt: str, output_tokens: int) -> dict[str, Any]:
    """The request, with a stream that ends in its usage."""
    content: dict[str, Any] = (
        {"prompt": prompt} if options.api == "completions" else {"messages": [{"role": "user", "content": prompt}]}
    )
    return {
        "model": options.model,
        **content,
        "max_tokens": output_tokens,
        "temperature": options.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        **options.extra,
    }


class ServeEndpoint(Workload):
    """Requests to a server that somebody else started."""

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        self._seed = options.seed
        self._key = ""
        self._facts: dict[str, object] = {}

    def devices(self) -> Sequence[Device]:
        """The server's GPUs, where the suite names them."""
        return [Device(kind="gpu", uuid=uuid, name=name) for uuid, name in self._options.server.gpus.items()]

    def processes(self) -> Mapping[str, int]:
        """The server's process, where the suite names it."""
        pid = self._options.server.pid
        return {} if pid is None else {"server": pid}

    def prepare(self, context: TrialContext) -> None:
        """Takes the key from the environment; raises MeasurementError where no server listens."""
        self._seed = self._options.seed + context.seed
        self._key = os.environ.get(self._options.api_key_env, "")
        asyncio.run(self._reach())

    async def _reach(self) -> None:
        async with self._client() as client:
            try:
                await client.get("/models")
            except httpx.HTTPError as error:
                raise MeasurementError(f"no answer from {self._options.url}: {type(error).__name__}: {error}") from None

    def _client(self) -> httpx.AsyncClient:
        options = self._options
        return httpx.AsyncClient(
            base_url=options.url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(options.silence_timeout, connect=options.connect_timeout, pool=None),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=64
            ),  # open loop: none waits for another
            verify=ssl.create_default_context(cafile=options.ca),
            trust_env=urlsplit(options.url).hostname not in LOOPBACK,  # no proxy on the way to this very machine
        )

    def step(self, window: Window) -> None:
        """One stream of requests."""
        self.run(window)

    def run(self, window: Window) -> None:
        """Sends one stream; latencies count from the scheduled arrival."""
        asked = list(stream_of(self._options, self._seed))
        opened_s = window.now_s()
        answers = asyncio.run(self._serve(asked, window, opened_s))
        slo = named(self._options.slo) if isinstance(self._options.slo, str) else None
        if slo is None:
            assert not isinstance(self._options.slo, str)
            slo = Slo(self._options.slo.ttft, self._options.slo.tpot)
        for number, (request, answer) in enumerate(zip(asked, answers, strict=True)):
            status = "ok" if answer.finished else "rejected" if answer.rejected else "failed"
            window.item(f"r{number}", status=status, **_columns(request, answer, slo, opened_s))
            window.output(f"r{number}", {"text": answer.text, "reason": answer.reason, "retries": answer.retries})
        self._summarise(answers)

    async def _serve(self, asked: Sequence[arrivals.Request], window: Window, opened_s: float) -> list[Answer]:
        options = self._options
        words = random.Random(self._seed)  # noqa: S311 - prompts, no secrets
        policy = Policy(
            api=options.api,
            request_timeout_s=options.request_timeout,
            retries=options.retries,
            retry_wait_s=options.retry_wait,
            secret=self._key,
        )
        async with self._client() as client:

            async def one(request: arrivals.Request, body: Mapping[str, Any]) -> Answer:
                await asyncio.sleep(max(0.0, opened_s + request.arrival_s - window.now_s()))
                return await Asking(client, body, policy, window.now_s).run()

            tasks = []
            for request in asked:
                prompt, output = (
                    max(1, math.ceil(count * options.length_scale))
                    for count in (request.prompt_tokens, request.output_tokens)
                )
                text = " ".join(words.choice(WORDS) for _ in range(prompt))
                tasks.append(asyncio.create_task(one(request, body_of(options, text, output))))
            return list(await asyncio.gather(*tasks))

    def _summarise(self, answers: Sequence[Answer]) -> None:
        finished = [answer for answer in answers if answer.finished]
        self._facts = {
            "url": self._options.url,
            "model": self._options.model,
            "key_sent": bool(self._key),
            "retries": sum(answer.retries for answer in answers),
            "ended": {
                "finished": len(finished),
                "rejected": sum(answer.rejected for answer in answers),
                "failed": sum(not answer.finished and not answer.rejected for answer in answers),
            },
            "without_usage": sum(answer.output_tokens is None for answer in finished),
            "reasons": sorted({answer.reason for answer in answers if answer.reason}),
        }

    def facts(self) -> Mapping[str, object]:
        """How requests ended, retries, and how many answers came without token counts. Never the key."""
        return self._facts


def _columns(request: arrivals.Request, answer: Answer, slo: Slo, opened_s: float) -> dict[str, float | None]:
    due_s = opened_s + request.arrival_s
    common: dict[str, float | None] = {"start_s": due_s, "arrival_s": request.arrival_s}
    if not answer.finished:
        return {**common, "meets_slo": 0.0}
    assert answer.sent_s is not None
    ttft_s = None if answer.first_s is None else answer.first_s - due_s
    unknown = answer.output_tokens is None
    return {
        **common,
        "first_token_s": answer.first_s,
        "end_s": answer.last_s,
        "prompt_tokens": answer.prompt_tokens,
        "output_tokens": answer.output_tokens,
        "ttft_s": ttft_s,
        "tpot_s": answer.tpot_s,
        "latency_s": None if answer.last_s is None else answer.last_s - due_s,
        "queue_s": answer.sent_s - due_s,
        "meets_slo": None if unknown else float(slo.met(ttft_s, answer.tpot_s)),
    }
