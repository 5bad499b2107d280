"""A record of sixteen devices on two hosts adds up by hand: energy, idle power, operational and embodied carbon."""

from __future__ import annotations

import pytest
from harness_meter_fuel import harness_meters

from harness.backend import Device
from harness.costing.impacts import Applied, CostedWindows
from harness.impact import EnergyTrace
from harness.quantity import Amount, Method, Value
from harness.records.metric import ABOVE_IDLE, IDLE_POWER
from harness.records.record import IDLE, Measurement, MeterReport, Reading, Span, WarmUp
from harness.sample import Scope

NANO = 10**9
LIFETIME_S = 7 * 365 * 86400
CARDS = tuple(Device(kind="gpu", uuid=f"g{index}", name="NVIDIA A100-SXM4-80GB") for index in range(16))
HOST = {"cpu": "Intel Xeon Platinum 8480+", "cpus": 2, "dram_gb": 1031}
HOST_KG = 2 * 42.81 + 1031 * 0.065
CARD_KG = 26.34


def joules(value: float) -> Amount:
    return Amount.exact(value, "J", Method.COUNTER)


def per_scope(card_w: tuple[float, ...], host_w: float, duration_s: float) -> dict[str, Value]:
    """Energies of the sixteen cards, eight a node, and of each node's processors."""
    energy: dict[str, Value] = {
        f"n{number // 8}/gpu:g{number}": joules(w * duration_s) for number, w in enumerate(card_w)
    }
    return energy | {f"n{node}/cpu-package:0": joules(host_w * duration_s) for node in range(2)}


def measured() -> Measurement:
    """An idle stretch of 10 s and one window of an hour, in which card i draws 100 W + i W."""
    busy = per_scope(tuple(100.0 + number for number in range(16)), 200.0, 3600.0)
    idle = per_scope((50.0,) * 16, 80.0, 10.0)
    spans = (
        Span(name=IDLE, window=-1, start_ns=0, end_ns=10 * NANO, start_utc_s=0.0),
        Span(name="window", window=0, start_ns=0, end_ns=3600 * NANO, start_utc_s=0.0),
    )
    readings = [
        Reading(span=span.name, window=span.window, meter="m", scope=scope, primary=True, value=value)
        for span, energy in zip(spans, (idle, busy), strict=True)
        for scope, value in energy.items()
    ]
    return Measurement(
        run="r",
        trial_id="p-t000",
        trial=0,
        point={"id": "p"},
        started_utc="2026-01-02T03:04:05+00:00",
        environment={},
        backend={},
        devices=CARDS,
        plugins={},
        workload={},
        warm_up=WarmUp(iterations=0, seconds=0.0, converged=True),
        spans=spans,
        readings=tuple(readings),
        uses=(),
        meters=(MeterReport(name="m", asked=True, scopes={scope: Scope(method=Method.COUNTER) for scope in busy}),),
        conditions=(),
    )


@pytest.mark.parametrize("declared", [{}, {"gpus": 8}])
def test_sixteen_devices_on_two_hosts_add_up_by_hand(declared: dict[str, int]) -> None:
    (spec,) = (each for each in harness_meters() if each.name == "fuel")
    options = {"grid": 100, "host": {**HOST, **declared}}
    fuel = Applied(spec, options, spec.factory(spec.options.model_validate(options)))
    costs = CostedWindows(measured(), EnergyTrace((), {})).cost((fuel,))
    found = {name: value.value for name, value in costs.totals.items() if isinstance(value, Amount)}

    cards_j = 3600 * (16 * 100 + 120)  # 0 + 1 + ... + 15 = 120
    hosts_j = 2 * 3600 * 200
    assert found["energy_j"] == pytest.approx(cards_j + hosts_j, rel=1e-12) == 7_632_000
    assert found["energy_j:n1/gpu:g15"] == pytest.approx(3600 * 115)
    assert len([name for name in found if name.startswith("energy_j:")]) == 18
    assert found[IDLE_POWER] == pytest.approx(16 * 50 + 2 * 80)
    assert found[ABOVE_IDLE] == pytest.approx(7_632_000 - 960 * 3600)
    assert found["carbon_operational_g"] == pytest.approx(2.12 * 100)
    embodied = (16 * CARD_KG + 2 * HOST_KG) * 1000 * 3600 / LIFETIME_S
    assert found["carbon_embodied_g"] == pytest.approx(embodied, rel=1e-12)
    assert found["carbon_g"] == pytest.approx(212 + embodied)
    counted = {factor.name: factor.value for factor in costs.factors}
    assert counted["host_embodied_share"] == 2.0
