"""What costing again takes: 10,000 records under twelve months of grid intensity, into one table.

Goals: under 60 s, and no more memory for 10,000 records than for 1,000 (within 32 MiB).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.backend import Device
from harness.functional_unit import UnitCount
from harness.planning.point import Choice, Point
from harness.quantity import Amount, Method
from harness.records.files import adapter
from harness.records.paths import MEASUREMENT, PLAN, RECORD, RUN
from harness.records.record import Measurement, MeterReport, Reading, Record, Span, UnitResult, WarmUp
from harness.sample import Scope

GOAL_S = 60.0
MEMORY_GOAL_BYTES = 32 << 20
GPU = "n0/gpu:GPU-1"
FUEL = {"grid": {"g_per_kwh": 400.0}, "embodied": {"gpu": {"kg": 29.92, "source": "a benchmark"}}, "lifetime": "7y"}
MONTHS = "fuel.grid=" + ",".join(str(300 + 20 * month) for month in range(1, 13))


def trial(point: Point, number: int) -> Record:
    """A record as a serving trial leaves it: two windows, two scopes, two functional units."""
    energy = Amount.of(5000.0 + number % 97, "J", Method.COUNTER, low=4700.0, high=5400.0)
    scopes = {GPU: Scope(method=Method.COUNTER), "n0/cpu-package:0": Scope(method=Method.COUNTER)}
    windows = range(2)
    readings = [
        Reading(span="window", window=window, meter="nvml", scope=scope, primary=True, value=energy, coverage=1.0)
        for window in windows
        for scope in scopes
    ]
    measurement = Measurement(
        run="large",
        trial_id=f"{point.id}-t{number:05d}",
        trial=number,
        point=point.to_json(),
        started_utc="2026-01-02T03:04:05+00:00",
        environment={"cpu": "Example CPU"},
        backend={"name": "torch"},
        devices=(Device(kind="gpu", uuid="GPU-1", name="H100"),),
        plugins={},
        workload={},
        warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
        spans=tuple(
            Span(name="window", window=w, start_ns=w * 10**10, end_ns=(w + 1) * 10**10, start_utc_s=1e9)
            for w in windows
        ),
        readings=tuple(readings),
        uses=(),
        meters=(MeterReport(name="nvml", asked=False, scopes=scopes),),
        conditions=(),
    )
    counted = UnitCount(achieved=12_000.0, items=120, qualifying=110, failed=0)
    unit = UnitResult(unit="output_tokens", count=counted, costs={}, rate=Amount.exact(600.0, "token/s"))
    return Record(
        measurement=measurement,
        totals={},
        units={"token": unit, "good_token": unit},
        columns={},
        impacts=({"name": "fuel", "options": FUEL},),
    )


def large_run(folder: Path, trials: int, points: int = 20) -> Path:
    folder.mkdir()
    planned = [
        Point(
            id=f"{number:012x}",
            suite="large",
            label=f"point {number}",
            workload="spin",
            backend=Choice("torch"),
            meters=(Choice("nvml"), Choice("fuel", FUEL)),
            functional_units={"token": {"sum": "output_tokens"}, "good_token": {"sum": "output_tokens"}},
        )
        for number in range(points)
    ]
    for number in range(trials):
        made = trial(planned[number % points], number)
        target = folder / made.measurement.trial_id
        target.mkdir()
        measured = adapter(Measurement).dump_json(made.measurement, indent=1)
        (target / MEASUREMENT).write_bytes(measured)  # as `write_measurement` and `write_record`, without fsync
        content = adapter(Record).dump_python(made, mode="json", exclude={"measurement"})
        content["measurement"] = {"file": MEASUREMENT, "sha256": hashlib.sha256(measured).hexdigest()}
        (target / RECORD).write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / PLAN).write_text(json.dumps([point.to_json() for point in planned]), encoding="utf-8")
    (folder / RUN).write_text(json.dumps({"run": folder.name}), encoding="utf-8")
    return folder


CODE = """
import resource, sys, time
from harness.cli import main
began = time.perf_counter()
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(f"took {time.perf_counter() - began} peak {peak}", file=sys.stderr)
"""


def swept(run: Path, output: Path) -> tuple[float, int]:
    """Seconds and peak bytes of one sweep in a process of its own."""
    arguments = ["recost", str(run), "--sweep", MONTHS, "--format", "csv", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True, timeout=600
    )
    words = done.stderr.split()
    return float(words[-3]), int(words[-1])


@pytest.mark.benchmark
def test_ten_thousand_records_under_twelve_months(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    small, large = large_run(tmp_path / "small", 1_000), large_run(tmp_path / "large", 10_000)
    output = tmp_path / "table.csv"
    _, base = swept(small, output)
    found: list[tuple[float, int]] = []
    benchmark.pedantic(lambda: found.append(swept(large, output)), rounds=1)  # type: ignore[no-untyped-call]
    taken, peak = found[-1]
    with output.open(encoding="utf-8") as stream:
        assert sum(1 for _ in stream) == 1 + 10_000 * 12
    told = {"taken_s": round(taken, 2), "peak_mib": peak >> 20, "peak_of_1000_mib": base >> 20, "goal_s": GOAL_S}
    benchmark.extra_info.update(told)
    print(f"\n10,000 records x 12 months: {told}")
    assert taken < GOAL_S
    assert peak - base < MEMORY_GOAL_BYTES
