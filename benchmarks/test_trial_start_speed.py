"""What a trial costs besides its work: CPU time of the process of one short trial of `spin`, fresh and forked.

Goals: at most 0.6 s of CPU for a fresh process, 0.35 s for a forked one. The same trial by a worker that is told no
plugins, and so imports all of them, a bare interpreter, a worker of pyperf and a sample of asv, where these are
installed, are measured in turn with it, since absolute times are a machine's own. The fork server starts once a run;
what that costs stands by itself, and a point of a whole run, driver and costing included, in `test_points_of_a_run`.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.builtin.local import LocalExecutor
from harness.discovery.registry import load_plugins
from harness.planning.named_offers import offers_of
from harness.planning.planner import expand
from harness.planning.suite import loads
from harness.running.order import Scheduled
from harness.running.run import prepare

GOAL_S = 0.6
FORKED_GOAL_S = 0.35
FORKED = 20
ROUNDS = 10
SUITE = """
suite: start
backend: host
meters: []
trials: 2
windows: {count: 1, min_seconds: 0}
warm_up: {max_iterations: 0, min_iterations: 0}
cases:
  - workload: spin
    options: {iterations: 1000}
"""
PYPERF = ("import pyperf; pyperf.Runner(processes=1, values=1, warmups=0, loops=1).bench_func('pass', lambda: None)",
          "--worker", "--pipe=1", "-q")  # fmt: skip
ASV = (
    "import sys; from asv_runner.run import _run; "
    "_run([sys.argv[1], 'benchmarks.time_nothing', '{}', 'None', sys.argv[1] + '/result.json'])"
)
"""One sample of asv by the runner that it starts for each benchmark, without the process that starts it."""
ASV_BENCHMARK = """
def time_nothing():
    pass

time_nothing.number = time_nothing.repeat = time_nothing.rounds = 1
time_nothing.warmup_time = 0
"""


def cpu_s(command: Sequence[str]) -> float:
    """CPU seconds, user and system, of a child and of the children that it waited for."""
    read, write = os.pipe()  # the worker ends when its standard input closes
    try:
        child = subprocess.Popen(
            command, stdin=read, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        assert child.stderr is not None
        with child.stderr as told:
            said = told.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    finally:
        os.close(read)
        os.close(write)
    assert child.returncode == 0, said
    return usage.ru_utime + usage.ru_stime


def commands(folder: Path) -> Mapping[str, Sequence[str]]:
    """What is measured."""
    registry = load_plugins()
    (point,) = expand([loads(SUITE)], registry).points
    told = prepare(folder, Scheduled(point, 0), offers=offers_of(point, registry)).folder
    untold = prepare(folder, Scheduled(point, 1)).folder
    found = {
        "trial": [sys.executable, "-m", "harness.worker", str(told)],
        "trial, all plugins": [sys.executable, "-m", "harness.worker", str(untold)],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    if importlib.util.find_spec("pyperf") is not None:
        found["pyperf worker"] = [sys.executable, "-c", *PYPERF]
    if importlib.util.find_spec("asv_runner") is not None:
        (folder / "asv").mkdir()
        (folder / "asv" / "benchmarks.py").write_text(ASV_BENCHMARK, encoding="utf-8")
        found["asv runner"] = [sys.executable, "-c", ASV, str(folder / "asv")]
    return found


def children_s() -> float:
    """CPU seconds of all children that were waited for, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def forked_s(folder: Path, trials: int) -> float:
    """CPU seconds of a fork server and of so many trials."""
    registry = load_plugins()
    (point,) = expand([loads(SUITE)], registry).points
    executor = LocalExecutor(start="fork")
    before = children_s()
    for number in range(trials):
        job = prepare(folder, Scheduled(point, number), offers=offers_of(point, registry), fork_safe=True)
        assert executor.run(job, lambda _message: None).ok
    executor.close()
    return children_s() - before


def test_trial_start(benchmark: BenchmarkFixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = commands(tmp_path)
    taken: dict[str, list[float]] = {name: [] for name in measured}

    def one_round() -> None:
        for name, command in measured.items():
            taken[name].append(cpu_s(command))
        if sys.platform == "linux":
            one = forked_s(tmp_path / "forked", 1)
            more = forked_s(tmp_path / "forked", 1 + FORKED)
            taken.setdefault("forked trial", []).append((more - one) / FORKED)
            taken.setdefault("fork server, 1 trial", []).append(one)

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call] # the plugin's own
    medians = {name: statistics.median(values[1:]) for name, values in taken.items()}  # the first round warms up
    benchmark.extra_info.update({f"{name}_cpu_s": round(value, 4) for name, value in medians.items()}, goal_s=GOAL_S)
    benchmark.extra_info["forked_goal_s"] = FORKED_GOAL_S
    with capsys.disabled():
        for name, value in medians.items():
            sys.stdout.write(f"\n{name:20} {value:.3f} s of CPU, {medians['trial'] / value:5.2f} times that is a trial")


RUN_SUITE = """
suite: points
meters: []
trials: 1
windows: {{count: 1, min_seconds: 0.01}}
warm_up: {{max_iterations: 0, min_iterations: 0}}
cases:
  - workload: spin
    matrix: {{iterations: {iterations}}}
"""
POINTS = int(os.environ.get("HARNESS_BENCH_POINTS", "60"))


def run_s(folder: Path, start: str, points: int) -> float:
    """CPU seconds of `harness run` with so many points, all its processes together."""
    suite = folder / f"{points}.yaml"
    suite.write_text(RUN_SUITE.format(iterations=list(range(1000, 1000 + points))), encoding="utf-8")
    store = folder / f"{start}-{points}-{len(list(folder.iterdir()))}"
    before = children_s()
    command = [sys.executable, "-m", "harness", "run", suite, "--store", store, "--executor-option", f"start={start}"]
    subprocess.run(command, check=True, capture_output=True)
    return children_s() - before


def test_points_of_a_run(benchmark: BenchmarkFixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A point more of a run: the slope between a small and a large run, fresh and forked in turn."""
    taken: dict[str, list[float]] = {"spawn": [], "fork": []}

    def one_round() -> None:
        for start, slopes in taken.items():
            few, many = run_s(tmp_path, start, 2), run_s(tmp_path, start, 2 + POINTS)
            slopes.append((many - few) / POINTS)

    benchmark.pedantic(one_round, rounds=3)  # type: ignore[no-untyped-call] # the plugin's own
    medians = {start: statistics.median(values) for start, values in taken.items()}
    benchmark.extra_info.update({f"{start}_point_cpu_s": round(value, 4) for start, value in medians.items()})
    with capsys.disabled():
        for start, value in medians.items():
            sys.stdout.write(f"\n{start:6} {value:.3f} s of CPU a point; 1,000 points: {value * 1000:.0f} s")
