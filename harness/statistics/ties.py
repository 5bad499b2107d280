"""Where the order of two systems turns: the quality, the output or the carbon factor at which they cost the same."""

from __future__ import annotations

import math


def break_even_share(cost: float, produced: float, rival_per_unit: float) -> float | None:
    """The share of its produced units that a system must pass to cost as much per unit as its rival.

    Below it the rival is the cheaper one. None where the tie lies outside (0, 1].

    Args:
        cost: of the whole run.
        produced: units of the run, qualifying or not.
        rival_per_unit: what one unit of the rival costs.
    """
    tie = cost / (produced * rival_per_unit) if produced > 0 and rival_per_unit > 0 else math.inf
    return tie if 0 < tie <= 1 else None


def tie_ratio(cost: float, rival_cost: float) -> float | None:
    """The ratio of two runs' achieved units, the first over the second, at which they cost the same per unit."""
    return cost / rival_cost if cost > 0 and rival_cost > 0 else None


def flip_factor(operational_a: float, embodied_a: float, operational_b: float, embodied_b: float) -> float | None:
    """The common factor on embodied carbon at which two systems tie; None where no positive factor does.

    All four per functional unit, in one unit.
    """
    gap = embodied_b - embodied_a
    factor = (operational_a - operational_b) / gap if gap != 0 else math.inf
    return factor if 0 < factor < math.inf else None
