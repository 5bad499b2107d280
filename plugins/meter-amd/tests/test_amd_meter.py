"""The meter `amd` against a module like `amdsmi`, and against a hwmon tree where there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness_meter_amd import AmdOptions, harness_meters
from harness_meter_amd.meter import AmdMeter

from harness import Device, MeterContext, Method, Scope, Unavailable
from harness.sample import Cumulative
from harness.testing import FakeAmdCard, FakeAmdSmi, FakeClock, check_meter, check_offers

ADDRESS, OTHER = "0000:c1:00.0", "0000:c6:00.0"
NAME = f"n0/gpu:PCI-{ADDRESS}"

Install = Callable[..., FakeAmdSmi]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def install(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Install:
    def made(*cards: FakeAmdCard, **given: Any) -> FakeAmdSmi:
        fake = FakeAmdSmi(clock, *cards, **given)
        monkeypatch.setitem(sys.modules, "amdsmi", fake)
        return fake

    return made


def device(address: str = ADDRESS, part: str = "") -> Device:
    card = f"PCI-{address}"
    return Device(kind="gpu", uuid=card + part, name="MI300X", parent=card if part else None)


def meter_of(clock: FakeClock, **options: Any) -> AmdMeter:
    return AmdMeter(AmdOptions.model_validate(options), clock_ns=clock, sleep=clock.sleep)


def opened(meter: AmdMeter, *devices: Device) -> Mapping[str, Scope | Unavailable]:
    found = meter.open(MeterContext(devices=devices or (device(),)))
    assert isinstance(found, Mapping), found
    return found


def scope_of(meter: AmdMeter, *devices: Device) -> Scope:
    scope = opened(meter, *devices)[NAME]
    assert isinstance(scope, Scope), scope
    return scope


def why_not(meter: AmdMeter, *devices: Device) -> str:
    found = meter.open(MeterContext(devices=devices or (device(),)))
    lost = next(iter(found.values())) if isinstance(found, Mapping) else found
    assert isinstance(lost, Unavailable), lost
    return lost.reason


def joules(meter: AmdMeter) -> float:
    state = meter.read().joules[NAME]
    assert isinstance(state, Cumulative), state
    return state.joules


def test_the_offer_imports_no_driver() -> None:
    (spec,) = harness_meters()
    assert spec.auto
    check_offers("harness_meter_amd")


@pytest.mark.parametrize("old", [False, True])
def test_the_accumulator_in_joules_whatever_its_name(clock: FakeClock, install: Install, old: bool) -> None:
    install(FakeAmdCard(ADDRESS, 200.0), FakeAmdCard(OTHER, 90.0), old=old)
    meter = meter_of(clock)
    scope = scope_of(meter)
    assert (scope.method, scope.max_power_w, scope.device) == (Method.COUNTER, 750.0, f"PCI-{ADDRESS}")
    meter.read()
    for _ in range(10):
        clock.advance(1.0)
        snapshot = meter.read()
    assert joules(meter) == pytest.approx(2000.0, rel=1e-3)
    assert snapshot.watts == {NAME: 200.0}


@pytest.mark.parametrize("counts", [0.0, 0.46, 3.0])
def test_an_accumulator_that_power_contradicts_is_not_used(clock: FakeClock, install: Install, counts: float) -> None:
    install(FakeAmdCard(ADDRESS, 200.0, counts=counts))
    meter = meter_of(clock)
    scope = scope_of(meter)
    assert scope.method is Method.INTEGRATED
    assert "not used" in scope.note
    for _ in range(11):
        meter.read()
        clock.advance(0.1)
    assert joules(meter) == pytest.approx(220.0, rel=0.1)
    assert "no accumulator" in why_not(meter_of(clock, source="counter"))


def test_power_alone_where_the_suite_says_so(clock: FakeClock, install: Install) -> None:
    install(FakeAmdCard(ADDRESS, current=False))
    scope = scope_of(meter_of(clock, source="power"))
    assert scope.sensor is not None
    assert (scope.method, scope.sensor.window_s) == (Method.INTEGRATED, 1.0)


def test_the_second_die_of_an_mi250_reads_0_and_says_so(clock: FakeClock, install: Install) -> None:
    install(FakeAmdCard(ADDRESS, 300.0, "AMD Instinct MI250X"), FakeAmdCard(OTHER, 0.0, "AMD Instinct MI250X"))
    found = opened(meter_of(clock), device(), device(OTHER))
    lost, first = found[f"n0/gpu:PCI-{OTHER}"], found[NAME]
    assert isinstance(lost, Unavailable)
    assert "die" in lost.reason
    assert isinstance(first, Scope)
    assert "both dies" in first.note


def test_partitions_of_a_card_are_the_card_once(clock: FakeClock, install: Install) -> None:
    install(FakeAmdCard(ADDRESS, partition="CPX"))
    found = opened(meter_of(clock), device(part="#0"), device(part="#1"))
    assert set(found) == {NAME}
    scope = found[NAME]
    assert isinstance(scope, Scope)
    assert "no hardware meters a partition" in scope.note


@pytest.mark.parametrize(("cap", "limit_w"), [(750_000_000, 750.0), (750, 750.0), (0, None)])
def test_the_cap_in_watts_whatever_its_unit(clock: FakeClock, install: Install, cap: float, limit_w: Any) -> None:
    install(FakeAmdCard(ADDRESS, cap=cap))
    assert scope_of(meter_of(clock)).max_power_w == limit_w


def test_throttling_and_foreign_processes(clock: FakeClock, install: Install) -> None:
    card = FakeAmdCard(ADDRESS, active={"active_hbm_thrm", "active_ppt_pwr"}, pids={os.getpid(), 1})
    install(card)
    meter = meter_of(clock)
    opened(meter)
    found = {(each.kind, each.fails) for each in meter.conditions()}
    assert found >= {("thermal_throttle", True), ("power_cap", False), ("foreign_process", True)}
    assert meter.temperatures() == {NAME: 61.0}


def test_every_card_and_whose_it_is_where_the_work_does_not_say(clock: FakeClock, install: Install) -> None:
    install(FakeAmdCard(ADDRESS, pids={7, 8}), FakeAmdCard(OTHER))
    meter = meter_of(clock)
    assert isinstance(meter.open(MeterContext(every_device=True)), Mapping)
    assert {device.uuid for device in meter.found().values()} == {f"PCI-{ADDRESS}", f"PCI-{OTHER}"}
    assert meter.users() == {NAME: {7, 8}, f"n0/gpu:PCI-{OTHER}": set()}
    install()
    assert meter.open(MeterContext(every_device=True)) == Unavailable("this machine has no AMD device")


def test_a_card_that_falls_off_the_bus_is_its_reason(clock: FakeClock, install: Install) -> None:
    card = FakeAmdCard(ADDRESS)
    install(card)
    meter = meter_of(clock)
    opened(meter)
    clock.advance(1.0)
    card.lost = "AMDSMI_STATUS_NOT_FOUND"
    lost = meter.read().joules[NAME]
    assert isinstance(lost, Unavailable)
    assert "NOT_FOUND" in lost.reason
    assert {each.kind for each in meter.conditions()} == {"throttle_unknown", "exclusive_unknown"}
    card.lost = ""
    clock.advance(1.0)
    assert joules(meter) == pytest.approx(400.0, rel=0.2)


def test_an_accumulator_that_stops_is_no_joule(clock: FakeClock, install: Install) -> None:
    card = FakeAmdCard(ADDRESS)
    install(card)
    meter = meter_of(clock)
    opened(meter)
    meter.read()
    card.counts = 0.0
    for _ in range(50):
        clock.advance(0.1)
        last = meter.read().joules[NAME]
    assert isinstance(last, Unavailable)
    assert "stood still" in last.reason


def tree(root: Path, **files: int) -> Path:
    chip, pci = root / "hwmon" / "hwmon3", root / "devices" / "pci0000:c0" / ADDRESS
    chip.mkdir(parents=True)
    pci.mkdir(parents=True)
    (chip / "device").symlink_to(pci)
    (chip / "name").write_text("amdgpu\n", encoding="ascii")
    for name, value in files.items():
        (chip / name).write_text(f"{value}\n", encoding="ascii")
    return root / "hwmon"


def test_hwmon_where_amdsmi_does_not_work(clock: FakeClock, install: Install, tmp_path: Path) -> None:
    install(driver=False)
    root = tree(tmp_path, power1_average=120_000_000, power1_cap=300_000_000)
    meter = meter_of(clock, hwmon=str(root))
    scope = scope_of(meter)
    assert (scope.method, scope.max_power_w) == (Method.INTEGRATED, 300.0)
    assert "hwmon" in scope.note
    assert scope.sensor is not None
    assert scope.sensor.window_s == 1.0, "an average, as amdsmi's average_socket_power is"
    for _ in range(11):
        meter.read()
        clock.advance(0.1)
    assert joules(meter) == pytest.approx(132.0, rel=0.1)


def test_why_nothing_is_read(clock: FakeClock, install: Install, tmp_path: Path) -> None:
    install(driver=False)
    assert "DRIVER_NOT_LOADED" in why_not(meter_of(clock, hwmon=str(tmp_path / "none")))
    assert "no AMD device" in why_not(meter_of(clock), Device(kind="gpu", uuid="GPU-1", name="NVIDIA"))
    install(FakeAmdCard(OTHER))
    assert "does not list" in why_not(meter_of(clock))


def test_a_machine_that_was_not_looked_at_is_not_said_to_have_no_device(clock: FakeClock, install: Install) -> None:
    install(driver=False)
    found = meter_of(clock).open(MeterContext(every_device=True))
    assert isinstance(found, Unavailable)
    assert "DRIVER_NOT_LOADED" in found.reason
    assert "no AMD device" not in found.reason


def test_without_the_module(clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    reason = why_not(meter_of(clock, hwmon=str(tmp_path)))
    assert "cannot be imported" in reason
    assert "pip install amdsmi" in reason


def test_it_keeps_the_contract(clock: FakeClock, install: Install) -> None:
    fake = install(FakeAmdCard(ADDRESS))
    check_meter(meter_of(clock), MeterContext(devices=(device(),)), between=lambda: clock.advance(0.5))
    assert fake.closed == 2
