"""Plugin: the meter `zeusd`: what a Zeus daemon reads, on this machine or another. Importing it imports no Zeus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, PositiveFloat, model_validator

from harness import Duration, Meter, MeterSpec, Options, hookimpl


class ZeusdOptions(Options):
    """Options of the meter `zeusd`.

    Attributes:
        host: address and port of a daemon that listens on TCP, such as `gpu-7:4938`; or `socket`, not both.
        socket: path of a daemon's socket on this machine.
        token_env: environment variable with the daemon's token, where it asks for one.
        gpus: the daemon's numbers of the GPUs that are read; all if not given.
        cpus: likewise of processors, and of the memory that hangs on them; all if not given.
        node: machine that the scopes lie on, where it is not the one that the harness runs on.
        poll: how often the daemon is asked.
        tick: how often the counters behind it are renewed.
        max_power_w: most that one GPU can draw, in W: joules beyond it are not counted; the power limit that the
            daemon states if not given.
    """

    host: Annotated[str, Field(pattern=r"^[\w.\[\]:-]+:\d+$")] | None = None
    socket: str | None = None
    token_env: str | None = None
    gpus: tuple[int, ...] | None = None
    cpus: tuple[int, ...] | None = None
    node: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    poll: Annotated[Duration, Field(gt=0)] = 0.2
    tick: Annotated[Duration, Field(gt=0)] = 0.1
    max_power_w: PositiveFloat | None = None

    @model_validator(mode="after")
    def _one_daemon(self) -> ZeusdOptions:
        if (self.host is None) == (self.socket is None):
            raise ValueError("give the daemon's host with its port, or its socket, and not both")
        return self


def _create(options: ZeusdOptions) -> Meter:
    from harness_meter_zeusd.meter import ZeusdMeter

    return ZeusdMeter(options)


@hookimpl
def harness_meters() -> Iterable[MeterSpec]:
    """The meter `zeusd`."""
    return [
        MeterSpec(
            name="zeusd",
            summary="GPUs and processors of a Zeus daemon, on this machine or another",
            factory=_create,
            options=ZeusdOptions,
            example='zeusd: {host: "gpu-7:4938"}',
            fork_safe=True,
        )
    ]
