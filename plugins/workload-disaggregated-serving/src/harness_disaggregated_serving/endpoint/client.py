"""A streaming client of the OpenAI API: one request with its retries. What a server does to it costs no other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import aiohttp

from harness_disaggregated_serving.endpoint.answer import REASON_LENGTH, Answer, Taker, parsed, take_whole
from harness_disaggregated_serving.endpoint.sse import LONGEST_LINE, EventReader, StreamError

RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed later."""
LONGEST_WAIT_S: Final = 60.0
"""A server that asks for a longer wait than this is not waited for any longer."""
JSON_HEADERS: Final = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
OK: Final = 200
DONE: Final = b"[DONE]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a request is asked.

    Attributes:
        api: `completions` or `chat`.
        base: address of the API, without a final slash.
        request_timeout_s: longest time of an attempt.
        connect_timeout_s: longest wait for a connection.
        silence_timeout_s: longest wait for the next byte.
        retries: attempts after the first one.
        retry_wait_s: before the first of them, doubled for each further one.
        secret: never to be repeated in a reason.
        stream: whether the answer comes token by token.
    """

    api: Literal["completions", "chat"]
    base: str
    request_timeout_s: float
    connect_timeout_s: float
    silence_timeout_s: float
    retries: int
    retry_wait_s: float
    secret: str = ""
    stream: bool = True

    @property
    def url(self) -> str:
        """The address that is asked."""
        return self.base + ("/completions" if self.api == "completions" else "/chat/completions")

    @property
    def timeout(self) -> aiohttp.ClientTimeout:
        """As the transport takes it."""
        return aiohttp.ClientTimeout(
            total=self.request_timeout_s, sock_connect=self.connect_timeout_s, sock_read=self.silence_timeout_s
        )


class Asking:
    """One request, with its attempts.

    Args:
        session: with headers and certificates.
        body: of the request, as it is sent.
        policy: how it is asked.
        clock: seconds since the window opened.
    """

    def __init__(self, session: aiohttp.ClientSession, body: bytes, policy: Policy, clock: Callable[[], float]) -> None:
        self._session = session
        self._body = body
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
        answer, policy = self.answer, self._policy
        try:
            async with self._session.post(
                policy.url, data=self._body, headers=JSON_HEADERS, timeout=policy.timeout, allow_redirects=False
            ) as response:
                if response.status != OK:
                    return await self._refused(response, wait_s)
                await (self._streamed(response) if policy.stream else self._whole(response))
        except StreamError as error:
            answer.reason = str(error)
        except aiohttp.ServerTimeoutError as error:
            answer.reason = f"{type(error).__name__}: the server was silent for too long"
            return None if answer.times else wait_s
        except TimeoutError:
            answer.reason = f"not finished in {policy.request_timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            answer.reason = f"{type(error).__name__}: {error}"
            return None if answer.times else wait_s
        except Exception as error:  # noqa: BLE001 - whatever a stream holds, it costs its own request and no other
            answer.reason = f"the answer cannot be read: {type(error).__name__}: {error}"
        answer.finished = answer.finished and not answer.reason
        return None

    async def _streamed(self, response: aiohttp.ClientResponse) -> None:
        reader, taker, clock = EventReader(), Taker(self.answer), self._clock
        async for received in response.content.iter_any():
            now_s = clock()
            for data in reader.feed(received):
                if data.strip() == DONE:
                    taker.close()
                    return
                taker.take(parsed(data), now_s)
        last = reader.end()
        if last is not None and last.strip() != DONE:
            taker.take(parsed(last), clock())
        taker.close()

    async def _whole(self, response: aiohttp.ClientResponse) -> None:
        body = await whole_body(response, LONGEST_LINE)
        if body is None:
            raise StreamError(f"the answer has more than {LONGEST_LINE} bytes")
        take_whole(self.answer, parsed(body), self._clock())

    async def _refused(self, response: aiohttp.ClientResponse, wait_s: float) -> float | None:
        body = (await whole_body(response, LONGEST_LINE) or b"").decode("utf-8", "replace")
        self.answer.reason = f"status {response.status}: {' '.join(body.split())[:REASON_LENGTH]}"
        if response.status not in RETRIED:
            self.answer.rejected = 400 <= response.status < 500
            return None
        asked = response.headers.get("retry-after", "")
        return min(float(asked), LONGEST_WAIT_S) if asked.isascii() and asked.isdigit() else wait_s


async def whole_body(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """A body to its end, in however many pieces it comes; None where it has more than `most` bytes."""
    pieces, size = [], 0
    while piece := await response.content.read(most):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            return None
    return b"".join(pieces)


def encoded(body: object) -> bytes:
    """A request's body as it is sent, made before the window opens."""
    return json.dumps(body).encode()
