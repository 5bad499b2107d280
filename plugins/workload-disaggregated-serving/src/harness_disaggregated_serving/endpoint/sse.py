"""Server-sent events, split as their standard says: at CR, LF and CRLF, and at no other character.

Python's `str.splitlines` also splits at U+2028, U+0085 and others, which a model may well write into a token.
Source: HTML Living Standard, section 9.2.6, "Interpreting an event stream".
"""

from __future__ import annotations

import re
from typing import Final

LONGEST_LINE: Final = 8 << 20
"""A line, and the data of an event, may have so many bytes: more is no token but a server that went wrong."""
_ENDS: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


class StreamError(Exception):
    """A stream that is not what the API promises, or that ended early."""


class EventReader:
    r"""Takes the bytes of a stream as they come; gives the data of each event that is complete.

    Examples:
        >>> reader = EventReader()
        >>> reader.feed(b"data: a\r\n\r"), reader.feed(b"\n: comment\ndata: b\ndata: c\n\nda")
        ([b'a'], [b'b\nc'])
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._begun = False

    def feed(self, received: bytes) -> list[bytes]:
        """The data of the events that these bytes complete; raises StreamError where a line or event is too long."""
        if not received:
            return []
        ends_in_cr = received.endswith(b"\r")
        if self._after_cr and received.startswith(b"\n"):
            received = received[1:]
        self._after_cr = ends_in_cr
        text = self._rest + received if self._rest else received
        if not self._begun and text:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._rest = text
                return []
            text, self._begun = text.removeprefix(_BOM), True
        lines = _ENDS.split(text) if b"\r" in text else text.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > self._longest:
            raise StreamError(f"a line of more than {self._longest} bytes does not end")
        found = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                found.append(self._event())
        return found

    def end(self) -> bytes | None:
        """The data of a last event that no empty line ended, which truncation tells from whole JSON; None for none."""
        if self._rest:
            self._take(self._rest)
            self._rest = b""
        return self._event() if self._data else None

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            value = line[5:]
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)
            if self._size > self._longest:
                raise StreamError(f"an event has more than {self._longest} bytes")
        elif line == b"data":
            self._data.append(b"")

    def _event(self) -> bytes:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data, self._size = [], 0
        return data
