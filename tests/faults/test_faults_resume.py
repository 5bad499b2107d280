"""After a kill `--resume` measures exactly what is missing; suites that plan something else are refused or told."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.errors import UsageError
from harness.planning.point import Choice, Plan, Point, Skipped
from harness.planning.trial_rules import CoolDown, Limits
from harness.running.resume import differences, resumed
from harness.running.run_folder import create
from harness.testing import until

Workers = Callable[[subprocess.Popen[str]], list[psutil.Process]]


@pytest.mark.parametrize(
    "victims", [pytest.param("worker", marks=pytest.mark.slow), pytest.param("driver", marks=pytest.mark.slow), "both"]
)
def test_after_a_kill_exactly_the_missing_trials_are_measured(bench: Any, workers_of: Workers, victims: str) -> None:
    driver = bench.start("run", bench.suite(trials=3, seconds=0.5), "--store", bench.store)
    until(lambda: bench.store.exists() and len(bench.measured()) == 1)
    (worker,) = until(lambda: workers_of(driver))
    if victims != "driver":
        worker.send_signal(signal.SIGKILL)
    if victims != "worker":
        driver.send_signal(signal.SIGKILL)
    output, _ = driver.communicate(timeout=60)
    if victims == "worker":
        assert driver.returncode == 3
        assert "the worker was killed by SIGKILL" in output
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    bench.resume()


def test_a_run_has_one_driver(bench: Any) -> None:
    driver = bench.start("run", bench.suite(seconds=20), "--store", bench.store)
    until(lambda: bench.store.exists() and list(bench.store.glob("*/.driver")))
    done = bench.run("run", "--resume", bench.only_run)
    assert done.returncode == 2, done.stderr
    assert f"this run is already in progress, driven by process {driver.pid}" in done.stderr
    driver.kill()
    driver.communicate(timeout=60)


# Suites that are not what they were


def point(name: str, **changes: Any) -> Point:
    made = Point(
        id=f"{name:x<12}", suite="s", label=f"spin · {name}", workload="spin", backend=Choice("host"),
        limits=Limits(trial_s=3600.0),
    )  # fmt: skip
    return replace(made, **changes)


def planned(*points: Point, skipped: tuple[Skipped, ...] = ()) -> Plan:
    return Plan(list(points), list(skipped))


def test_the_same_suites_are_no_difference_wherever_they_lie() -> None:
    moved = point("a", suite_file="/elsewhere/s.yaml", case=3, label="spin")
    assert differences([point("a")], planned(moved)) == []


def test_added_and_removed_points_and_changed_settings_are_named() -> None:
    before = [point("a"), point("b"), point("c", trials=2, requires={"gpu": 1})]
    gone = Skipped(point("b"), "no driver")
    now = planned(point("c", trials=3, requires={"gpu": 2}), point("a"), point("d"), skipped=(gone,))
    assert differences(before, now) == [
        "added 1 (spin · d)",
        "removed 1 (spin · b (skipped now: no driver))",
        "changed 1 (spin · c: trials 2 -> 3, requires gpu 1 -> 2)",
    ]


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, CoolDown(to_celsius=45.0), "otherwise"),
        (CoolDown(to_celsius=45.0), None, "otherwise"),
        (CoolDown(to_celsius=45.0), CoolDown(to_celsius=50.0), "to_celsius 45.0 -> 50.0"),
    ],
)
def test_a_rest_that_comes_goes_or_changes_is_a_difference(
    before: CoolDown | None, now: CoolDown | None, said: str
) -> None:
    found = differences([point("a", cool_down=before)], planned(point("a", cool_down=now)))
    assert found == [f"changed 1 (spin · a: cool_down {said})"]


def test_many_points_are_counted_and_a_few_named() -> None:
    (said,) = differences([], planned(*(point(f"p{number}") for number in range(50))))
    assert said == "added 50 (spin · p0 | spin · p1 | spin · p2 and 47 more)"


def test_a_changed_suite_is_refused_unless_told_which_way(tmp_path: Path) -> None:
    folder = create(tmp_path, planned(point("a")), [], [], seed=7)
    other = planned(point("b"))
    with pytest.raises(UsageError, match=r"added 1 \(spin · b\); removed 1 \(spin · a\)") as caught:
        resumed(folder, other, "refuse")
    assert "--changed keep goes on with the run's own plan, --changed new begins a new run" in str(caught.value)
    assert resumed(folder, other, "keep") == ([point("a")], 7)
    assert resumed(folder, other, "new") is None
    assert resumed(folder, planned(point("a")), "refuse") == ([point("a")], 7)
    assert resumed(folder, None, "refuse") == ([point("a")], 7)
    with pytest.raises(UsageError, match="accepted: refuse, keep, new"):
        resumed(folder, None, "both")


@pytest.mark.slow
def test_each_way_on_the_command_line(bench: Any) -> None:
    assert bench.run("run", bench.suite(matrix="slow_by: [0.0]"), "--store", bench.store).returncode == 0
    first, before = bench.only_run, bench.measured()
    changed = bench.suite(matrix="slow_by: [0.0, 0.1]")
    refused = bench.run("run", changed, "--resume", first)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "added 1 (spin · slow_by=0.1)" in refused.stderr
    kept = bench.run("run", changed, "--resume", first, "--changed", "keep")
    assert kept.returncode == 0, kept.stderr
    assert bench.measured() == before
    new = bench.run("run", changed, "--resume", first, "--changed", "new", "--store", bench.store)
    assert new.returncode == 0, new.stderr
    (second,) = (folder for folder in bench.store.iterdir() if folder != first)
    assert len(list(second.glob("*/record.json"))) == 2
