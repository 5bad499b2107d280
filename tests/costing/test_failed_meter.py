"""An impact meter that refuses its input costs its own readings, and no others."""

from pathlib import Path

import pytest

from harness.costing.impacts import Applied, CostedWindows
from harness.errors import MeasurementError, PluginError
from harness.impact import Costed, EnergyTrace, Impact, ImpactMeter, ImpactMeterSpec
from harness.options import NoOptions
from harness.quantity import Amount, Method, Unavailable
from harness.records.record import Measurement, MeterReport, Reading, Span, WarmUp
from harness.sample import Scope


class Fails(ImpactMeter):
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def apply(self, costed: Costed) -> Impact:
        if self.error is not None:
            raise self.error
        return Impact(readings={"litres": Amount.exact(2.0, "L")})


def applied(name: str, reading: str, error: Exception | None) -> Applied:
    spec = ImpactMeterSpec(
        name=name, summary="", factory=lambda _: Fails(error), needs=(), yields={reading: "g"}, options=NoOptions
    )
    return Applied(spec, {}, Fails(error))


@pytest.fixture
def windows(tmp_path: Path) -> CostedWindows:
    energy = Amount.exact(10.0, "J", Method.COUNTER)
    read = Reading(span="window", window=0, meter="m", scope="n0/host", primary=True, value=energy, coverage=1.0)
    scopes = {"n0/host": Scope(method=Method.COUNTER)}
    measurement = Measurement(
        run="r",
        trial_id="p-t0",
        trial=0,
        point={"id": "p"},
        started_utc="2026-01-02T03:04:05+00:00",
        environment={},
        backend={},
        devices=(),
        plugins={},
        workload={},
        warm_up=WarmUp(iterations=1, seconds=1.0, converged=True),
        spans=(Span(name="window", window=0, start_ns=0, end_ns=10**9, start_utc_s=1e9),),
        readings=(read,),
        uses=(),
        meters=(MeterReport(name="m", asked=False, scopes=scopes),),
        conditions=(),
    )
    return CostedWindows(measurement, EnergyTrace())


def test_what_one_meter_refuses_leaves_energy_and_the_other_meter(windows: CostedWindows) -> None:
    refused = applied("fails", "grams", MeasurementError("the series ends before the window"))
    costs = windows.cost([refused, applied("works", "litres", None)])
    lost = costs.totals["grams"]
    assert isinstance(lost, Unavailable)
    assert "series ends" in lost.reason
    assert costs.totals["litres"] == Amount.exact(2.0, "L")
    assert costs.totals["energy_j"] == Amount.exact(10.0, "J", Method.COUNTER)
    assert any(flag.startswith("fails: no impact: the series ends") for flag in costs.flags)


def test_a_meter_that_breaks_its_contract_is_named(windows: CostedWindows) -> None:
    with pytest.raises(PluginError, match="meter 'broken'"):
        windows.cost([applied("broken", "grams", ZeroDivisionError("division by zero"))])
