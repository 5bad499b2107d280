"""Secrets stay out of records: a suite that holds one is refused, a command line that holds one is kept without it.

What a suite says is kept, compared and published; so a key is given by the name of an environment variable
(`api_key_env`), which the plugin reads where the work is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from harness.errors import UsageError
from harness.planning.located_yaml import Document, Keys

HIDDEN: Final = "***"

_WORDS: Final = (
    r"(?:[A-Za-z0-9_.-]*[_.-])?"
    r"(?:(?:api|access|auth|bearer|secret|private|session|hf|hub|sas)[_-]?(?:key|token)|secret|passwd|password|"
    r"credentials?|signature)|token|sig|apikey"
)
_NAME: Final = re.compile(rf"(?:{_WORDS})\Z", re.IGNORECASE)
_USER: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@?#]+@")
_VALUE: Final = re.compile(rf"(?P<name>(?:\A|(?<=[?&;/\s.-]))(?:{_WORDS}))=(?P<value>[^&;\s]+)", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a name says that its value is a secret: `api_key`, `hub_token`, `password`; not `output_tokens`."""
    return _NAME.match(name) is not None


def redacted(text: str) -> str:
    """The text without what stands in it as `user:password@` of an address or as the value of a secret name."""
    return _VALUE.sub(rf"\g<name>={HIDDEN}", _USER.sub(rf"\g<scheme>{HIDDEN}@", text))


def redacted_command(words: list[str]) -> list[str]:
    """A command line to be kept: also the word after an option with a secret name is left out."""
    kept: list[str] = []
    hide = False
    for word in words:
        kept.append(HIDDEN if hide else redacted(word))
        hide = word.startswith("-") and "=" not in word and is_secret_name(word.lstrip("-").replace("-", "_"))
    return kept


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
        elif redacted(value) != value:
            yield path, "the address holds a secret"
