"""Secrets stay out of records: a suite that holds one is refused, a command line that holds one is kept without it.

What a suite says is kept, compared and published; so a key is given by the name of an environment variable
(`api_key_env`), which the plugin reads where the work is done.

A secret is the user of an address, and the value of a name that says so. A suite is refused for these alone, since a
refusal must not be wrong; what is kept of other texts also loses the whole query of an address, whose names are those
of some filesystem.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.planning.located_yaml import Document, Keys

HIDDEN: Final = "***"
CONTAINER_PROTOCOLS: Final = frozenset({"abfs", "abfss", "adl", "az", "wasb", "wasbs"})
"""Protocols of Azure, where what stands before the @ is a container and no user."""

_WORDS: Final = (
    r"(?:[A-Za-z0-9_.-]*[_.-])?"
    r"(?:(?:api|access|auth|bearer|secret|private|session|hf|hub|sas)[_-]?(?:key|token)|secret|passwd|password|"
    r"credentials?|signature)|token|sig|apikey"
)
_NAME: Final = re.compile(rf"(?:{_WORDS})\Z", re.IGNORECASE)
_VALUE: Final = re.compile(rf"(?P<name>(?:\A|(?<=[?&;/\s.-]))(?:{_WORDS}))=(?P<value>[^&;\s]+)", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^\s'\"?]*)(\?[^\s'\"]*)?")
_PORT: Final = re.compile(r"[^/@:]*:\d+(?:/|$)")


def is_secret_name(name: str) -> bool:
    """Whether a name says that its value is a secret: `api_key`, `hub_token`, `password`; not `output_tokens`."""
    return _NAME.match(name) is not None


def holds_secret(text: str) -> bool:
    """Whether a text certainly holds one: a user in an address, or the value of a secret name."""
    users = any(_without_user(match) != f"{match[1]}://{match[2]}" for match in _ADDRESS.finditer(text))
    return users or _VALUE.search(text) is not None


def redacted(text: str) -> str:
    """A text in which every address has lost its user, password and query, and every secret name its value."""
    return _VALUE.sub(rf"\g<name>={HIDDEN}", _ADDRESS.sub(_without_user, text))


def _without_user(match: re.Match[str]) -> str:
    """An address without user and query."""
    protocol, rest = match[1], match[2]
    if slash_in_password(rest):
        rest = rest.rpartition("@")[2]
    authority, slash, path = rest.partition("/")
    userinfo, at, host = authority.rpartition("@")
    keep = at and protocol.lower() in CONTAINER_PROTOCOLS and ":" not in userinfo
    return f"{protocol}://{authority if keep else host}{slash}{path}"


def slash_in_password(rest: str) -> bool:
    """Whether what follows the protocol of an address has a password with a plain slash in it."""
    head, at, _ = rest.rpartition("@")
    return bool(at) and "/" in head and ":" in head.partition("/")[0] and "@" not in head and not _PORT.match(rest)


def redacted_command(words: Sequence[str]) -> list[str]:
    r"""A command line to be kept, as text: also the word after an option with a secret name is left out.

    Bytes of a word that are no UTF-8 are written as `\xff`: neither JSON nor a terminal can hold them.
    """
    kept: list[str] = []
    hide = False
    for word in words:
        plain = os.fsencode(word).decode("utf-8", errors="backslashreplace")
        kept.append(HIDDEN if hide else redacted(plain))
        hide = word.startswith("-") and "=" not in word and is_secret_name(word.lstrip("-").replace("-", "_"))
    return kept


def command_line() -> list[str]:
    """What the user typed, for a record."""
    return ["harness", *redacted_command(sys.argv[1:])]


def refuse_secrets(document: Document) -> list[UsageError]:
    """A fault for every secret in a suite; none of them repeats it."""
    return [
        document.error(path, f"{what}, and a suite goes into the records", hint=_HINT)
        for path, what in _found(document.data, (), named=False)
    ]


_HINT: Final = "give the name of an environment variable that holds it, as with `api_key_env`"


def _found(value: object, path: Keys, *, named: bool) -> Iterator[tuple[Keys, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _found(inner, (*path, key), named=is_secret_name(str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _found(inner, (*path, number), named=named)
    elif isinstance(value, str) and value:
        if named:
            yield path, "this looks like a secret"
        elif holds_secret(value):
            yield path, "the address holds a secret"
