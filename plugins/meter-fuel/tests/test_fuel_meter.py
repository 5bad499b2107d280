"""The meter as a whole: hardware charged, shares, what is missing, profiles, tables, options."""

import math

import pytest
from harness_meter_fuel import harness_meters
from harness_meter_fuel.embodied import find, tables
from harness_meter_fuel.hardware.naming import same_product
from harness_meter_fuel.meter import FuelMeter, scope_kind
from harness_meter_fuel.options import FuelOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.backend import Device
from harness.errors import MeasurementError
from harness.impact import Costed, DeviceUse, EnergyTrace, Impact, ImpactMeterSpec
from harness.quantity import Amount, Method, Unavailable, Value

H100 = "NVIDIA H100 80GB HBM3"
TIGHT = 1e-9


def gpu(name: str = H100, uuid: str = "a", parent: str | None = None) -> Device:
    return Device(kind="gpu", uuid=uuid, name=name, parent=parent)


def cpu(name: str = "AMD EPYC", memory: int | None = 64 * 10**9) -> Device:
    return Device(kind="cpu", uuid="cpu", name=name, memory_bytes=memory)


def joules(value: float, method: Method = Method.COUNTER) -> Amount:
    return Amount.exact(value, "J", method)


def apply(
    options: dict[str, object],
    energy: dict[str, Value],
    *devices: Device,
    duration_s: float = 600.0,
    trace: EnergyTrace | None = None,
) -> Impact:
    costed = Costed(
        duration_s=duration_s,
        start_utc_s=1_767_225_600.0,
        energy=energy,
        readings={},
        devices=devices,
        trace=trace or EnergyTrace(),
    )
    return FuelMeter(FuelOptions.model_validate(options)).apply(costed)


def grams(impact: Impact, name: str) -> float:
    value = impact.readings[name]
    assert isinstance(value, Amount), value
    assert value.unit == "g"
    return value.value


def why(impact: Impact, name: str) -> str:
    value = impact.readings[name]
    assert isinstance(value, Unavailable), value
    return value.reason


def flagged(impact: Impact, text: str) -> bool:
    return any(text in flag for flag in impact.flags)


def test_the_offer() -> None:
    (spec,) = harness_meters()
    assert isinstance(spec, ImpactMeterSpec)
    assert (spec.name, spec.needs) == ("fuel", ("energy_j",))
    assert set(spec.yields.values()) == {"g"}
    assert isinstance(spec.factory(spec.options.model_validate({"grid": 518})), FuelMeter)


def test_v1_through_the_meter() -> None:
    impact = apply({"grid": 518}, {"n0/gpu:a": joules(210_000)}, gpu())
    assert grams(impact, "carbon_operational_g") == pytest.approx(30.216666667, rel=TIGHT)
    assert grams(impact, "carbon_embodied_g") == pytest.approx(0.081322027, rel=1e-8)
    assert grams(impact, "carbon_g") == pytest.approx(30.297988693, rel=TIGHT)
    embodied = impact.readings["carbon_embodied_g"]
    assert isinstance(embodied, Amount)
    assert embodied.label is Method.ESTIMATED
    operational = impact.readings["carbon_operational_g"]
    assert isinstance(operational, Amount)
    assert operational.label is Method.ESTIMATED  # counted joules, a published intensity
    assert all(factor.source and factor.id for factor in impact.factors)


L40_HOST = {"cpu": "AMD EPYC 7443", "cpus": 1, "dram_gb": 504, "gpus": 4}


def test_v2_host_share() -> None:
    energy: dict[str, Value] = {
        "n0/gpu:a": joules(220 * 600),
        "n0/cpu-package:0": joules(148 * 600),
        "n0/dram:0": joules(8 * 600),
    }
    impact = apply({"profile": "fuel-paper", "host": L40_HOST}, energy, gpu("NVIDIA L40"))
    assert grams(impact, "carbon_operational_g") == pytest.approx(32.461333333, rel=TIGHT)
    assert grams(impact, "carbon_embodied_g") == pytest.approx(0.101339965, rel=1e-8)
    assert grams(impact, "carbon_g") == pytest.approx(32.562673299, rel=TIGHT)
    assert flagged(impact, "profile fuel-paper: after the paper, constants from secondary sources")
    shares = {factor.name: factor.value for factor in impact.factors if factor.name.startswith("host_")}
    assert shares == {"host_energy_share": 1.0, "host_embodied_share": 0.25}


def test_custom_sets_both_host_shares_to_gpus_used_of_gpus_in_the_host() -> None:
    energy: dict[str, Value] = {"n0/gpu:a": joules(3.6e6), "n0/cpu-package:0": joules(3.6e6)}
    impact = apply({"grid": 100, "host": L40_HOST}, energy, gpu("NVIDIA L40"))
    assert grams(impact, "carbon_operational_g") == pytest.approx(125)
    declared = apply({"grid": 100, "host": L40_HOST, "host_energy_share": "50%"}, energy, gpu("NVIDIA L40"))
    assert grams(declared, "carbon_operational_g") == pytest.approx(150)


def test_a_whole_host_reading_is_not_cut_by_the_share_of_its_parts() -> None:
    impact = apply({"grid": 100, "host": L40_HOST}, {"n0/host": joules(3.6e6, Method.WALL)}, gpu("NVIDIA L40"))
    assert grams(impact, "carbon_operational_g") == pytest.approx(100)
    assert flagged(impact, "n0/host charged whole")


def test_v8_pue_through_the_meter() -> None:
    impact = apply({"grid": 518, "pue": 1.2}, {"n0/gpu:a": joules(210_000)}, gpu())
    assert grams(impact, "carbon_operational_g") == pytest.approx(36.26, rel=TIGHT)
    assert grams(impact, "carbon_embodied_g") == pytest.approx(0.081322027, rel=1e-8)
    assert flagged(impact, "pue without a source")
    sourced = apply({"grid": 518, "pue": {"value": 1.2, "source": "operator, 2025"}}, {"n0/gpu:a": joules(1)}, gpu())
    assert not flagged(sourced, "pue without a source")


def test_v9_series_through_the_meter(tmp_path: object) -> None:
    path = f"{tmp_path}/ci.csv"
    with open(path, "w") as lines:  # noqa: PTH123 - a string path, as a suite has it
        lines.write("start_utc,end_utc,g_per_kwh\n")
        lines.write("2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,400\n2026-01-01T01:00:00Z,2026-01-01T02:00:00Z,600\n")
    start = 1_767_225_600.0
    trace = EnergyTrace(utc_s=(start, start + 3600, start + 7200), joules={"n0/gpu:a": (0.0, 1.8e6, 7.2e6)})
    options: dict[str, object] = {"grid": {"series": path, "source": "grid operator, 2026"}}
    energy: dict[str, Value] = {"n0/gpu:a": joules(7.2e6)}
    impact = apply(options, energy, gpu(), duration_s=7200, trace=trace)
    assert grams(impact, "carbon_operational_g") == pytest.approx(1100, rel=TIGHT)
    assert not flagged(impact, "uniform split")
    blind = apply(options, energy, gpu(), duration_s=7200)
    assert grams(blind, "carbon_operational_g") == pytest.approx(1000, rel=TIGHT)
    assert flagged(blind, "uniform split")
    value = blind.readings["carbon_operational_g"]
    assert isinstance(value, Amount)
    assert (value.low, value.high) == pytest.approx((800, 1200))
    with pytest.raises(MeasurementError, match="uncovered"):
        apply(options, energy, gpu(), duration_s=7201)


def test_v10_each_device_counts() -> None:
    energy: dict[str, Value] = {"n0/gpu:a": joules(210_000), "n0/gpu:b": joules(210_000)}
    impact = apply({"grid": 518}, energy, gpu(), gpu(uuid="b"))
    assert grams(impact, "carbon_operational_g") == pytest.approx(60.433333333, rel=TIGHT)
    assert grams(impact, "carbon_embodied_g") == pytest.approx(0.162644053, rel=1e-8)


def test_partitions_of_one_device_count_once() -> None:
    slices = (gpu("NVIDIA A100-SXM4-80GB", "m1", "a"), gpu("NVIDIA A100-SXM4-80GB", "m2", "a"))
    whole = apply({"grid": 518}, {"n0/gpu:a": joules(1)}, gpu("NVIDIA A100-SXM4-80GB"))
    both = apply({"grid": 518}, {"n0/gpu:a": joules(1)}, *slices)
    assert grams(both, "carbon_embodied_g") == grams(whole, "carbon_embodied_g")


# What is missing


def test_a_device_without_a_row_takes_the_embodied_carbon_and_the_sum_only() -> None:
    impact = apply({"grid": 518}, {"n0/cpu-package:0": joules(3.6e6, Method.ESTIMATED)}, cpu())
    assert grams(impact, "carbon_operational_g") == pytest.approx(518)
    assert "no row for cpu 'AMD EPYC'" in why(impact, "carbon_embodied_g")
    assert "AMD EPYC" in why(impact, "carbon_g")


def test_a_declared_stand_in_and_an_own_row() -> None:
    energy: dict[str, Value] = {"n0/cpu-package:0": joules(3.6e6, Method.ESTIMATED)}
    stand_in = apply({"grid": 518, "devices": {"cpu": "AMD EPYC 7443"}}, energy, cpu())
    expected = (9.98 + 64 * 0.065) * 1000 * 600 / 220_752_000
    assert grams(stand_in, "carbon_embodied_g") == pytest.approx(expected, rel=TIGHT)
    assert flagged(stand_in, "stand-in: cpu 'AMD EPYC' costed as 'AMD EPYC 7443'")
    own = apply({"grid": 518, "embodied": {"cpu": {"kg": 9.98, "source": "maker's sheet"}}}, energy, cpu())
    assert grams(own, "carbon_embodied_g") == pytest.approx(expected, rel=TIGHT)
    assert any("maker's sheet" in factor.source for factor in own.factors)
    assert {f.lifetime_s for f in own.factors if f.name.startswith("embodied:")} == {220_752_000.0}
    assert all(f.lifetime_s is None for f in own.factors if not f.name.startswith("embodied:"))
    assert flagged(own, "embodied range not known")


def test_an_unread_scope_makes_the_sum_incomplete_and_none_makes_it_unavailable() -> None:
    lost = Unavailable("driver gone")
    partly = apply({"grid": 518}, {"n0/gpu:a": joules(3.6e6), "n0/dram:0": lost}, gpu())
    assert grams(partly, "carbon_operational_g") == pytest.approx(518)
    assert flagged(partly, "incomplete: no energy of n0/dram:0 (driver gone)")
    nothing = apply({"grid": 518}, {"n0/gpu:a": lost}, gpu())
    assert "driver gone" in why(nothing, "carbon_operational_g")
    assert "driver gone" in why(nothing, "carbon_g")
    assert grams(nothing, "carbon_embodied_g") > 0
    assert "no energy was read" in why(apply({"grid": 518}, {}, gpu()), "carbon_operational_g")


@pytest.mark.parametrize("duration", [0.0, -1.0, math.nan])
def test_a_window_without_length_is_refused(duration: float) -> None:
    with pytest.raises(MeasurementError, match="duration"):
        apply({"grid": 518}, {"n0/gpu:a": joules(1)}, gpu(), duration_s=duration)


def test_negative_energy_is_refused_not_costed() -> None:
    with pytest.raises(MeasurementError, match="at least 0"):
        apply({"grid": 518}, {"n0/gpu:a": joules(-1)}, gpu())


def test_no_device_means_no_embodied_carbon_rather_than_zero() -> None:
    assert "no device" in why(apply({"grid": 518}, {"n0/gpu:a": joules(1)}), "carbon_embodied_g")


def test_a_zero_grid_leaves_embodied_carbon() -> None:
    impact = apply({"grid": 0}, {"n0/gpu:a": joules(210_000)}, gpu())
    assert grams(impact, "carbon_operational_g") == 0
    assert grams(impact, "carbon_g") == grams(impact, "carbon_embodied_g")


def test_a_profile_that_lacks_a_scope_is_not_called_by_its_name() -> None:
    impact = apply({"profile": "fuel-paper"}, {"n0/gpu:a": joules(210_000)}, gpu())
    assert flagged(impact, "not to be called fuel-paper")
    assert flagged(impact, "wants dram energy")
    assert not flagged(impact, "after the paper")


# Tables


def test_the_range_is_that_of_the_tables_with_a_row_for_every_device() -> None:
    host = {"cpu": "Intel Xeon Platinum 8480+", "cpus": 2, "dram_gb": 1031, "gpus": 8}
    impact = apply({"grid": 518, "host": host}, {"n0/gpu:a": joules(1)}, gpu(), duration_s=3600)
    value = impact.readings["carbon_embodied_g"]
    assert isinstance(value, Amount)
    year = 365 * 24
    fuel = (29.92 + (2 * 42.81 + 1031 * 0.065) / 8) * 1000 / (7 * year)
    ecologits = (273 + 5700 / 8) * 1000 / (3 * year)
    assert value.value == pytest.approx(fuel, rel=TIGHT)
    assert (value.low, value.high) == pytest.approx((fuel, ecologits), rel=TIGHT)
    assert flagged(impact, "fuel (low) to ecologits-0.11.3 (high)")


def test_the_server_row_holds_processor_and_memory_once() -> None:
    options = {"grid": 518, "embodied_table": "ecologits-0.9.1", "host": {**L40_HOST, "gpus": 8}}
    impact = apply(options, {"n0/gpu:a": joules(1)}, gpu(), gpu(uuid="b"), duration_s=3 * 365 * 86400)
    assert grams(impact, "carbon_embodied_g") == pytest.approx((2 * 164 + 2 * 5700 / 8) * 1000)
    own = {**options, "embodied": {"cpu": {"kg": 1, "source": "x"}}}
    assert "dram" in why(apply(own, {"n0/gpu:a": joules(1)}, gpu()), "carbon_embodied_g")
    alone = apply({"grid": 518, "embodied_table": "ecologits-0.9.1"}, {"n0/cpu-package:0": joules(1)}, cpu())
    assert "no row for cpu" in why(alone, "carbon_embodied_g")


def test_a_figure_that_holds_its_host_covers_it() -> None:
    options = {"grid": 518, "embodied_table": "chien-hotcarbon-2023", "lifetime": "4y", "host": L40_HOST}
    impact = apply(options, {"n0/gpu:a": joules(1)}, gpu("NVIDIA A100-SXM4-80GB"), duration_s=4 * 365 * 86400)
    assert grams(impact, "carbon_embodied_g") == pytest.approx(318_000)


def test_one_table_only_gives_no_range() -> None:
    impact = apply({"grid": 518}, {"n0/gpu:a": joules(1)}, gpu("NVIDIA L40"))
    value = impact.readings["carbon_embodied_g"]
    assert isinstance(value, Amount)
    assert value.low is None
    assert flagged(impact, "embodied range not known")


def test_every_row_has_its_provenance() -> None:
    for rows in tables().values():
        for row in rows:
            assert row.source
            assert row.confidence
            assert row.licence_note
            assert row.kg > 0
            assert row.per in {"device", "GB", "8 GPUs", "device with host"}


@pytest.mark.parametrize(
    ("row", "product", "same"),
    [
        ("H100", H100, True),
        ("H100", "NVIDIA H100 PCIe", False),
        ("H100", "NVIDIA H100 NVL", False),
        ("H100", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", False),
        ("H100", "NVIDIA GH200 480GB", False),
        ("L40", "NVIDIA L40", True),
        ("L40", "NVIDIA L40S", False),
        ("A100", "NVIDIA A100-SXM4-80GB", True),
        ("A100", "NVIDIA A100-PCIE-40GB", True),
        ("V100", "Tesla V100-SXM2-16GB", True),
        ("T4", "Tesla T4", True),
        ("T4", "NVIDIA T400 4GB", False),
        ("AMD EPYC 7443", "AMD EPYC 7443 24-Core Processor", True),
        ("AMD EPYC 7443", "AMD EPYC 7443P 24-Core Processor", False),
        ("AMD EPYC 7443", "AMD EPYC", False),
        ("Intel Xeon Platinum 8480+", "Intel(R) Xeon(R) Platinum 8480+", True),
        ("Intel Xeon Platinum 8480+", "Intel(R) Xeon(R) Platinum 8480C CPU @ 2.00GHz", False),
        ("Intel Xeon Platinum 8480+", "Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz", True),
    ],
)
def test_product_names_match_conservatively(row: str, product: str, same: bool) -> None:
    assert same_product(row, product) is same


def test_a_gpu_row_is_no_cpu_row() -> None:
    assert find("fuel", "cpu", H100) is None


@pytest.mark.parametrize(
    ("scope", "kind"),
    [("n0/gpu:a:b", "gpu"), ("n0/cpu-package:0", "cpu"), ("n0/dram:0", "dram"), ("n0/host", "host")],
)
def test_scope_kind(scope: str, kind: str) -> None:
    assert scope_kind(scope) == kind


# Laws


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"grid": 518, "lifetime": "7y"}, {"grid": "518", "lifetime": "61320h"}),
        ({"grid": 518, "lifetime": "7y"}, {"grid": {"g_per_kwh": 518.0}, "lifetime": "220752000s"}),
        ({"grid": 518, "host_energy_share": 0.25}, {"grid": 518, "host_energy_share": "25%"}),
        ({"grid": 518, "pue": 1.2}, {"grid": 518, "pue": {"value": "1.2", "source": "s"}}),
    ],
)
def test_another_way_to_write_it_changes_no_result(one: dict[str, object], other: dict[str, object]) -> None:
    energy: dict[str, Value] = {"n0/gpu:a": joules(1e6), "n0/cpu-package:0": joules(1e6)}
    assert apply(one, energy, gpu()).readings == apply(other, energy, gpu()).readings


@settings(max_examples=50, deadline=None)
@given(st.floats(1, 1e7), st.floats(0, 0.5), st.floats(1, 900), st.floats(0, 0.5), st.floats(1, 3), st.floats(0, 1))
def test_the_bound_holds_the_value_and_widens_with_each_step(
    energy: float, width: float, grid: float, grid_width: float, pue: float, share: float
) -> None:
    read = Amount.of(energy, "J", Method.COUNTER, low=energy * (1 - width), high=energy * (1 + width))
    options = {
        "grid": {"g_per_kwh": grid, "low": grid * (1 - grid_width), "high": grid * (1 + grid_width)},
        "pue": pue,
        "host_energy_share": share,
        "host": {"gpus": 8},
    }
    value = apply(options, {"n0/gpu:a": read, "n0/cpu-package:0": read}, gpu()).readings["carbon_operational_g"]
    assert isinstance(value, Amount)
    assert value.low is not None
    assert value.high is not None
    assert value.low <= value.value <= value.high
    relative = value.relative_bound
    assert relative is not None
    assert relative >= (read.relative_bound or 0.0) * (1 - 1e-9) - 1e-15  # some steps round, each by half an ulp


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1e7), st.floats(0, 100), st.floats(0.01, 0.99), st.floats(1, 1e5))
def test_carbon_is_linear_in_energy_and_splitting_a_window_changes_no_sum(
    energy: float, factor: float, at: float, duration: float
) -> None:
    def found(joules_: float, seconds: float) -> tuple[float, float, float]:
        impact = apply({"grid": 518}, {"n0/gpu:a": joules(joules_)}, gpu(), duration_s=seconds)
        names = ("carbon_operational_g", "carbon_embodied_g", "carbon_g")
        operational, embodied, whole = (grams(impact, name) for name in names)
        return operational, embodied, whole

    whole = found(energy, duration)
    assert found(energy * factor, duration)[0] == pytest.approx(whole[0] * factor)
    parts = zip(found(energy * at, duration * at), found(energy * (1 - at), duration * (1 - at)), strict=True)
    assert [sum(pair) for pair in parts] == pytest.approx(whole)


# Options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "needs `grid`"),
        ({"grid": -1}, "not a carbon intensity"),
        ({"grid": math.nan}, "not a carbon intensity"),
        ({"grid": math.inf}, "not a carbon intensity"),
        ({"grid": True}, "no grid"),
        ({"grid": "u"}, "does not name a grid"),
        ({"grid": ""}, "does not name a grid"),
        ({"grid": "USA/"}, "does not name a grid"),
        ({"grid": "gcp"}, "needs a `region`"),
        ({"grid": {}}, "exactly one of"),
        ({"grid": {"g_per_kwh": 1, "country": "USA"}}, "exactly one of"),
        ({"grid": {"g_per_kwh": 100, "low": 101}}, "does not hold"),
        ({"grid": {"g_per_kwh": 100, "region": "x"}}, "`region` goes with"),
        ({"grid": {"g_per_kwh": 100, "fallback": "country"}}, "`fallback` goes with"),
        ({"grid": {"series": "x.csv"}}, "needs its `source`"),
        ({"grid": [1]}, "valid dictionary"),
        ({"grid": 1, "pue": 0.9}, "ratio from 1"),
        ({"grid": 1, "pue": 120}, "ratio from 1"),
        ({"grid": 1, "pue": "120"}, "ratio from 1"),
        ({"grid": 1, "pue": {"value": math.nan}}, "ratio from 1"),
        ({"grid": 1, "lifetime": 7}, "no unit"),
        ({"grid": 1, "lifetime": "0y"}, "above 0|such as 7y"),
        ({"grid": 1, "lifetime": "-1y"}, "such as 7y"),
        ({"grid": 1, "lifetime": "long"}, "such as 7y"),
        ({"grid": 1, "embodied_table": "fule"}, "did you mean 'fuel'"),
        ({"grid": 1, "embodied_table": "act"}, "no row for HBM.*estimate"),
        ({"grid": 1, "embodied_table": "ecologits"}, "ecologits-0.9.1, ecologits-0.11.3"),
        ({"grid": 1, "embodied_table": "estimate"}, "states no lifetime"),
        (
            {"grid": 1, "embodied_table": "estimate", "lifetime": "5y", "devices": {"gpu": "H100"}},
            "harness embodied --all",
        ),
        ({"grid": 1, "embodied": {"cpu": {"kg": 9.98}}}, "source"),
        ({"grid": 1, "embodied": {"cpu": {"kg": 9.98, "source": " "}}}, "source"),
        ({"grid": 1, "embodied": {"cpu": {"kg": -1, "source": "x"}}}, "greater than or equal to 0"),
        ({"grid": 1, "embodied": {"gpu": {"act": {"area_cm2": 8.14, "node_nm": 6}, "source": "x"}}}, "process node"),
        ({"grid": 1, "embodied": {"gpu": {"act": {"area_cm2": 8.14}, "source": "x"}}}, "node_nm"),
        ({"grid": 1, "embodied": {"gpu": {"act": {"memory": {"HBM3": 80}}, "source": "x"}}}, "no memory 'HBM3'"),
        ({"grid": 1, "embodied": {"gpu": {"act": {"area_cm2": math.nan}, "source": "x"}}}, "finite|equal to 0"),
        ({"grid": 1, "embodied": {"gpu": {"act": {"fab_yield": 0}, "source": "x"}}}, "greater than 0"),
        ({"grid": 1, "embodied": {"gpu": {"act": {}, "kg": 1, "source": "x"}}}, "exactly one of kg and act"),
        ({"grid": 1, "embodied": {"gpu": {"source": "x"}}}, "exactly one of kg and act"),
        ({"grid": 1, "scopes": ["gup"]}, "Input should be"),
        ({"grid": 1, "scopes": []}, "at least 1"),
        ({"profile": "fuel-paper", "scopes": ["gpu"]}, "fixes scopes"),
        ({"grid": 1, "devices": {"cpu": "AMD EPYC 7444"}}, "did you mean 'AMD EPYC 7443'"),
        ({"grid": 1, "host_energy_share": 1.5}, "less than or equal to 1"),
        ({"grid": 1, "host_embodied_share": math.nan}, "share|equal to 0"),
        ({"grid": 1, "host": {"gpus": 0}}, "greater than or equal to 1"),
        ({"grid": 1, "profile": "fuel"}, "fuel-paper"),
        ({"grid": 1, "profile": "fuel-paper"}, "fixes grid"),
        ({"profile": "fuel-code", "host_energy_share": 0}, "fixes host_energy_share"),
        ({"grid": 1, "colour": "green"}, "Extra inputs"),
    ],
)
def test_what_a_suite_may_not_write(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        FuelOptions.model_validate(options)


def test_options_have_a_json_schema() -> None:
    assert "grid" in FuelOptions.model_json_schema()["properties"]


@pytest.mark.parametrize(
    "options",
    [
        {"grid": 518, "lifetime": "7y", "pue": 1.2},
        {"grid": {"g_per_kwh": 400, "low": 300, "high": 500}, "embodied": {"cpu": {"kg": 1, "source": "s"}}},
        {"grid": {"country": "USA", "region": "x", "fallback": "country"}, "host": L40_HOST},
        {"profile": "fuel-code", "devices": {"cpu": "AMD EPYC 7443"}, "host_embodied_share": "25%"},
        {"grid": 1, "scopes": ["gpu"], "embodied": {"gpu": {"act": {"area_cm2": 1, "node_nm": 7}, "source": "s"}}},
    ],
)
def test_options_survive_the_record(options: dict[str, object]) -> None:
    read = FuelOptions.model_validate(options)
    assert FuelOptions.model_validate(read.model_dump(mode="json", by_alias=True)) == read


def test_seven_years_are_220_752_000_seconds() -> None:
    assert FuelOptions.model_validate({"grid": 518, "lifetime": "7y"}).lifetime == 220_752_000


def test_a_market_based_intensity_gives_carbon_and_no_sci() -> None:
    grid = {"g_per_kwh": 10, "basis": "market", "source": "certificates"}
    impact = apply({"grid": grid}, {"n0/gpu:a": joules(3.6e6)}, gpu())
    assert flagged(impact, "not to be called SCI")
    assert not flagged(impact, "SCI: hardware")
    assert "location-based" in why(impact, "sci_g")
    assert grams(impact, "carbon_operational_g") == pytest.approx(10)


def test_the_sci_score_is_fuels_sum_and_says_where_it_differs_from_the_standard() -> None:
    impact = apply({"grid": 518}, {"n0/gpu:a": joules(210_000)}, gpu())
    assert grams(impact, "sci_g") == pytest.approx(30.297988693, rel=TIGHT)  # V1 as SCI
    assert flagged(impact, "not for all the time it was reserved, data-centre overhead not counted")
    facility = apply({"grid": 518, "pue": 1.2}, {"n0/gpu:a": joules(210_000)}, gpu())
    assert grams(facility, "sci_g") == pytest.approx(36.26 + 0.081322027, rel=TIGHT)
    assert not flagged(facility, "overhead not counted")


def test_an_incomplete_sum_gives_no_sci() -> None:
    assert "AMD EPYC" in why(apply({"grid": 1}, {"n0/cpu-package:0": joules(1)}, cpu()), "sci_g")


def test_scopes_asked_for_are_charged_alone_and_missing_ones_are_named() -> None:
    energy: dict[str, Value] = {"n0/gpu:a": joules(3.6e6), "n0/process": joules(3.6e6, Method.ESTIMATED)}
    impact = apply({"grid": 100, "scopes": ["gpu", "dram"]}, energy, gpu())
    assert grams(impact, "carbon_operational_g") == pytest.approx(100)
    assert flagged(impact, "not charged: n0/process")
    assert flagged(impact, "incomplete: the suite wants dram energy, none was read")


def test_every_table_that_fits_is_an_alternative_and_the_chosen_one_is_among_the_factors() -> None:
    host = {"cpu": "Intel Xeon Platinum 8480+", "cpus": 2, "dram_gb": 1031, "gpus": 8}
    impact = apply({"grid": 518, "host": host}, {"n0/gpu:a": joules(1)}, gpu(), duration_s=3600)
    under = impact.alternatives["carbon_embodied_g"]
    assert set(under) == {"fuel", "llmcarbon", "ecologits-0.9.1", "ecologits-0.11.3"}
    assert isinstance(under["fuel"], Amount)
    assert under["fuel"].value == grams(impact, "carbon_embodied_g")
    assert "embodied_table:fuel" in {factor.id for factor in impact.factors}


def test_the_published_spread_of_embodied_figures_is_about_47() -> None:
    host = {"cpu": "Intel Xeon Platinum 8480+", "cpus": 2, "dram_gb": 1031, "gpus": 8}
    hour = 3600.0
    least = apply({"grid": 1, "host": host}, {"n0/gpu:a": joules(1)}, gpu(), duration_s=hour)
    own = {
        "gpu": {"kg": 273, "source": "EcoLogits 0.11.3", "lifetime": "3y"},
        "cpu": {"kg": 5700, "source": "EcoLogits 0.11.3: server for 8 GPUs", "lifetime": "3y"},
        "dram": {"kg": 0, "source": "in the server", "lifetime": "3y"},
    }
    options = {"grid": 1, "host": {**host, "cpus": 1}, "embodied": own}
    most = apply(options, {"n0/gpu:a": joules(1)}, gpu(), duration_s=hour)
    assert grams(least, "carbon_embodied_g") == pytest.approx(0.8, rel=0.02)
    assert grams(most, "carbon_embodied_g") == pytest.approx(37.5, rel=1e-3)
    assert grams(most, "carbon_embodied_g") / grams(least, "carbon_embodied_g") == pytest.approx(47, rel=0.02)


def test_the_h100_constant_does_not_cost_an_l40() -> None:
    energy: dict[str, Value] = {"n0/gpu:a": joules(225_600)}
    impact = apply({"profile": "fuel-paper", "host": L40_HOST}, energy, gpu("NVIDIA L40"))
    assert grams(impact, "carbon_embodied_g") != pytest.approx(0.110363666, rel=1e-3)


def test_fuel_code_says_that_its_energy_is_another_mean() -> None:
    energy: dict[str, Value] = {name: joules(1) for name in ("n0/gpu:a", "n0/cpu-package:0", "n0/dram:0")}
    impact = apply({"profile": "fuel-code", "host": L40_HOST}, energy, gpu("NVIDIA L40"))
    assert flagged(impact, "mean of 200 ms power samples")
    assert not flagged(apply({"profile": "fuel-paper", "host": L40_HOST}, energy, gpu("NVIDIA L40")), "mean of 200")


def test_own_figures_after_act_say_so() -> None:
    own = {"gpu": {"act": {"area_cm2": 8.14, "node_nm": 5, "memory": {"LPDDR4": 80}}, "source": "die size: maker"}}
    impact = apply({"grid": 1, "embodied": own}, {"n0/gpu:a": joules(1)}, gpu(), duration_s=600)
    logic = 8.14 * (583 * 2.75 + (430 + 225) / 2 + 500) / 0.875
    expected = (logic + 80 * 48 + 150) * 600 / 220_752_000
    assert grams(impact, "carbon_embodied_g") == pytest.approx(expected, rel=TIGHT)
    assert any("8.14 cm2 at 5 nm, 80 GB of LPDDR4" in factor.source for factor in impact.factors)


def test_rows_that_stand_for_products_are_charged_in_this_machines_place() -> None:
    uses = (
        DeviceUse(device="new:A100", role="new", busy_s=1, reserved_s=2, stands_for="A100-40GB"),
        DeviceUse(device="old:T4", role="old", busy_s=1, reserved_s=2, stands_for="T4"),
    )
    costed = Costed(
        duration_s=3600.0,
        start_utc_s=0.0,
        energy={"n0/declared:new:A100": joules(3600, Method.SIMULATED)},
        readings={},
        devices=(cpu("a processor that no table has"),),
        uses=uses,
    )
    own = {
        "A100-40GB": {"kg": 31.536, "lifetime": "5y", "source": "a test"},
        "T4": {"kg": 7.884, "lifetime": "5y", "source": "a test"},
    }
    impact = FuelMeter(FuelOptions.model_validate({"grid": 100, "embodied": own})).apply(costed)
    assert grams(impact, "carbon_embodied_g") == pytest.approx(0.25e-3 * 3600)
    value = impact.readings["carbon_embodied_g"]
    assert isinstance(value, Amount)
    assert value.label is Method.SIMULATED
    assert flagged(impact, "declared device 'old:T4' costed as 'T4'")
    assert flagged(impact, "this machine not charged")
