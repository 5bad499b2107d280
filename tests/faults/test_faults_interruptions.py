"""Stops, suspends and steps of the clock while a trial measures are never silent."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from harness.measuring.interruptions import Interruptions, Moment, read_clocks
from harness.records.files import records_of
from harness.records.record import Span
from harness.testing import until

S = 10**9
Workers = Callable[[subprocess.Popen[str]], list[psutil.Process]]


def span(start: int, end: int, window: int = 0) -> Span:
    return Span(name="window", window=window, start_ns=start * S, end_ns=end * S, start_utc_s=0.0)


def watched(*moments: tuple[float, float, float, float]) -> Interruptions:
    """Looks at these moments (monotonic, boot, wall, processor seconds), each on time; the last stays."""
    queue: Iterator[Moment] = iter([Moment(*(int(value * S) for value in each)) for each in moments])
    last = Moment(*(int(value * S) for value in moments[-1]))
    found = Interruptions(lambda: next(queue, last))
    for each in moments[1:]:
        found.look(each[0])
    return found


def test_a_quiet_trial_has_no_condition() -> None:
    assert watched((0, 0, 100, 0), (1, 1, 101, 0.5), (2, 2, 102, 1)).conditions([span(0, 2)]) == ()
    assert Interruptions(read_clocks).conditions([span(0, 2)]) == ()


@pytest.mark.parametrize(("window", "fails"), [((0, 3), True), ((1, 2), True), ((2, 9), True), ((3, 9), False)])
def test_a_suspend_in_a_window_makes_the_trial_invalid(window: tuple[int, int], fails: bool) -> None:
    (seen,) = watched((0, 0, 100, 0), (1, 1, 101, 1), (2, 9, 109, 2)).conditions([span(*window)])
    assert (seen.kind, seen.scope, seen.detail) == ("suspended", "n0/host", "the machine slept for 7.0 s")
    assert seen.fails is fails


def test_what_lies_outside_of_measured_windows_fails_nothing() -> None:
    found = watched((0, 0, 100, 0), (1, 1, 101, 1), (2, 9, 109, 2)).conditions([span(0, 9, window=-1)])
    assert [seen.fails for seen in found] == [False]


@pytest.mark.parametrize(("step_s", "flagged"), [(-3600.0, True), (1.5, True), (0.9, False), (-0.9, False)])
def test_a_step_of_the_wall_clock_is_flagged_and_fails_nothing(step_s: float, flagged: bool) -> None:
    found = watched((0, 0, 100, 0), (1, 1, 101 + step_s, 1)).conditions([span(0, 2)])
    assert [(seen.kind, seen.fails) for seen in found] == [("clock stepped", False)] * flagged
    if flagged:
        assert found[0].detail.startswith(f"the wall clock moved by {step_s:+.1f} s")


def test_a_clock_that_steps_and_steps_back_is_flagged_too() -> None:
    found = watched((0, 0, 100, 0), (1, 1, 161, 1), (2, 2, 102, 2)).conditions([span(0, 2)])
    assert [seen.kind for seen in found] == ["clock stepped"]


@pytest.mark.parametrize(("late_s", "cpu_s", "stalled"), [(3.0, 0.1, True), (3.0, 2.9, False), (0.5, 0.0, False)])
def test_a_late_look_is_a_stall_unless_the_process_was_at_work(late_s: float, cpu_s: float, stalled: bool) -> None:
    queue = iter([Moment(0, 0, 0, 0)])
    after = Moment(int((1 + late_s) * S), int((1 + late_s) * S), int((1 + late_s) * S), int(cpu_s * S))
    watching = Interruptions(lambda: next(queue, after))
    watching.look(1.0)
    assert [(seen.kind, seen.fails) for seen in watching.conditions([span(0, 2)])] == [("stalled", True)] * stalled


def test_a_stopped_worker_makes_its_trial_invalid(bench: Any, workers_of: Workers) -> None:
    suite = bench.suite(trials=1, workload="pausing", options="")
    bench.plugin(PAUSING)
    driver = bench.start("run", suite, "--store", bench.store)
    (worker,) = until(lambda: workers_of(driver))
    until((bench.folder / "in-window").exists)
    worker.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    worker.send_signal(signal.SIGCONT)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 3, output
    assert "stopped on n0/process: the worker was stopped and let go on" in output
    (finished,) = records_of(bench.only_run)
    assert finished.measurement.invalid
    report = bench.run("report", bench.only_run, "--details")
    assert "the worker was stopped and let go on" in " ".join(report.stdout.split())


PAUSING = """
import os, time
from harness import Workload, WorkloadSpec, hookimpl

class Pausing(Workload):
    def step(self, window):
        open(os.path.join(os.environ["TMPDIR"], "..", "in-window"), "w").close()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            time.sleep(0.05)
        window.item("0")

@hookimpl
def harness_workloads():
    yield WorkloadSpec(name="pausing", summary="waits", factory=lambda options: Pausing())
"""

NIGHT = """
import time
from harness import Workload, WorkloadSpec, hookimpl, Options

class NightOptions(Options):
    kind: str

wall, boot = time.time_ns, time.clock_gettime_ns

class Night(Workload):
    def __init__(self, options):
        self.kind = options.kind

    def step(self, window):
        time.sleep(0.1)
        if self.kind == "step":
            time.time_ns = lambda: wall() - 3600 * 10**9
        else:
            time.clock_gettime_ns = lambda clock: boot(clock) + 40 * 10**9
            time.time_ns = lambda: wall() + 40 * 10**9
        time.sleep(0.1)
        window.item("0")

@hookimpl
def harness_workloads():
    yield WorkloadSpec(name="night", summary="clocks that step", factory=Night, options=NightOptions)
"""


def test_a_clock_step_is_on_the_record_and_a_suspend_fails_its_trial(bench: Any) -> None:
    bench.plugin(NIGHT)
    suite = bench.suite(workload="night", options="", matrix="kind: [step, suspend]")
    done = bench.run_alone("run", suite, "--store", bench.store)
    assert done.returncode == 3, done.stdout + done.stderr
    found = {kept.measurement.point["options"]["kind"]: kept for kept in records_of(bench.only_run)}
    (stepped,) = found["step"].measurement.conditions
    assert (stepped.kind, stepped.fails) == ("clock stepped", False)
    assert "-3600.0 s" in stepped.detail
    assert "durations hold" in stepped.detail
    assert 0.2 <= found["step"].measurement.windows[0].duration_s < 3600
    assert not found["step"].measurement.invalid
    (suspended,) = found["suspend"].measurement.conditions
    assert (suspended.kind, suspended.fails) == ("suspended", True)
    assert "slept for 40.0 s" in done.stderr
    assert "clock stepped" in done.stdout
