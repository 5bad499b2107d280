"""What a large store costs: 10,000 records, or 100,000 with HARNESS_BENCH_RECORDS=100000, in runs of 100.

Goals: the index makes a listing and a query of 100,000 records a matter of seconds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("duckdb", reason="a query needs duckdb")

from harness.backend import Device
from harness.functional_unit import UnitCount
from harness.planning.point import Choice, Point
from harness.quantity import Amount, Method
from harness.records.files import write_measurement, write_record
from harness.records.paths import INDEX, MEASUREMENT, RECORD, RUN
from harness.records.record import Measurement, MeterReport, Reading, Record, Span, UnitResult, WarmUp
from harness.sample import Scope
from harness.storing.check import listed
from harness.storing.query import ask
from harness.storing.store import Store

RECORDS = int(os.environ.get("HARNESS_BENCH_RECORDS", "10000"))
TRIALS = 100
GOAL_S = 10.0
GPU = "n0/gpu:GPU-1"


def texts(folder: Path) -> tuple[bytes, bytes]:
    """Measurement and record as a serving trial leaves them, with marks where run, trial, energy and digest go."""
    energy = Amount.of(5000.0, "J", Method.COUNTER, low=4700.0, high=5400.0)
    point = Point(
        id="p" * 12, suite="s", label="a point", workload="w", options={"draft_tokens": 4}, backend=Choice("torch"),
        functional_units={"token": {"sum": "output_tokens"}},
    )  # fmt: skip
    scopes = {GPU: Scope(method=Method.COUNTER), "n0/cpu-package:0": Scope(method=Method.COUNTER)}
    measurement = Measurement(
        run="@RUN@", trial_id="@TRIAL@", trial=0, point=point.to_json(), started_utc="2026-01-02T03:04:05+00:00",
        environment={"cpu": "Example CPU", "packages": {f"package-{n}": "1.2.3" for n in range(12)}},
        backend={"name": "torch"}, devices=(Device(kind="gpu", uuid="GPU-1", name="H100"),), plugins={"core": "1"},
        workload={}, warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
        spans=tuple(Span(name="window", window=w, start_ns=w * 10**10, end_ns=(w + 1) * 10**10, start_utc_s=1e9)
                    for w in range(2)),
        readings=tuple(Reading(span="window", window=w, meter="nvml", scope=scope, primary=True, value=energy)
                       for w in range(2) for scope in scopes),
        uses=(), conditions=(), meters=(MeterReport(name="nvml", asked=True, scopes=scopes),),
    )  # fmt: skip
    totals = {"duration_s": Amount.exact(20.0, "s"), "energy_j": Amount.exact(12345.0, "J"), "carbon_g": energy}
    costs = {name: value.times(0.001, "1/token") for name, value in totals.items()}
    count = UnitCount(achieved=1000.0, items=20, qualifying=20, failed=0)
    unit = UnitResult(unit="output_tokens", count=count, costs=costs, rate=Amount.exact(50.0, "token/s"))
    finished = Record(measurement=measurement, totals=totals, units={"token": unit, "good_token": unit}, columns={})
    write_measurement(folder, measurement)
    write_record(folder, finished)
    measured, record = (folder / MEASUREMENT).read_bytes(), (folder / RECORD).read_bytes()
    return measured, record.replace(hashlib.sha256(measured).hexdigest().encode(), b"@DIGEST@")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written without fsync."""
    folder = tmp_path_factory.mktemp("large")
    measured, finished = texts(tmp_path_factory.mktemp("one"))
    for number in range(RECORDS // TRIALS):
        run = folder / f"20260102T030405-{number:06d}"
        run.mkdir()
        (run / RUN).write_text(f'{{"run": "{run.name}", "status": "ok", "seed": 0}}', encoding="utf-8")
        for trial in range(TRIALS):
            target = run / f"pppppppppppp-t{trial:03d}"
            target.mkdir()
            energy = b"%d.5" % (number * TRIALS + trial)
            mine = measured.replace(b"@RUN@", run.name.encode()).replace(b"@TRIAL@", target.name.encode())
            digest = hashlib.sha256(mine).hexdigest().encode()
            (target / MEASUREMENT).write_bytes(mine)
            (target / RECORD).write_bytes(finished.replace(b"@DIGEST@", digest).replace(b"12345.0", energy))
    return folder


def test_index_from_nothing(benchmark: BenchmarkFixture, store: Path) -> None:
    def prepare() -> None:
        shutil.rmtree(store / INDEX, ignore_errors=True)

    made = benchmark.pedantic(lambda: Store(store).sources(), setup=prepare, rounds=1)
    assert len(made.missing) == RECORDS // TRIALS
    size = sum(path.stat().st_size for path in (store / INDEX).iterdir())
    benchmark.extra_info |= {"records": RECORDS, "index_bytes": size}


def test_list(benchmark: BenchmarkFixture, store: Path) -> None:
    rows = benchmark.pedantic(lambda: listed(Store(store)), warmup_rounds=1, rounds=3)
    assert sum(row.trials for row in rows) == RECORDS
    assert benchmark.stats.stats.max < GOAL_S


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*), sum(energy_j) FROM trials",
        "SELECT per, metric, median(value) FROM units GROUP BY ALL",
        "SELECT scope, sum(value) FROM readings WHERE is_primary GROUP BY ALL",
    ],
)
def test_query(benchmark: BenchmarkFixture, store: Path, sql: str) -> None:
    _, rows = benchmark.pedantic(lambda: ask(store, sql), warmup_rounds=1, rounds=3)
    if "energy_j" in sql:
        assert rows == [(RECORDS, sum(number + 0.5 for number in range(RECORDS)))]
    assert benchmark.stats.stats.max < GOAL_S
