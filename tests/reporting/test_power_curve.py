"""Curves over device settings: energy meets the time of its own trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.records.summary import load
from harness.reporting.power_curve import ENERGY, TIME, _spotted
from tests.conftest import StoredRun


def test_energy_is_multiplied_by_the_time_of_its_own_trial(stored_run: StoredRun) -> None:
    """Where one trial lacks its energy and another its time, as many values are left, of different trials."""
    folder: Path = stored_run("run", {"a": [10.0, 20.0, 30.0]})
    (point,) = load(folder).points
    costs = dict(point.units["token"])
    whole = _spotted(point, "token")
    assert whole is not None
    assert whole.products == tuple(e * t for e, t in zip(costs[ENERGY].values, costs[TIME].values, strict=True))
    for name, kept in ((ENERGY, slice(0, 2)), (TIME, slice(1, 3))):
        costs[name] = replace(costs[name], n=2, values=costs[name].values[kept])
    torn = _spotted(replace(point, units={"token": costs}), "token")
    assert torn is not None
    assert torn.products == ()
