"""A device on HTTP, an agent that speaks SNMP, and an ipmitool."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.testing import Request, WebServer


class Device:
    """Answers by path and query, as JSON; what is not there is 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.server = WebServer(self.answer)
        self.url = self.server.url

    def answer(self, asked: Request) -> tuple[int, Any]:
        known = asked.target in self.answers
        return 200 if known else 404, self.answers.get(asked.target, {"error": "no such path"})


class Agent:
    """An SNMP agent, version 2c: whole numbers by object."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.communities: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        from pyasn1.codec.ber import decoder, encoder
        from pysnmp.proto import api

        version = api.PROTOCOL_MODULES[api.SNMP_VERSION_2C]
        while True:
            data, address = self._socket.recvfrom(4096)
            if not data:
                return
            request, _ = decoder.decode(data, asn1Spec=version.Message())
            self.communities.append(str(version.apiMessage.get_community(request)))
            asked = version.apiMessage.get_pdu(request)
            response = version.apiMessage.get_response(request)
            found = []
            for oid, _ in version.apiPDU.get_varbinds(asked):
                number = self.numbers.get(str(oid))
                found.append((oid, version.NoSuchInstance("") if number is None else version.Gauge32(number)))
            version.apiPDU.set_varbinds(version.apiMessage.get_pdu(response), found)
            self._socket.sendto(encoder.encode(response), address)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


@pytest.fixture
def device() -> Iterator[Device]:
    made = Device()
    yield made
    made.server.close()


@pytest.fixture
def agent() -> Iterator[Agent]:
    pytest.importorskip("pysnmp")
    made = Agent()
    yield made
    made.close()


@pytest.fixture
def ipmitool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, first on the path: prints `answer`, notes how it was called, exits with `code`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ipmitool"
    program.write_text(
        f'#!/bin/sh\necho "$@ password=$IPMI_PASSWORD" > {folder}/called\n'
        f"cat {folder}/answer\nexit $(cat {folder}/code)\n",
        encoding="ascii",
    )
    program.chmod(0o755)
    (folder / "code").write_text("0", encoding="ascii")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder
