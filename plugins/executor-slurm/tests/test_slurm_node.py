"""What runs on a node: the right trial, once, ended by signals, from its start when it is run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness_executor_slurm import journal
from harness_executor_slurm.node import SUPERSEDED, TIME_LIMIT, UNSEEN

from harness.discovery.registry import load_plugins
from harness.planning.planner import expand
from harness.planning.suite import loads
from harness.records.files import load_measurement
from harness.records.paths import MEASUREMENT
from harness.running.order import schedule
from harness.running.run_folder import create, prepare
from harness.testing import until

SUITE = """
suite: node
backend: {{name: host}}
meters: []
trials: 1
windows: {{count: 1, min_seconds: {seconds}}}
warm_up: {{max_seconds: 0}}
cases: [{{workload: spin, options: {{iterations: 1000}}}}]
"""
TOKEN = "a token"


class Node:
    """A trial that was submitted, and its job."""

    def __init__(self, folder: Path, seconds: float) -> None:
        plan = expand([loads(SUITE.format(seconds=seconds))], load_plugins())
        run = create(folder, plan, ["node"], ["harness"], 0)
        (due,) = schedule(plan.points, 0)
        job = prepare(run, due)
        self.trial = job.folder
        journal.start(self.trial, TOKEN)
        facts = {"trial_id": job.trial_id, "folder": str(self.trial), "devices": [], "label": "", "measured": True}
        facts |= {"timeout_s": 60, "silence_s": 60, "environment": {}}
        self.listing = folder / "list.json"
        self.listing.write_text(json.dumps({"token": TOKEN, "trials": [{}, facts]}))

    def start(self, *, token: str = TOKEN, listing: Path | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "harness_executor_slurm.node", str(listing or self.listing), token, "12_1"]
        return subprocess.Popen(
            command,
            env={**os.environ, "SLURMD_NODENAME": "n7", "SLURM_CLUSTER_NAME": "c", "SLURM_JOB_PARTITION": "p"},
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, **changes: object) -> tuple[int, str]:
        with self.start(**changes) as process:
            _, said = process.communicate(timeout=60)
        return process.returncode, said

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in journal.entries(self.trial) if "event" in entry]

    @property
    def last(self) -> dict[str, object]:
        return list(journal.entries(self.trial))[-1]


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path, 0.05)


@pytest.fixture
def long_node(tmp_path):
    return Node(tmp_path, 50)


def test_a_trial_is_measured_and_its_record_has_the_job(node):
    code, said = node.run()
    assert (code, node.events) == (0, ["started", "ended"]), said
    assert node.last == {"event": "ended", "ok": True, "reason": "", "log_tail": []}
    assert load_measurement(node.trial).environment["executor"] == {
        "name": "slurm",
        "job": "12_1",
        "array_job": "12",
        "array_task": 1,
        "node": "n7",
        "cluster": "c",
        "partition": "p",
        "restarts": 0,
        "log": "slurm/12_1.log",
    }


def test_a_node_that_does_not_see_the_list_says_so_by_its_exit_code(node, tmp_path):
    code, said = node.run(listing=tmp_path / "elsewhere" / "list.json")
    assert code == UNSEEN
    assert "cannot read" in said
    assert node.events == []


@pytest.mark.parametrize("which", ["list", "folder", "gone"])
def test_a_trial_that_was_handed_to_another_job_is_left_alone(node, which):
    if which == "folder":
        journal.start(node.trial, "a newer token")
    elif which == "gone":
        (node.trial / journal.NAME).unlink()
    code, said = node.run(token="an older token" if which == "list" else TOKEN)
    assert (code, node.events) == (SUPERSEDED, [])
    assert "handed to another job" in said
    assert not (node.trial / MEASUREMENT).exists()


def test_a_measurement_is_never_touched(node):
    (node.trial / MEASUREMENT).write_text("of an earlier attempt")
    assert node.run()[0] == 0
    assert node.events == ["started", "ended"]
    assert node.last["ok"] is True
    assert (node.trial / MEASUREMENT).read_text() == "of an earlier attempt"


def test_a_trial_that_ended_is_not_run_again(node):
    lines = journal.Journal(node.trial)
    lines.write(event="ended", ok=False, reason="of the first attempt")
    lines.close()
    assert node.run()[0] == 0
    assert node.events == ["ended"]


def test_an_attempt_begins_without_what_the_last_one_left(node):
    (node.trial / "items.jsonl").write_text("half a li")
    (node.trial / "checkpoints").mkdir()
    (node.trial / "checkpoints" / "step").write_text("1")
    (node.trial / "worker.log").write_text("of the first attempt\n")
    lines = journal.Journal(node.trial)
    lines.write(event="started")
    lines.write(event="interrupted")
    lines.close()
    assert node.run()[0] == 0
    assert not (node.trial / "checkpoints").exists()
    assert "half a li" not in (node.trial / "items.jsonl").read_text()
    assert (node.trial / "worker.log").read_text().startswith("of the first attempt")
    assert load_measurement(node.trial).environment["executor"]["restarts"] == 1


def test_a_worker_that_fails_is_told_with_its_log(node):
    (node.trial / "job.json").write_text("{}")
    code, _ = node.run()
    assert code == 1
    assert node.last["ok"] is False
    assert "KeyError" in str(node.last["log_tail"])


def test_the_signal_before_the_limit_ends_the_trial_with_the_reason(long_node):
    with long_node.start() as process:
        until((long_node.trial / "items.jsonl").exists)
        process.send_signal(signal.SIGUSR2)
        assert process.wait(timeout=20) == 1
    assert (long_node.last["event"], long_node.last["reason"]) == ("ended", TIME_LIMIT)
    assert not (long_node.trial / MEASUREMENT).exists()


def test_what_comes_after_a_cancellation_is_slurms_to_say(long_node):
    with long_node.start() as process:
        until((long_node.trial / "items.jsonl").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 1
    assert long_node.last == {"event": "interrupted", "signal": "SIGTERM"}
