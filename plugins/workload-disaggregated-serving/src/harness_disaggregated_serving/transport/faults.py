"""What can go wrong on a link. Each ends the link: after a fault nothing that follows can be trusted."""

from __future__ import annotations


class LinkError(Exception):
    """A link cannot be used any more, and why."""


class LinkClosed(LinkError):  # noqa: N818 - named for the fault; all are LinkErrors
    """The peer closed the connection, or it broke."""


class LinkStalled(LinkError):  # noqa: N818 - named for the fault; all are LinkErrors
    """The peer was silent for longer than agreed, or did not take what was sent to it."""


class CorruptFrame(LinkError):  # noqa: N818 - named for the fault; all are LinkErrors
    """A header or a body is not what its sender wrote."""


class Oversize(LinkError):  # noqa: N818 - named for the fault; all are LinkErrors
    """A message is larger than the receiver accepts; nothing of it was stored."""


class AuthenticationFailed(LinkError):  # noqa: N818 - named for the fault; all are LinkErrors
    """The peer does not know the shared secret."""
