"""What costing with the meter scarf takes: options read back, one window, twelve months of one window."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("harness_meter_scarf")

from harness_meter_scarf.meter import ScarfMeter
from harness_meter_scarf.options import ScarfOptions

from harness.impact import Costed, EnergyTrace, Impact
from harness.quantity import Amount, Method

START_S = 1_751_300_000.0
"""A few hours before the end of June 2025 in every zone west of Greenwich."""
ENERGY = Amount.exact(3.6e6, "J", Method.COUNTER)
COSTED = Costed(
    duration_s=86400.0,
    start_utc_s=START_S,
    energy={"n0/host": ENERGY},
    readings={"energy_j": ENERGY},
    trace=EnergyTrace(
        tuple(START_S + 60 * k for k in range(1441)), {"n0/host": tuple(2500.0 * k for k in range(1441))}
    ),
)
SITE: dict[str, Any] = {"site": {"row": "azure-arizona"}, "basins": "made-up"}


def cost(options: dict[str, Any]) -> Impact:
    """What `recost` does for a window: options from the record, the meter, its readings."""
    return ScarfMeter(ScarfOptions.model_validate(options)).apply(COSTED)


@pytest.mark.parametrize("mode", ["short", "monthly", "long"])
def test_one_window(benchmark: Any, mode: str) -> None:
    impact = benchmark(cost, {**SITE, "mode": mode})
    assert isinstance(impact.readings["awi_adjusted_l"], Amount)


def test_twelve_months(benchmark: Any) -> None:
    impacts = benchmark(lambda: [cost({**SITE, "month": month}) for month in range(1, 13)])
    assert len(impacts) == 12
