"""Meter `codecarbon`: its contract, its refusals, and the installed package behind it."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from harness_meter_codecarbon import tracker
from harness_meter_codecarbon.meter import CodecarbonMeter, scope_names
from harness_meter_codecarbon.options import CodecarbonOptions
from harness_meter_codecarbon.tracker import Sink, Source, Totals, arguments, nvml_index
from pydantic import ValidationError

from harness.backend import Device
from harness.discovery.registry import load_plugins
from harness.measuring.channel import Channel
from harness.measuring.meters import Meters
from harness.meter import MeterContext
from harness.quantity import Amount, Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot
from harness.testing import FakeClock, check_meter, check_offers

COUNTED = {
    "cpu": Source(Method.COUNTER, "RAPL"),
    "gpu": Source(Method.COUNTER, "NVML"),
    "ram": Source(Method.ESTIMATED, "model"),
}
GPU = Device(kind="gpu", uuid="GPU-1", name="H100")


class FakeConnection:
    """A codecarbon that answers what a test lays down, in order."""

    def __init__(self, *answers: Totals | Unavailable) -> None:
        self.answers = list(answers)
        self.how: dict[str, Source] = dict(COUNTED)
        self.packages = 1
        self.stopped = 0
        self.gpus: list[int] = []

    def connect(self, options: CodecarbonOptions, gpus: Sequence[int]) -> FakeConnection:
        self.gpus = list(gpus)
        return self

    def totals(self) -> Totals | Unavailable:
        return self.answers.pop(0)

    first_totals = totals

    def sources(self) -> dict[str, Source]:
        return self.how

    def sockets(self) -> int:
        return self.packages

    def facts(self) -> Mapping[str, object]:
        return {}

    def stop(self) -> None:
        self.stopped += 1


def meter_of(fake: FakeConnection, clock: FakeClock | None = None, index: int | Unavailable = 0) -> CodecarbonMeter:
    return CodecarbonMeter(CodecarbonOptions(), fake.connect, lambda uuid: index, clock or FakeClock())


def test_the_offer_is_inert_and_never_counts() -> None:
    assert check_offers("harness_meter_codecarbon") == ["meters:codecarbon"]
    spec = load_plugins().get("meter", "codecarbon").spec
    assert spec.cross_check
    assert not spec.auto


@pytest.mark.parametrize("options", [{"cpu_wats": 3}, {"cpu_watts": 0}, {"ram_watts": -1}, {"ram_watts": "nan"}])
def test_a_misspelt_or_impossible_option_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CodecarbonOptions.model_validate(options)


def test_scopes_have_the_names_of_other_meters_only_where_they_cover_the_same() -> None:
    assert scope_names("n0", 1, ["GPU-1"]) == {
        "cpu": "n0/cpu-package:0",
        "ram": "n0/dram:0",
        "gpu": "n0/gpu:GPU-1",
    }
    assert scope_names("n1", 2, ["a", "b"]) == {"cpu": "n1/cpu-packages", "ram": "n1/dram", "gpu": "n1/gpus"}
    assert "gpu" not in scope_names("n0", 1, [])


def test_methods_follow_what_codecarbon_used() -> None:
    fake = FakeConnection(Totals(3.0, 2.0, 1.0))
    opened = meter_of(fake, index=4).open(MeterContext(devices=(GPU,)))
    assert isinstance(opened, Mapping)
    methods = {name: scope.method for name, scope in opened.items() if isinstance(scope, Scope)}
    assert methods == {
        "n0/cpu-package:0": Method.COUNTER,
        "n0/gpu:GPU-1": Method.COUNTER,
        "n0/dram:0": Method.ESTIMATED,
    }
    assert fake.gpus == [4]


def test_no_record_is_unavailable_with_the_reason_and_the_tracker_is_stopped() -> None:
    fake = FakeConnection(Unavailable("codecarbon gave no record; its last warning: no token"))
    assert meter_of(fake).open(MeterContext()) == Unavailable("codecarbon gave no record; its last warning: no token")
    assert fake.stopped == 1


def test_a_part_of_0_j_is_unavailable_and_the_others_read() -> None:
    fake = FakeConnection(Totals(0.0, 0.0, 1.0), Totals(0.0, 0.0, 2.0))
    meter = meter_of(fake)
    opened = meter.open(MeterContext())
    assert isinstance(opened, Mapping)
    assert opened["n0/cpu-package:0"] == Unavailable("codecarbon read no energy of the cpu")
    assert meter.read().joules == {"n0/dram:0": Cumulative(2.0)}


def test_a_device_that_nvml_does_not_know_is_unavailable_and_not_tracked() -> None:
    fake = FakeConnection(Totals(3.0, 0.0, 1.0))
    opened = meter_of(fake, index=Unavailable("no driver")).open(MeterContext(devices=(GPU,)))
    assert isinstance(opened, Mapping)
    assert opened["n0/gpu:GPU-1"] == Unavailable("no driver")
    assert fake.gpus == []


def test_a_partition_is_read_as_its_parent_once() -> None:
    parts = tuple(Device(kind="gpu", uuid=f"MIG-{n}", name="H100", parent="GPU-1") for n in range(2))
    fake = FakeConnection(Totals(3.0, 2.0, 1.0))
    opened = meter_of(fake).open(MeterContext(devices=parts))
    assert isinstance(opened, Mapping)
    assert "n0/gpu:GPU-1" in opened
    assert fake.gpus == [0]


def test_a_lost_record_is_unavailable_and_the_next_one_covers_the_time() -> None:
    fake = FakeConnection(Totals(1.0, 0.0, 1.0), Unavailable("codecarbon gave no record"), Totals(5.0, 0.0, 3.0))
    meter = meter_of(fake)
    meter.open(MeterContext())
    assert set(meter.read().joules.values()) == {Unavailable("codecarbon gave no record")}
    assert meter.read().joules == {"n0/cpu-package:0": Cumulative(5.0), "n0/dram:0": Cumulative(3.0)}


def test_a_stale_record_bears_the_time_of_its_measurement() -> None:
    clock = FakeClock()
    fake = FakeConnection(Totals(1.0, 0.0, 1.0), Totals(2.0, 0.0, 2.0), Totals(2.0, 0.0, 2.0))
    meter = meter_of(fake, clock)
    meter.open(MeterContext())
    measured = clock.advance(1.0)
    assert meter.read().monotonic_ns == measured
    clock.advance(0.03)
    assert meter.read() == Snapshot(measured, {"n0/cpu-package:0": Cumulative(2.0), "n0/dram:0": Cumulative(2.0)})


def test_an_interval_that_codecarbon_skipped_is_a_gap_and_no_0_j() -> None:
    clock = FakeClock()
    fake = FakeConnection(Totals(1.0, 0.0, 1.0), Totals(1.0, 0.0, 2.0), Totals(3.0, 0.0, 3.0))
    meter = meter_of(fake, clock)
    meter.open(MeterContext())
    clock.advance(1.0)
    meter.read()
    clock.advance(1.0)
    assert meter.read().joules == {"n0/cpu-package:0": Cumulative(3.0, gap_s=1.0), "n0/dram:0": Cumulative(3.0)}


def test_a_counter_that_codecarbon_gave_up_is_no_counter_reading() -> None:
    fake = FakeConnection(Totals(1.0, 1.0, 1.0), Totals(2.0, 2.0, 2.0), Totals(3.0, 3.0, 3.0))
    meter = meter_of(fake)
    meter.open(MeterContext(devices=(GPU,)))
    fake.how["gpu"] = Source(Method.INTEGRATED, "mean of power readings")
    lost = Unavailable("codecarbon changed its method: mean of power readings")
    assert meter.read().joules["n0/gpu:GPU-1"] == lost
    fake.how["gpu"] = COUNTED["gpu"]
    assert meter.read().joules["n0/gpu:GPU-1"] == lost


def test_it_is_never_primary_even_where_it_alone_reads() -> None:
    meter = meter_of(FakeConnection(Totals(1.0, 0.0, 1.0)))
    opened = meter.open(MeterContext())
    assert isinstance(opened, Mapping)
    scopes = {name: scope for name, scope in opened.items() if isinstance(scope, Scope)}
    assert scopes
    assert Meters([Channel("codecarbon", True, meter, scopes, cross_check=True)]).primaries() == {}


# The installed package


def test_every_argument_of_the_tracker_is_given() -> None:
    from codecarbon.emissions_tracker import BaseEmissionsTracker, OfflineEmissionsTracker

    takes = {
        name
        for kind in (BaseEmissionsTracker, OfflineEmissionsTracker)
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if name != "self"
        and parameter.kind is not parameter.VAR_POSITIONAL
        and parameter.kind is not parameter.VAR_KEYWORD
    }
    left_out = {name for name in takes if name.startswith("save_to_")} | {"co2_signal_api_token"}
    assert arguments(CodecarbonOptions(), [], Sink()).keys() == takes - left_out


def test_the_sink_has_the_methods_of_codecarbons_outputs() -> None:
    from codecarbon.output_methods.base_output import BaseOutput

    for name, method in inspect.getmembers(BaseOutput, inspect.isfunction):
        if not name.startswith("_"):
            assert list(inspect.signature(getattr(Sink, name)).parameters) == list(inspect.signature(method).parameters)


def test_the_contract_of_meters_on_this_machine() -> None:
    snapshots = check_meter(
        CodecarbonMeter(CodecarbonOptions(cpu_watts=65)), MeterContext(), between=lambda: time.sleep(0.06)
    )
    assert all(not isinstance(value, Unavailable) for value in snapshots[-1].joules.values())


def test_declared_memory_power_gives_watts_times_seconds() -> None:
    """10 W over the interval between two measurements, each made somewhere within its reading."""
    meter = CodecarbonMeter(CodecarbonOptions(cpu_watts=65, ram_watts=10))
    opened = meter.open(MeterContext())
    assert isinstance(opened, Mapping)
    (scope,) = (name for name in opened if "dram" in name)
    time.sleep(0.1)
    first = meter.read()
    time.sleep(0.5)
    last = meter.read()
    meter.close()
    before, after = first.joules[scope], last.joules[scope]
    assert isinstance(before, Cumulative)
    assert isinstance(after, Cumulative)
    shortest_s = (last.monotonic_ns - first.monotonic_ns - first.took_ns) / 1e9
    longest_s = (last.monotonic_ns + last.took_ns - first.monotonic_ns) / 1e9
    assert 0.999 * shortest_s <= (after.joules - before.joules) / 10 <= 1.001 * longest_s


def test_configuration_files_and_variables_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = {
        "pue": "7",
        "wue": "3",
        "tracking_mode": "process",
        "force_ram_power": "1000000",
        "force_cpu_power": "1000000",
        "force_carbon_intensity_g_co2e_kwh": "999",
        "co2_signal_api_token": "secret",
        "electricitymaps_api_token": "secret",
        "output_methods": "api,csv",
        "emissions_endpoint": "http://127.0.0.1:1",
    }
    text = "[codecarbon]\n" + "".join(f"{name}={value}\n" for name, value in hostile.items())
    (tmp_path / ".codecarbon.config").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in hostile.items():
        monkeypatch.setenv(f"CODECARBON_{name.upper()}", value)
    one = tracker.Tracker(CodecarbonOptions(cpu_watts=65, ram_watts=10), [])
    try:
        totals = one.first_totals()
        assert isinstance(totals, Totals)
        assert 0 < totals.ram < 100
        inner = one._tracker
        assert (inner._pue, inner._wue, inner._tracking_mode) == (1.0, 0.0, "machine")
        assert not inner._electricitymaps_api_token
        assert inner._output_handlers == [one._sink]
        assert inner._emissions_endpoint is None
        assert inner._total_emissions == 0
    finally:
        one.stop()
    assert [path.name for path in tmp_path.iterdir()] == [".codecarbon.config"]


def test_an_argument_that_codecarbon_no_longer_takes_gives_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    true = tracker.arguments
    monkeypatch.setattr(tracker, "arguments", lambda *given: {**true(*given), "cuntry": "USA"})
    opened = CodecarbonMeter(CodecarbonOptions()).open(MeterContext())
    assert isinstance(opened, Unavailable)
    assert "codecarbon gave no record" in opened.reason


def test_a_machine_without_the_driver_says_so() -> None:
    found = nvml_index("GPU-00000000-0000-0000-0000-000000000000")
    assert isinstance(found, Unavailable)
    assert "NVML does not know device" in found.reason


INTENSITIES = """
import contextlib, json, sys
with contextlib.redirect_stdout(sys.stderr):
    from codecarbon import OfflineEmissionsTracker
found = []
for place in json.loads(sys.argv[1]):
    one = OfflineEmissionsTracker(
        output_methods=[], force_cpu_power=1000, force_ram_power=1000, gpu_ids=[], log_level="error",
        electricitymaps_api_token="", measure_power_secs=86400, **place
    )
    one.start_task("probe")
    import time; time.sleep(0.05)
    record = one.stop_task("probe")
    one.stop()
    found.append(1000 * record.emissions / record.energy_consumed)
print(json.dumps(found))
"""
PLACES = [
    ("USA", {"country_iso_code": "USA"}, 369.473),
    ("FRA", {"country_iso_code": "FRA"}, 56.039),
    ("USA/indiana", {"country_iso_code": "USA", "region": "indiana"}, 664.740525),
    ("gcp/us-central1", {"country_iso_code": "USA", "cloud_provider": "gcp", "cloud_region": "us-central1"}, 430.0),
]


def test_the_intensities_that_fuel_reads_are_those_that_codecarbon_uses() -> None:
    """By public API alone: emissions over energy of a task. The joule constant is 0.8 ppm off, hence 1e-5."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTENSITIES, json.dumps([place for _, place, _ in PLACES])],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == pytest.approx([number for _, _, number in PLACES], rel=1e-5)
    fuel = pytest.importorskip("harness_meter_fuel.options")
    ours = [fuel.FuelOptions.model_validate({"grid": text}).intensity().factor.value for text, _, _ in PLACES]
    assert ours == pytest.approx(found, rel=1e-5)


def test_a_total_needs_a_meter_that_counts(tmp_path: Path) -> None:
    """In a run with an estimate that counts, codecarbon stands beside it and adds nothing."""
    suite = tmp_path / "check.yaml"
    suite.write_text(
        "suite: check\nbackend: {name: host}\nmeters: [tdp: {watts: 65}, codecarbon: {cpu_watts: 65}]\n"
        "trials: 1\nwindows: {count: 1, min_seconds: 0.2}\n"
        "cases:\n  - workload: spin\n    options: {iterations: 1000}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "harness", "run", str(suite), "--store", str(tmp_path / "reports")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    from harness.records.files import load_record

    (file,) = tmp_path.glob("reports/*/*/record.json")
    finished = load_record(file.parent)
    readings = [reading for reading in finished.measurement.readings if reading.span == "window"]
    of_codecarbon = [reading for reading in readings if reading.meter == "codecarbon"]
    assert of_codecarbon
    assert not any(reading.primary for reading in of_codecarbon)
    (primary,) = (reading.value for reading in readings if reading.primary)
    assert isinstance(primary, Amount)
    assert finished.totals["energy_j"] == primary
    assert not any("dram" in name for name in finished.totals)
