"""Litres times a stress factor: another unit, another column, never added to litres."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from harness.quantity import Amount, Method
from harness_meter_scarf.stress.ratio import Wsf

ADJUSTED: Final = "L stress-adjusted"
WORLD: Final = "L world-eq"


def adjusted(water: Amount, wsf: Wsf) -> Amount:
    """`W * WSF`, with the range of both; without an upper end where the factor has none.

    Where the factor is nothing but an interval, as a category is, the interval is the factor's alone: the water's bound
    says how well the litres are known and stands beside it, in the water's own reading.
    """
    if not wsf.point:
        water = replace(water, low=water.value, high=water.value)
    high = wsf.value if wsf.high is None else wsf.high
    product = water.times(wsf.value, ADJUSTED, low=wsf.low, high=high)
    return replace(product, high=None) if wsf.high is None else product


def ratio_amount(wsf: Wsf, *, made_up: bool) -> Amount:
    """The factor as a reading: a model's ratio, `estimated`, or `simulated` for a made-up basin."""
    method = Method.SIMULATED if made_up else Method.ESTIMATED
    return Amount.of(wsf.value, "1", method, low=wsf.low, high=wsf.high)


def simulated(amount: Amount) -> Amount:
    """The same amount, all of it `simulated`: the place it speaks of is made up."""
    return replace(amount, composition={Method.SIMULATED: amount.value})
