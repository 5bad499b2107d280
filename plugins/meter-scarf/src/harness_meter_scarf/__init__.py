"""Impact meter `scarf`: water of energy, weighted by local stress (after the SCARF paper, arXiv 2506.22773)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from harness import CommandSpec, ImpactMeter, ImpactMeterSpec, hookimpl
from harness.place import PlaceSpec
from harness_meter_scarf.options import ScarfOptions

if TYPE_CHECKING:
    from harness import MeterSpec
    from harness.place import Place


def _meter(options: ScarfOptions) -> ImpactMeter:
    from harness_meter_scarf.meter import ScarfMeter

    return ScarfMeter(options)


def _sites() -> Callable[..., None]:
    from harness_meter_scarf.commands.sites import sites

    return sites


def _aqueduct() -> Callable[..., None]:
    from harness_meter_scarf.commands.aqueduct import run

    return run


@hookimpl
def harness_meters() -> Iterable[MeterSpec | ImpactMeterSpec]:
    """`scarf`."""
    yield ImpactMeterSpec(
        name="scarf",
        summary="Water from energy: on-site, off-site, and weighted by local water stress (adjusted water impact)",
        factory=_meter,
        needs=("energy_j",),
        yields={
            "water_onsite_l": "L",
            "water_offsite_l": "L",
            "water_l": "L",
            "wsf": "1",
            "awi_adjusted_l": "L stress-adjusted",
            "aware_world_eq_l": "L world-eq",
            "awi_two_basin_adjusted_l": "L stress-adjusted",
            "water_embodied_l": "L",
        },
        ratios=("wsf",),
        placed=("site",),
        options=ScarfOptions,
    )


def _find(name: str, known: Place | None) -> Place | None:
    from harness_meter_scarf.place.known import find

    return find(name, known)


def _names() -> Iterable[str]:
    from harness_meter_scarf.place.known import names

    return names()


@hookimpl
def harness_places() -> Iterable[PlaceSpec]:
    """The shipped sites."""
    yield PlaceSpec(
        name="sites", summary="Sites with grid intensity, PUE, water and stress", find=_find, names=_names, order=0
    )


@hookimpl
def harness_commands() -> Iterable[CommandSpec]:
    """`harness sites` and `harness scarf-aqueduct`."""
    yield CommandSpec(name="sites", summary="Lists the sites scarf knows, with source and confidence", load=_sites)
    yield CommandSpec(
        name="scarf-aqueduct", summary="Takes basins out of a downloaded WRI Aqueduct 4.0", load=_aqueduct
    )
