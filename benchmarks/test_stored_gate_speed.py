"""What judging by a stored baseline, and following a metric, cost, with 2,000 points of three trials a side.

Goals: the gate reads, judges and writes within 10 s of CPU; a history reads what is kept of each run, and no record.
The history is measured with 500 and with 2,000 records in runs of 100; what 100,000 would take is the straight line
through both, and printed.
"""

from __future__ import annotations

import hashlib
import resource
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.test_store_speed import texts
from harness.comparing.history import history
from harness.gating import baseline, outputs, stored
from harness.planning.suite import loads
from harness.records import trials
from harness.records.metric import Metric
from harness.records.paths import MEASUREMENT, RECORD, RUN

POINTS = 2000
TRIALS = 3
GOAL_S = 10.0
SUITE = """
suite: s
meters: []
cases: [{workload: spin}]
gate:
  - {metric: energy_j, per: token, worse_by_at_most: 5%}
  - {metric: duration_s, worse_by_at_most: 5%}
"""


def cpu_s() -> float:
    """CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def write_run(folder: Path, one: tuple[bytes, bytes], points: int, count: int) -> Path:
    """A run of so many points, with so many trials each; written without fsync."""
    folder.mkdir(parents=True)
    (folder / RUN).write_text(f'{{"run": "{folder.name}", "status": "ok", "seed": 0}}', encoding="utf-8")
    measured, finished = one
    for point in range(points):
        name = hashlib.sha256(b"%d" % point).hexdigest()[:12]
        for trial in range(count):
            target = folder / f"{name}-t{trial:03d}"
            target.mkdir()
            mine = measured.replace(b"@RUN@", folder.name.encode()).replace(b"@TRIAL@", target.name.encode())
            mine = mine.replace(b"pppppppppppp", name.encode()).replace(b"a point", b"point %d" % point)
            digest = hashlib.sha256(mine).hexdigest().encode()
            energy = b"%d.5" % (12_000 + point % 7 + trial)
            (target / MEASUREMENT).write_bytes(mine)
            (target / RECORD).write_bytes(finished.replace(b"@DIGEST@", digest).replace(b"12345.0", energy))
    return folder


def test_gate_by_a_stored_baseline(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    one = texts(tmp_path / "one")
    base, head = (write_run(tmp_path / side, one, POINTS, TRIALS) for side in ("base", "head"))
    baseline.save(tmp_path, baseline.build("kept", [base], ["cpu", "start"]))
    suites = [loads(SUITE)]
    taken = []

    def gate() -> None:
        before = cpu_s()
        result = stored.judge(baseline.load(tmp_path, "kept"), suites, trials.load(head))
        result.write(head)
        assert len(list(outputs.lines(result, head))) > POINTS
        assert outputs.junit(result)
        taken.append(cpu_s() - before)

    benchmark.pedantic(gate, rounds=3)  # type: ignore[no-untyped-call] # the plugin's own
    benchmark.extra_info |= {"points": POINTS, "trials": TRIALS, "cpu_s": round(min(taken), 3), "goal_s": GOAL_S}
    assert min(taken) < GOAL_S


def test_history(benchmark: BenchmarkFixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one").mkdir()
    one = texts(tmp_path / "one")
    for store, runs in (("small", 5), ("large", 20)):
        for number in range(runs):
            write_run(tmp_path / store / f"20260102T030405-{number:06d}", one, 1, 100)
    metric = Metric("energy_j", "token")

    def seconds(store: str) -> float:
        before = cpu_s()
        assert history(tmp_path / store, metric).series
        return cpu_s() - before

    first = {store: seconds(store) for store in ("small", "large")}
    again = {store: min(seconds(store) for _ in range(5)) for store in ("small", "large")}
    benchmark.pedantic(lambda: history(tmp_path / "large", metric), rounds=3)  # type: ignore[no-untyped-call]
    with capsys.disabled():
        for name, found in (("first, from records", first), ("then, from what is kept", again)):
            slope = (found["large"] - found["small"]) / 1500
            sys.stdout.write(
                f"\n{name:24} {found['large']:.3f} s of CPU for 2,000 records; 100,000: {100_000 * slope:.2f} s"
            )
