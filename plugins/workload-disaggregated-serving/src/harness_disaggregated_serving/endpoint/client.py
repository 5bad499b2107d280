"""A streaming client of the OpenAI API: one request's times, its token counts as the server reports them, its retries.

Chunks are not tokens: counts come from `usage` alone, and are missing where a server sends none.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import httpx

RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed later."""
LONGEST_WAIT_S: Final = 60.0
"""A server that asks for a longer wait than this is not waited for any longer."""
REASON_LENGTH: Final = 200
"""So much of a server's message is kept."""


class StreamError(Exception):
    """A stream that is not what the API promises, or that ended early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a request is asked.

    Attributes:
        api: `completions` or `chat`.
        request_timeout_s: longest time of an attempt.
        retries: attempts after the first one.
        retry_wait_s: before the first of them, doubled for each further one.
        secret: never to be repeated in a reason.
    """

    api: Literal["completions", "chat"]
    request_timeout_s: float
    retries: int
    retry_wait_s: float
    secret: str = ""

    @property
    def path(self) -> str:
        """Below the base address."""
        return "/completions" if self.api == "completions" else "/chat/completions"


@dataclass(slots=True)
class Answer:
    """What came of a request; times on the caller's clock.

    Attributes:
        finished: whether the stream came to its end.
        reason: why not.
        rejected: whether the server refused it for good (4xx), rather than failed.
        retries: attempts after the first one.
        sent_s: start of the last attempt.
        first_s: first chunk with text; None where none came.
        last_s: last chunk with text.
        prompt_tokens: from `usage`; None where the server sent none.
        output_tokens: likewise.
        text: all of it.
    """

    finished: bool = False
    reason: str = ""
    rejected: bool = False
    retries: int = 0
    sent_s: float | None = None
    first_s: float | None = None
    last_s: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    text: str = ""

    @property
    def tpot_s(self) -> float | None:
        """(last - first text) / (tokens - 1); None without counts or with one token."""
        if self.first_s is None or self.last_s is None or self.output_tokens is None or self.output_tokens < 2:
            return None
        return (self.last_s - self.first_s) / (self.output_tokens - 1)


async def events(lines: AsyncIterator[str]) -> AsyncIterator[Mapping[str, Any]]:
    """JSON events of a server-sent stream until `[DONE]` or its end; raises StreamError for what is no event."""
    data: list[str] = []
    async for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            text, data = "\n".join(data), []
            if text.strip() == "[DONE]":
                return
            yield _event(text)
    if data and "".join(data).strip() != "[DONE]":
        yield _event("\n".join(data))  # a last event without its empty line, which truncation tells from whole JSON


def _event(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        raise StreamError(f"an event is cut off or no JSON: {text[:80]!r}") from None
    if not isinstance(found, dict):
        raise StreamError(f"an event is no object: {text[:80]!r}")
    return found


def _text_of(choice: Mapping[str, Any]) -> str:
    """Text of a choice, of either API; reasoning counts as text."""
    delta = choice.get("delta") or {}
    parts = (choice.get("text"), delta.get("reasoning_content"), delta.get("reasoning"), delta.get("content"))
    return "".join(part for part in parts if isinstance(part, str))


async def read_stream(lines: AsyncIterator[str], answer: Answer, clock: Callable[[], float]) -> None:
    """Takes a stream into an answer; raises StreamError where it ends without a reason to finish."""
    finished = False
    async for event in events(lines):
        if event.get("error"):
            raise StreamError(f"the server says: {json.dumps(event['error'])[:REASON_LENGTH]}")
        for choice in event.get("choices") or ():
            text = _text_of(choice)
            if text:
                answer.last_s = clock()
                answer.first_s = answer.last_s if answer.first_s is None else answer.first_s
                answer.text += text
            finished = finished or choice.get("finish_reason") is not None
        usage = event.get("usage")
        if isinstance(usage, dict):
            answer.prompt_tokens = _count(usage.get("prompt_tokens"))
            answer.output_tokens = _count(usage.get("completion_tokens"))
    if not finished:
        raise StreamError("the stream ended before the server finished it")
    answer.finished = True


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class Asking:
    """One request, with its attempts.

    Args:
        client: with address, headers and time-outs.
        body: of the request.
        policy: how it is asked.
        clock: seconds since the window opened.
    """

    def __init__(
        self, client: httpx.AsyncClient, body: Mapping[str, Any], policy: Policy, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._body = dict(body)
        self._policy = policy
        self._clock = clock
        self.answer = Answer()

    async def run(self) -> Answer:
        """Asks until the answer is final; raises nothing that a server or network does."""
        for attempt in range(self._policy.retries + 1):
            self.answer = Answer(retries=attempt, sent_s=self._clock())
            wait_s = await self._attempt(self._policy.retry_wait_s * 2**attempt)
            if wait_s is None or attempt == self._policy.retries:
                break
            await asyncio.sleep(wait_s)
        if self._policy.secret:
            self.answer.reason = self.answer.reason.replace(self._policy.secret, "***")
        return self.answer

    async def _attempt(self, wait_s: float) -> float | None:
        """One attempt; seconds to wait before another one, None where the answer is final."""
        answer = self.answer
        try:
            async with (
                asyncio.timeout(self._policy.request_timeout_s),
                self._client.stream("POST", self._policy.path, json=self._body) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    return await self._refused(response, wait_s)
                await read_stream(response.aiter_lines(), answer, self._clock)
        except StreamError as error:
            answer.reason = str(error)
        except TimeoutError:
            answer.reason = f"not finished in {self._policy.request_timeout_s:g} s"
        except httpx.TimeoutException as error:
            answer.reason = f"{type(error).__name__}: the server was silent for too long"
            return wait_s if answer.first_s is None else None
        except httpx.HTTPError as error:
            answer.reason = f"{type(error).__name__}: {error}"
            return wait_s if answer.first_s is None else None
        return None

    async def _refused(self, response: httpx.Response, wait_s: float) -> float | None:
        body = (await response.aread()).decode("utf-8", "replace")
        self.answer.reason = f"status {response.status_code}: {' '.join(body.split())[:REASON_LENGTH]}"
        if response.status_code not in RETRIED:
            self.answer.rejected = 400 <= response.status_code < 500
            return None
        asked = response.headers.get("retry-after", "")
        return min(float(asked), LONGEST_WAIT_S) if asked.isdigit() else wait_s
