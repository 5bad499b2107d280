"""Impact meter `fuel`: operational and embodied carbon of measured energy (after the FUEL paper, arXiv 2502.11256)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from harness import CommandSpec, ImpactMeter, ImpactMeterSpec, hookimpl
from harness.place import PlaceSpec
from harness_meter_fuel.options import FuelOptions

if TYPE_CHECKING:
    from harness import MeterSpec
    from harness.place import Place


def _meter(options: FuelOptions) -> ImpactMeter:
    from harness_meter_fuel.meter import FuelMeter

    return FuelMeter(options)


def _grid() -> Callable[..., None]:
    from harness_meter_fuel.commands.grid import grid

    return grid


def _codecarbon() -> Callable[..., None]:
    from harness_meter_fuel.commands.codecarbon import codecarbon_import

    return codecarbon_import


def _embodied() -> Callable[..., None]:
    from harness_meter_fuel.commands.embodied import run

    return run


@hookimpl
def harness_meters() -> Iterable[MeterSpec | ImpactMeterSpec]:
    """`fuel`."""
    yield ImpactMeterSpec(
        name="fuel",
        summary="Carbon from energy: operational (grid intensity, PUE) and embodied (tables), in g",
        factory=_meter,
        needs=("energy_j",),
        yields={"carbon_operational_g": "g", "carbon_embodied_g": "g", "carbon_g": "g", "sci_g": "g"},
        placed=("grid", "pue"),
        options=FuelOptions,
    )


def _find(name: str, known: Place | None) -> Place | None:
    from harness_meter_fuel.places import find

    return find(name, known)


def _names() -> Iterable[str]:
    from harness_meter_fuel.places import names

    return names()


@hookimpl
def harness_places() -> Iterable[PlaceSpec]:
    """Countries, states, zones and regions of clouds."""
    summary = "Grid intensity of countries, states, zones and regions of clouds"
    yield PlaceSpec(name="grids", summary=summary, find=_find, names=_names)


@hookimpl
def harness_commands() -> Iterable[CommandSpec]:
    """`harness grid`, `harness codecarbon-import` and `harness embodied`."""
    yield CommandSpec(name="grid", summary="Prints a place's carbon intensity of now, its source and date", load=_grid)
    yield CommandSpec(
        name="codecarbon-import", summary="Keeps codecarbon's emissions.csv as a run, to compare", load=_codecarbon
    )
    yield CommandSpec(
        name="embodied", summary="Shows the embodied carbon that is known of this machine's devices", load=_embodied
    )
