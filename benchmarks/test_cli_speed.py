"""What the command itself costs: starting it, and planning a large matrix.

Goals: `harness --help` under 250 ms of CPU time (best of 10); planning 10,000 points under 2 s.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from harness.discovery.registry import load_plugins
from harness.planning.planner import expand
from harness.planning.suite import load

HELP_GOAL_S = 0.25
PLAN_GOAL_S = 2.0
STARTS = 10
SUITE = """
suite: large
backend: {name: simulated}
meters: [simulated, tdp: {watts: 65}]
cases:
  - workload: spin
    matrix:
      iterations: [%s]
"""


def children_cpu_s() -> float:
    """CPU time of the children that were waited for, user and system."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def start(code: str) -> float:
    """CPU seconds that one interpreter running the code takes."""
    before = children_cpu_s()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60)
    return children_cpu_s() - before


def repeat(benchmark: BenchmarkFixture, work: Callable[[], object], rounds: int) -> None:
    """Runs the work once to warm up, then so many times."""
    benchmark.pedantic(work, rounds=rounds, warmup_rounds=1)  # type: ignore[no-untyped-call] # the plugin's own


def test_help(benchmark: BenchmarkFixture) -> None:
    code = "import sys; sys.argv = ['harness', '--help']; from harness.cli import main; main()"
    taken: list[float] = []
    repeat(benchmark, lambda: taken.append(start(code)), rounds=STARTS)
    bare = min(start("pass") for _ in range(3))
    told = {"cpu_best_s": min(taken), "cpu_median_s": statistics.median(taken), "bare_python_s": bare}
    benchmark.extra_info.update({name: round(value, 4) for name, value in told.items()}, goal_s=HELP_GOAL_S)
    print(f"\nharness --help, CPU time: {benchmark.extra_info}")
    assert min(taken) < HELP_GOAL_S


def test_planning_ten_thousand_points(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_text(SUITE % ", ".join(map(str, range(1, 10_001))), encoding="utf-8")
    registry = load_plugins()
    steps: dict[str, list[float]] = {"load_s": [], "expand_s": []}

    def plan() -> None:
        began = time.perf_counter()
        suite = load(file)
        loaded = time.perf_counter()
        planned = expand([suite], registry)
        steps["load_s"].append(loaded - began)
        steps["expand_s"].append(time.perf_counter() - loaded)
        assert len(planned.points) == 10_000

    repeat(benchmark, plan, rounds=3)
    best = min(map(sum, zip(*steps.values(), strict=True)))
    told = {name: round(min(values), 4) for name, values in steps.items()}
    benchmark.extra_info.update(told, best_s=round(best, 4), goal_s=PLAN_GOAL_S)
    print(f"\nplanning 10,000 points: {benchmark.extra_info}")
    assert best < PLAN_GOAL_S
