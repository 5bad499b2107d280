"""Meter `hwmon` on trees as drivers write them (kernel documentation, hwmon and ABI pages of each driver)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.backend import Device
from harness.builtin.hwmon import METER, HwmonOptions
from harness.builtin.hwmon.meter import HwmonMeter
from harness.hwmon import find_registers
from harness.meter import MeterContext
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, disjoint
from harness.testing import FakeClock, check_meter

ADDRESS = "0000:03:00.0"
CARD = Device(kind="gpu", uuid=f"PCI-{ADDRESS}", name="card")


class Tree:
    """A hwmon tree; files by chip."""

    def __init__(self, root: Path) -> None:
        self.root = root / "class"
        self.root.mkdir()
        self.devices = root / "devices"
        self.failing: dict[Path, OSError] = {}

    def chip(self, name: str, *, at: str = "", **files: Any) -> Path:
        folder = self.root / f"hwmon{len(list(self.root.iterdir()))}"
        folder.mkdir()
        (folder / "name").write_text(name + "\n", encoding="ascii")
        self.write(folder, **files)
        if at:
            device = self.devices / "pci0000:00" / "0000:00:01.0" / at
            device.mkdir(parents=True, exist_ok=True)
            (folder / "device").symlink_to(device)
        return folder

    def write(self, folder: Path, **files: Any) -> None:
        for name, value in files.items():
            (folder / name).write_text(f"{value}\n", encoding="ascii")

    def read(self, path: Path) -> str:
        if path in self.failing:
            raise self.failing[path]
        return path.read_text(encoding="ascii").strip()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def meter_of(tree: Tree, clock: FakeClock, **options: Any) -> HwmonMeter:
    return HwmonMeter(HwmonOptions(root=tree.root, **options), tree.read, clock)


def scopes_of(meter: HwmonMeter, *devices: Device) -> Mapping[str, Scope]:
    found = meter.open(MeterContext(devices=devices))
    assert isinstance(found, Mapping), found
    assert all(isinstance(scope, Scope) for scope in found.values()), found
    return {name: scope for name, scope in found.items() if isinstance(scope, Scope)}


def joules(meter: HwmonMeter, name: str) -> float:
    state = meter.read().joules[name]
    assert isinstance(state, Cumulative), state
    return state.joules


def test_an_intel_card_is_counted_once_though_its_package_is_listed_too(tree: Tree) -> None:
    clock = FakeClock()
    card = tree.chip(
        "xe", at=ADDRESS, energy1_input=5_000_000, energy1_label="card", energy2_input=3_000_000, energy2_label="pkg",
        power1_max=190_000_000,
    )  # fmt: skip
    meter = meter_of(tree, clock)
    scopes = scopes_of(meter, CARD)
    assert set(scopes) == {f"n0/gpu:PCI-{ADDRESS}"}
    (name,) = scopes
    assert (scopes[name].method, scopes[name].max_power_w) == (Method.COUNTER, 190.0)
    assert scopes[name].device == CARD.uuid
    clock.advance(1.0)
    tree.write(card, energy1_input=105_000_000, energy2_input=90_000_000)
    assert joules(meter, name) == pytest.approx(100.0)


def test_the_tiles_of_an_i915_card_lie_in_it(tree: Tree) -> None:
    tree.chip("i915", at=ADDRESS, energy1_input=10)
    tree.chip("i915_gt0", at=ADDRESS, energy1_input=5)
    tree.chip("i915_gt1", at=ADDRESS, energy1_input=5)
    assert set(scopes_of(meter_of(tree, FakeClock()), CARD)) == {f"n0/gpu:PCI-{ADDRESS}"}


@pytest.mark.parametrize("file", ["power1_average", "power1_input"])
def test_an_amd_card_without_a_counter_is_integrated(tree: Tree, file: str) -> None:
    clock = FakeClock()
    tree.chip("amdgpu", at=ADDRESS, power1_label="PPT", power1_cap=300_000_000, **{file: 150_000_000})
    meter = meter_of(tree, clock)
    scopes = scopes_of(meter, CARD)
    (name,) = scopes
    assert scopes[name].sampled
    sensor = scopes[name].sensor
    assert sensor is not None
    assert sensor.window_s == (1.0 if file.endswith("average") else 0.1)
    assert meter.sample_hz == 10.0
    for _ in range(10):
        clock.advance(0.1)
        snapshot = meter.read()
    assert joules(meter, name) == pytest.approx(150.0)
    assert snapshot.watts == {name: 150.0}


def test_a_card_that_the_work_does_not_use_is_left_out(tree: Tree) -> None:
    tree.chip("amdgpu", at=ADDRESS, power1_average=1_000_000)
    none = meter_of(tree, FakeClock()).open(MeterContext())
    assert isinstance(none, Unavailable)
    assert ADDRESS in none.reason
    assert set(scopes_of(meter_of(tree, FakeClock(), all_gpus=True))) == {f"n0/gpu:PCI-{ADDRESS}"}


def test_sockets_are_read_and_their_cores_are_not(tree: Tree) -> None:
    tree.chip(
        "amd_energy", energy1_input=1, energy1_label="Ecore000", energy2_input=2, energy2_label="Ecore001",
        energy3_input=30, energy3_label="Esocket0", energy4_input=40, energy4_label="Esocket1",
    )  # fmt: skip
    assert set(scopes_of(meter_of(tree, FakeClock()))) == {"n0/cpu-package:0", "n0/cpu-package:1"}


def rails(tree: Tree, *labels: str) -> Path:
    files: dict[str, Any] = {"in7_label": "sum of shunt voltages", "curr4_input": 0}
    for index, label in enumerate(labels, 1):
        files |= {f"in{index}_label": label, f"in{index}_input": 5000, f"curr{index}_input": 1000 * index}
    return tree.chip("ina3221", **files)


def test_a_module_s_input_contains_its_rails(tree: Tree) -> None:
    clock = FakeClock()
    rails(tree, "VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    meter = meter_of(tree, clock)
    scopes = scopes_of(meter)
    assert set(scopes) == {"n0/rail:VDD_IN", "n0/rail:VDD_CPU_GPU_CV", "n0/rail:VDD_SOC"}
    assert disjoint(scopes, scopes) == ["n0/rail:VDD_IN"]
    for _ in range(10):
        clock.advance(0.1)
        meter.read()
    assert joules(meter, "n0/rail:VDD_CPU_GPU_CV") == pytest.approx(10.0)  # 5 V x 2 A


def test_rails_without_a_total_are_added(tree: Tree) -> None:
    rails(tree, "VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    rails(tree, "NC", "VDDQ_VDD2_1V8AO", "NC")
    scopes = scopes_of(meter_of(tree, FakeClock()))
    assert len(disjoint(scopes, scopes)) == 4


def test_a_board_that_states_its_accuracy(tree: Tree) -> None:
    tree.chip(
        "power_meter", power1_average=210_000_000, power1_accuracy="2.5%", power1_average_interval=2000,
        power1_cap_max=750_000_000,
    )  # fmt: skip
    (scope,) = scopes_of(meter_of(tree, FakeClock())).values()
    assert scope.sensor is not None
    assert (scope.gain, scope.sensor.window_s, scope.max_power_w) == (0.025, 2.0, 750.0)


def test_chips_that_nobody_knows_are_read_on_request_only(tree: Tree) -> None:
    tree.chip("ucsi_source_psy_1", power1_input=15_000_000)
    tree.chip("pmbus", power1_label="pin", power1_input=500_000_000, power2_label="pout1", power2_input=460_000_000)
    none = meter_of(tree, FakeClock()).open(MeterContext())
    assert isinstance(none, Unavailable)
    assert "chips" in none.reason
    scopes = scopes_of(meter_of(tree, FakeClock(), chips=("pmbus",)))
    assert disjoint(scopes, scopes) == ["n0/rail:pmbus.pin"]


def test_a_counter_that_wraps(tree: Tree) -> None:
    clock = FakeClock()
    chip = tree.chip("xe", at=ADDRESS, energy1_input=90_000_000, power1_max=50_000_000)
    meter = meter_of(tree, clock, range_j=100.0)
    (name,) = scopes_of(meter, CARD)
    clock.advance(1.0)
    tree.write(chip, energy1_input=20_000_000)
    assert joules(meter, name) == pytest.approx(30.0)


def test_a_chip_that_disappears_is_its_reason_and_comes_back(tree: Tree) -> None:
    clock = FakeClock()
    chip = tree.chip("xe", at=ADDRESS, energy1_input=1_000_000)
    meter = meter_of(tree, clock)
    (name,) = scopes_of(meter, CARD)
    tree.failing[chip / "energy1_input"] = FileNotFoundError(2, "No such file or directory")
    clock.advance(1.0)
    lost = meter.read().joules[name]
    assert isinstance(lost, Unavailable)
    assert "energy" in lost.reason
    tree.failing.clear()
    clock.advance(1.0)
    tree.write(chip, energy1_input=61_000_000)
    assert joules(meter, name) == pytest.approx(60.0)


def test_permission_that_is_missing_comes_with_its_rule(tree: Tree) -> None:
    chip = tree.chip("xe", at=ADDRESS, energy1_input=1)
    tree.failing[chip / "energy1_input"] = PermissionError(13, "Permission denied")
    found = meter_of(tree, FakeClock()).open(MeterContext(devices=(CARD,)))
    assert isinstance(found, Mapping)
    (refused,) = found.values()
    assert isinstance(refused, Unavailable)
    assert "udev" in refused.reason


def test_what_no_card_draws_is_not_counted(tree: Tree) -> None:
    clock = FakeClock()
    chip = tree.chip("amdgpu", at=ADDRESS, power1_average=100_000_000, power1_cap=300_000_000)
    meter = meter_of(tree, clock)
    (name,) = scopes_of(meter, CARD)
    clock.advance(0.1)
    tree.write(chip, power1_average=100_000_000_000)  # milliwatts that some driver took for microwatts
    state = meter.read().joules[name]
    assert isinstance(state, Cumulative)
    assert state.dropped == 1
    assert state.joules < 20.0


def test_it_keeps_the_contract(tree: Tree) -> None:
    clock = FakeClock()
    tree.chip("amdgpu", at=ADDRESS, power1_average=100_000_000, power1_cap=300_000_000)
    rails(tree, "VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    check_meter(meter_of(tree, clock), MeterContext(devices=(CARD,)), between=lambda: clock.advance(0.1))


def test_a_machine_without_the_tree(tmp_path: Path) -> None:
    none = METER.factory(HwmonOptions(root=tmp_path / "none")).open(MeterContext())
    assert isinstance(none, Unavailable)
    assert find_registers(tmp_path) == []
