"""An S3 server that dies and comes back while runs are sent to it: nothing lost, nothing twice, nothing half there."""

from __future__ import annotations

import contextlib
import random
import select
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("s3fs", reason="stores in S3 need s3fs")

from harness.records.files import trial_folders
from harness.storing.check import check
from harness.storing.remote.store import RemoteStore

MakeRun = Callable[..., Path]
CUT = struct.pack("ii", 1, 0)
"""SO_LINGER: a connection is reset where it is closed, as those of a killed process are whose data was not read."""


class Server:
    """What a client sees of a server whose disk outlives it: the port of the tests' server, which can be killed.

    Attributes:
        passed: bytes that it was sent and has answered so far.
    """

    def __init__(self, address: str) -> None:
        there = urlsplit(address)
        self._behind = (str(there.hostname), int(there.port or 80))
        self._lock = threading.Lock()
        self._lives = 0
        self.passed = 0
        self._begin(socket.create_server(("127.0.0.1", 0)))
        self._port = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def kill(self) -> None:
        """Ends every connection in the middle of what it carries, and refuses new ones."""
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._lives += 1

    def end(self) -> None:
        self.kill()
        self._threads.shutdown()

    def restart(self) -> None:
        self._threads.shutdown()
        self._begin(socket.create_server(("127.0.0.1", self._port)))

    def _begin(self, listener: socket.socket) -> None:
        self._listener = listener
        self._threads = ThreadPoolExecutor(500)
        self._threads.submit(self._accept, listener, self._lives)

    def _accept(self, listener: socket.socket, life: int) -> None:
        with listener, contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._threads.submit(self._pass, client, life)

    def _pass(self, client: socket.socket, life: int) -> None:
        with client, socket.create_connection(self._behind) as behind, contextlib.suppress(OSError):
            for each in (client, behind):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT)
            other = {client: behind, behind: client}
            while life == self._lives:
                for one in select.select([client, behind], [], [], 0.02)[0]:
                    data = one.recv(1024)
                    if not data:
                        return
                    other[one].sendall(data)
                    with self._lock:
                        self.passed += len(data)


@pytest.fixture
def server(s3_server: str) -> Iterator[Server]:
    made = Server(s3_server)
    yield made
    made.end()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("machines", "kills"),
    [pytest.param(4, 4, marks=pytest.mark.slow), pytest.param(25, 25, marks=pytest.mark.soak)],
)
def test_a_server_killed_while_runs_are_sent(
    server: Server,
    s3_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_run: MakeRun,
    machines: int,
    kills: int,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("harness.storing.remote.sender.FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("harness.storing.remote.sender.LONGEST_PAUSE_S", 1.0)
    made = make_run("made", points=2, trials=3)
    generator = random.Random(machines)
    done, killed = threading.Event(), []

    def send(number: int) -> None:
        store = RemoteStore(
            f"{s3_bucket}/lab?endpoint_url={server.url}", home=tmp_path / f"machine-{number}", wait_s=300.0
        )
        shutil.copytree(made, store.folder / f"run-{number}")
        store.send(store.folder / f"run-{number}")

    def kill() -> None:
        while len(killed) < kills and not done.is_set():
            until = server.passed + generator.randint(500, 20_000)
            while server.passed < until and not done.is_set():
                time.sleep(0.001)
            server.kill()
            killed.append(until)
            time.sleep(generator.uniform(0.05, 0.5))
            server.restart()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with ThreadPoolExecutor(machines) as pool:
            list(pool.map(send, range(machines)))
    finally:
        done.set()
        killer.join()
    assert len(killed) == kills, "all was sent before the server was killed so often"

    reader = RemoteStore(f"{s3_bucket}/lab", home=tmp_path / "reader")
    assert [str(each) for each in check(reader) if each.fault] == []
    assert set(reader.runs()) == {f"run-{number}" for number in range(machines)}
    for run in reader.runs():
        found = content(reader.find(run))
        assert found == content(made)
        assert len(list(trial_folders(reader.find(run)))) == 6
        assert {name.removeprefix(f"{run}/") for name in reader.files.tree(run)} >= found.keys()

    (removed,) = (name for name in reader.files.tree("run-0") if name.endswith("p0000-t000/measurement.json"))
    reader.files.remove(removed)
    assert removed in [each.where for each in check(RemoteStore(f"{s3_bucket}/lab", home=tmp_path / "last"))]
