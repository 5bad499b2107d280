"""Every option that the README documents, executed as a suite has it."""

import re
from pathlib import Path
from typing import Any

import pytest
from harness_meter_fuel.meter import FuelMeter
from harness_meter_fuel.options import FuelOptions

from harness.backend import Device
from harness.impact import Costed
from harness.planning.located_yaml import parse
from harness.quantity import Amount, Method

README = Path(__file__).parent.parent / "README.md"
HOST = "host: {cpu: AMD EPYC 7443, cpus: 1, dram_gb: 504, gpus: 4, whole_hosts: true}"
EXAMPLES = [
    ("profile", "profile: fuel-paper"),
    ("profile", "profile: fuel-code"),
    ("grid", "grid: 0.518 kg/kWh"),
    ("grid", "grid: {g_per_kwh: 518, low: 500, high: 550, source: s}"),
    ("place", "place: {name: dc, grid: 518, pue: 1.2}"),
    ("pue", "grid: 518\npue: 1.2"),
    ("pue", "grid: 518\npue: {value: 1.2, source: s}"),
    ("embodied_table", "grid: 518\nembodied_table: ecologits-0.9.1"),
    ("embodied_table", "grid: 518\nembodied_table: llmcarbon"),
    ("lifetime", "grid: 518\nlifetime: 5y"),
    ("embodied", "grid: 518\nembodied: {gpu: {kg: 30, source: s}}"),
    (
        "embodied",
        "grid: 518\nembodied: {gpu: {act: {area_cm2: 8.14, node_nm: 5, memory: {LPDDR4: 80}}, source: s}}",
    ),
    ("devices", "grid: 518\ndevices: {gpu: H100}"),
    ("host", f"grid: 518\n{HOST}"),
    ("host", "grid: 518\nembodied: {ssd: {kg: 0.018, source: s}}\nhost: {ssd_gb: 1000}"),
    ("host", "grid: 518\nembodied: {chassis: {kg: 100, source: s}}\nhost: {parts: {chassis: 1}}"),
    ("scopes", "grid: 518\nscopes: [gpu]"),
    ("host_embodied_share", f"grid: 518\n{HOST}\nhost_embodied_share: 50%"),
    ("host_energy_share", f"grid: 518\n{HOST}\nhost_energy_share: 0.5"),
]


def documented() -> set[str]:
    """Names in the first column of the README's table of options."""
    rows = re.findall(r"^\| (`.*?) \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(("name", "text"), EXAMPLES)
def test_a_documented_option_is_taken_as_a_suite_has_it(name: str, text: str) -> None:
    given: dict[str, Any] = dict(parse(f"{text}\n", "README.md", {}).data)
    assert name in given
    costed = Costed(
        duration_s=3600.0,
        start_utc_s=1.75e9,
        energy={"n0/gpu:a": Amount.exact(3.6e6, "J", Method.COUNTER)},
        readings={},
        devices=(Device(kind="gpu", uuid="a", name="NVIDIA H100 80GB HBM3"),),
    )
    readings = FuelMeter(FuelOptions.model_validate(given)).apply(costed).readings
    for reading in ("carbon_operational_g", "carbon_embodied_g", "carbon_g"):
        value = readings[reading]
        assert isinstance(value, Amount), value
        assert value.value > 0


def test_every_option_is_documented_and_executed() -> None:
    assert documented() >= set(FuelOptions.model_fields)
    assert {name for name, _ in EXAMPLES} >= set(FuelOptions.model_fields)


@pytest.mark.parametrize("snippet", re.findall(r"`(\{[^`]*: [^`]*\})`", README.read_text(encoding="utf-8")))
def test_every_mapping_in_the_readme_is_yaml(snippet: str) -> None:
    assert parse(f"{snippet}\n", "README.md", {}).data
