"""The address of a store that is no folder: a URL for fsspec, whose secrets enter no name, record or message."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, unquote_plus

from harness.errors import UsageError
from harness.planning.secrecy import CONTAINER_PROTOCOLS, redacted, slash_in_password

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^?]*)(?:\?(.*))?", re.DOTALL)
_KEYS: Final = frozenset({"s3", "s3a"})
"""Protocols whose user and password are options of the filesystem: s3fs would take them for a part of the bucket."""
_PLAIN: Final = frozenset({"endpoint_url", "profile", "anon"})
"""Options of a query that are no secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUrl:
    """A parsed address.

    Attributes:
        protocol: such as `s3`.
        address: what fsspec opens; may hold a password.
        shown: for people: without user, password and query.
        options: of the filesystem, from the query.
        key: digest of what tells this store from others; the same whatever the password is.
        secrets: what no message may hold.
    """

    protocol: str
    address: str
    shown: str
    options: Mapping[str, str | bool]
    key: str
    secrets: tuple[str, ...]

    def redact(self, text: str) -> str:
        """A text without this address's secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return redacted(text)


def is_url(text: str) -> bool:
    """Whether a store or a run is named by a URL rather than by a path."""
    return "://" in text


def parse(text: str) -> StoreUrl:
    """Takes an address apart; raises UsageError, which shows no secret, for what is none."""
    match = _URL.fullmatch(text)
    if match is None:
        raise UsageError("this is not the address of a store", accepted="a folder, or a URL such as s3://bucket/folder")
    protocol, rest, query = match[1].lower(), match[2].rstrip("/"), match[3] or ""
    if slash_in_password(rest):
        raise UsageError("the password in the store's address holds a plain /", accepted="%2F in its place")
    authority, slash, path = rest.partition("/")
    userinfo, at, host = authority.rpartition("@")
    user, _, password = userinfo.partition(":")
    options: dict[str, str | bool] = {
        name: {"true": True, "false": False}.get(value, value) for name, value in parse_qsl(query)
    }
    hidden = [password, unquote(password)]
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name not in _PLAIN and value not in {"true", "false"}:
            hidden += [value, unquote_plus(value)]
    container = protocol in CONTAINER_PROTOCOLS and not password
    if not container:
        hidden += [user, unquote(user)] if password or protocol.startswith("http") else []
    if protocol in _KEYS and at:
        options |= {"key": unquote(user), "secret": unquote(password)}
        authority = host
    place = f"{user}@{host}" if user else host
    endpoint = str(options.get("endpoint_url") or "")
    if protocol in _KEYS and not endpoint:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    identity = f"{protocol} {place} {path} {endpoint}"
    return StoreUrl(
        protocol=protocol,
        address=f"{protocol}://{authority}{slash}{path}",
        shown=f"{protocol}://{place if container else host}{slash}{path}",
        options=options,
        key=hashlib.sha256(identity.encode()).hexdigest()[:16],
        secrets=tuple(sorted({secret for secret in hidden if len(secret) > 1}, key=len, reverse=True)),
    )
