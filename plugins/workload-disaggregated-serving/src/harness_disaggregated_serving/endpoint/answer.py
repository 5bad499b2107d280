"""What came of a request, and how events of the OpenAI API are taken into it.

Chunks are not tokens: counts come from `usage`, and those of a chunk from what the server says of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from harness_disaggregated_serving.endpoint.sse import StreamError

REASON_LENGTH: Final = 200
"""So much of a server's message is kept."""
FAILED_ENDS: Final = frozenset({"abort", "aborted", "cancelled", "canceled", "error"})
"""Finish reasons of engines that gave a request up (vLLM and SGLang: `abort`): its text is not what was asked for."""


@dataclass(slots=True)
class Answer:
    """What came of a request; times on the caller's clock.

    Attributes:
        finished: whether the stream came to its end.
        reason: why not.
        rejected: whether the server refused it for good (4xx), rather than failed.
        retries: attempts after the first one.
        due_s: when it was to be sent: its scheduled arrival.
        sent_s: start of the last attempt.
        end_s: end of the answer: its last text, or the whole of it where it was not streamed.
        times: of each chunk with text, reasoning or a tool call.
        lengths: characters of each.
        counted: output tokens up to each, as the server said it in the chunk; None where it did not.
        ended_by: the server's finish reason.
        prompt_tokens: from `usage`; None where the server sent none.
        output_tokens: likewise.
        text: all of it, reasoning and tool calls among it.
    """

    finished: bool = False
    reason: str = ""
    rejected: bool = False
    retries: int = 0
    due_s: float = 0.0
    sent_s: float | None = None
    end_s: float | None = None
    times: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    counted: list[int | None] = field(default_factory=list)
    ended_by: str = ""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All that was generated."""
        return "".join(self.parts)

    @property
    def first_s(self) -> float | None:
        """First chunk with text, reasoning or a tool call; None where none came."""
        return self.times[0] if self.times else None

    @property
    def last_s(self) -> float | None:
        """Last such chunk, or the end of an answer that was not streamed."""
        return self.times[-1] if self.times else self.end_s

    @property
    def status(self) -> str:
        """`ok`, `rejected` or `failed`."""
        return "ok" if self.finished else "rejected" if self.rejected else "failed"


def parsed(data: bytes) -> Mapping[str, Any]:
    """An event as JSON; raises StreamError where it is none, or no object."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise StreamError(f"an event is cut off or no JSON: {data[:80].decode('utf-8', 'replace')!r}") from None
    if not isinstance(found, dict):
        raise StreamError(f"an event is no object: {data[:80].decode('utf-8', 'replace')!r}")
    return found


class Taker:
    """Takes the events of one stream into an answer.

    Args:
        answer: that grows.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._generated = 0
        self._told = True

    def take(self, event: Mapping[str, Any], now_s: float) -> None:
        """One event; raises StreamError for one that ends the request."""
        answer = self._answer
        if event.get("error"):
            raise StreamError(f"the server says: {json.dumps(event['error'])[:REASON_LENGTH]}")
        usage = event.get("usage")
        if isinstance(usage, dict):
            answer.prompt_tokens = count_of(usage.get("prompt_tokens"), answer.prompt_tokens)
            answer.output_tokens = count_of(usage.get("completion_tokens"), answer.output_tokens)
        for choice in event.get("choices") or ():
            if not isinstance(choice, dict):
                raise StreamError("a choice is no object")
            self._choice(choice, now_s, isinstance(usage, dict))

    def _choice(self, choice: Mapping[str, Any], now_s: float, counted: bool) -> None:
        answer = self._answer
        text = text_of(choice)
        fresh = tokens_of(choice)
        self._told = self._told and fresh is not None
        self._generated += fresh or 0
        if text:
            answer.times.append(now_s)
            answer.lengths.append(len(text))
            said = answer.output_tokens if counted else self._generated if self._told else None
            answer.counted.append(said)
            answer.parts.append(text)
        ended = choice.get("finish_reason")
        if ended is not None:
            answer.ended_by = str(ended)

    def close(self) -> None:
        """The stream ended; raises StreamError where the server did not finish it, or gave it up."""
        answer = self._answer
        if not answer.ended_by:
            raise StreamError("the stream ended before the server finished it")
        if answer.ended_by in FAILED_ENDS:
            raise StreamError(f"the server ended it with finish_reason {answer.ended_by!r}")
        answer.end_s = answer.last_s
        answer.finished = True


def take_whole(answer: Answer, body: Mapping[str, Any], now_s: float) -> None:
    """Takes an answer that was not streamed; raises StreamError where it is none."""
    whole = Answer()
    taker = Taker(whole)
    taker.take(body, now_s)
    taker.close()
    answer.prompt_tokens, answer.output_tokens = whole.prompt_tokens, whole.output_tokens
    answer.parts, answer.ended_by, answer.end_s = whole.parts, whole.ended_by, now_s
    answer.finished = True


def text_of(choice: Mapping[str, Any]) -> str:
    """What a choice holds, of either API: text, reasoning, refusal and tool calls alike count as output."""
    said = choice.get("text")
    delta = choice.get("delta") or choice.get("message")
    if not isinstance(delta, dict):
        return said if isinstance(said, str) else ""
    named = [said, *(delta.get(key) for key in ("reasoning_content", "reasoning", "content", "refusal"))]
    calls = delta.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    for function in (*functions, delta.get("function_call")):
        if isinstance(function, dict):
            named += [function.get("name"), function.get("arguments")]
    return "".join(part for part in named if isinstance(part, str))


def tokens_of(choice: Mapping[str, Any]) -> int | None:
    """How many tokens a chunk holds, where the server lists them: token ids (vLLM) or log-probabilities; else None."""
    ids = choice.get("token_ids")
    if isinstance(ids, list):
        return len(ids)
    told = choice.get("logprobs")
    if isinstance(told, dict):
        for key in ("content", "tokens"):
            if isinstance(told.get(key), list):
                return len(told[key])
    return None


def count_of(value: object, otherwise: int | None = None) -> int | None:
    """A count as the server says it; what was known before where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise
