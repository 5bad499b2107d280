"""Which scopes hold the energy of a server that answers: never that of the process that asks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

from harness.quantity import Unavailable
from harness.sample import Scope, counts_every_process
from harness_lm_eval.options import EndpointOptions

ROLE: Final = "server"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def is_here(options: EndpointOptions) -> bool:
    """Whether the server is one of this machine."""
    return options.server.pid is not None or urlsplit(options.url).hostname in LOOPBACK


def charged(options: EndpointOptions, read: Mapping[tuple[str, str], Scope]) -> Collection[str] | Unavailable:
    """Scopes that hold the server's energy.

    Args:
        options: the endpoint.
        read: (meter, scope) -> the scope, of all that is read.
    """
    server = options.server
    if server.pid is None and not server.gpus and not server.meters:
        return Unavailable(
            "no meter reads the server: name it under `endpoint: server` (pid, gpus, or meters of its host)"
        )
    remote = {scope for meter, scope in read if meter in server.meters}
    if server.meters and not remote:
        return Unavailable(f"none of the server's meters reads anything: {', '.join(server.meters)}")
    here = {scope: described for (meter, scope), described in read.items() if meter not in server.meters}
    devices = {described.device for described in here.values()}
    if lost := [uuid for uuid in server.gpus if uuid not in devices]:
        return Unavailable(f"no meter reads the server's GPU {', '.join(lost)}")
    found = remote | {scope for scope, described in here.items() if described.device in server.gpus}
    if server.pid is not None or (server.gpus and is_here(options)):
        found |= {scope for scope in here if not _is_a_process(scope) or scope.partition("/")[2] == f"process:{ROLE}"}
    if not found:
        return Unavailable(f"no meter reads the server (process {server.pid}): list one, such as cpu_time or nvml")
    return found


def _is_a_process(scope: str) -> bool:
    part = scope.partition("/")[2]
    return part == "process" or part.startswith("process:")


def shared_with_client(scopes: Collection[str], read: Mapping[tuple[str, str], Scope]) -> list[str]:
    """The charged scopes of this machine that hold the process that asks too."""
    return sorted({scope for (_, scope), each in read.items() if scope in scopes and counts_every_process(scope, each)})
