"""What a trial costs besides its work: CPU time of the process of one short trial of `spin`.

Goal: at most 0.6 s of CPU. The same trial by a worker that is told no plugins, and so imports all of them, a bare
interpreter, and a worker of pyperf, where that is installed, are measured in turn with it, since absolute times are a
machine's own.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.discovery.registry import load_plugins
from harness.planning.named_offers import offers_of
from harness.planning.planner import expand
from harness.planning.suite import loads
from harness.running.order import Scheduled
from harness.running.run import prepare

GOAL_S = 0.6
ROUNDS = 10
SUITE = """
suite: start
backend: host
meters: [tdp: {watts: 100}]
trials: 2
windows: {count: 1, min_seconds: 0}
warm_up: {max_iterations: 0, min_iterations: 0}
cases:
  - workload: spin
    options: {iterations: 1000}
"""
PYPERF = ("import pyperf; pyperf.Runner(processes=1, values=1, warmups=0, loops=1).bench_func('pass', lambda: None)",
          "--worker", "--pipe=1", "-q")  # fmt: skip


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
    return found


def test_trial_start(benchmark: BenchmarkFixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = commands(tmp_path)
    taken: dict[str, list[float]] = {name: [] for name in measured}

    def one_round() -> None:
        for name, command in measured.items():
            taken[name].append(cpu_s(command))

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call] # the plugin's own
    medians = {name: statistics.median(values[1:]) for name, values in taken.items()}  # the first round warms up
    benchmark.extra_info.update({f"{name}_cpu_s": round(value, 4) for name, value in medians.items()}, goal_s=GOAL_S)
    with capsys.disabled():
        for name, value in medians.items():
            sys.stdout.write(f"\n{name:20} {value:.3f} s of CPU, {medians['trial'] / value:5.2f} times that is a trial")
