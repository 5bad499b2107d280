"""Volume of water: on-site at the datacenter, off-site in the generation of its electricity.

After Wu, Hua, Ding, "Not All Water Consumption Is Equal: A Water Stress Weighted Metric for Sustainable Computing"
(arXiv 2506.22773); the equations are taken from public transcriptions of the paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from harness.errors import MeasurementError, UsageError
from harness.quantity import Amount
from harness.units import JOULES_PER_KWH

PUE_RANGE: Final = (1.0, 10.0)
"""Accepted power usage effectiveness; the upper end only catches percentages such as 115."""
EWIF_WORLD_L_PER_KWH: Final = 3.908
"""World figure of EcoLogits 0.11.3, used under `missing: fallback` only."""


@dataclass(frozen=True, slots=True)
class Ranged:
    """A factor with its own range; both ends are the value where no range is known."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, low: float | None = None, high: float | None = None) -> Ranged:
        """A factor whose missing ends are the value itself."""
        return cls(value, value if low is None else low, value if high is None else high)

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise UsageError(f"the range {self.low:g}..{self.high:g} does not hold the value {self.value:g}")


def checked_not_negative(value: float, name: str, unit: str) -> float:
    """The value, if it is finite and at least 0; otherwise raises UsageError."""
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{name} is {value}", accepted=f"a finite number of {unit}, at least 0")
    return value


def checked_pue(value: float) -> float:
    """The value, if it is a ratio of at least 1; raises UsageError, also for a percentage such as 115."""
    least, most = PUE_RANGE
    if not (math.isfinite(value) and least <= value <= most):
        raise UsageError(f"pue is {value}", accepted=f"a ratio from {least:g} to {most:g}, such as 1.15")
    return value


def checked_energy(energy: Amount) -> Amount:
    """The energy, if it is in joules and not negative; otherwise raises MeasurementError."""
    if energy.unit != "J":
        raise MeasurementError(f"energy is in {energy.unit}", accepted="J")
    if energy.value < 0:
        raise MeasurementError(f"energy is {energy.value} J", accepted="a finite number of joules, at least 0")
    return energy


def _scaled(energy: Amount, factor: Ranged) -> Amount:
    """Joules times a factor in L/kWh; the conversion belongs to `units`."""
    per_joule = 1.0 / JOULES_PER_KWH
    return checked_energy(energy).times(
        factor.value * per_joule, "L", low=factor.low * per_joule, high=factor.high * per_joule
    )


def _checked(factor: Ranged, name: str) -> Ranged:
    for value in (factor.low, factor.value, factor.high):
        checked_not_negative(value, name, "L/kWh")
    return factor


def _checked_pue(pue: Ranged) -> Ranged:
    for value in (pue.low, pue.value, pue.high):
        checked_pue(value)
    return pue


def onsite_l(energy_j: Amount, wue: Ranged, facility_pue: Ranged | None = None) -> Amount:
    """On-site water, scope 1: `E_IT * WUE_on`, or `F / PUE * WUE_on` from facility energy; in L.

    PUE never multiplies this term: WUE is per kWh of IT energy already.

    Args:
        energy_j: energy of the IT equipment, or of the facility where `facility_pue` is given; in J.
        wue: on-site water per kWh of IT energy, in L/kWh.
        facility_pue: power usage effectiveness of the facility whose energy this is.

    Raises:
        UsageError: a factor outside its range.
        MeasurementError: energy that is negative or not in joules.
    """
    wue = _checked(wue, "wue_onsite")
    if facility_pue is not None:
        pue = _checked_pue(facility_pue)
        wue = Ranged(wue.value / pue.value, wue.low / pue.high, wue.high / pue.low)
    return _scaled(energy_j, wue)


def offsite_l(energy_j: Amount, ewif: Ranged, pue: Ranged | None) -> Amount:
    """Off-site water, scope 2: `E_IT * PUE * WUE_off`, or `F * WUE_off` from facility energy; in L.

    Args:
        energy_j: energy of the IT equipment, or of the facility where `pue` is None; in J.
        ewif: water to generate one kWh of electricity, in L/kWh.
        pue: power usage effectiveness; None for energy of the facility, which holds it already.

    Raises:
        UsageError: a factor outside its range.
        MeasurementError: energy that is negative or not in joules.
    """
    ewif = _checked(ewif, "ewif")
    if pue is not None:
        pue = _checked_pue(pue)
        ewif = Ranged(ewif.value * pue.value, ewif.low * pue.low, ewif.high * pue.high)
    return _scaled(energy_j, ewif)
