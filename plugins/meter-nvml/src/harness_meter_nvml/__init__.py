"""Plugin: the meter `nvml`: energy of NVIDIA devices. Importing this module imports no driver library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from harness import Duration, Meter, MeterSpec, Options, Share, hookimpl


class NvmlOptions(Options):
    """Options of the meter `nvml`.

    Attributes:
        source: what is read: `counter`, `power` (integrated over time), or `auto`: the counter if it moves, else power.
        tick: update period of the energy counter; reports give 10 to 100 ms, and the self-test measures it.
        gain: greatest proportional error of the sensor; that of the card's class, or of its meter card, if not given.
    """

    source: Literal["auto", "counter", "power"] = "auto"
    tick: Annotated[Duration, Field(gt=0)] = 0.1
    gain: Annotated[Share, Field(ge=0, lt=1)] | None = None


def _create(options: NvmlOptions) -> Meter:
    from harness_meter_nvml.meter import NvmlMeter

    return NvmlMeter(options)


@hookimpl
def harness_meters() -> Iterable[MeterSpec]:
    """The meter `nvml`."""
    return [
        MeterSpec(
            name="nvml",
            summary="NVIDIA devices: energy counter, else integrated power",
            factory=_create,
            options=NvmlOptions,
            auto=True,
            fork_safe=True,
        )
    ]
