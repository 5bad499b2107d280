"""Plugin: the meter `apple`: what Apple silicon says that its parts drew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from harness import Duration, Meter, MeterSpec, Options, Share, hookimpl


class AppleOptions(Options):
    """Options of the meter `apple`.

    Attributes:
        tick: update period of the counters; Apple states none, and what IOReport hands out is current to about a
            tenth of a second.
        gain: greatest proportional error of the model, where somebody knows it; no bound is stated if not given.
    """

    tick: Annotated[Duration, Field(gt=0)] = 0.1
    gain: Annotated[Share, Field(ge=0, lt=1)] | None = None


def _create(options: AppleOptions) -> Meter:
    from harness_meter_apple.meter import AppleMeter

    return AppleMeter(options)


@hookimpl
def harness_meters() -> Iterable[MeterSpec]:
    """The meter `apple`."""
    return [
        MeterSpec(
            name="apple",
            summary="Apple silicon: CPU, GPU, neural engine and memory by the chip's own model; no root",
            factory=_create,
            options=AppleOptions,
            auto=True,
            fork_safe=True,
        )
    ]
