"""The command `harness embodied`: this machine's devices, others by name, and the check of the estimate."""

import json
from pathlib import Path

import pytest
import typer
from harness_meter_fuel import harness_commands
from harness_meter_fuel.hardware import machine
from typer.testing import CliRunner

from harness.errors import UsageError


def call(*arguments: str) -> str:
    (spec,) = [each for each in harness_commands() if each.name == "embodied"]
    application = typer.Typer()
    application.command()(spec.load())
    done = CliRunner().invoke(application, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(("NVIDIA L40S", "NVIDIA L40S")):
        folder = tmp_path / f"proc/driver/nvidia/gpus/0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 123\nGPU UUID: \t GPU-{number}\n")
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 9354 32-Core Processor\n" * 2)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       1000000000 kB\nMemFree: 1 kB\n")
    return tmp_path


def test_devices_are_read_from_the_systems_files(root: Path) -> None:
    found = machine.read(root)
    assert [(each.kind, each.name) for each in found] == [
        ("gpu", "NVIDIA L40S"),
        ("gpu", "NVIDIA L40S"),
        ("cpu", "AMD EPYC 9354 32-Core Processor"),
        ("dram", "DRAM"),
    ]
    assert found[-1].gb == pytest.approx(1024)


def test_other_makers_files(tmp_path: Path) -> None:
    card = tmp_path / "sys/class/drm/card1/device"
    card.mkdir(parents=True)
    (card / "product_name").write_text("AMD Instinct MI300X\n")
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("NVIDIA Jetson Orin Nano Developer Kit\0")
    names = [each.name for each in machine.read(tmp_path)]
    assert names == ["AMD Instinct MI300X", "NVIDIA Jetson Orin Nano Developer Kit"]


def test_a_system_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.read(tmp_path) == []
    monkeypatch.setattr(machine, "read", list)
    with pytest.raises(UsageError, match="no device of this machine"):
        call()


def test_this_machines_devices_under_every_table(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.read(root)
    monkeypatch.setattr(machine, "read", lambda: found)
    text = call()
    assert text.count("gpu: NVIDIA L40S") == 2
    assert "estimate: bottom up" in text
    assert "dram: DRAM, 1024 GB" in text
    assert "any CPU" not in text


def test_a_device_by_name_with_its_sources() -> None:
    text = call("NVIDIA H100 80GB HBM3")
    for table in ("fuel", "llmcarbon", "ecologits-0.9.1", "ecologits-0.11.3", "estimate"):
        assert f"  {table} " in text
    assert "published: NVIDIA, HGX H100" in text
    (known,) = json.loads(call("NVIDIA H100 80GB HBM3", "--json"))
    assert known["tables"]["estimate"]["kg"] == 164
    assert known["tables"]["ecologits-0.11.3"]["kg"] == 273


def test_a_figure_shows_how_well_it_is_known() -> None:
    assert "entered from memory, not looked up" in call("EPYC 7203")


def test_a_processor_keeps_its_own_name() -> None:
    (known,) = json.loads(call("AMD EPYC 7763 64-Core Processor", "--json"))
    assert known["kind"] == "cpu"
    assert set(known["tables"]) == {"estimate"}


def test_a_device_of_which_only_one_form_is_known_says_why() -> None:
    assert "'estimate' has no row for gpu 'H100'" in call("H100")


def test_an_unknown_device_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'GeForce RTX 4090'"):
        call("GeForce RTX 4091")


def test_every_device_and_every_processor_is_listed() -> None:
    text = call("--all")
    for name in ("AMD Instinct MI300X", "EPYC 7763", "Apple M2 Max", "Jetson AGX Orin Developer Kit"):
        assert name in text
    assert "unavailable: interval wider" in text


def test_the_check_names_what_the_estimate_missed() -> None:
    text = call("--check")
    assert "B200" in text
    assert "NO" in text
    assert text.splitlines()[-1].endswith("lie within the estimate of the others")
