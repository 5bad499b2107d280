"""Runs made up of records, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import record
from harness.backend import Device
from harness.functional_unit import UnitCount, per_unit
from harness.meter import Factor
from harness.quantity import Amount, Method, Unavailable
from harness.record import Measurement, MeterReport, Reading, Record, Span, UnitResult, WarmUp
from harness.sample import Scope

GPU, CPU = "n0/gpu:GPU-1", "n0/cpu-package:0"
FILLED = "column 'empty' was never filled"

MakeRun = Callable[..., Path]


def trial_record(
    point: int, number: int, label: str, *, method: Method = Method.COUNTER, slower: float = 1.0
) -> Record:
    """A record with two windows, two scopes, a cross-check, carbon, water, and a column that was never filled."""
    joules = 100.0 * (point + 1) * slower + number
    gpu = Amount.of(joules * 0.75, "J", method, low=joules * 0.7, high=joules * 0.8)
    cpu = Amount.of(joules * 0.25, "J", Method.ESTIMATED)
    energy = Amount(joules, "J", {method: joules * 0.75, Method.ESTIMATED: joules * 0.25})
    totals = {
        "duration_s": Amount.exact(4.0, "s"),
        f"energy_j:{GPU}": gpu,
        f"energy_j:{CPU}": cpu,
        "energy_j": energy,
        "carbon_operational_g": energy.times(1e-4, "g"),
        "carbon_embodied_g": Amount.of(0.002, "g", Method.ESTIMATED),
        "water_onsite_l": energy.times(1e-6, "L"),
        "water_offsite_l": energy.times(2e-6, "L"),
    }
    count = UnitCount(achieved=1000.0, items=20, qualifying=20, failed=0)
    readings = [
        Reading(span="window", window=window, meter=meter, scope=scope, primary=primary, value=value, coverage=1.0)
        for window in range(2)
        for meter, scope, primary, value in (
            ("nvml", GPU, True, gpu.times(0.5, "J")),
            ("tdp", CPU, True, cpu.times(0.5, "J")),
            ("codecarbon", GPU, False, gpu.times(0.48, "J")),
        )
    ]
    readings += [
        Reading(span=f"role:{role}", window=0, meter="nvml", scope=GPU, primary=True, value=gpu.times(share, "J"))
        for role, share in (("draft", 0.1), ("target", 0.3))
    ]
    scopes = {"nvml": {GPU: Scope(method=method, gain=0.05)}, "tdp": {CPU: Scope(method=Method.ESTIMATED)}}
    seconds = 0.02 * (point + 1) * slower
    columns = {
        "latency_s": {name: Amount.of(seconds * factor, "s", Method.MEASURED) for name, factor in
                      (("mean", 1.0), ("p50", 1.0), ("p95", 1.2))},
        "reward": {name: Amount.of(1.0 + point, "1", Method.MEASURED) for name in ("mean", "p50", "p95")},
        "empty": {name: Unavailable(FILLED) for name in ("mean", "p50", "p95")},
    }  # fmt: skip
    return Record(
        measurement=Measurement(
            run="made-up", trial_id=f"p{point:04d}-t{number:03d}", trial=number,
            point={"id": f"p{point:04d}", "label": label, "suite": "s", "options": {"label": label},
                   "functional_units": {"token": {"sum": "output_tokens", "where": {}}}},
            started_utc="2026-01-02T03:04:05+00:00", environment={"cpu": "Example CPU", "python": "3.12"},
            backend={"name": "torch"}, devices=(Device(kind="gpu", uuid="GPU-1", name=label),), plugins={"p": "1"},
            workload={"grid": "grid.png"}, warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
            spans=tuple(Span(name="window", window=w, start_ns=w * 2 * 10**9, end_ns=(w + 1) * 2 * 10**9,
                             start_utc_s=1.0) for w in range(2)),
            readings=tuple(readings), uses=(), conditions=(),
            meters=tuple(MeterReport(name=name, asked=True, scopes=found) for name, found in scopes.items()),
        ),
        totals=totals, columns=columns,
        units={"token": UnitResult(
            unit="output_tokens", count=count, rate=Amount.of(250.0 / slower, "token/s", Method.MEASURED),
            costs={name: per_unit(value, "token", count) for name, value in totals.items()},
        )},
        factors=(Factor(name="grid_intensity", value=360.0, unit="g/kWh", source=label, licence="CC BY 4.0",
                        date="2024", id="grid:1"),),
    )  # fmt: skip


def write_trial(folder: Path, finished: Record, *, items: int = 20) -> None:
    """The record with side-cars: a steady 75 W on the GPU, items whose latency rises."""
    folder.mkdir(parents=True)
    record.dump(folder / record.MEASUREMENT, finished.measurement)
    record.dump(folder / record.RECORD, finished)
    lines = [json.dumps({"anchor": {"monotonic_ns": 0, "utc_s": 1.0}})]
    lines += [json.dumps({"t": at * 10**8, "m": "nvml", "j": {GPU: 7.5 * at}}) for at in range(41)]
    (folder / record.ENERGY).write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [
        {"item_id": str(n), "window": 0, "status": "ok", "output_tokens": 50, "latency_s": 0.01 * (n + 1)}
        for n in range(items)
    ]
    (folder / record.ITEMS).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run of some points and returns its folder; `label` goes into every text that a stranger may choose."""

    def make(name: str = "run", *, points: int = 3, trials: int = 2, label: str = "point", **changes: object) -> Path:
        folder = tmp_path / name
        for point in range(points):
            for number in range(trials):
                finished = trial_record(point, number, f"{label} {point}", **changes)  # type: ignore[arg-type]
                write_trial(folder / finished.measurement.trial_id, finished)
        described = {
            "run": name, "status": "ok", "started_utc": "2026-01-02T03:04:05+00:00", "finished_utc": None,
            "suite_files": [label], "command": ["harness", "run", label], "seed": 0,
            "points": [{"id": f"p{at:04d}", "label": f"{label} {at}", "suite": "s", "trials": trials}
                       for at in range(points)],
            "skipped": [{"label": label, "reason": label}],
        }  # fmt: skip
        record.write_json(folder / record.RUN, described)
        return folder

    return make
