"""What a page takes: 1,000 points under 10 s, 10 points under 2 s, from reading the records to the file.

Time of the processor: a page is made in one thread from cached files, so that this is what it takes on a quiet machine.
The records are made up: three trials for 10 points, one for 1,000; two windows, two scopes, a trace at 10 Hz, 50 items.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.functional_unit import UnitCount, per_unit
from harness.quantity import Amount, Method
from harness.records.files import write_measurement, write_record
from harness.records.paths import ENERGY, ITEMS
from harness.records.record import Measurement, MeterReport, Reading, Record, Span, UnitResult, WarmUp
from harness.reporting.output import write
from harness.sample import Scope

GOALS_S = {10: 2.0, 1000: 10.0}
GPU, CPU = "n0/gpu:GPU-1", "n0/cpu-package:0"
COSTS = ("carbon_operational_g", "carbon_embodied_g", "carbon_g", "water_onsite_l", "water_offsite_l", "water_l")
COLUMNS = ("latency_s", "ttft_s", "tpot_s", "reward", "output_tokens")


def trial(point: int, number: int) -> Record:
    gpu = Amount.of(500.0 + point + number, "J", Method.COUNTER, low=480.0, high=2000.0)
    cpu = Amount.of(100.0, "J", Method.ESTIMATED)
    energy = Amount(gpu.value + 100.0, "J", {Method.COUNTER: gpu.value, Method.ESTIMATED: 100.0})
    totals = {"duration_s": Amount.exact(8.0, "s"), f"energy_j:{GPU}": gpu, f"energy_j:{CPU}": cpu, "energy_j": energy}
    totals |= {name: energy.times(1e-4, name[-1].upper()) for name in COSTS}
    units = {}
    for name in ("token", "good_token"):
        count = UnitCount(achieved=1000.0 + point, items=50, qualifying=50, failed=0)
        costs = {metric: per_unit(total, name, count) for metric, total in totals.items()}
        rate = Amount.of(125.0, f"{name}/s", Method.MEASURED)
        units[name] = UnitResult(unit="output_tokens", count=count, rate=rate, costs=costs)
    value = {name: Amount.of(0.1 + point / 1000, "s", Method.MEASURED) for name in ("mean", "p50", "p95")}
    measurement = Measurement(
        run="made-up",
        trial_id=f"p{point:04d}-t{number:03d}",
        trial=number,
        point={"id": f"p{point:04d}", "label": f"batch={point}", "options": {"batch": point}},
        started_utc="2026-01-02T03:04:05+00:00",
        environment={"cpu": "Example CPU", "python": "3.12"},
        backend={"name": "torch"},
        devices=(),
        plugins={"example": "1"},
        workload={"model": {"name": "small", "parameters": 935040}},
        warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
        spans=tuple(
            Span(name="window", window=w, start_ns=w * 4 * 10**9, end_ns=(w + 1) * 4 * 10**9, start_utc_s=1.0)
            for w in range(2)
        ),
        readings=tuple(
            Reading(span="window", window=w, meter=meter, scope=scope, primary=True, value=each, coverage=1.0)
            for w in range(2)
            for meter, scope, each in (("nvml", GPU, gpu), ("tdp", CPU, cpu))
        ),
        uses=(),
        meters=(
            MeterReport(name="nvml", asked=True, scopes={GPU: Scope(method=Method.COUNTER, gain=0.05)}),
            MeterReport(name="tdp", asked=True, scopes={CPU: Scope(method=Method.ESTIMATED)}),
        ),
        conditions=(),
    )
    return Record(measurement=measurement, totals=totals, units=units, columns=dict.fromkeys(COLUMNS, value))


def write_run(folder: Path, points: int, trials: int) -> None:
    trace = [json.dumps({"anchor": {"monotonic_ns": 0, "utc_s": 1.0}})]
    trace += [json.dumps({"t": at * 10**8, "m": "nvml", "j": {GPU: 7.5 * at + at % 3}}) for at in range(81)]
    trace += [json.dumps({"t": at * 10**8, "m": "tdp", "j": {CPU: 2.5 * at}}) for at in range(81)]
    items = [
        json.dumps({"item_id": str(n), "window": n % 2, "status": "ok", "output_tokens": 20, "ttft_s": 0.01 + n / 999,
                    "tpot_s": 0.005 + n / 9999, "latency_s": 0.1 + n / 500})
        for n in range(50)
    ]  # fmt: skip
    for point in range(points):
        for number in range(trials):
            finished = trial(point, number)
            inside = folder / finished.measurement.trial_id
            inside.mkdir(parents=True)
            write_measurement(inside, finished.measurement)
            write_record(inside, finished)
            (inside / ENERGY).write_text("\n".join(trace) + "\n", encoding="utf-8")
            (inside / ITEMS).write_text("\n".join(items) + "\n", encoding="utf-8")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("points", "trials"), [(10, 3), (1000, 1)])
def test_page(benchmark: BenchmarkFixture, tmp_path: Path, points: int, trials: int) -> None:
    write_run(tmp_path / "run", points, trials)
    written = benchmark.pedantic(lambda: write([tmp_path / "run"], "html", None, show=False), rounds=2)
    assert written is not None
    goal = GOALS_S[points]
    median = benchmark.stats.stats.median
    print(f"\n{points} points: {median:.2f} s (goal {goal:g} s), {written.stat().st_size / 1e6:.2f} MB")
    assert median < goal
