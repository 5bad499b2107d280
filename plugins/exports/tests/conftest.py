"""Runs of known energy, kept as an import keeps them, and servers: one that keeps what it gets, real ones, and none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness import Amount, Imported, LoadedRun, Method, Scope, Unavailable, Value, keep_imported, load
from harness.testing import until

GPU, CPU, RAM = "n0/gpu:GPU-1", "n0/cpu-package:0", "n0/dram:0"
Kept = Callable[..., LoadedRun]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Keeps a run: each point has trials of 4, 5, ... s with 100 J and more on a GPU and a quarter on the processor."""

    def make(
        *labels: str, trials: int = 2, gpu: Method = Method.COUNTER, cpu: Method = Method.INTEGRATED,
        ram: str = "", grid: str | None = "360", columns: dict[str, float] | None = None,
    ) -> LoadedRun:  # fmt: skip
        stretches = []
        for at, label in enumerate(labels or ("work",)):
            for number in range(trials):
                joules = 100.0 * (at + 1) + number
                energy: dict[str, Value] = {
                    GPU: Amount.of(joules, "J", gpu, low=joules * 0.95, high=joules * 1.05),
                    CPU: Amount.of(joules / 4, "J", cpu, low=joules * 0.24, high=joules * 0.26),
                }
                if ram:
                    energy[RAM] = Unavailable(ram)
                stretches.append(
                    Imported(
                        label=label, started_utc_s=1.7e9 + 100 * at + 10 * number, duration_s=4.0 + number,
                        energy=energy, columns=columns or {},
                        scopes={GPU: Scope(method=gpu, gain=0.05), CPU: Scope(method=cpu), RAM: Scope(method=cpu)},
                    )
                )  # fmt: skip
        return load(keep_imported(stretches, tmp_path / "runs", tool="rig", grid=grid))

    return make


@dataclass
class Receiver:
    """Answers every request with a status, and keeps method, path, headers and body."""

    status: int = 200
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made.asked.append((self.command, self.path, dict(self.headers.items()), body))
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = take  # noqa: N815 - as the library calls them

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def nobody() -> Iterator[str]:
    """The URL of a server that nobody runs."""
    with socket.socket() as taken:  # bound and not listening: nobody else gets it, and it refuses
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def started() -> Callable[..., AbstractContextManager[str]]:
    """Runs a server on a free port of this machine, from when its page answers; gives its URL."""

    @contextmanager
    def run(command: Callable[[int], list[str]], path: str, timeout_s: float = 60.0, **settings: Any) -> Iterator[str]:
        with socket.socket() as made:
            made.bind(("127.0.0.1", 0))
            port = int(made.getsockname()[1])
        url = f"http://127.0.0.1:{port}"
        process = subprocess.Popen(
            command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **settings
        )

        def answers() -> bool:
            assert process.poll() is None, f"the server ended with {process.returncode}"
            try:
                with urllib.request.urlopen(url + path, timeout=5):
                    return True
            except OSError:
                return False

        try:
            until(answers, limit_s=timeout_s)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # and its workers, some of which outlast a polite end
            process.wait(60)

    return run
