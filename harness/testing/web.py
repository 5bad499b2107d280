"""A web server for tests of what asks over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked.

    Attributes:
        target: path and query, as they were sent.
        path: without the query.
        query: the first value of each name.
        headers: as they were sent.
    """

    target: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def authorization(self) -> str:
        """How who asks proves who they are; empty where they do not."""
        return self.headers.get("Authorization", "")


class WebServer:
    """Answers GET on a free port of this machine, in threads of its own, until it is closed.

    Args:
        answer: gives status and body of a request: bytes and text as they are, anything else as JSON.

    Examples:
        >>> from harness.remote import Server
        >>> with WebServer(lambda asked: (200, {"watts": 60, "of": asked.path})) as web:
        ...     asking = Server(web.url)
        ...     asking.json("/plug")
        ...     asking.close()
        {'watts': 60, 'of': '/plug'}
    """

    def __init__(self, answer: Callable[[Request], tuple[int, Any]]) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # not whenever a test imports a fake

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                status, body = answer(Request(self.path, parts.path, query, dict(self.headers.items())))
                text = body if isinstance(body, str | bytes) else json.dumps(body)
                data = text.encode() if isinstance(text, str) else text
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                """Nothing: a test reads its own output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it; may be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
