"""Messages of raw buffers between two processes, on one host or two; lifts out of the harness as it is."""

from harness_disaggregated_serving.transport.faults import (
    AuthenticationFailed,
    CorruptFrame,
    LinkClosed,
    LinkError,
    LinkStalled,
    Oversize,
)
from harness_disaggregated_serving.transport.inbox import Arrival, Inbox
from harness_disaggregated_serving.transport.link import Carrier, Link, LinkOptions, Message
from harness_disaggregated_serving.transport.opening import Listener, connect, listen
from harness_disaggregated_serving.transport.shaping import TokenBucket

__all__ = [
    "Arrival",
    "AuthenticationFailed",
    "Carrier",
    "CorruptFrame",
    "Inbox",
    "Link",
    "LinkClosed",
    "LinkError",
    "LinkOptions",
    "LinkStalled",
    "Listener",
    "Message",
    "Oversize",
    "TokenBucket",
    "connect",
    "listen",
]
