"""Carbon of energy and of hardware: the two formulas, with their guards.

After Wu, Hua, Ding, "Unveiling Environmental Impacts of Large Language Model Serving: A Functional Unit View"
(arXiv 2502.11256); the equations are taken from public summaries of the paper, not from its text.
"""

from __future__ import annotations

import math
from typing import Final

from harness.errors import MeasurementError, UsageError
from harness.quantity import Amount, Method
from harness.units import kwh

GRAMS_PER_KG: Final = 1000.0
SECONDS_PER_YEAR: Final = 365 * 24 * 3600.0
"""A year of 365 days, as the lifetimes of the embodied tables count it."""
PUE_RANGE: Final = (1.0, 10.0)
"""Accepted power usage effectiveness; the upper end only catches percentages such as 120."""


def checked_not_negative(value: float, name: str, unit: str) -> float:
    """The value, if it is finite and at least 0; otherwise raises UsageError."""
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{name} is {value}", accepted=f"a finite number of {unit}, at least 0")
    return value


def checked_pue(value: float) -> float:
    """The value, if it is a ratio of at least 1; raises UsageError, also for a percentage such as 120."""
    least, most = PUE_RANGE
    if not (math.isfinite(value) and least <= value <= most):
        raise UsageError(f"pue is {value}", accepted=f"a ratio from {least:g} to {most:g}, such as 1.2")
    return value


def checked_share(value: float, name: str) -> float:
    """The value, if it lies in 0..1; otherwise raises UsageError."""
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise UsageError(f"{name} is {value}", accepted="a share from 0 to 1")
    return value


def checked_lifetime_s(value: float) -> float:
    """The value, if it is finite and positive; otherwise raises UsageError."""
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"lifetime is {value} s", accepted="a finite duration above 0, such as 7y")
    return value


def checked_duration_s(value: float) -> float:
    """The value, if it is finite and positive; otherwise raises MeasurementError."""
    if not (math.isfinite(value) and value > 0):
        raise MeasurementError(f"duration is {value} s", accepted="a finite duration above 0")
    return value


def operational_g(
    energy_j: Amount,
    grid_g_per_kwh: float,
    *,
    pue: float = 1.0,
    share: float = 1.0,
    hosts: float = 1.0,
    grid_low_g_per_kwh: float | None = None,
    grid_high_g_per_kwh: float | None = None,
) -> Amount:
    """Operational carbon: `PUE * share * E / 3.6e6 * CI`, in g; `estimated`, since a grid's intensity is.

    Bound: the energy's, times the range of the intensity.

    Args:
        energy_j: energy of the IT equipment, in J.
        grid_g_per_kwh: carbon intensity of the grid, in gCO2e/kWh.
        pue: power usage effectiveness, at least 1.
        share: share of this energy that is charged to the work, 0..1.
        hosts: how many such hosts the work needs, a fraction or more than one; at least 0.
        grid_low_g_per_kwh: lower end of the intensity's own range; the intensity where it has none.
        grid_high_g_per_kwh: upper end of it.

    Raises:
        UsageError: a factor outside its range.
        MeasurementError: energy that is negative or not in joules.
    """
    if energy_j.unit != "J":
        raise MeasurementError(f"energy is in {energy_j.unit}", accepted="J")
    if energy_j.value < 0:
        raise MeasurementError(f"energy is {energy_j.value} J", accepted="a finite number of joules, at least 0")
    scale = kwh(1.0) * checked_pue(pue) * checked_share(share, "share")
    scale *= checked_not_negative(hosts, "the number of hosts", "hosts")
    low = grid_g_per_kwh if grid_low_g_per_kwh is None else grid_low_g_per_kwh
    high = grid_g_per_kwh if grid_high_g_per_kwh is None else grid_high_g_per_kwh
    for value in (low, grid_g_per_kwh, high):
        checked_not_negative(value, "grid intensity", "g/kWh")
    if not low <= grid_g_per_kwh <= high:
        raise UsageError(f"grid intensity {grid_g_per_kwh} g/kWh lies outside its own range {low}..{high}")
    return energy_j.times(scale * grid_g_per_kwh, "g", low=scale * low, high=scale * high)


def embodied_g(
    mass_g: float,
    *,
    duration_s: float,
    lifetime_s: float,
    share: float = 1.0,
) -> Amount:
    """Embodied carbon of one device: `share * M * t / LT`, in g, always `estimated` and without a bound of its own.

    Args:
        mass_g: embodied carbon of the whole device, in g.
        duration_s: duration of the very window that the energy is from.
        lifetime_s: expected lifetime of the device.
        share: share of the device that is charged to the work, 0..1.

    Raises:
        UsageError: mass, lifetime or share outside its range.
        MeasurementError: a duration that is not positive.
    """
    mass = checked_not_negative(mass_g, "embodied mass", "g")
    time_share = checked_duration_s(duration_s) / checked_lifetime_s(lifetime_s)
    return Amount.of(checked_share(share, "share") * mass * time_share, "g", Method.ESTIMATED)
