"""A meter that keeps readings of its own: no edge waits for its ticks, its windows come from it, no fault ends a run"""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from harness.interpolation import Polled, Shown
from harness.measuring.channel import Channel
from harness.measuring.meters import Meters
from harness.meter import MeterContext
from harness.polling import PolledMeter
from harness.quantity import Amount, Method, Unavailable
from harness.sample import Scope, now_ns
from harness.sensor import Estimate
from harness.units import seconds

NAME, WATTS = "n0/host", 80.0


class Outlet(PolledMeter):
    """80 W from now on, counted by an outlet that renews its counter at once but says that it may take a minute."""

    lost = ""

    def find(self, context: MeterContext) -> Mapping[str, Polled | Unavailable]:
        scope = Scope(method=Method.WALL, gain=0.01, tick_s=60.0)
        return {NAME: Polled(scope=scope, counts=True, update_s=0.02)}

    def ask(self) -> Mapping[str, Shown | Unavailable]:
        if self.lost:
            raise TimeoutError(self.lost)
        return {NAME: Shown(WATTS * seconds(now_ns()))}


def opened(meter: Outlet) -> Meters:
    scopes = meter.open(MeterContext())
    assert isinstance(scopes, Mapping)
    read = {name: scope for name, scope in scopes.items() if isinstance(scope, Scope)}
    meters = Meters([Channel("outlet", asked=True, meter=meter, scopes=read)])
    meters.start()
    return meters


def test_a_window_lies_in_its_bound_and_waits_for_no_tick_of_a_minute() -> None:
    meters = opened(Outlet(0.01))
    first = meters.opening(align=True)
    time.sleep(0.3)
    last = meters.closing(align=True)
    assert not first.ticks
    assert not last.ticks
    meters.settle(last)
    settle_s = meters.channels[0].meter.settle_s
    assert seconds(now_ns() - last.ns) >= settle_s > 0, "readings from after the window are waited for"
    (reading,) = meters.energies(first, last)
    assert meters.close() == []
    assert isinstance(reading.value, Amount)
    assert reading.value.composition.keys() == {Method.WALL}
    truth = WATTS * seconds(last.ns - first.ns)
    assert reading.value.low is not None
    assert reading.value.high is not None
    assert reading.value.low <= truth <= reading.value.high


def test_a_source_lost_in_a_window_is_its_reason_and_the_run_goes_on() -> None:
    meter = Outlet(0.005)
    meters = opened(meter)
    first = meters.opening(align=True)
    meter.lost = "the outlet does not answer"
    time.sleep(0.5)
    last = meters.closing(align=True)
    meters.settle(last)
    (reading,) = meters.energies(first, last)
    assert isinstance(reading.value, Unavailable)
    assert "the outlet does not answer" in reading.value.reason
    assert meters.close() == []


def test_a_meter_that_raises_when_asked_for_a_window_costs_its_scopes(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Outlet, opened_ns: int, closed_ns: int, period_s: float | None = None) -> Mapping[str, Estimate]:
        raise KeyError("page")

    monkeypatch.setattr(Outlet, "between", broken)
    meters = opened(Outlet(0.01))
    first = meters.opening(align=False)
    (reading,) = meters.energies(first, meters.closing(align=False))
    meters.close()
    assert reading.value == Unavailable("KeyError: 'page'")
