"""Meter `hwmon`: energy counters and power readings of the Linux hwmon tree: GPUs, boards, rails, sockets.

Source: Linux kernel documentation, "Naming and data format standards for sysfs files" and the pages of each driver:
`energy*_input` counts microjoules, `power*_input` and `power*_average` show microwatts, `in*_input` millivolts and
`curr*_input` milliamperes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import PositiveFloat

from harness.meter import Meter, MeterSpec
from harness.options import Options


class HwmonOptions(Options):
    """Options of meter `hwmon`.

    Attributes:
        root: folder of the hwmon tree.
        chips: names of further chips whose power rails are read, such as `ina226`; what they show may overlap with
            other scopes, which nobody but you can know.
        all_gpus: whether GPUs are read that the backend did not take.
        max_power_w: most that one register can show, in W: what lies beyond it is not counted. If not set, the limit
            that the driver states.
        range_j: where energy counters wrap, in J, for a driver that hands out a register as it is; none does that is
            known here.
    """

    root: Path = Path("/sys/class/hwmon")
    chips: tuple[str, ...] = ()
    all_gpus: bool = False
    max_power_w: PositiveFloat | None = None
    range_j: PositiveFloat | None = None


def _create(options: HwmonOptions) -> Meter:
    from harness.builtin.hwmon.meter import HwmonMeter

    return HwmonMeter(options)


METER: Final = MeterSpec(
    name="hwmon",
    summary="GPUs, boards and rails of the Linux hwmon tree: energy counters, else integrated power",
    factory=_create,
    options=HwmonOptions,
    auto=True,
    fork_safe=True,
)
