"""On a real Slurm: arrays on two nodes, what no node has, cancelled, too late, requeued, drivers that die."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from harness_executor_slurm.executor import SlurmExecutor
from harness_executor_slurm.node import TIME_LIMIT
from harness_executor_slurm.settings import SlurmOptions

from harness import Job
from harness.records.files import load_measurement
from harness.records.paths import MEASUREMENT
from harness.testing import check_executor, until

pytestmark = pytest.mark.slow

SUITE = """
suite: six
backend: {{name: host}}
meters: []
trials: {trials}
windows: {{count: 1, min_seconds: {seconds}}}
warm_up: {{max_seconds: 0.1}}
executor: {{name: slurm, poll: 1s{options}}}
cases:
  - workload: spin
    requires: {requires}
    matrix: {{iterations: [1000, 2000, 3000]}}
"""


def write(folder: Path, *, trials: int = 2, seconds: float = 0.1, options: str = "", requires: str = "{}") -> str:
    text = SUITE.format(trials=trials, seconds=seconds, options=options and f", {options}", requires=requires)
    (folder / "six.yaml").write_text(text)
    return "six.yaml"


def executors(run: Path) -> list[dict[str, object]]:
    """What the records of a run keep of their jobs."""
    found = [load_measurement(path.parent) for path in run.glob("*/measurement.json")]
    return [measurement.environment["executor"] for measurement in found]


def running(slurm) -> list[str]:
    return slurm.ask("squeue", "-h", "-r", "--states=R", "-o", "%i").split()


def test_the_contract(slurm, tmp_path):
    check_executor(lambda: SlurmExecutor(SlurmOptions(poll=1)), tmp_path)


def test_six_trials_are_one_array_on_two_nodes(slurm, drive, tmp_path):
    driver = drive(write(tmp_path))
    assert driver.wait() == 0, driver.said
    kept = executors(driver.run)
    assert len(kept) == 6
    assert len({each["array_job"] for each in kept}) == 1
    assert {each["array_task"] for each in kept} == set(range(6))
    assert {each["node"] for each in kept} == {"n1", "n2"}
    assert {(each["name"], each["partition"], each["restarts"]) for each in kept} == {("slurm", "main", 0)}
    assert all((driver.run / str(each["log"])).is_file() for each in kept)
    assert slurm.quiet()
    assert not list(driver.run.rglob("*.pkl"))


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        ("{gpu: 1, accelerator: H100}", "no node has the accelerator H100"),
        ("{gpu: 3}", "no node has --gres=gpu:3"),
        ("{cpu: 64}", "no node has --cpus-per-task=64"),
        ("{resources: {nvme: 1}}", "no node has --gres=nvme:1"),
    ],
)
def test_what_no_node_has_is_skipped_with_what_there_is(slurm, drive, tmp_path, requires, said):
    driver = drive(write(tmp_path, trials=1, requires=requires))
    assert driver.wait() == 0
    assert said in driver.said
    assert "main: 1 of 2 processors and 1000 MiB, gpu:a100 x 2, features fast" in driver.said
    assert "every point" in driver.said or "skipped:" in driver.said
    assert not driver.measured()


@pytest.mark.parametrize(
    ("options", "requires", "said", "code"),
    [
        ("partition: nope", "{}", "invalid partition specified: nope", 3),
        ("constraint: nope", "{}", "Invalid feature specification", 3),
        ("partition: one", "{labels: {kind: slow}}", "Requested node configuration is not available", 0),
        ("partition: one, time: 30min", "{}", "cannot start it (PartitionTimeLimit)", 3),
        ("queue: 1s, extra: {begin: now+600}", "{}", "waited longer than 1 s in the queue", 3),
    ],
)
def test_what_slurm_refuses_is_said_with_what_there_is(slurm, drive, tmp_path, options, requires, said, code):
    driver = drive(write(tmp_path, trials=1, options=options, requires=requires))
    assert driver.wait() == code, driver.said
    assert said in driver.said
    assert "the cluster offers" in driver.said
    assert slurm.quiet()


@pytest.mark.parametrize("what", ["list", "folder"])
def test_a_store_that_a_node_does_not_see_is_named(slurm, drive, tmp_path, what):
    """The node finds no list of trials, or no folder for its log, as where the store is not shared."""
    driver = drive(write(tmp_path, trials=1, options="extra: {begin: now+5}"))
    until(lambda: slurm.ask("squeue", "-h").strip())
    folder = driver.run / "slurm"
    if what == "folder":
        shutil.rmtree(folder)
    else:
        next(folder.glob("*.json")).unlink()
    assert driver.wait() == 3
    assert "does not see the store" in driver.said
    assert f"{driver.run} must lie on a file system that the nodes share" in driver.said
    assert slurm.quiet()


def test_requirements_reach_the_job(slurm, drive, tmp_path):
    requires = "{gpu: 2, accelerator: A100, cpu: 2, memory: 500MB, labels: {speed: fast}}"
    driver = drive(write(tmp_path, trials=1, requires=requires, options="exclusive: false"))
    assert driver.wait() == 0, driver.said
    assert {each["node"] for each in executors(driver.run)} == {"n1"}
    (script,) = driver.run.glob("slurm/*_submission.sh")
    flags = {line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH")}
    assert {"--gres=gpu:a100:2", "--cpus-per-task=2", "--mem=477M", "--constraint=fast"} <= flags
    assert "--exclusive" not in flags


def test_a_job_cancelled_by_somebody_fails_with_the_reason(slurm, drive, tmp_path):
    driver = drive(write(tmp_path, trials=1, seconds=5))
    until(lambda: running(slurm))
    slurm.ask("scancel", running(slurm)[0])
    assert driver.wait() == 3
    assert len(driver.measured()) == 2
    (failure,) = driver.run.glob("*/failure.json")
    assert json.loads(failure.read_text())["reason"] == "the Slurm job was cancelled"


def test_a_requeued_trial_runs_again_from_its_start(slurm, drive, tmp_path):
    driver = drive(write(tmp_path, trials=1, seconds=4))
    until(lambda: list(driver.store.glob("*/*/items.jsonl")) if driver.store.exists() else [])
    (again, *_rest) = running(slurm)
    slurm.ask("scontrol", "requeue", again)
    assert driver.wait() == 0, driver.said
    kept = {str(each["job"]): each["restarts"] for each in executors(driver.run)}
    assert kept.pop(again) == 1
    assert set(kept.values()) == {0}


def test_a_finished_trial_is_never_run_again(slurm, drive, tmp_path):
    driver = drive(write(tmp_path, trials=1))
    assert driver.wait() == 0
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in driver.run.glob("*/measurement.json")}
    array = str(executors(driver.run)[0]["array_job"])
    slurm.ask("scontrol", "requeue", array)
    slurm._until("an empty queue", slurm.quiet)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before


def test_ctrl_c_takes_everything_off_the_queue(slurm, drive, tmp_path):
    driver = drive(write(tmp_path, seconds=60))
    until(lambda: len(running(slurm)) == 2)
    driver.send(signal.SIGINT)
    assert driver.wait() == 130
    assert slurm.quiet()
    assert not driver.measured()


def test_a_driver_that_was_killed_is_gone_on_with(slurm, drive, tmp_path):
    """Measured trials are kept, running ones are waited for, waiting ones are run anew: nothing twice, nothing lost."""
    driver = drive(write(tmp_path, seconds=3))
    until(driver.measured if driver.store.exists() else lambda: driver.store.exists() and driver.measured())
    driver.send(signal.SIGKILL)
    driver.wait()
    assert not slurm.quiet()
    left = until(lambda: running(slurm))  # between two trials of a node nothing runs for a moment
    planned = {trial.name for trial in driver.run.iterdir() if (trial / "job.json").exists()}
    assert len(planned) == 6

    again = drive("--resume", str(driver.run))
    assert again.wait() == 0, again.said
    assert again.measured() == planned
    kept = executors(driver.run)
    by_job = [each["job"] for each in kept]
    assert len(set(by_job)) == 6
    assert set(left) <= set(by_job), "what ran when the driver died was measured by that job"
    first = json.loads(min(driver.run.glob("slurm/*.json"), key=lambda path: path.stat().st_mtime_ns).read_text())
    second = json.loads(max(driver.run.glob("slurm/*.json"), key=lambda path: path.stat().st_mtime_ns).read_text())
    arrays = {str(each["job"]).partition("_")[0] for each in kept}
    assert len(first["trials"]) == 6
    assert 0 < len(second["trials"]) < 6
    assert len(arrays) == 2
    starts = [
        line for path in driver.run.glob("*/slurm.jsonl") for line in path.read_text().splitlines() if "started" in line
    ]
    assert len(starts) == 6
    assert slurm.quiet()


def test_the_time_limit_ends_the_trial_and_says_so(slurm, tmp_path):
    """A limit of one minute, the least there is, with a signal 55 s before it."""
    store = tmp_path / "store"
    suite = write(tmp_path, trials=1, seconds=100)
    from harness.discovery.registry import load_plugins
    from harness.planning.planner import expand
    from harness.planning.suite import load_all
    from harness.running.run import Run
    from harness.running.run_folder import create

    registry = load_plugins()
    plan = expand(load_all([tmp_path / suite]), registry)
    folder = create(store, plan, [suite], ["harness"], 0)
    executor = SlurmExecutor(SlurmOptions(poll=1, time=60, grace=55))
    run = Run(folder, plan.points[:2], 0, registry=registry, executor=executor, watcher=lambda _message: None)
    finished = folder / f"{plan.points[0].id}-t000"
    finished.mkdir()
    (finished / MEASUREMENT).write_text("kept as it is")
    run._finish = lambda: None  # the kept measurement is none
    tally = run.execute()
    assert (tally.kept, tally.measured) == (1, 0)
    assert [text.rpartition(": ")[2] for text in tally.failed] == [TIME_LIMIT]
    assert (finished / MEASUREMENT).read_text() == "kept as it is"


def test_a_job_told_of_alone_is_submitted_alone(slurm, tmp_path):
    folder = tmp_path / "run" / "trial"
    folder.mkdir(parents=True)
    executor = SlurmExecutor(SlurmOptions(poll=1))
    try:
        outcome = executor.run(
            Job(trial_id="trial", folder=folder, devices=(), timeout_s=60, silence_s=60), lambda _message: None
        )
    finally:
        executor.close()
    assert not outcome.ok
    assert "exit code 1" in outcome.reason
    assert any("job.json" in line for line in outcome.log_tail)
    (listing,) = (tmp_path / "run" / "slurm").glob("*.json")
    assert len(json.loads(listing.read_text())["trials"]) == 1
