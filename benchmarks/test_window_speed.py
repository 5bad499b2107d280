"""What opening and closing a window costs, beside codecarbon and zeus, interleaved in one run.

Goals: median under 0.5 ms with two counter meters (waiting for ticks excluded), at least 10 times cheaper than
codecarbon's `start_task`/`stop_task`, not slower than zeus' begin/end window on a like fake device.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from harness.measuring.channel import Channel
from harness.measuring.meters import Meters
from harness.meter import Meter, MeterContext
from harness.quantity import Method
from harness.sample import Scope, Snapshot, now_ns
from harness.session.session import Session

ROUNDS = 300


class CountingMeter(Meter):
    """A counter that moves at every look, as a fake device's does."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.millijoules = 0

    def open(self, context: MeterContext) -> Mapping[str, Scope]:
        return {self.scope: Scope(method=Method.COUNTER, tick_s=0.1, gain=0.05)}

    def read(self) -> Snapshot:
        began = now_ns()
        self.millijoules += 7
        return Snapshot(began, {self.scope: self.millijoules / 1000}, now_ns() - began)

    def close(self) -> None: ...


def counters() -> list[Channel]:
    channels = []
    for number in range(2):
        meter = CountingMeter(f"n0/gpu:{number}")
        channels.append(Channel(f"counter{number}", asked=True, meter=meter, scopes=meter.open(MeterContext())))
    return channels


def ours() -> Callable[[], object]:
    meters = Meters(counters())

    def window() -> object:
        return meters.opening(align=False), meters.closing(align=False)  # joules are worked out after the trial

    return window


def zeus(monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    monitors = pytest.importorskip("zeus.monitor.energy")

    class FakeGPUs:
        def __init__(self) -> None:
            self.millijoules = 0

        def __len__(self) -> int:
            return 2

        def supports_get_total_energy_consumption(self, index: int) -> bool:
            return True

        def get_total_energy_consumption(self, index: int) -> int:
            self.millijoules += 7
            return self.millijoules

    def absent(*_: object) -> object:
        raise monitors.ZeusCPUInitError("no CPU meter in this comparison")

    def no_soc(*_: object) -> object:
        raise monitors.ZeusSoCInitError("no SoC in this comparison")

    monkeypatch.setattr(monitors, "get_gpus", FakeGPUs)
    monkeypatch.setattr(monitors, "get_cpus", absent)
    monkeypatch.setattr(monitors, "get_soc", no_soc)
    monitor = monitors.ZeusMonitor(gpu_indices=[0, 1], cpu_indices=[])

    def window() -> object:
        monitor.begin_window("w", sync_execution=False)
        return monitor.end_window("w", sync_execution=False)

    return window


def codecarbon() -> Callable[[], object]:
    package = pytest.importorskip("codecarbon")
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    tracker = package.OfflineEmissionsTracker(
        country_iso_code="FRA", save_to_file=False, log_level="critical", allow_multiple_runs=True
    )
    number = iter(range(10**9))

    def window() -> object:
        task = str(next(number))
        tracker.start_task(task)
        return tracker.stop_task(task)

    return window


def medians(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each candidate, interleaved."""
    spent: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, window in candidates.items():
            began = time.perf_counter()
            window()
            spent[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in spent.items()}


def test_window_against_zeus(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = {"harness": ours(), "zeus": zeus(monkeypatch)}
    found = medians(candidates, ROUNDS * 10)
    benchmark.extra_info.update({f"{name}_us": round(value * 1e6, 1) for name, value in found.items()})
    benchmark.extra_info["harness_over_zeus"] = round(found["harness"] / found["zeus"], 3)
    benchmark(candidates["harness"])


def test_block_against_zeus(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of a session whose meters are open, its energy read, beside zeus' window; goal: at most 1.5 times it."""
    with Session(["rapl: {root: /nowhere}"]) as session:
        session.meters.channels += counters()
        session.meters._order()

        def block() -> object:
            with session.measure(align=False, label="block") as measured:
                pass
            return measured

        candidates = {"harness": block, "zeus": zeus(monkeypatch)}
        found = medians(candidates, ROUNDS)
        benchmark.extra_info.update({f"{name}_us": round(value * 1e6, 1) for name, value in found.items()})
        benchmark.extra_info["harness_over_zeus"] = round(found["harness"] / found["zeus"], 3)
        benchmark(block)


@pytest.mark.filterwarnings("default")  # codecarbon tells by warnings what it does not find
def test_window_against_codecarbon(benchmark: Any) -> None:
    candidates = {"harness": ours(), "codecarbon": codecarbon()}
    candidates["codecarbon"]()  # its first task looks for hardware
    found = medians(candidates, 30)
    benchmark.extra_info.update({f"{name}_us": round(value * 1e6, 1) for name, value in found.items()})
    benchmark.extra_info["codecarbon_over_harness"] = round(found["codecarbon"] / found["harness"], 1)
    benchmark(candidates["harness"])


def test_sampling_at_10_hz(benchmark: Any, tmp_path: Any) -> None:
    class TenHertz(CountingMeter):
        sample_hz = 10.0

    seconds = 5.0

    def sample() -> float:
        meter = TenHertz("n0/gpu:0")
        with (tmp_path / "energy.jsonl").open("w") as log:
            meters = Meters([Channel("counter", asked=True, meter=meter, scopes=meter.open(MeterContext()))], log)
            before = time.process_time()
            meters.start()
            time.sleep(seconds)
            meters.stop()
            return time.process_time() - before

    spent = benchmark.pedantic(sample, rounds=1)
    benchmark.extra_info["share_of_one_core_percent"] = round(100 * spent / seconds, 3)
