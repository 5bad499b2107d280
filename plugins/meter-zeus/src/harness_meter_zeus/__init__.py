"""Meter `zeus`: a ZeusMonitor on the same windows, as a cross-check that never counts."""

from __future__ import annotations

from collections.abc import Iterable

from harness import Meter, MeterSpec, NoOptions, hookimpl


def _meter(_options: NoOptions) -> Meter:
    from harness_meter_zeus.meter import ZeusMeter

    return ZeusMeter()


@hookimpl
def harness_meters() -> Iterable[MeterSpec]:
    """`zeus`."""
    yield MeterSpec(
        name="zeus",
        summary="cross-check: what a ZeusMonitor reads; never counts",
        factory=_meter,
        cross_check=True,
    )
