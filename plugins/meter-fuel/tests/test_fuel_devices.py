"""Devices and their figures: names as drivers print them, estimates against published footprints, whole hosts."""

import math
from pathlib import Path

import pytest
import yaml
from harness_meter_fuel import act, embodied
from harness_meter_fuel.hardware import devices, estimator
from harness_meter_fuel.hardware.estimator import Estimate
from harness_meter_fuel.meter import FuelMeter
from harness_meter_fuel.options import FuelOptions
from pydantic import ValidationError

from harness.backend import Device
from harness.impact import Costed, Impact
from harness.quantity import Amount, Unavailable


@pytest.mark.parametrize(
    ("kind", "printed", "name"),
    [
        ("gpu", "NVIDIA H100 80GB HBM3", "H100 80GB HBM3"),
        ("gpu", "NVIDIA H100 PCIe", "H100 PCIe"),
        ("gpu", "NVIDIA H100 NVL", "H100 NVL"),
        ("gpu", "NVIDIA H200", "H200"),
        ("gpu", "NVIDIA H200 NVL", "H200 NVL"),
        ("gpu", "NVIDIA B200", "B200"),
        ("gpu", "NVIDIA GB200", "GB200"),
        ("gpu", "NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        ("gpu", "NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("gpu", "NVIDIA A100-PCIE-40GB", "A100-PCIE-40GB"),
        ("gpu", "NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("gpu", "Tesla V100-SXM2-32GB", "Tesla V100-SXM2-32GB"),
        ("gpu", "Tesla T4", "Tesla T4"),
        ("gpu", "NVIDIA T4", "Tesla T4"),
        ("gpu", "NVIDIA L4", "L4"),
        ("gpu", "NVIDIA L40", "L40"),
        ("gpu", "NVIDIA L40S", "L40S"),
        ("gpu", "NVIDIA A10", "A10"),
        ("gpu", "NVIDIA A10G", "A10G"),
        ("gpu", "NVIDIA A40", "A40"),
        ("gpu", "NVIDIA GeForce RTX 3090", "GeForce RTX 3090"),
        ("gpu", "NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
        ("gpu", "NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada Generation"),
        ("gpu", "NVIDIA RTX A6000", "RTX A6000"),
        ("gpu", "Quadro RTX 6000", "Quadro RTX 6000"),
        ("gpu", "AMD Instinct MI300X", "AMD Instinct MI300X"),
        ("gpu", "AMD Instinct MI250X", "AMD Instinct MI250X"),
        ("gpu", "NVIDIA Jetson AGX Orin Developer Kit", "Jetson AGX Orin Developer Kit"),
        ("gpu", "NVIDIA Jetson AGX Orin 64GB", "Jetson AGX Orin 64GB"),
        ("cpu", "Intel(R) Xeon(R) Platinum 8480C", "Intel Xeon Platinum 8480+"),
        ("cpu", "Intel(R) Xeon(R) Platinum 8592+", "Intel Xeon Platinum 8592+"),
        ("cpu", "Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz", "Intel Xeon Platinum 8180"),
        ("cpu", "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "Intel Xeon E5-2680 v4"),
        ("cpu", "AMD EPYC 7763 64-Core Processor", "AMD EPYC 7513"),
        ("cpu", "AMD EPYC 7R13 Processor", "AMD EPYC 7513"),
        ("cpu", "AMD EPYC 9654 96-Core Processor", "AMD EPYC 9634"),
        ("cpu", "Apple M2 Max", "Apple M2 Max"),
        ("cpu", "Apple M2", "Apple M2"),
        ("gpu", "Apple M2 Max GPU", "Apple M2 Max"),
        ("cpu", "AMD EPYC 9754 128-Core Processor", "AMD EPYC 9754"),
        ("cpu", "AMD Ryzen 9 5950X 16-Core Processor", "AMD Ryzen 9 5950X"),
        ("cpu", "AMD Ryzen Threadripper PRO 5995WX 64-Cores", "AMD Ryzen Threadripper PRO 5995WX"),
        ("cpu", "13th Gen Intel(R) Core(TM) i9-13900K", "Intel Core i9-13900K"),
        ("gpu", "NVIDIA GeForce RTX 4080 SUPER", "GeForce RTX 4080 SUPER"),
        ("cpu", "Ampere(R) Altra(R) Max Processor", "Ampere Altra Max"),
    ],
)
def test_names_as_drivers_print_them_find_their_device(kind: str, printed: str, name: str) -> None:
    found = devices.find(kind, printed)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("kind", "printed"),
    [
        ("gpu", "NVIDIA H100"),  # which of three boards
        ("gpu", "NVIDIA H100 64GB HBM2"),
        ("gpu", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"),
        ("gpu", "NVIDIA A100"),
        ("gpu", "NVIDIA A10-24Q"),
        ("gpu", "NVIDIA T400 4GB"),
        ("gpu", "NVIDIA T4G"),
        ("gpu", "NVIDIA GeForce RTX 4090 Laptop GPU"),
        ("gpu", "NVIDIA GeForce RTX 4090 D"),
        ("gpu", "NVIDIA RTX 6000"),
        ("gpu", "AMD Instinct MI300A"),
        ("gpu", "NVIDIA GeForce RTX 4090 GPU"),
        ("gpu", ""),
        ("cpu", "NVIDIA H100 80GB HBM3"),
        ("cpu", "AMD EPYC"),
        ("cpu", "AMD EPYC 7763X"),
        ("cpu", "Intel(R) Xeon(R) CPU @ 2.20GHz"),
        ("cpu", "Intel(R) Xeon(R) Platinum 8480"),
        ("cpu", "Apple M2 Extreme"),
        ("cpu", "aarch64"),
    ],
)
def test_a_neighbour_is_no_device(kind: str, printed: str) -> None:
    assert devices.find(kind, printed) is None
    found = estimator.figure(kind, printed)
    assert isinstance(found, Unavailable)
    assert "harness embodied" in found.reason


def test_no_name_stands_for_two_devices() -> None:
    for facts in devices.known():
        for name in facts.names:
            found = devices.find("cpu" if facts.form == "package" else "gpu", name)
            assert found is facts, f"{name!r} of {facts.name} is found as {found.name if found else None}"


def test_the_4500_of_ada_has_the_larger_die_of_two() -> None:
    (facts,) = (each for each in devices.known() if each.name == "RTX 4500 Ada Generation")
    assert [die.area_cm2 for die in facts.dies] == [3.79]


def test_confidence_says_which_figures_were_looked_up() -> None:
    marks = {facts.name: facts.confidence for facts in devices.known()}
    assert "not looked up" in marks["AMD EPYC 7203"]
    assert "not looked up" in marks["H20"]
    assert "read in a copy" in marks["GeForce RTX 4090"]
    assert "not looked up" not in marks["GeForce RTX 4090"]


def test_every_device_has_dies_and_a_source() -> None:
    for facts in devices.known():
        assert facts.dies, facts.name
        assert facts.source, facts.name
        assert facts.confidence, facts.name
        assert all(0.3 < die.area_cm2 < 9 for die in (*facts.dies, *facts.dies_high)), facts.name
        low, high = (sum(die.area_cm2 for die in dies) for dies in (facts.dies, facts.dies_high))
        assert low <= high, facts.name
        assert (facts.kind in {"cpu", "soc"}) == (facts.form == "package"), facts.name


# The estimate


def test_the_bottom_up_sum_worked_by_hand() -> None:
    facts = devices.find("gpu", "NVIDIA A100-PCIE-40GB")
    assert facts is not None
    good = ((1 - math.exp(-0.826)) / 0.826) ** 2  # Murphy, 0.1 defects per cm2, 826 mm2
    logic = 8.26 * (583 * 2.15 + (350 + 200) / 2 + 500) / good / 1000
    memory = 40 / 1.79 * 2.20
    board = 234.36 * 0.032549 + 0.609 * 5.7412 + 0.387 * 8.2542
    assert estimator.fab_yield(8.26) == pytest.approx(good)
    sums = estimator.bottom_up_kg(facts)
    assert sums.low == sums.high
    assert sums.low == pytest.approx(logic + 0.150 + memory + board, rel=1e-9)


def test_of_the_boards_with_published_footprints_four_of_five_lie_within_the_estimate_of_the_others() -> None:
    boards = estimator.leave_one_out()
    assert len(boards) >= 5
    assert sum(board.held for board in boards) >= 0.8 * len(boards)
    for board in boards:
        assert isinstance(board.estimate, Estimate)
        assert board.estimate.high_kg <= estimator.WIDEST * board.estimate.low_kg


def test_a_board_does_not_calibrate_its_own_estimate() -> None:
    alone = estimator.calibration(frozenset({"B200"}))
    assert alone.boards == estimator.calibration().boards - 1
    assert alone.factor != estimator.calibration().factor


def test_the_one_published_processor_lies_within_its_estimate() -> None:
    found = estimator.figure("cpu", "Intel(R) Xeon(R) Platinum 8180 CPU @ 2.50GHz")
    assert isinstance(found, Estimate)
    assert found.low_kg < 23.5 < found.high_kg


def test_an_estimate_is_at_most_a_factor_of_three_wide_or_unavailable() -> None:
    for facts in devices.known():
        found = estimator.of(facts)
        if isinstance(found, Estimate):
            assert found.low_kg < found.kg < found.high_kg <= 3 * found.low_kg
        else:
            assert "wider than a factor of 3" in found.reason


def test_what_is_not_known_widens_the_interval_until_there_is_none() -> None:
    facts = devices.find("gpu", "NVIDIA L4")
    assert facts is not None
    vague = devices.DeviceFacts(
        **{
            name: getattr(facts, name)
            for name in devices.DeviceFacts.__slots__
            if name not in {"memory_gb", "board_cm2"}
        },
        memory_gb=devices.Span(12, 48),
        board_cm2=None,
    )
    found = estimator.of(vague)
    assert isinstance(found, Unavailable)
    assert "wider than a factor of 3" in found.reason


def test_a_published_figure_stands_and_its_interval_holds_it() -> None:
    found = estimator.figure("gpu", "NVIDIA H100 80GB HBM3")
    assert isinstance(found, Estimate)
    assert found.kg == 1312 / 8
    assert not found.estimated
    assert found.low_kg <= found.kg <= found.high_kg
    assert "NVIDIA" in found.source
    other = estimator.figure("gpu", "NVIDIA H100 PCIe")
    assert isinstance(other, Estimate)
    assert other.estimated


@pytest.mark.parametrize(
    ("device", "components_kg"),
    [
        # Casing, heat sink, board without chips, processor, memory, transport to the factory: ADEME 2026.
        ("GeForce GTX 1080 Ti", (2.15, 1.73, 10.2, 25.9, 32.9, 0.239)),
        ("RTX A4500", (1.64, 9.54, 7.96, 50.3, 29.9, 0.253)),
        ("TITAN RTX", (5.51, 0.218, 13.3, 67.7, 35.9, 0.219)),
        ("Tesla P100-PCIE-16GB", (0.961, 2.18, 11.4, 38.0, 12.5, 0.227)),
        ("L4", (0.0, 0.59, 3.65, 17.3, 35.9, 0.0394)),
        ("A100-PCIE-40GB", (3.61, 2.47, 9.17, 85.7, 19.3, 0.297)),
        ("H100 80GB HBM3", (1312 / 8,)),  # NVIDIA, a baseboard of eight
        ("B200", (2274 / 8,)),
    ],
)
def test_published_figures_are_the_sums_of_their_sources(device: str, components_kg: tuple[float, ...]) -> None:
    assert estimator.published()[device].kg == pytest.approx(sum(components_kg), abs=0.06)


def test_every_published_figure_names_its_document_and_a_device() -> None:
    names = {facts.name for facts in devices.known()}
    for name, figure in estimator.published().items():
        assert name in names
        assert "as above" not in figure.source
        assert figure.study
        assert figure.confidence
        assert figure.licence_note


# In the meter


def costed(options: dict[str, object], *listed: Device, duration_s: float = 3600.0) -> Impact:
    window = Costed(duration_s=duration_s, start_utc_s=0.0, energy={}, readings={}, devices=listed)
    return FuelMeter(FuelOptions.model_validate({"grid": 100, "lifetime": "5y", **options})).apply(window)


def gpu(name: str) -> Device:
    return Device(kind="gpu", uuid="a", name=name)


def test_a_whole_host_of_todays_hardware_has_a_figure_with_bounds() -> None:
    host = Device(kind="cpu", uuid="cpu", name="AMD EPYC 9654 96-Core Processor", memory_bytes=1536 * 10**9)
    options = {"embodied_table": "estimate", "host": {"gpus": 8, "cpus": 2, "parts": {"chassis": 1}}}
    impact = costed(options, gpu("AMD Instinct MI300X"), host)
    value = impact.readings["carbon_embodied_g"]
    assert isinstance(value, Amount)
    assert value.low is not None
    assert value.high is not None
    assert value.low < value.value < value.high
    card, processor = (estimator.figure("gpu", "MI300X"), estimator.figure("cpu", host.name))
    assert isinstance(card, Estimate)
    assert isinstance(processor, Estimate)
    kg = card.kg + (2 * processor.kg + 1536 * 1.39 + 368.1) / 8
    assert value.value == pytest.approx(kg * 1000 / (5 * 365 * 24), rel=1e-9)
    assert any("AMD Instinct MI300X is an estimate" in flag for flag in impact.flags)
    factors = {factor.name: factor for factor in impact.factors}
    assert factors["embodied:gpu:AMD Instinct MI300X"].source.startswith("estimate: ")


def test_a_module_with_processor_and_memory_covers_its_host() -> None:
    host = Device(kind="cpu", uuid="cpu", name="ARMv8 Processor rev 1 (v8l)", memory_bytes=64 * 10**9)
    impact = costed({"embodied_table": "estimate"}, gpu("NVIDIA Jetson AGX Orin 64GB"), host)
    value = impact.readings["carbon_embodied_g"]
    known = estimator.figure("gpu", "Jetson AGX Orin 64GB")
    assert isinstance(value, Amount)
    assert isinstance(known, Estimate)
    assert value.value == pytest.approx(known.kg * 1000 / (5 * 365 * 24), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "device", "says"),
    [
        ({}, "NVIDIA GeForce RTX 4090 Laptop GPU", "not among the devices whose dies and memory are known"),
        ({}, "NVIDIA Jetson AGX Orin Developer Kit", "wider than a factor of 3"),
        ({"host": {"parts": {"switch": 1}}}, "NVIDIA L4", "it has chassis"),
        ({"host": {"ssd_gb": 4000}}, "NVIDIA L4", "too far apart for an interval"),
    ],
)
def test_what_cannot_be_estimated_is_unavailable_with_its_reason(
    options: dict[str, object], device: str, says: str
) -> None:
    value = costed({"embodied_table": "estimate", **options}, gpu(device)).readings["carbon_embodied_g"]
    assert isinstance(value, Unavailable)
    assert says in value.reason


def test_llmcarbons_sum_with_storage_and_the_other_parts() -> None:
    # Its repository's own validation, XLM: 512 V100 in 64 servers for 20.4 of 1825 days; with what its code multiplies.
    host = {"cpu": "any CPU", "dram_gb": 256, "ssd_gb": 32768, "gpus": 8, "parts": {"others": 1}}
    listed = [Device(kind="gpu", uuid=str(number), name="Tesla V100-SXM2-16GB") for number in range(512)]
    window = Costed(duration_s=20.4 * 86400, start_utc_s=0.0, energy={}, readings={}, devices=tuple(listed))
    options = FuelOptions.model_validate({"grid": 100, "embodied_table": "llmcarbon", "host": host})
    value = FuelMeter(options).apply(window).readings["carbon_embodied_g"]
    assert isinstance(value, Amount)
    kg = 512 * 8.15 * 1.2 + 64 * (1.47 * 1.0 + 256 * 0.4 + 32768 * 0.018 + 111.6 * 1.2)
    assert value.value == pytest.approx(kg * 1000 * 20.4 / 1825, rel=1e-9)
    assert value.value / 1e6 == pytest.approx(0.66, rel=0.02)  # t, as the paper says


def test_ecologits_0_11_3_prices_a_host_of_eight() -> None:
    options = {"embodied_table": "ecologits-0.11.3", "lifetime": "3y", "host": {"gpus": 8, "dram_gb": 2048}}
    value = costed(options, gpu("NVIDIA H100 80GB HBM3")).readings["carbon_embodied_g"]
    assert isinstance(value, Amount)
    assert value.value == pytest.approx((273 + 5700 / 8) * 1000 / (3 * 365 * 24), rel=1e-9)


def test_a_table_says_why_it_has_no_row() -> None:
    assert "no row for gpu 'x'" in embodied.missing("fuel", "gpu", "x")
    assert "wider" not in embodied.missing("estimate", "gpu", "x")
    assert "MI300X" in embodied.products("estimate")
    assert act.package_g() == 150


def test_a_processor_of_a_group_goes_by_its_own_name() -> None:
    row = embodied.find("estimate", "cpu", "AMD EPYC 7763 64-Core Processor")
    assert row is not None
    assert row.device == "EPYC 7763"


def test_the_readmes_suites_are_priced_as_written() -> None:
    text = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    blocks = text.split("## Hardware")[1].split("```yaml\n")[1:]
    assert len(blocks) == 2
    for block in blocks:
        options = yaml.safe_load(block.split("```")[0])["meters"][1]["fuel"]
        value = costed({**options, "grid": 400}, gpu("NVIDIA H200")).readings["carbon_embodied_g"]
        assert isinstance(value, Amount)
        assert value.low is not None
        assert value.low < value.value


def test_a_device_that_no_table_has_is_estimated_from_what_it_is_made_of() -> None:
    made_of = {"dies": "1x814@5", "memory_gb": 80, "form": "card", "board_cm2": 234.36}
    cooling = {"heatsink_kg": 0.66, "casing_kg": 0.307}
    own = {"gpu": {"made_of": {**made_of, **cooling}, "source": "maker's brief"}}
    value = costed({"embodied": own}, gpu("a card of tomorrow")).readings["carbon_embodied_g"]
    same = estimator.figure("gpu", "NVIDIA H100 PCIe")
    assert isinstance(value, Amount)
    assert isinstance(same, Estimate)
    grams = 1000 / (5 * 365 * 24)
    ends = (same.low_kg * grams, same.kg * grams, same.high_kg * grams)
    assert (value.low, value.value, value.high) == pytest.approx(ends, rel=1e-9)
    impact = costed({"embodied": own}, gpu("a card of tomorrow"))
    assert any("is an estimate" in flag for flag in impact.flags)
    assert any("dies 1x814@5, 80 GB, card" in factor.source for factor in impact.factors)


@pytest.mark.parametrize(
    ("made_of", "says"),
    [
        ({"dies": "814", "form": "card"}, "number x mm2 @ process node"),
        ({"dies": "1x814@5 oops", "form": "card"}, "number x mm2 @ process node"),
        ({"dies": "1x814@4", "form": "card"}, "no process node '4'"),
        ({"dies": "1x50@5", "form": "module"}, "wider than a factor of 3"),
        ({"dies": "1x814@5"}, "form"),
        ({"dies": "1x814@5", "form": "card", "memory_gb": math.nan}, "finite|equal to 0"),
    ],
)
def test_what_cannot_be_estimated_is_refused_before_the_run(made_of: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        FuelOptions.model_validate({"grid": 1, "embodied": {"gpu": {"made_of": made_of, "source": "x"}}})


def test_a_described_device_survives_the_record() -> None:
    own = {"gpu": {"made_of": {"dies": "2x800@5", "memory_gb": 288, "form": "module"}, "source": "x"}}
    read = FuelOptions.model_validate({"grid": 1, "embodied": own})
    assert FuelOptions.model_validate(read.model_dump(mode="json", by_alias=True)) == read
