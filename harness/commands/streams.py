"""Standard output and error of a command that outlives its reader, a full disk and a terminal of few letters.

A verdict is the exit code. Where nobody reads what is printed (`harness gate ... | head -1`) the command goes on to its
own end and code; where it cannot be written, that is said at the end. click, rich and Python would each end with a code
of their own instead (1, 1 and 120).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TextIO

from harness.commands.console import SHOWN, echo

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET})
"""The reader has gone: nothing that a command has to say."""
_STANDARD: Final = 3
"""Descriptors below it are input, output and error."""


class _Lasting(io.RawIOBase):
    """Writes to a descriptor until that fails, and then nowhere.

    Attributes:
        fault: why not all was written; None if the reader has gone on purpose.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ended = False
        self.fault: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data).cast("B")
        if self._ended:
            return len(view)
        try:
            return os.write(self._descriptor, view)
        except BlockingIOError:  # the other end made the pipe non-blocking
            select.select([], [self._descriptor], [])
            return 0
        except OSError as error:
            self._ended = True
            self.fault = None if error.errno in _GONE else error
            return len(view)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


_STREAMS: dict[str, tuple[TextIO, _Lasting]] = {}


def make_lasting() -> None:
    """Puts lasting streams in the place of this process's own; a stream that someone has put there stays."""
    _open_standard()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        own = getattr(sys, name)
        if own is not None and own is not getattr(sys, f"__{name}__"):
            continue
        raw = _Lasting(descriptor)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=own.encoding if own is not None else "utf-8",
            errors="backslashreplace",
            line_buffering=name == "stderr" or raw.isatty(),
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        _STREAMS[name] = (stream, raw)


def _open_standard() -> None:
    """Opens what the shell closed (`>&-`): a record's file would get the number of the standard output otherwise."""
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) < _STANDARD:
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - it takes no keyword
        os.close(descriptor)


@contextlib.contextmanager
def captured() -> Iterator[None]:
    """Keeps off the screen what drivers and libraries print while plugins are asked; `--traceback` shows it after.

    It is caught at the descriptors: a C library knows no `sys.stderr`, and a logger may hold the stream it began with.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with tempfile.TemporaryFile() as caught:
        try:
            for descriptor in (1, 2):
                os.dup2(caught.fileno(), descriptor)
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for descriptor, own in zip((1, 2), kept, strict=True):
                os.dup2(own, descriptor)
                os.close(own)
            if SHOWN["traceback"]:
                caught.seek(0)
                echo(caught.read().decode(errors="replace").rstrip(), err=True)


def unwritten() -> OSError | None:
    """Writes what is still held back; returns why not all of the standard output was written."""
    for stream, _ in _STREAMS.values():
        stream.flush()
    return _STREAMS["stdout"][1].fault if "stdout" in _STREAMS else None
