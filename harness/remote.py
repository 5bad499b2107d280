"""Asking a server over HTTP: one connection that stays open, own certificate authority, tokens that no record holds.

A redirection is not followed: a token would go to whoever is named in it. Proxies are not used: a meter that is asked
through one measures the proxy's patience.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from pydantic import model_validator

from harness.errors import MeasurementError
from harness.options import Options

LARGEST_BYTES: Final = 32 * 1024 * 1024
"""Of an answer; the exposition of a big node has a few MiB."""


class Access(Options):
    """How a server knows who asks; secrets are named, never written.

    Attributes:
        token_env: environment variable with a bearer token.
        token_file: file with a bearer token, read anew for every connection.
        username: of basic authentication.
        password_env: environment variable with the password of `username`.
        password_file: file with the password of `username`.
        ca_file: certificate authority in PEM form that signed the server's certificate; the system's if not given.
    """

    token_env: str | None = None
    token_file: Path | None = None
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Access:
        tokens = sum(each is not None for each in (self.token_env, self.token_file))
        passwords = sum(each is not None for each in (self.password_env, self.password_file))
        if tokens > 1 or passwords > 1 or (tokens and self.username is not None):
            raise ValueError("a token from one place, or a username with a password from one place")
        if (passwords > 0) != (self.username is not None):
            raise ValueError("basic authentication needs username and one of password_env and password_file")
        return self

    def header(self) -> dict[str, str]:
        """The header that proves who asks; raises MeasurementError where a secret is not there."""
        if self.username is not None:
            pair = f"{self.username}:{self.password()}"
            return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode("ascii")}
        if self.token_env is not None or self.token_file is not None:
            token = _secret(self.token_env, self.token_file)
            if not token.isascii():
                raise MeasurementError("a bearer token has ASCII characters only (RFC 6750)")
            return {"Authorization": f"Bearer {token}"}
        return {}

    def password(self) -> str:
        """The password of `username`; raises MeasurementError where it is not there."""
        return _secret(self.password_env, self.password_file)


def _secret(variable: str | None, file: Path | None) -> str:
    """What a variable or a file holds, without the line end that many tools leave there; no error quotes it."""
    if variable is not None:
        value, source = os.environ.get(variable, "").rstrip("\r\n"), f"environment variable {variable}"
        if not value:
            raise MeasurementError(f"{source} is not set", hint=f"export {variable}=...")
    else:
        assert file is not None
        try:
            value, source = file.read_text(encoding="utf-8").strip(), str(file)
        except OSError as error:
            raise MeasurementError(f"{file} is not readable: {error.strerror}") from error
        except UnicodeDecodeError:
            raise MeasurementError(f"{file} is not text") from None
        if not value:
            raise MeasurementError(f"{source} is empty")
    if not value.isprintable():
        raise MeasurementError(f"{source} holds more than one line, or a control character")
    return value


def checked_url(url: str) -> str:
    """A server's address without a trailing slash; raises ValueError for one that is none, or that holds a user."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not an address such as http://host:9090")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address holds no user and no password: give username and password_env")
    _ = parts.port  # raises ValueError for one that is no number
    return url.rstrip("/")


class Server:
    """A server that is asked again and again.

    Args:
        url: of `checked_url`; its path goes before every other.
        access: how it knows who asks.
        timeout_s: longest time for connecting, and for each part of an answer.

    Examples:
        >>> Server("http://127.0.0.1:9", timeout_s=0.2).get("/metrics")
        Traceback (most recent call last):
        harness.errors.MeasurementError: http://127.0.0.1:9: Connection refused
    """

    def __init__(self, url: str, access: Access | None = None, *, timeout_s: float = 5.0) -> None:
        self.url = checked_url(url)
        self._parts = urlsplit(self.url)
        self._access = access or Access()
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._headers: dict[str, str] = {}

    def get(self, path: str, query: Mapping[str, str] | None = None, *, accept: str = "*/*") -> bytes:
        """What a path answers.

        Raises:
            MeasurementError: nobody answers, or something else than success; the server and its words, no secret.
        """
        target = f"{self._parts.path}{path}" or "/"
        target += f"{'&' if '?' in target else '?'}{urlencode(query)}" if query else ""
        for attempt in (0, 1):
            fresh = self._connection is None
            try:
                return self._asked(target, accept)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
                self.close()  # a server may end a connection that rests; a new one is not at rest
                if fresh or attempt:
                    raise MeasurementError(f"{self.url}: {error or type(error).__name__}") from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise MeasurementError(f"{self.url}: {reason}") from error
        raise AssertionError("the second attempt returns or raises")

    def json(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Like `get`, for an answer in JSON."""
        body = self.get(path, query, accept="application/json")
        try:
            return json.loads(body)
        except ValueError as error:
            raise MeasurementError(f"{self.url}{path} does not answer in JSON: {body[:60]!r}") from error

    def _asked(self, target: str, accept: str) -> bytes:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("GET", target, headers={"Accept": accept, **self._headers})
        response = self._connection.getresponse()
        body = response.read(LARGEST_BYTES + 1)
        if len(body) > LARGEST_BYTES:
            self.close()
            raise MeasurementError(f"{self.url} answers with more than {LARGEST_BYTES // 2**20} MiB")
        if response.will_close:
            self.close()
        if response.status != http.HTTPStatus.OK:
            said = body[:120].decode("utf-8", "replace").strip().partition("\n")[0]
            raise MeasurementError(
                f"{self.url} answers {response.status} {response.reason}" + (f": {said}" if said else ""),
                hint={401: "give token_env, or username and password_env"}.get(response.status, ""),
            )
        return body

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        self._headers = self._access.header()
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        ca = self._access.ca_file
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=context)

    def close(self) -> None:
        """Ends the connection; the next request makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()
