"""Streams as they may come: separators of the protocol alone, odd events, ends that are failures, bounds."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from harness_disaggregated_serving.endpoint import engine_metrics
from harness_disaggregated_serving.endpoint.answer import Answer, Taker, parsed, take_whole
from harness_disaggregated_serving.endpoint.sse import EventReader, StreamError
from harness_disaggregated_serving.endpoint.versions import version_of

Piece = str | float
DONE = "data: [DONE]\n\n"


def event(content: object) -> str:
    return f"data: {json.dumps(content)}\n\n"


def chat(**delta: str) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def usage(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


GOOD: list[Piece] = [
    event(chat(content="a")),
    event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage(2, 1)}),
    DONE,
]


def read(*received: bytes, longest: int = 1000) -> list[bytes]:
    reader = EventReader(longest)
    found = [data for piece in received for data in reader.feed(piece)]
    last = reader.end()
    return found if last is None else [*found, last]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_ending_of_the_standard_ends_a_line_wherever_the_bytes_are_cut(end: bytes) -> None:
    stream = (
        b"\xef\xbb\xbf: c" + end + b"data: a" + end + b"data:b" + end + end + b"id: 7" + end + b"data: c" + end + end
    )
    whole = read(stream)
    assert whole == [b"a\nb", b"c"]
    for cut in range(len(stream) + 1):
        assert read(stream[:cut], stream[cut:]) == whole
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == whole


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_no_other_character_ends_a_line(inside: str) -> None:
    assert read(f"data: a{inside}b\n\n".encode()) == [f"a{inside}b".encode()]


def test_a_line_without_an_end_is_bounded() -> None:
    with pytest.raises(StreamError, match="does not end"):
        read(b"data: " + b"x" * 2000)
    with pytest.raises(StreamError, match="event has more"):
        read(b"data: " + b"x" * 600 + b"\n" + b"data: " + b"x" * 600 + b"\n")


def test_a_line_separator_in_a_token_is_text(replay: Any, ask: Any) -> None:
    odd = "a\u2028b\u0085c"
    line = json.dumps(chat(content=odd), ensure_ascii=False)
    replay.answers([f"data: {line}\n\n", *GOOD[1:]])
    found = ask(replay.url)
    assert (found.finished, found.text, len(found.times)) == (True, odd, 1)


ODD: list[tuple[str, bool]] = [
    (event({"choices": []}), True),
    (event({"choices": None}), True),
    (event({"object": "ping"}), True),
    (event({"choices": [{"index": 0, "delta": None}]}), True),
    (event({"choices": [{"index": 0, "delta": {"content": None, "tool_calls": None}}]}), True),
    (event({"choices": [{"index": 0, "delta": "text?"}]}), True),
    (event({"choices": [], "usage": {"prompt_tokens": "many"}}), True),
    (": a comment\n\n", True),
    ("event: ping\ndata: {}\n\n", True),
    ("data: {broken\n\n", False),
    ("data: [1, 2]\n\n", False),
    ("data: " + "[" * 5000 + "\n\n", False),
    (event({"choices": [7]}), False),
    (event({"choices": 7}), False),
    (event({"error": {"message": "out of memory"}}), False),
]


@pytest.mark.parametrize(("odd", "harmless"), ODD)
def test_an_odd_event_costs_its_own_request_at_most(
    replay: Any, tmp_path: Path, odd: str, harmless: bool, served: Any
) -> None:
    replay.answers(GOOD)
    replay.answers([GOOD[0], odd, *GOOD[1:]])
    replay.answers(GOOD)
    window, facts = served(replay.url, tmp_path, api="chat", arrivals="constant", qps=20, requests=5)
    failed = [row for row in window.rows if row["status"] != "ok"]
    assert len(window.rows) == 5
    assert (len(failed), facts["ended"]["failed"]) == ((0, 0) if harmless else (1, 1))
    if not harmless:
        reason = window.outputs[str(failed[0]["item_id"])]["reason"]  # type: ignore[index]
        assert reason


@pytest.mark.parametrize("reason", ["abort", "error", "cancelled"])
def test_an_answer_that_the_engine_gave_up_has_failed(replay: Any, reason: str, ask: Any) -> None:
    replay.answers([event(chat(content="a")), event({"choices": [{"delta": {}, "finish_reason": reason}]}), DONE])
    found = ask(replay.url)
    assert (found.finished, found.status) == (False, "failed")
    assert reason in found.reason


CALL = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]}


@pytest.mark.parametrize(
    "delta",
    [CALL, {"reasoning_content": "so"}, {"reasoning": "so"}, {"refusal": "no"}, {"function_call": {"name": "f"}}],
)
def test_tool_calls_and_reasoning_are_first_tokens(delta: dict[str, Any]) -> None:
    answer = Answer(sent_s=0.0)
    taker = Taker(answer)
    taker.take({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, 1.0)
    taker.take({"choices": [{"delta": delta}]}, 2.0)
    taker.take({"choices": [{"delta": {"content": "x"}, "finish_reason": "tool_calls"}]}, 3.0)
    taker.close()
    assert (answer.first_s, answer.times, answer.finished) == (2.0, [2.0, 3.0], True)


def test_an_answer_that_is_not_streamed_has_an_end_and_no_first_token(replay: Any, tmp_path: Path, served: Any) -> None:
    whole = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}], "usage": usage(3, 2)}
    replay.answers([json.dumps(whole)])
    window, _ = served(replay.url, tmp_path, api="chat", stream=False, requests=2)
    assert replay.seen[0][2]["stream"] is False
    assert "stream_options" not in replay.seen[0][2]
    for row in window.rows:
        assert (row["status"], row["output_tokens"], row["ttft_s"], row["tpot_s"]) == ("ok", 2, None, None)
        assert row["latency_s"] > 0  # type: ignore[operator]
        assert row["meets_slo"] == 0.0


def test_a_whole_answer_is_held_to_the_same_rules() -> None:
    for body in ({"error": "x"}, {"choices": []}, {"choices": [{"message": {}, "finish_reason": "abort"}]}):
        with pytest.raises(StreamError):
            take_whole(Answer(), body, 1.0)
    with pytest.raises(StreamError):
        parsed(b"\xff")


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_page_that_comes_in_pieces_is_read_to_its_end(size: int) -> None:
    """A cut would read 1 running request of 12, and no version of a server that is sure of it."""
    page = b"# " + b"x" * size + b"\nvllm:num_requests_running 12\n"
    version = json.dumps({"filler": "x" * size, "version": "1.2.3"}).encode()

    ended = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        body = page if b"/metrics" in head else version
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body[:-2])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(body[-2:])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def ask() -> tuple[bytes | None, str]:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        async with listening, aiohttp.ClientSession() as session:
            metrics = engine_metrics.EngineMetrics(session, url, "/metrics", time.monotonic)
            found = await metrics.read(), await version_of(session, url)
        await asyncio.gather(*filter(None, ended))
        return found

    found, told = asyncio.run(ask())
    assert found is not None
    assert engine_metrics.parsed(found.decode())["server_running"] == 12
    assert told == "1.2.3"
