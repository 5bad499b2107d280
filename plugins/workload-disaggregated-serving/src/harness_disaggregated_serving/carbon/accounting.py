"""Carbon of a set of devices that serve together, savings against a baseline, and where they break even. Pure.

C = intensity x energy + sum over devices of charged time / lifetime x embodied carbon. Derived for this project; the
accounting and the savings theory of the paper were not read. Host processors and memory are not included unless they
are given as devices. Operational and embodied carbon are always kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from harness.errors import UsageError
from harness.quantity import Unavailable, Undefined
from harness.units import kwh

SECONDS_PER_YEAR: Final = 365 * 86_400
"""A year of 365 days."""


class Accounting(StrEnum):
    """Which time of a device its embodied carbon is charged for. The paper's choice is not known."""

    BUSY = "busy"
    """The time in which it served something."""
    RESERVED = "reserved"
    """The whole window, for every device that is held. The default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDevice:
    """What a device did in a window, and what it weighs.

    Attributes:
        name: for people.
        energy_j: energy over the window, its idle part included.
        busy_s: time with at least one item in service.
        reserved_s: time for which it was held.
        embodied_g: embodied carbon of the whole device in g; Unavailable where no table has it.
        lifetime_s: over which that is written off.
    """

    name: str
    energy_j: float
    busy_s: float
    reserved_s: float
    embodied_g: float | Unavailable
    lifetime_s: float

    def __post_init__(self) -> None:
        weight = 0.0 if isinstance(self.embodied_g, Unavailable) else self.embodied_g
        if not all(map(math.isfinite, (self.energy_j, self.busy_s, self.reserved_s, weight, self.lifetime_s))):
            raise UsageError(f"device {self.name!r} holds a number that is not finite", accepted="finite numbers")
        if min(self.energy_j, self.busy_s, weight) < 0 or self.busy_s > self.reserved_s * (1 + 1e-9):
            raise UsageError(
                f"device {self.name!r}: {self.energy_j} J, busy {self.busy_s} s of {self.reserved_s} s, {weight} g",
                accepted="nothing negative, and busy no longer than reserved",
            )
        if not self.lifetime_s > 0:
            raise UsageError(f"the lifetime of {self.name!r} is {self.lifetime_s} s", accepted="more than 0 s")

    def embodied_share_g(self, accounting: Accounting) -> float | Unavailable:
        """Embodied carbon charged to the window, in g."""
        if isinstance(self.embodied_g, Unavailable):
            return self.embodied_g
        charged_s = self.busy_s if accounting is Accounting.BUSY else self.reserved_s
        return charged_s / self.lifetime_s * self.embodied_g


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Carbon of a window; the total keeps its composition.

    Attributes:
        operational_g: from energy.
        embodied_g: from hardware.
        accounting: how the hardware was charged.
    """

    operational_g: float
    embodied_g: float
    accounting: Accounting

    @property
    def total_g(self) -> float:
        """Both."""
        return self.operational_g + self.embodied_g

    @property
    def embodied_share(self) -> float | Undefined:
        """Embodied carbon over the total."""
        return self.embodied_g / self.total_g if self.total_g > 0 else Undefined("the total is 0 g")


def operational_g(energy_j: float, intensity: float) -> float:
    """Grams of an energy at a grid intensity in g/kWh: 1 J at a g/kWh is a / 3600 mg."""
    if not (intensity >= 0 and math.isfinite(intensity)):
        raise UsageError(f"the grid intensity is {intensity} g/kWh", accepted="a finite number, 0 or more")
    return kwh(energy_j) * intensity


def footprint(devices: Iterable[HeldDevice], intensity: float, accounting: Accounting) -> Footprint | Unavailable:
    """Carbon of all devices that a configuration holds; Unavailable where one of them has no embodied figure."""
    listed = list(devices)
    parts = [device.embodied_share_g(accounting) for device in listed]
    known = [part for part in parts if not isinstance(part, Unavailable)]
    if len(known) < len(parts):
        return next(part for part in parts if isinstance(part, Unavailable))
    return Footprint(
        operational_g=operational_g(math.fsum(device.energy_j for device in listed), intensity),
        embodied_g=math.fsum(known),
        accounting=accounting,
    )


def saving(standalone_g: float, candidate_g: float) -> float | Undefined:
    """Share of the standalone carbon that a candidate saves; negative where it costs more, and never clipped."""
    if not standalone_g > 0:
        return Undefined(f"standalone costs {standalone_g} g, so a share of it says nothing")
    return 1 - candidate_g / standalone_g


def saving_from_ratios(energy_ratio: float, embodied_ratio: float, embodied_share: float) -> float:
    """S = 1 - [(1 - w) e + w m].

    Args:
        energy_ratio: e, energy of the candidate over that of standalone.
        embodied_ratio: m, charged embodied carbon likewise.
        embodied_share: w, embodied share of the standalone total.
    """
    return 1 - ((1 - embodied_share) * energy_ratio + embodied_share * embodied_ratio)


def saving_grows_with_intensity(energy_ratio: float, embodied_ratio: float) -> bool | None:
    """Whether a dirtier grid raises the saving (m > e) or lowers it (m < e); None where it changes nothing."""
    return None if embodied_ratio == energy_ratio else embodied_ratio > energy_ratio


class Pays(StrEnum):
    """On which side of the break-even intensity a candidate emits less than its baseline."""

    ABOVE = "above"
    BELOW = "below"
    ALWAYS = "always"
    NEVER = "never"
    EQUAL = "equal"


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Where a candidate pays.

    Attributes:
        pays: on which side.
        intensity: the break-even grid intensity in g/kWh; None where there is none to find at 0 or more.
    """

    pays: Pays
    intensity: float | None = None


def break_even(energy_saved_j: float, embodied_added_g: float) -> BreakEven:
    """Intensity at which the embodied carbon added equals the operational carbon saved.

    Energy saved and embodied carbon added: it pays above. Energy wasted and embodied carbon saved (possible under
    `busy` accounting only): it pays below, and a dirtier grid turns the saving into a loss.
    """
    saved_kwh = kwh(energy_saved_j)
    if saved_kwh == 0:
        if embodied_added_g == 0:
            return BreakEven(Pays.EQUAL)
        return BreakEven(Pays.ALWAYS if embodied_added_g < 0 else Pays.NEVER)
    intensity = embodied_added_g / saved_kwh
    if saved_kwh > 0:
        return BreakEven(Pays.ABOVE, intensity) if embodied_added_g > 0 else BreakEven(Pays.ALWAYS)
    return BreakEven(Pays.BELOW, intensity) if embodied_added_g < 0 else BreakEven(Pays.NEVER)


def longer_new_life_helps(
    standalone_new_s: float, disaggregated_new_s: float, standalone_g: float, disaggregated_g: float
) -> bool:
    """Whether a longer life of the new device raises the saving: iff t'_A / t_A > C' / C.

    Args:
        standalone_new_s: time charged to the new device standing alone, t_A.
        disaggregated_new_s: time charged to it in the pair, t'_A.
        standalone_g: carbon of standalone, C.
        disaggregated_g: carbon of the pair, C'.
    """
    return disaggregated_new_s * standalone_g > disaggregated_g * standalone_new_s
