"""Hosts are counted as devices need them, for energy and embodied carbon alike, on one node and on several."""

import math

import pytest
from harness_meter_fuel import inventory, meter
from harness_meter_fuel.meter import FuelMeter
from harness_meter_fuel.options import FuelOptions

from harness.backend import Device
from harness.errors import UsageError
from harness.impact import Costed, DeviceUse, Impact
from harness.quantity import Amount, Method, Unavailable, Value

LIFETIME_S = 7 * 365 * 86400
H100_HOST = {"cpu": "Intel Xeon Platinum 8480+", "cpus": 2, "dram_gb": 1031, "gpus": 8}
HOST_KG = 2 * 42.81 + 1031 * 0.065
ONE_HOST = {"cpu": "AMD EPYC 7443", "dram_gb": 504}
COUNTS = [0, 1, 2, 8, 9, 12, 16, 17]


def gpus(number: int, name: str = "NVIDIA A100-SXM4-80GB") -> tuple[Device, ...]:
    return tuple(Device(kind="gpu", uuid=f"g{index}", name=name) for index in range(number))


def cpu(name: str = "AMD EPYC 7443", memory: int = 504 * 10**9) -> Device:
    return Device(kind="cpu", uuid="cpu", name=name, memory_bytes=memory)


def apply(
    options: dict[str, object],
    energy: dict[str, Value],
    *devices: Device,
    uses: tuple[DeviceUse, ...] = (),
    duration_s: float = 3600.0,
) -> Impact:
    costed = Costed(duration_s=duration_s, start_utc_s=0.0, energy=energy, readings={}, devices=devices, uses=uses)
    return FuelMeter(FuelOptions.model_validate({"grid": 100, **options})).apply(costed)


def grams(impact: Impact, name: str = "carbon_embodied_g") -> float:
    value = impact.readings[name]
    assert isinstance(value, Amount), value
    return value.value


def kwh(value: float = 1.0) -> Amount:
    return Amount.exact(value * 3.6e6, "J", Method.COUNTER)


def nodes(*numbers: int) -> dict[str, Value]:
    """Scopes of nodes with so many cards each, 1 kWh of processors on each node and none of the cards."""
    energy: dict[str, Value] = {}
    for node, number in enumerate(numbers):
        energy |= {f"n{node}/gpu:g{sum(numbers[:node]) + index}": kwh(0) for index in range(number)}
        energy[f"n{node}/cpu-package:0"] = kwh()
    return energy


def test_twelve_a100_on_the_published_hosts_of_eight() -> None:
    impact = apply({"host": H100_HOST}, {"n0/gpu:g0": kwh()}, *gpus(12))
    assert grams(impact) == pytest.approx(8.888, abs=5e-4)
    expected = (12 * 26.34 + 1.5 * HOST_KG) * 1000 * 3600 / LIFETIME_S
    assert grams(impact) == pytest.approx(expected, rel=1e-12)
    assert {f.name: f.value for f in impact.factors}["host_embodied_share"] == 1.5


@pytest.mark.parametrize("number", COUNTS)
@pytest.mark.parametrize("whole", [False, True])
def test_hosts_follow_the_number_of_devices(number: int, whole: bool) -> None:
    impact = apply({"host": {**H100_HOST, "whole_hosts": whole}}, {"n0/cpu-package:0": kwh()}, *gpus(number))
    needed = number / 8 if number else 1.0
    needed = float(math.ceil(needed)) if whole else needed
    assert grams(impact) == pytest.approx((number * 26.34 + needed * HOST_KG) * 1000 * 3600 / LIFETIME_S)
    assert grams(impact, "carbon_operational_g") == pytest.approx(100 * needed)


@pytest.mark.parametrize("number", COUNTS)
def test_any_number_of_h100_keeps_its_record_and_every_table_counts_hosts_alike(number: int) -> None:
    impact = apply({"host": H100_HOST}, {"n0/gpu:g0": kwh()}, *gpus(number, "NVIDIA H100 80GB HBM3"))
    assert grams(impact, "carbon_operational_g") == pytest.approx(100)
    assert grams(impact) > 0
    if number:
        under = impact.alternatives["carbon_embodied_g"]["ecologits-0.9.1"]
        assert isinstance(under, Amount)
        assert under.value == pytest.approx(number * (164 + 5700 / 8) * 1000 * 3600 / (3 * 365 * 86400))


def test_an_error_in_a_table_that_nobody_chose_costs_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def bill(taken: inventory.Inventory, options: FuelOptions, table: str) -> inventory.Bill | Unavailable:
        if table == "ecologits-0.9.1":
            raise UsageError("a broken table")
        return inventory.bill(taken, options, table)

    monkeypatch.setattr(meter, "bill", bill)
    impact = apply({"host": H100_HOST}, {"n0/gpu:g0": kwh()}, *gpus(1, "NVIDIA H100 80GB HBM3"))
    assert grams(impact) == pytest.approx((29.92 + HOST_KG / 8) * 1000 * 3600 / LIFETIME_S)


@pytest.mark.parametrize(
    ("by_node", "whole", "expected"),
    [
        ((8, 8), False, 2.0),
        ((8, 4), False, 1.5),
        ((1, 1), False, 0.25),
        ((1, 1), True, 2.0),
        ((8, 4), True, 2.0),
        ((9,), False, 1.125),
        ((9,), True, 2.0),
    ],
)
def test_nodes_are_charged_for_their_own_devices(by_node: tuple[int, ...], whole: bool, expected: float) -> None:
    host = {**H100_HOST, "whole_hosts": whole}
    impact = apply({"host": host}, nodes(*by_node), *gpus(sum(by_node)))
    assert grams(impact, "carbon_operational_g") == pytest.approx(100 * expected)
    embodied = (sum(by_node) * 26.34 + expected * HOST_KG) * 1000 * 3600 / LIFETIME_S
    assert grams(impact) == pytest.approx(embodied)
    assert any("counted 1.125 times" in flag for flag in impact.flags) == (by_node == (9,) and not whole)


def test_two_nodes_whose_devices_cannot_be_told_apart_share_the_hosts() -> None:
    energy: dict[str, Value] = {"n0/cpu-package:0": kwh(), "n1/cpu-package:0": kwh()}
    impact = apply({"host": H100_HOST}, energy, *gpus(12))
    assert grams(impact, "carbon_operational_g") == pytest.approx(150)


def test_each_node_counts_one_host_where_nothing_is_declared() -> None:
    one = apply({}, nodes(1), *gpus(1), cpu())
    two = apply({}, nodes(1, 1), *gpus(2), cpu())  # equal processors of two nodes are listed once
    assert grams(two) == pytest.approx(2 * grams(one))
    assert grams(two, "carbon_operational_g") == pytest.approx(200)
    other = Device(kind="cpu", uuid="cpu", name="Intel Xeon Platinum 8480+", memory_bytes=1031 * 10**9)
    mixed = apply({}, nodes(1, 1), *gpus(2), cpu(), other)
    expected = (2 * 26.34 + 9.98 + 42.81 + (504 + 1031) * 0.065) * 1000 * 3600 / LIFETIME_S
    assert grams(mixed) == pytest.approx(expected)


def test_a_declared_share_is_that_of_each_host() -> None:
    shared = {"host_embodied_share": 0.5, "host_energy_share": 0.5}
    impact = apply({"host": H100_HOST, **shared}, nodes(8, 4), *gpus(12))
    assert grams(impact) == pytest.approx((12 * 26.34 + 2 * 0.5 * HOST_KG) * 1000 * 3600 / LIFETIME_S)
    assert grams(impact, "carbon_operational_g") == pytest.approx(100)


def use(device: str, reserved_s: float, stands_for: str = "", role: str = "") -> DeviceUse:
    return DeviceUse(device=device, role=role, busy_s=1.0, reserved_s=reserved_s, stands_for=stands_for)


def test_devices_that_stand_for_others_stand_in_the_declared_host() -> None:
    uses = tuple(use(f"declared{index}", 3600.0, "A100") for index in range(12))
    energy: dict[str, Value] = {"n0/declared:declared0": kwh()}
    impact = apply({"host": H100_HOST}, energy, cpu("a processor that no table has"), uses=uses)
    assert grams(impact) == pytest.approx(8.888, abs=5e-4)
    value = impact.readings["carbon_embodied_g"]
    assert isinstance(value, Amount)
    assert value.label is Method.SIMULATED
    without = apply({}, energy, cpu(), uses=uses)
    assert grams(without) == pytest.approx(12 * 26.34 * 1000 * 3600 / LIFETIME_S)
    assert any("without a host" in flag for flag in without.flags)


def test_the_time_reserved_is_charged_where_it_is_longer_than_the_window() -> None:
    energy: dict[str, Value] = {"n0/gpu:g0": kwh()}
    longer = (use("g0", 7200.0), use("g0", 3600.0, role="draft"), use("g1", 1.0))
    impact = apply({"host": {**ONE_HOST, "gpus": 2}}, energy, *gpus(2), uses=longer)
    host_kg = 9.98 + 504 * 0.065
    held = 26.34 * 7200 + 26.34 * 3600 + host_kg * (7200 + 3600) / 2
    assert grams(impact) == pytest.approx(held * 1000 / LIFETIME_S)
    assert any("for the time reserved" in flag for flag in impact.flags)
    whole = apply({"host": {**ONE_HOST, "gpus": 2, "whole_hosts": True}}, energy, *gpus(2), uses=longer)
    assert grams(whole) == pytest.approx((26.34 * (7200 + 3600) + host_kg * 7200) * 1000 / LIFETIME_S)
    within = apply({"host": ONE_HOST}, energy, *gpus(1), uses=(use("g0", 10.0),))
    assert grams(within) == pytest.approx((26.34 + host_kg) * 1000 * 3600 / LIFETIME_S)
    assert not any("for the time reserved" in flag for flag in within.flags)


def test_a_partition_is_held_as_long_as_its_device() -> None:
    part = Device(kind="gpu", uuid="m1", name="NVIDIA A100-SXM4-80GB", parent="g0")
    impact = apply({}, {"n0/gpu:g0": kwh()}, part, uses=(use("m1", 7200.0),))
    assert grams(impact) == pytest.approx(26.34 * 1000 * 7200 / LIFETIME_S)


def test_storage_and_other_parts_of_each_host() -> None:
    own = {
        "ssd": {"kg": 0.018, "source": "a test"},
        "chassis": {"kg": 100, "source": "a test"},
    }
    host = {**H100_HOST, "ssd_gb": 32_000, "parts": {"chassis": 1, "network card": 2}}
    lacking = apply({"host": host, "embodied": own}, {"n0/gpu:g0": kwh()}, *gpus(12))
    value = lacking.readings["carbon_embodied_g"]
    assert isinstance(value, Unavailable)
    assert "no row for part 'network card'" in value.reason
    own["network card"] = {"kg": 3, "source": "a test"}
    impact = apply({"host": host, "embodied": own}, {"n0/gpu:g0": kwh()}, *gpus(12))
    host_kg = HOST_KG + 32_000 * 0.018 + 100 + 2 * 3
    assert grams(impact) == pytest.approx((12 * 26.34 + 1.5 * host_kg) * 1000 * 3600 / LIFETIME_S)
