"""Only scopes that do the work are charged, and a functional unit may be divided over a span within the window."""

from __future__ import annotations

import dataclasses

import pytest

from harness.backend import Device
from harness.costing.impacts import Applied, CostedWindows
from harness.errors import PluginError
from harness.functional_unit import FunctionalUnit
from harness.impact import Costed, EnergyTrace, Impact, ImpactMeter, ImpactMeterSpec
from harness.measuring.opening import charged_devices, charged_scopes
from harness.quantity import Amount, Method, Unavailable
from harness.records.record import Measurement, Reading, Span
from harness.sample import Scope
from harness.workload import Window, Workload
from tests.costing.test_idle_energy import amount, measurement

CLIENT, SERVER = "n0/process", "n0/process:server"
NANO = 10**9


def measured(charged: tuple[str, ...] | None, why: str = "") -> Measurement:
    found = measurement({CLIENT: [amount(7.0)], SERVER: [amount(40.0)]}, {})
    return dataclasses.replace(found, charged=charged, not_charged=why)


def joules(found: Measurement, span: str = "window") -> object:
    total = CostedWindows(found, EnergyTrace(), span=span).cost(()).totals["energy_j"]
    return total.value if isinstance(total, Amount) else total


def test_energy_that_is_not_the_works_stands_beside_the_total() -> None:
    totals = CostedWindows(measured((SERVER,)), EnergyTrace()).cost(()).totals
    shown = {name: value.value for name, value in totals.items() if isinstance(value, Amount)}
    assert (shown["energy_j"], shown[f"energy_j:{CLIENT}"], shown["power_w"]) == (40.0, 7.0, 2.0)
    assert joules(measured(None)) == 47.0


def test_without_a_scope_of_the_work_there_is_a_reason_and_no_number() -> None:
    assert joules(measured((), "no meter reads the server")) == Unavailable("no meter reads the server")


class Embodied(ImpactMeter):
    def apply(self, costed: Costed) -> Impact:
        return Impact(readings={"carbon_embodied_g": Amount.of(3.0, "g", Method.ESTIMATED)})


def test_nothing_of_a_machine_that_does_not_do_the_work_is_charged() -> None:
    spec = ImpactMeterSpec(
        name="e", summary="", needs=(), factory=lambda _: Embodied(), yields={"carbon_embodied_g": "g"}
    )
    applied = [Applied(spec, {}, Embodied())]
    for charged, expected in (((SERVER,), Amount), ((), Unavailable)):
        totals = CostedWindows(measured(charged, "no meter"), EnergyTrace()).cost(applied).totals
        assert isinstance(totals["carbon_embodied_g"], expected)


class Devices(ImpactMeter):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def apply(self, costed: Costed) -> Impact:
        self.seen = [device.uuid for device in costed.devices]
        return Impact()


@pytest.mark.parametrize(("making", "seen"), [(None, ["cpu-0", "far"]), (("far",), ["far"]), ((), [])])
def test_only_devices_of_the_machine_that_does_the_work_are_charged(
    making: tuple[str, ...] | None, seen: list[str]
) -> None:
    devices = Devices()
    applied = [
        Applied(ImpactMeterSpec(name="d", summary="", needs=(), factory=lambda _: devices, yields={}), {}, devices)
    ]
    listed = (Device(kind="cpu", uuid="cpu-0", name="this"), Device(kind="gpu", uuid="far", name="H100"))
    found = dataclasses.replace(measured((SERVER,)), devices=listed, charged_devices=making)
    CostedWindows(found, EnergyTrace()).cost(applied)
    assert devices.seen == seen


class Away(Workload):
    def __init__(self, away: object) -> None:
        self._away = away

    def devices(self) -> list[Device]:
        return [Device(kind="gpu", uuid="far", name="H100")]

    def elsewhere(self) -> bool:
        return self._away  # type: ignore[return-value]

    def step(self, window: Window) -> None:
        raise AssertionError


def test_work_that_is_done_elsewhere_is_charged_for_the_devices_it_names() -> None:
    node = Device(kind="gpu", uuid="n1-card", name="H100")
    assert charged_devices(Away(away=False), "away", [node]) is None
    assert charged_devices(Away(away=True), "away", [node]) == ("far", "n1-card")
    with pytest.raises(PluginError, match="elsewhere"):
        charged_devices(Away(away="yes"), "away", [])


class Loads(Workload):
    def __init__(self, found: object) -> None:
        self._found = found

    def charged(self, read: object) -> object:  # type: ignore[override]
        return self._found

    def step(self, window: Window) -> None:
        raise AssertionError


def test_what_a_workload_charges_is_held_against_what_is_read() -> None:
    read = {("m", CLIENT): Scope(method=Method.ESTIMATED)}
    assert charged_scopes(Loads(None), "loads", read) == (None, "")
    assert charged_scopes(Loads([CLIENT]), "loads", read) == ((CLIENT,), "")
    assert charged_scopes(Loads(Unavailable("why")), "loads", read) == ((), "why")
    with pytest.raises(PluginError, match="n0/gpu:7"):
        charged_scopes(Loads(["n0/gpu:7"]), "loads", read)


def with_steady() -> Measurement:
    found = measured((SERVER,))
    span = Span(name="steady", window=0, start_ns=5 * NANO, end_ns=15 * NANO, start_utc_s=5.0)
    readings = [
        Reading(span="steady", window=0, meter="m", scope=scope, primary=True, value=amount(value))
        for scope, value in ((CLIENT, 3.0), (SERVER, 24.0))
    ]
    return dataclasses.replace(found, spans=(*found.spans, span), readings=(*found.readings, *readings))


def test_a_span_is_costed_by_its_own_energy_and_time() -> None:
    totals = CostedWindows(with_steady(), EnergyTrace()).within("steady").cost(()).totals
    assert {name: totals[name].value for name in ("energy_j", "duration_s")} == {"energy_j": 24.0, "duration_s": 10.0}  # type: ignore[union-attr]
    assert joules(with_steady()) == 40.0


def test_a_span_that_was_not_marked_has_no_cost() -> None:
    assert joules(measured((SERVER,)), "steady") == Unavailable("the workload marked no span 'steady'")


def test_a_unit_says_its_span() -> None:
    assert str(FunctionalUnit.of("tokens", {"late_s": "< 1"}, "steady")) == "tokens where late_s < 1, in span steady"
