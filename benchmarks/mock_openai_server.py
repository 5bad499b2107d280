"""A server of the OpenAI API whose timing is known: first token after --ttft, then one every --gap.

    python benchmarks/mock_openai_server.py --port 8000 --ttft 0.2 --gap 0.02

Times count from the moment at which a request's last byte was read, on an absolute schedule, so that no error adds up.
With --slots only so many requests are served at once and the others wait, which makes a knee; --first puts several
tokens into the first chunk. It speaks HTTP/1.1 with chunked answers and keeps connections open. `/metrics` says what
vLLM's would. Only Python's own library is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from typing import Any

WORD = "word "


class Mock:
    """The server; one object, one port."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._slots = asyncio.Semaphore(given.slots) if given.slots else None
        self._running = self._waiting = 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection, one after the other."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                begun = head.split("\r\n")[0].split(" ")
                length = 0
                for line in head.split("\r\n")[1:]:
                    name, _, value = line.partition(":")
                    if name.lower() == "content-length":
                        length = int(value)
                body = await reader.readexactly(length)
                await self._answer(writer, begun[0], begun[1], body, time.perf_counter())
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, method: str, path: str, body: bytes, read_s: float) -> None:
        pages: dict[str, tuple[str, str]] = {
            "/health": ("application/json", "{}"),
            "/version": ("application/json", json.dumps({"version": "mock 1.0"})),
            "/v1/models": ("application/json", json.dumps({"object": "list", "data": [{"id": "mock"}]})),
            "/metrics": ("text/plain", self._metrics()),
        }
        if method == "POST" and path.endswith("/completions"):
            await self._generate(writer, json.loads(body), "/chat/" in path, read_s)
        elif path in pages:
            kind, text = pages[path]
            self._head(writer, "200 OK", kind, f"Content-Length: {len(text.encode())}")
            writer.write(text.encode())
            await writer.drain()
        else:
            self._head(writer, "404 Not Found", "text/plain", "Content-Length: 0")
            await writer.drain()

    def _metrics(self) -> str:
        return (
            f'vllm:num_requests_running{{model_name="mock"}} {self._running}.0\n'
            f'vllm:num_requests_waiting{{model_name="mock"}} {self._waiting}.0\n'
            f'vllm:kv_cache_usage_perc{{model_name="mock"}} 0.25\n'
        )

    @staticmethod
    def _head(writer: asyncio.StreamWriter, status: str, kind: str, length: str) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{length}\r\n\r\n".encode())

    async def _generate(self, writer: asyncio.StreamWriter, asked: dict[str, Any], chat: bool, read_s: float) -> None:
        self._waiting += 1
        async with self._slots or contextlib.nullcontext():
            self._waiting -= 1
            self._running += 1
            try:
                if self._slots is not None:
                    read_s = time.perf_counter()  # the service begins when a slot is free
                await self._stream(writer, asked, chat, read_s)
            finally:
                self._running -= 1

    async def _stream(self, writer: asyncio.StreamWriter, asked: dict[str, Any], chat: bool, read_s: float) -> None:
        tokens = int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 16)
        first = min(self._given.first, tokens)
        self._head(writer, "200 OK", "text/event-stream", "Transfer-Encoding: chunked")
        await writer.drain()
        said = asked.get("prompt") or " ".join(str(each.get("content")) for each in asked.get("messages", ()))
        usage = {"prompt_tokens": len(said.split()), "completion_tokens": tokens}
        usage["total_tokens"] = usage["prompt_tokens"] + tokens
        for number in range(tokens - first + 1):
            due_s = read_s + self._given.ttft + number * self._given.gap
            await _until(due_s)
            text = WORD * (first if number == 0 else 1)
            ended = "length" if number == tokens - first else None
            await self._send(writer, self._chunk([self._choice(text, chat, ended)], chat))
        if (asked.get("stream_options") or {}).get("include_usage", True):
            await self._send(writer, self._chunk([], chat) | {"usage": usage})
        await self._raw(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    @staticmethod
    def _choice(text: str, chat: bool, ended: str | None) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {"index": 0, **said, "finish_reason": ended}

    @staticmethod
    def _chunk(choices: list[dict[str, Any]], chat: bool) -> dict[str, Any]:
        kind = "chat.completion.chunk" if chat else "text_completion"
        return {"id": "mock-1", "object": kind, "created": int(time.time()), "model": "mock", "choices": choices}

    async def _send(self, writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        await self._raw(writer, f"data: {json.dumps(event)}\n\n".encode())

    @staticmethod
    async def _raw(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()


async def _until(due_s: float) -> None:
    """Sleeps to within a ms, and the rest of it in small steps."""
    while (left_s := due_s - time.perf_counter()) > 0:  # noqa: ASYNC110 - it is a clock that is waited for
        await asyncio.sleep(left_s - 0.001 if left_s > 0.002 else 0)


async def _serve(given: argparse.Namespace) -> None:
    server = await asyncio.start_server(Mock(given).connection, given.host, given.port)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description="A server of the OpenAI API whose timing is known.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ttft", type=float, default=0.2, help="seconds from a request to its first token")
    parser.add_argument("--gap", type=float, default=0.02, help="seconds from each token to the next")
    parser.add_argument("--first", type=int, default=1, help="tokens of the first chunk")
    parser.add_argument("--slots", type=int, default=0, help="requests served at once; 0 for all")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
