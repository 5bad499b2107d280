"""The meter `apple` against a module with the names of zeus-apple-silicon (its README, "Usage Overview")."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from harness_meter_apple import AppleOptions, harness_meters
from harness_meter_apple.meter import AppleMeter

from harness import Device, MeterContext, Method, Scope, Unavailable
from harness.sample import Cumulative
from harness.testing import FakeClock, check_meter, check_offers

MPS = Device(kind="gpu", uuid="mps", name="Apple M3 GPU")


class Chip:
    """A monitor whose parts draw 5 W (CPU), 10 + 1 W (GPU and its memory) and 2 W (memory); no neural engine."""

    fault: Exception | None = None
    refuses: Exception | None = None
    silent: frozenset[str] = frozenset()

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def get_cumulative_energy(self) -> SimpleNamespace:
        if self.fault is not None:
            raise self.fault
        watts = {"cpu_total_mj": 5, "efficiency_cores_mj": None, "gpu_mj": 10, "gpu_sram_mj": 1, "dram_mj": 2}
        shown = {
            name: None if w is None or name in self.silent else int(1000 * w * self.clock.s)
            for name, w in watts.items()
        }
        return SimpleNamespace(**shown, ane_mj=None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def chip(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Chip:
    made = Chip(clock)

    def monitor() -> Chip:
        if made.refuses is not None:
            raise made.refuses
        return made

    monkeypatch.setitem(sys.modules, "zeus_apple_silicon", SimpleNamespace(AppleEnergyMonitor=monitor))
    return made


def opened(meter: AppleMeter) -> Mapping[str, Scope | Unavailable]:
    found = meter.open(MeterContext(devices=(MPS,)))
    assert isinstance(found, Mapping), found
    return found


def test_parts_as_a_model_without_a_bound(clock: FakeClock, chip: Chip) -> None:
    meter = AppleMeter(AppleOptions(), clock_ns=clock)
    found = opened(meter)
    gpu, ane = found["n0/gpu:mps"], found["n0/ane:0"]
    assert isinstance(gpu, Scope)
    assert (gpu.method, gpu.gain, gpu.device) == (Method.ESTIMATED, None, "mps")
    assert "model" in gpu.note
    assert isinstance(ane, Unavailable)
    clock.advance(10.0)
    read = {name: state.joules for name, state in meter.read().joules.items() if isinstance(state, Cumulative)}
    assert read == {"n0/cpu-package:0": 50.0, "n0/gpu:mps": 110.0, "n0/dram:0": 20.0}


def test_a_report_that_fails_in_a_window_is_its_reason(clock: FakeClock, chip: Chip) -> None:
    meter = AppleMeter(AppleOptions(gain=0.2), clock_ns=clock)
    opened(meter)
    chip.fault = RuntimeError("IOReport: no samples")
    lost = meter.read().joules["n0/cpu-package:0"]
    assert isinstance(lost, Unavailable)
    assert "no samples" in lost.reason
    chip.fault, chip.silent = None, frozenset({"dram_mj"})
    clock.advance(2.0)
    joules = meter.read().joules
    assert isinstance(joules["n0/dram:0"], Unavailable)
    assert joules["n0/cpu-package:0"] == Cumulative(10.0)


def test_why_there_is_none(clock: FakeClock, chip: Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    chip.refuses = RuntimeError("unsupported chip")
    refused = AppleMeter(AppleOptions(), clock_ns=clock).open(MeterContext())
    assert isinstance(refused, Unavailable)
    assert "unsupported chip" in refused.reason
    monkeypatch.setitem(sys.modules, "zeus_apple_silicon", None)
    absent = AppleMeter(AppleOptions(), clock_ns=clock).open(MeterContext())
    assert isinstance(absent, Unavailable)
    assert "pip install zeus-apple-silicon" in absent.reason


def test_it_keeps_the_contract(clock: FakeClock, chip: Chip) -> None:
    (spec,) = harness_meters()
    assert spec.auto
    check_offers("harness_meter_apple")
    check_meter(AppleMeter(AppleOptions(), clock_ns=clock), MeterContext(), between=lambda: clock.advance(1.0))
