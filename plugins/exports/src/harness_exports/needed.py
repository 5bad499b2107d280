"""Libraries that only one export needs, and addresses that hold no secret."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from harness import UsageError


def library(name: str, extra: str) -> Any:
    """A module of an optional library.

    Args:
        name: of the module.
        extra: of this distribution, which brings it.

    Raises:
        UsageError: it cannot be imported; says how it is installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{name} cannot be imported: {error}", hint=f"pip install 'joule-harness-exports[{extra}]'"
        ) from None


def without_secret(address: str, hint: str) -> str:
    """An address as it is.

    Args:
        address: that the user wrote.
        hint: where the library takes a secret from.

    Raises:
        UsageError: it holds a password or a token, which a shell's history would keep; does not repeat it.
    """
    try:
        parts = urlsplit(address)
        secret = parts.password is not None or (parts.username is not None and parts.scheme.startswith("http"))
    except ValueError:
        raise UsageError(f"{address!r} is not a URL", accepted="such as http://127.0.0.1:9091") from None
    if secret:
        raise UsageError("the address holds a secret", accepted="an address without one", hint=hint)
    return address


def web_address(address: str, hint: str) -> str:
    """A URL of a web server without a secret; raises UsageError for anything else."""
    parts = urlsplit(without_secret(address, hint))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(f"{address!r} is not a URL of a web server", accepted="http://HOST:PORT or https://HOST")
    return address
