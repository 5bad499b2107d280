"""Asking a server: own authority, secrets that are named, no redirection, a connection that rests and is dropped."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.errors import MeasurementError
from harness.remote import Access, Server, checked_url


class Site:
    """Answers `/ok`, sends `/moved` elsewhere, hangs up after `/last`, and notes the headers it was given."""

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.seen: list[str] = []
        self.connections = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                site.connections += 1

            def do_GET(self) -> None:
                site.seen.append(self.headers.get("Authorization", ""))
                status = {"/moved": 302, "/secret": 401}.get(self.path.partition("?")[0], 200)
                body = f'{{"path": "{self.path}"}}'.encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://elsewhere.invalid/")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = self.path == "/last"  # without a word in the headers

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture
def asked(site: Site) -> Iterator[Server]:
    made = Server(f"http://127.0.0.1:{site.port}")
    yield made
    made.close()


def test_one_connection_serves_many_questions(site: Site, asked: Server) -> None:
    assert asked.json("/ok", {"query": 'a{b="c"}'}) == {"path": "/ok?query=a%7Bb%3D%22c%22%7D"}
    assert asked.json("/cm?x=1", {"y": "2"}) == {"path": "/cm?x=1&y=2"}
    assert site.connections == 1


def test_a_connection_that_was_dropped_at_rest_is_made_anew(site: Site, asked: Server) -> None:
    asked.get("/last")
    assert asked.get("/ok")
    assert site.connections == 2


def test_a_redirection_is_an_error_and_takes_no_secret_along(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_TOKEN", "s3cret")
    server = Server(f"http://127.0.0.1:{site.port}", Access(token_env="SITE_TOKEN"))
    with pytest.raises(MeasurementError, match="302") as refused:
        server.get("/moved")
    assert "s3cret" not in str(refused.value)
    assert site.seen == ["Bearer s3cret"]
    server.close()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_line_end_after_a_token_is_no_part_of_it(site: Site, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setenv("SITE_TOKEN", f"s3cret{end}")
    server = Server(f"http://127.0.0.1:{site.port}", Access(token_env="SITE_TOKEN"))
    server.get("/ok")
    server.close()
    assert site.seen == ["Bearer s3cret"]


@pytest.mark.parametrize("value", ["s3cret\nHost: elsewhere", "s3cret\x00", "s3cret€"])
def test_a_token_that_no_header_can_hold_is_named_and_not_shown(site: Site, tmp_path: Path, value: str) -> None:
    file = tmp_path / "token"
    file.write_text(value, encoding="utf-8")
    with pytest.raises(MeasurementError) as refused:
        Server(f"http://127.0.0.1:{site.port}", Access(token_file=file)).get("/ok")
    assert "s3cret" not in str(refused.value)
    assert not site.seen


def test_who_is_not_let_in_is_told_how(asked: Server) -> None:
    with pytest.raises(MeasurementError, match=r"401.*token_env"):
        asked.get("/secret")


def test_what_is_no_json_and_who_is_silent() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        server = Server(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=0.2)
        with pytest.raises(MeasurementError, match="timed out"):
            server.get("/")


def test_a_certificate_of_an_own_authority(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, and nothing else makes a certificate here")
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate),
            "-days", "2", "-subj", "/CN=bmc", "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    site = Site(certificate, key)
    url = f"https://127.0.0.1:{site.port}"
    try:
        with pytest.raises(MeasurementError, match=r"certificate verify failed|self-signed"):
            Server(url).get("/ok")
        known = Server(url, Access(ca_file=certificate))
        assert known.json("/ok") == {"path": "/ok"}
        known.close()
    finally:
        site.close()


def test_a_secret_that_is_not_there(site: Site, tmp_path: Path) -> None:
    server = Server(f"http://127.0.0.1:{site.port}", Access(token_file=tmp_path / "none"))
    with pytest.raises(MeasurementError, match="not readable"):
        server.get("/ok")
    assert site.seen == []


def test_a_token_in_a_file_is_read_for_each_connection(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n", encoding="utf-8")
    server = Server(f"http://127.0.0.1:{site.port}", Access(token_file=file))
    server.get("/last")
    file.write_text("second\n", encoding="utf-8")
    server.get("/ok")
    server.close()
    assert site.seen == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("url", ["ftp://a", "a:9090", "http://", "http://me:word@a", "http://a:x"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        checked_url(url)


@pytest.mark.parametrize(
    "given",
    [
        {"token_env": "A", "token_file": "b"},
        {"token_env": "A", "username": "me", "password_env": "B"},
        {"username": "me"},
        {"password_env": "B"},
    ],
)
def test_one_way_to_be_known(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Access.model_validate(given)
