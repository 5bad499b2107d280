"""Plugin: the meter `amd`: energy of AMD GPUs. Importing this module imports no driver library."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness import Duration, Meter, MeterSpec, Options, Share, hookimpl


class AmdOptions(Options):
    """Options of the meter `amd`.

    Attributes:
        source: what is read: `counter`, `power` (integrated over time), or `auto`: the counter where it agrees with
            power, else power.
        tick: update period of the energy accumulator; its firmware is said to add to it every millisecond, and what the
            driver hands out was seen to be up to a tenth of a second old.
        gain: greatest proportional error of the sensor; 10 % if not given.
        hwmon: folder of the hwmon tree, read where `amdsmi` does not work.
    """

    source: Literal["auto", "counter", "power"] = "auto"
    tick: Annotated[Duration, Field(gt=0)] = 0.1
    gain: Annotated[Share, Field(ge=0, lt=1)] | None = None
    hwmon: Path = Path("/sys/class/hwmon")


def _create(options: AmdOptions) -> Meter:
    from harness_meter_amd.meter import AmdMeter

    return AmdMeter(options)


@hookimpl
def harness_meters() -> Iterable[MeterSpec]:
    """The meter `amd`."""
    return [
        MeterSpec(
            name="amd",
            summary="AMD GPUs: energy accumulator where it agrees with power, else integrated power",
            factory=_create,
            options=AmdOptions,
            auto=True,
            fork_safe=True,
        )
    ]
