"""What a site of many runs takes: 200 runs, or as many as HARNESS_BENCH_RUNS says, of 3 points and 3 trials.

Time of the processor, reported and not asserted: it goes with the number of runs, and with how many change points their
histories hold. The largest page is held to its promise.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("duckdb", reason="a site's tables need duckdb")
pytest.importorskip("jinja2", reason="a site needs jinja2")

from harness.backend import Device
from harness.functional_unit import UnitCount, per_unit
from harness.publishing.build import build
from harness.publishing.frame import PAGE_BYTES
from harness.quantity import Amount, Method
from harness.records.files import write_json, write_measurement, write_record
from harness.records.paths import ITEMS, RUN
from harness.records.record import Measurement, MeterReport, Reading, Record, Span, UnitResult, WarmUp
from harness.sample import Scope

RUNS = int(os.environ.get("HARNESS_BENCH_RUNS", "200"))
POINTS, TRIALS = 3, 3
GPU = "n0/gpu:GPU-1"
CARDS = ("H200", "A100", "MI300X")


def trial(run: str, day: int, point: int, number: int, joules: float, started: str) -> Record:
    energy = Amount.of(joules, "J", Method.COUNTER, low=joules * 0.95, high=joules * 1.05)
    count = UnitCount(achieved=1000.0, items=20, qualifying=20, failed=0)
    totals = {"duration_s": Amount.exact(joules / 75, "s"), f"energy_j:{GPU}": energy, "energy_j": energy}
    totals["carbon_operational_g"] = energy.times(1e-4, "g")
    measurement = Measurement(
        run=run, trial_id=f"p{point:04d}-t{number:03d}", trial=number, started_utc=started,
        point={"id": f"p{point:04d}", "label": f"batch={point}", "suite": "decode", "workload": "decode",
               "options": {"batch": point}},
        environment={"cpu": "Example CPU", "python": "3.12"}, backend={"name": "torch"},
        devices=(Device(kind="gpu", uuid=f"GPU-{day % 3}", name=CARDS[day % 3]),), plugins={}, workload={},
        warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
        spans=(Span(name="window", window=0, start_ns=0, end_ns=int(joules / 75 * 1e9), start_utc_s=1.0),),
        readings=(Reading(span="window", window=0, meter="nvml", scope=GPU, primary=True, value=energy, coverage=1.0),),
        uses=(), meters=(MeterReport(name="nvml", asked=True, scopes={GPU: Scope(method=Method.COUNTER, gain=0.05)}),),
        conditions=(),
    )  # fmt: skip
    unit = UnitResult(
        unit="output_tokens", count=count, rate=Amount.exact(75_000 / joules, "token/s"),
        costs={name: per_unit(value, "token", count) for name, value in totals.items()},
    )  # fmt: skip
    columns = {"latency_s": dict.fromkeys(("mean", "p50", "p95"), Amount.of(0.1, "s", Method.MEASURED))}
    return Record(measurement=measurement, totals=totals, units={"token": unit}, columns=columns)


def write_store(store: Path) -> None:
    """A run a day on one of three cards; from three fifths on they need 12 % more."""
    generator = random.Random(1)
    items = "".join(
        f'{{"item_id": "{n}", "window": 0, "status": "ok", "output_tokens": 50, "latency_s": {0.1 + n / 500}}}\n'
        for n in range(20)
    )
    for day in range(RUNS):
        started = f"2026-{1 + day // 28 % 12:02d}-{1 + day % 28:02d}T03:{day // 336:02d}:05+00:00"
        name = f"2026{1 + day // 28 % 12:02d}{1 + day % 28:02d}T03{day // 336:02d}05-decode-{day:012x}"
        for point in range(POINTS):
            for number in range(TRIALS):
                level = 100.0 * (1 + point) * (1 + day % 3) * (1.12 if day > 0.6 * RUNS else 1.0)
                finished = trial(name, day, point, number, level * (1 + generator.gauss(0, 0.01)), started)
                inside = store / name / finished.measurement.trial_id
                inside.mkdir(parents=True)
                write_measurement(inside, finished.measurement)
                write_record(inside, finished)
                (inside / ITEMS).write_text(items, encoding="utf-8")
        write_json(store / name / RUN, {"run": name, "status": "ok", "started_utc": started, "points": []})


@pytest.mark.benchmark(timer=time.process_time)
def test_site(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    write_store(tmp_path / "store")
    made = benchmark.pedantic(lambda: build(tmp_path / "site", [str(tmp_path / "store")]), rounds=1)
    median = benchmark.stats.stats.median
    sizes = sorted(path.stat().st_size for path in made.folder.rglob("*.html"))
    print(
        f"\n{made.runs} runs: {median:.1f} s of the processor, {made.pages} pages, {made.bytes / 1e6:.1f} MB, "
        f"the largest page {sizes[-1] / 1e3:.0f} kB"
    )
    assert made.runs == RUNS
    assert sizes[-1] <= PAGE_BYTES
