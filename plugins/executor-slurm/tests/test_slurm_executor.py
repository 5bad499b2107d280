"""The executor from begin to close, with a script in the place of Slurm's commands."""

from __future__ import annotations

import json
import signal
import threading

import pytest
from harness_executor_slurm import executor as module
from harness_executor_slurm.executor import SlurmExecutor
from harness_executor_slurm.settings import SlurmOptions

from harness import Job, Outcome
from harness.errors import MeasurementError
from harness.testing import check_executor, until

SUITE = """
suite: three
backend: {name: host}
meters: []
trials: 1
windows: {count: 1, min_seconds: %s}
warm_up: {max_seconds: 0}
executor: {name: slurm, poll: 1s}
cases: [{workload: spin, matrix: {iterations: [1000, 2000, 3000]}}]
"""


def jobs(folder, count=3, **changes):
    made = []
    for number in range(count):
        trial = folder / "run" / f"t{number}-{len(list(folder.rglob('t*')))}"
        trial.mkdir(parents=True)
        facts = {"trial_id": trial.name, "folder": trial, "devices": (), "timeout_s": 60, "silence_s": 60, **changes}
        made.append(Job(**facts))
    return made


def calls(state, name):
    lines = (state / "calls").read_text().splitlines() if (state / "calls").exists() else []
    return [line for line in lines if line.split()[1] == name]


def quick():
    return SlurmExecutor(SlurmOptions(poll=1))


def test_the_contract(fake_slurm, tmp_path):
    check_executor(quick, tmp_path / "store")


def test_a_run_is_measured_in_arrays_no_longer_than_the_cluster_takes(fake_slurm, drive, tmp_path):
    """Three trials, arrays of at most two, by `harness run` with the executor that the suite names."""
    (tmp_path / "three.yaml").write_text(SUITE % 0.05)
    driver = drive("three.yaml")
    assert driver.wait() == 0, driver.said
    assert len(driver.measured()) == 3
    listed = [json.loads(path.read_text())["trials"] for path in driver.run.glob("slurm/*.json")]
    assert sorted(map(len, listed)) == [1, 2]
    assert len(calls(fake_slurm, "sbatch")) == 2
    assert not calls(fake_slurm, "scancel"), "nothing is left to be cancelled"


def test_trials_that_ask_for_different_things_are_different_arrays(fake_slurm, tmp_path):
    executor = quick()
    many = [*jobs(tmp_path, 2), *jobs(tmp_path, 2, requires={"cpu": 2}), *jobs(tmp_path, 1, measured=False)]
    executor.begin(iter(many))
    assert executor.at_once == 5
    batches = {id(batch): len(batch.jobs) for batch, _ in executor._batches.values()}
    assert sorted(batches.values()) == [1, 2, 2]
    assert not calls(fake_slurm, "sbatch"), "submitted when the first trial is asked for"
    executor.close()


def test_so_many_are_waited_for_at_once_and_no_more(fake_slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 3)
    executor = quick()
    executor.begin(jobs(tmp_path, 5))
    assert executor.at_once == 3


def test_a_refusal_is_asked_for_once_and_told_to_every_trial(fake_slurm, tmp_path):
    (fake_slurm / "sbatch.error").write_text("sbatch: error: Batch job submission failed: Invalid qos specification\n")
    executor = quick()
    many = jobs(tmp_path, 2)
    executor.begin(many)
    outcomes = [executor.run(job, lambda _message: None) for job in many]
    executor.close()
    assert len(calls(fake_slurm, "sbatch")) == 1
    assert {outcome.reason.partition(";")[0] for outcome in outcomes} == {
        "sbatch refuses the job: Invalid qos specification"
    }
    assert all("the cluster offers main: 1 of 2 processors" in outcome.reason for outcome in outcomes)
    assert not any(outcome.ok or outcome.skipped for outcome in outcomes)


def test_what_slurm_can_never_run_is_skipped_only_if_something_was_required(fake_slurm, tmp_path):
    said = "sbatch: error: Batch job submission failed: Requested node configuration is not available\n"
    (fake_slurm / "sbatch.error").write_text(said)
    executor = quick()
    (asking,), (plain,) = jobs(tmp_path, 1, requires={"cpu": 2}), jobs(tmp_path, 1)
    assert executor.run(asking, lambda _message: None).skipped
    assert not executor.run(plain, lambda _message: None).skipped
    executor.close()


def test_a_requirement_that_no_node_has_is_not_even_submitted(fake_slurm, tmp_path):
    executor = quick()
    (job,) = jobs(tmp_path, 1, requires={"accelerator": "H100"})
    outcome = executor.run(job, lambda _message: None)
    assert outcome.skipped
    assert "no node has the accelerator H100; the cluster offers" in outcome.reason
    assert not calls(fake_slurm, "sbatch")
    executor.close()


def test_without_slurm_the_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasurementError, match="there is no sbatch on this machine"):
        quick().begin(jobs(tmp_path))
    (job,) = jobs(tmp_path, 1)
    outcome = quick().run(job, lambda _message: None)
    assert "there is no sinfo on this machine" in outcome.reason


def test_close_cancels_and_wakes_who_waits(fake_slurm, tmp_path):
    executor = quick()
    many = jobs(tmp_path, 2)
    executor.begin(many)
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda job=job: outcomes.append(executor.run(job, lambda _message: None)))
        for job in many
    ]
    for thread in threads:
        thread.start()
    until(lambda: calls(fake_slurm, "sbatch"))
    executor.close()
    for thread in threads:
        thread.join(10)
    assert len(outcomes) == 2
    assert not any(outcome.ok for outcome in outcomes)
    assert calls(fake_slurm, "scancel")
    (late,) = jobs(tmp_path, 1)
    assert executor.run(late, lambda _message: None) == Outcome(ok=False, reason="the executor was closed")


def test_a_submission_that_ends_in_an_error_is_cancelled_by_name(fake_slurm, tmp_path, monkeypatch):
    """sbatch took the job, and then something broke: nobody knows its id."""
    real = module.submit

    def broken(*arguments):
        real(*arguments)
        raise OSError("no space left on the device")

    monkeypatch.setattr(module, "submit", broken)
    executor = quick()
    (job,) = jobs(tmp_path, 1)
    assert "no space left" in executor.run(job, lambda _message: None).reason
    executor.close()
    assert any("--name=harness-run" in line for line in calls(fake_slurm, "scancel"))


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_on_the_queue(fake_slurm, drive, tmp_path):
    (tmp_path / "three.yaml").write_text(SUITE % 60)
    driver = drive("three.yaml")
    until(lambda: list(driver.store.glob("*/*/items.jsonl")) if driver.store.exists() else [])
    driver.send(signal.SIGINT)
    assert driver.wait() == 130
    states = {json.loads(path.read_text())["state"] for path in fake_slurm.glob("*_*.json")}
    states |= {json.loads(path.read_text())["state"] for path in fake_slurm.glob("[0-9]*.json")}
    assert states == {"CANCELLED"}
    assert not driver.measured()


@pytest.mark.slow
def test_a_resumed_run_waits_for_what_still_runs_and_takes_the_rest_off_the_queue(fake_slurm, drive, tmp_path):
    (tmp_path / "three.yaml").write_text(SUITE % 1.5)
    driver = drive("three.yaml")
    until(lambda: list(driver.store.glob("*/*/items.jsonl")) if driver.store.exists() else [])
    driver.send(signal.SIGKILL)
    driver.wait()
    again = drive("--resume", str(driver.run))
    assert again.wait() == 0, again.said
    assert "of an earlier driver" in again.said
    assert len(again.measured()) == 3
    starts = [path.read_text().count('"started"') for path in driver.run.glob("*/slurm.jsonl")]
    assert starts == [1] * 3, "no trial ran twice"


def test_a_queue_that_cannot_be_asked_stops_a_resume(fake_slurm, tmp_path, monkeypatch):
    (tmp_path / "run" / "slurm").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasurementError, match="cannot tell whether trials of an earlier driver still run"):
        quick().recover(tmp_path / "run", lambda _message: None)


def test_a_run_that_never_met_slurm_needs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    quick().recover(tmp_path, lambda _message: None)


def test_a_measurement_that_does_not_show_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEEN_S", 0.0)
    executor = quick()
    (job,) = jobs(tmp_path, 1)

    class Ended:
        id = "7"

        def wait(self, _listener):
            return Outcome(ok=True)

    monkeypatch.setattr(executor, "_element", lambda _job: Ended())
    outcome = executor.run(job, lambda _message: None)
    assert not outcome.ok
    assert "must lie on a file system that the nodes share" in outcome.reason


def test_variables_with_a_users_own_filters_hide_nothing(fake_slurm, monkeypatch, tmp_path):
    from harness_executor_slurm import cluster

    script = tmp_path / "slurm-bin" / "squeue"
    script.write_text("#!/bin/sh\nenv\n")
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    monkeypatch.setenv("SINFO_FORMAT", "%t")
    said = cluster.ask("squeue")
    assert "SQUEUE_PARTITION" not in said
    assert "SINFO_FORMAT" not in said
    assert "FAKE_SLURM" in said


def test_thousands_of_trials_are_gathered_in_order(fake_slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(module.cluster, "longest_array", lambda: 1000)
    executor = quick()
    folder = tmp_path / "run"
    many = [
        Job(trial_id=f"t{number}", folder=folder / f"t{number}", devices=(), timeout_s=1, silence_s=1)
        for number in range(5000)
    ]
    executor.begin(iter(many))
    assert executor.at_once == 1000
    firsts = [batch.jobs[0].trial_id for batch, index in executor._batches.values() if index == 0]
    assert firsts == ["t0", "t1000", "t2000", "t3000", "t4000"]
