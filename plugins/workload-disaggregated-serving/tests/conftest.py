"""A loopback server that replays streams, and the client and workload that read them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import harness_disaggregated_serving
import pytest

from harness.builtin.host import BACKEND as HOST
from harness.testing import RecordingWindow, trial_context

Piece = str | float
"""A piece of a body, or seconds of silence."""


class Replay:
    """A server that answers the n-th request with the n-th script, the last one for ever."""

    def __init__(self) -> None:
        self.scripts: list[tuple[int, dict[str, str], list[Piece]]] = []
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.seen.append((self.path, dict(self.headers), body))
                status, headers, pieces = outer.scripts[min(len(outer.seen), len(outer.scripts)) - 1]
                self.send_response(status)
                for name, value in {"Content-Type": "text/event-stream", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in pieces:
                    if isinstance(piece, str):
                        self.wfile.write(piece.encode())
                        self.wfile.flush()
                    else:
                        time.sleep(piece)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answers(self, pieces: list[Piece], status: int = 200, **headers: str) -> None:
        self.scripts.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, pieces))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def replay() -> Iterator[Replay]:
    server = Replay()
    yield server
    server.close()


def ask_server(
    url: str,
    *,
    retries: int = 2,
    silence_s: float = 2.0,
    timeout_s: float = 5.0,
    secret: str = "",
    api: Literal["chat", "completions"] = "chat",
    stream: bool = True,
) -> Any:
    from harness_disaggregated_serving.endpoint.client import Asking, Policy
    from harness_disaggregated_serving.endpoint.driving import new_session

    async def run() -> Any:
        policy = Policy(
            api=api,
            base=url,
            request_timeout_s=timeout_s,
            connect_timeout_s=2.0,
            silence_timeout_s=silence_s,
            retries=retries,
            retry_wait_s=0.01,
            secret=secret,
            stream=stream,
        )
        async with new_session({}, True, proxies=False) as session:
            return await Asking(session, b'{"model": "m"}', policy, time.monotonic).run()

    return asyncio.run(run())


def spec() -> Any:
    return next(each for each in harness_disaggregated_serving.harness_workloads() if each.name == "serve-endpoint")


def options(url: str, **given: object) -> dict[str, object]:
    return {
        "url": url, "model": "m", "qps": 100, "requests": 6, "length_scale": 0.05, "retry_wait": "10ms", **given,
    }  # fmt: skip


def serve(url: str, folder: Path, **given: object) -> tuple[RecordingWindow, Any]:
    workload = spec().factory(spec().options.model_validate(options(url, **given)))
    window = RecordingWindow(1)
    try:
        workload.prepare(trial_context(folder, HOST.factory(HOST.options())))
        workload.run(window)
        workload.after_window(window)
        return window, workload.facts()
    finally:
        workload.close()


@pytest.fixture
def ask() -> Any:
    """Asks a server once; returns the answer."""
    return ask_server


@pytest.fixture
def served() -> Any:
    """Runs a window of the workload; returns it with the facts."""
    return serve


@pytest.fixture
def endpoint_options() -> Any:
    """Options for a quick window."""
    return options
