"""An HTTP server that shows pages and answers queries, or does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.testing import Request, WebServer

Answer = bytes | str | dict[str, Any] | tuple[int, str]


class Pages:
    """Pages by path: an answer, or a function of the query that gives one; what was asked, in order."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer | Callable[[dict[str, str]], Answer]] = {}
        self.asked: list[tuple[str, dict[str, str], str]] = []
        self.silent_s = 0.0
        self.server = WebServer(self.answer)
        self.url = self.server.url

    def answer(self, asked: Request) -> tuple[int, Any]:
        query = dict(asked.query)
        self.asked.append((asked.path, query, asked.authorization))
        if self.silent_s:
            time.sleep(self.silent_s)
        found = self.pages.get(asked.path, (404, "not found"))
        answer = found(query) if callable(found) else found
        return answer if isinstance(answer, tuple) else (200, answer)


@pytest.fixture
def pages() -> Iterator[Pages]:
    made = Pages()
    yield made
    made.server.close()
