"""Meter `codecarbon`: codecarbon's offline tracker on the same windows, as a cross-check that never counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness import Meter, MeterSpec, hookimpl
from harness_meter_codecarbon.options import CodecarbonOptions

if TYPE_CHECKING:
    from harness import ImpactMeterSpec


def _meter(options: CodecarbonOptions) -> Meter:
    from harness_meter_codecarbon.meter import CodecarbonMeter

    return CodecarbonMeter(options)


@hookimpl
def harness_meters() -> Iterable[MeterSpec | ImpactMeterSpec]:
    """`codecarbon`."""
    yield MeterSpec(
        name="codecarbon",
        summary="cross-check: what codecarbon's offline tracker reads; never counts",
        factory=_meter,
        options=CodecarbonOptions,
        cross_check=True,
    )
