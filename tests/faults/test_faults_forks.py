"""Forked trials: what they share, what they do not, and what happens when the process that forks them is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from harness.builtin.local import LocalExecutor
from harness.discovery.registry import load_plugins
from harness.executor import FORKS
from harness.gating.pairs import Pairs
from harness.gating.sides import BASE, HEAD, Side
from harness.planning.named_offers import forkable, offers_of
from harness.planning.planner import expand
from harness.planning.suite import load
from harness.records.files import load_measurement
from harness.records.paths import MEASUREMENT
from harness.running.order import Scheduled
from harness.running.run_folder import prepare
from harness.testing import until

if TYPE_CHECKING:
    from conftest import Bench

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trials are forked on Linux alone")

FORK = ("--executor-option", "start=fork")

PLUGIN = """\
import os, subprocess, sys, threading, time
from harness import Column, FunctionalUnit, Options, Workload, WorkloadSpec, hookimpl
{on_import}

class Wishes(Options):
    number: int = 0
    do: str = ""

class Work(Workload):
    def __init__(self, options):
        self.options = options
    def facts(self):
        return {{"pid": os.getpid(), "ppid": os.getppid(), "hash": hash("a text"), "session": os.getsid(0),
                 "trial": os.environ["HARNESS_TRIAL"], "descriptors": sorted(os.listdir("/proc/self/fd"), key=int)}}
    def step(self, window):
        print("printed by", os.getpid())
        {on_step}
        window.item(str(self.options.number), operations=1.0)

@hookimpl
def harness_workloads():
    return [WorkloadSpec(name="faulty", summary="", factory=Work, columns=(Column("operations", "1"),), options=Wishes,
                         functional_units={{"operation": FunctionalUnit("operations")}}, fork_safe={fork_safe})]
"""


def ended(process: psutil.Process) -> bool:
    """Whether a process is gone, or has ended and waits for a parent that does not ask for it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def plugin(bench: Bench, on_step: str = "pass", on_import: str = "", *, fork_safe: bool = True) -> None:
    bench.plugin(PLUGIN.format(on_step=on_step, on_import=on_import, fork_safe=fork_safe))


def suite(bench: Bench, **changes: object) -> Any:
    return bench.suite(
        **{"workload": "faulty", "meters": "", "options": "number: 1", "seconds": 0, "trials": 3, **changes}
    )


def measurements(bench: Bench) -> list[Any]:
    return [load_measurement(path.parent) for path in sorted(bench.only_run.glob(f"*/{MEASUREMENT}"))]


def starts(bench: Bench) -> list[str]:
    return [each.environment["start"] for each in measurements(bench)]


def servers(driver: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(driver).children() if FORKS in child.cmdline()]


def test_forked_trials_are_processes_of_their_own_that_share_what_was_drawn_once(bench: Bench) -> None:
    plugin(bench)
    done = bench.run_alone("run", suite(bench), "--store", bench.store, *FORK)
    assert done.returncode == 0, done.stdout + done.stderr
    found = measurements(bench)
    assert [each.environment["start"] for each in found] == ["fork"] * 3
    facts = [each.workload for each in found]
    assert len({fact["pid"] for fact in facts}) == 3
    assert len({(fact["ppid"], fact["hash"]) for fact in facts}) == 1
    assert all(fact["session"] == fact["pid"] for fact in facts)
    assert [fact["trial"] for fact in facts] == [str(bench.only_run / each.trial_id) for each in found]
    assert len({tuple(fact["descriptors"]) for fact in facts}) == 1, "a trial inherits what another one opened"
    for each in found:
        log = (bench.only_run / each.trial_id / "worker.log").read_text()
        assert set(log.split("\n")) == {f"printed by {each.workload['pid']}", ""}


@pytest.mark.parametrize(
    ("option", "fork_safe", "meters"),
    [("start=spawn", True, ""), ("start=auto", True, ""), ("start=fork", False, ""),
     ("start=fork", True, "tdp: {watts: 10}")],
)  # fmt: skip
def test_what_is_not_asked_for_not_safe_or_reads_energy_is_not_forked(
    bench: Bench, option: str, meters: str, *, fork_safe: bool
) -> None:
    plugin(bench, fork_safe=fork_safe)
    done = bench.run_alone(
        "run", suite(bench, trials=2, meters=meters), "--store", bench.store, "--executor-option", option
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert starts(bench) == ["spawn"] * 2
    assert len({each.workload["hash"] for each in measurements(bench)}) == 2


def test_a_trial_that_crashes_fails_alone(bench: Bench) -> None:
    plugin(bench, "self.options.number == 2 and os.kill(os.getpid(), 11)")
    done = bench.run_alone("run", suite(bench, trials=1, matrix="number: [1, 2, 3]"), "--store", bench.store, *FORK)
    assert done.returncode != 0
    assert "killed by SIGSEGV" in done.stderr
    assert starts(bench) == ["fork"] * 2


def test_what_a_killed_trial_left_running_is_ended_and_named(bench: Bench) -> None:
    plugin(
        bench,
        'subprocess.Popen(["sleep", "77"], start_new_session=True) and os.kill(os.getpid(), 9)',
    )
    done = bench.run_alone("run", suite(bench, trials=1), "--store", bench.store, *FORK)
    assert "killed by SIGKILL; it left sleep running, which was ended" in done.stderr
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "77"]]


def test_a_silent_trial_is_ended(bench: Bench) -> None:
    plugin(bench, "self.options.number == 2 and time.sleep(99)")
    done = bench.run_alone(
        "run", suite(bench, trials=1, matrix="number: [2, 1]", limits="{silence: 1s}"), "--store", bench.store, *FORK
    )
    assert "the worker was silent for 1 s" in done.stderr
    assert starts(bench) == ["fork"]


def test_a_plugin_that_starts_a_thread_on_import_gets_fresh_processes_and_a_note(bench: Bench) -> None:
    plugin(bench, on_import="threading.Thread(target=time.sleep, args=(9,), daemon=True).start()")
    done = bench.run_alone("run", suite(bench, trials=2), "--store", bench.store, *FORK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert starts(bench) == ["spawn"] * 2
    assert "started 1 threads, which a fork would lose" in done.stdout + done.stderr


def test_a_lost_server_costs_no_trial(bench: Bench) -> None:
    """The second trial kills the process that forked it; it and the third run in fresh processes."""
    plugin(bench, "self.options.number == 2 and 'HARNESS_LOST' in os.environ and lose()", "def lose():\n"
           "    if '--forks' in open(f'/proc/{os.getppid()}/cmdline').read():\n        os.kill(os.getppid(), 9)\n"
           "        time.sleep(9)")  # fmt: skip
    done = bench.run_alone(
        "run", suite(bench, trials=1, matrix="number: [1, 2, 3, 4]"), "--store", bench.store, *FORK, HARNESS_LOST="1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the process that forks trials died") + done.stderr.count("forks trials died") == 1
    found = measurements(bench)
    assert len(found) == 4
    assert "spawn" in {each.environment["start"] for each in found}


def test_nothing_outlives_a_killed_driver(bench: Bench) -> None:
    plugin(bench, "time.sleep(60)")
    driver = bench.start("run", suite(bench), "--store", bench.store, *FORK)
    (server,) = until(lambda: servers(driver.pid))
    (trial,) = until(server.children)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    psutil.wait_procs([server, trial], timeout=10)
    assert ended(server)
    assert ended(trial)


def test_ctrl_c_ends_the_trial_and_the_server(bench: Bench) -> None:
    plugin(bench, "time.sleep(60)")
    driver = bench.start("run", suite(bench), "--store", bench.store, *FORK)
    (server,) = until(lambda: servers(driver.pid))
    (trial,) = until(server.children)
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=60)
    assert ended(server)
    assert ended(trial)


def test_a_gate_never_forks(bench: Bench, tmp_path: Any) -> None:
    """Neither the executors that pairs make by themselves, which calibrate too, nor one that is not asked to."""
    (point,) = expand([load(bench.suite(workload="spin", meters="", trials=1))], registry := load_plugins()).points
    assert forkable(point, registry)
    side = Side(name=BASE, revision="", python=sys.executable, folder=tmp_path)
    sides = {BASE: side, HEAD: side}
    pairs = Pairs(tmp_path / "gate", sides, [(point, point)], seed=0, watcher=lambda _event: None)
    for executor in (LocalExecutor(), *pairs._executors.values()):
        job = prepare(
            tmp_path / f"r{id(executor)}", Scheduled(point, 0), offers=offers_of(point, registry), fork_safe=True
        )
        assert executor.run(job, lambda _message: None).ok
        assert load_measurement(job.folder).environment["start"] == "spawn"


def test_a_server_prints_nothing_of_its_own(bench: Bench) -> None:
    """It ends quietly when nobody speaks to it."""
    plugin(bench)
    suite(bench)
    folder = bench.folder / "job"
    folder.mkdir()
    (point,) = expand([load(bench.suite(meters="", trials=1))], registry := load_plugins()).points
    (folder / "job.json").write_text(
        json.dumps({"point": point.to_json(), "trial": 0, "offers": list(offers_of(point, registry))})
    )
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    started = subprocess.Popen(
        [sys.executable, "-m", "harness.worker", FORKS, str(folder)],
        stdin=theirs.fileno(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=bench.environment,
    )  # fmt: skip
    theirs.close()
    ours.close()
    said, _ = started.communicate(timeout=60)
    assert (started.returncode, said) == (0, b"")
