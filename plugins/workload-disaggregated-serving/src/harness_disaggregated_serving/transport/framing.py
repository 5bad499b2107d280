"""The frame: a fixed header with checksums, then raw bytes. Nothing here runs code that arrives.

Header, 48 bytes, network order:

| bytes | field |
|---|---|
| 4 | magic `JHPW` |
| 2 | version of the format |
| 2 | kind of the frame |
| 8 | sequence number of the frame on this link and direction, from 0 |
| 8 | body length in bytes |
| 8 | of a `MESSAGE` frame: the length of the message's body; of a `RING` frame: the slot |
| 8 | xxh3-64 of the body |
| 8 | xxh3-64 of the 40 bytes before |

A message is one `MESSAGE` frame, whose body is a small JSON description, and as many `PART` frames (bytes inline) or
`RING` frames (bytes in the shared ring) as its body needs. The checksums find accidents, not attackers: a link is
authenticated when it opens and is neither encrypted nor signed after that.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

import xxhash

from harness_disaggregated_serving.transport.faults import CorruptFrame, Oversize

MAGIC: Final = b"JHPW"
VERSION: Final = 1
_FIELDS: Final = struct.Struct("!4sHHQQQQ")
_CHECK: Final = struct.Struct("!Q")
HEADER_BYTES: Final = _FIELDS.size + _CHECK.size
DESCRIPTION_LIMIT: Final = 1 << 20
"""Largest JSON description of a message, in bytes."""
PART_BYTES: Final = 1 << 20
"""Largest body of one frame: small enough to be hashed while it is in a core's cache."""


class FrameKind(IntEnum):
    """What a frame holds."""

    CHALLENGE = 1
    ANSWER = 2
    WELCOME = 3
    RING_OFFER = 4
    RING_REPLY = 5
    MESSAGE = 16
    PART = 17
    RING = 18
    ALIVE = 19
    """Nothing but a sign of life."""
    GOODBYE = 20


class Header(NamedTuple):
    """A header that was checked."""

    kind: FrameKind
    sequence: int
    length: int
    extent: int
    checksum: int


def checksum(body: bytes | bytearray | memoryview) -> int:
    """The xxh3-64 of a body."""
    return xxhash.xxh3_64_intdigest(body)


def pack(kind: FrameKind, sequence: int, length: int, extent: int, body_checksum: int) -> bytes:
    """A header as it goes over the wire."""
    fields = _FIELDS.pack(MAGIC, VERSION, kind, sequence, length, extent, body_checksum)
    return fields + _CHECK.pack(checksum(fields))


def unpack(data: bytes | bytearray | memoryview, expected_sequence: int) -> Header:
    """Checks a header; raises CorruptFrame with what was found, Oversize for a body that no frame may have."""
    view = memoryview(data)
    fields, check = view[: _FIELDS.size], view[_FIELDS.size :]
    magic, version, kind, sequence, length, extent, body_checksum = _FIELDS.unpack(fields)
    if magic != MAGIC:
        raise CorruptFrame(f"the frame begins with {bytes(magic)!r}, not with {MAGIC!r}")
    if _CHECK.unpack(check)[0] != checksum(fields):
        raise CorruptFrame("the header's checksum does not fit its fields")
    if version != VERSION:
        raise CorruptFrame(f"the frame has version {version}, this side speaks version {VERSION}")
    try:
        known = FrameKind(kind)
    except ValueError:
        raise CorruptFrame(f"frames of kind {kind} are not known") from None
    if sequence != expected_sequence:
        raise CorruptFrame(
            f"frame {sequence} came where frame {expected_sequence} was due: frames were lost or repeated"
        )
    if length > max(PART_BYTES, DESCRIPTION_LIMIT):
        raise Oversize(f"a frame of {length} bytes; the largest is {max(PART_BYTES, DESCRIPTION_LIMIT)}")
    return Header(known, sequence, length, extent, body_checksum)


def verify(header: Header, body: bytes | bytearray | memoryview) -> None:
    """Raises CorruptFrame for a body that is not the one its sender hashed."""
    found = checksum(body)
    if found != header.checksum:
        raise CorruptFrame(
            f"frame {header.sequence} ({header.kind.name}, {header.length} bytes) has checksum {found:016x}, "
            f"its header says {header.checksum:016x}"
        )
