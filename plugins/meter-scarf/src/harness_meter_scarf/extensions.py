"""Extensions that are not SCARF, each off by default and with a reading of its own.

Two basins: later work (arXiv 2607.22617) weights off-site water by the basin of the power plants. Embodied water: Green
Software Foundation, Software Water Intensity specification 0.1.0.
"""

from __future__ import annotations

import math

from harness.errors import UsageError
from harness.quantity import Amount, Method, Unavailable, Value, total
from harness_meter_scarf.stress.ratio import Wsf
from harness_meter_scarf.weighting import adjusted


def two_basin_l(parts: tuple[Value, Value], factors: tuple[Wsf | Unavailable, Wsf | Unavailable]) -> Value:
    """`W_on * WSF[site's basin] + W_off * WSF[plants' basin]`.

    Args:
        parts: on-site and off-site water, in L.
        factors: stress of the site's basin and of the plants' basin.
    """
    products = []
    for water, wsf in zip(parts, factors, strict=True):
        if not isinstance(water, Amount):
            return Unavailable(f"no water to weight: {water.reason}")
        if isinstance(wsf, Unavailable):
            return wsf
        products.append(adjusted(water, wsf))
    return total(products)


def embodied_l(water_l: float, reserved_s: float, lifetime_s: float, share: float = 1.0) -> Amount:
    """`W_M = TW * (TiR / EL) * (RR / ToR)`, always `estimated` and without a bound of its own.

    Args:
        water_l: water to make the device (TW), in L.
        reserved_s: time reserved (TiR), in s.
        lifetime_s: expected life (EL), in s.
        share: share of the device's resources reserved (RR / ToR), 0..1.

    Raises:
        UsageError: a value outside its range.
    """
    for name, value in (("water", water_l), ("time reserved", reserved_s)):
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name} is {value}", accepted="a finite number, at least 0")
    if not (math.isfinite(lifetime_s) and lifetime_s > 0):
        raise UsageError(f"lifetime is {lifetime_s} s", accepted="a finite duration above 0")
    if not 0 <= share <= 1:
        raise UsageError(f"share is {share}", accepted="0 to 1")
    return Amount.of(water_l * reserved_s / lifetime_s * share, "L", Method.ESTIMATED)
