"""An executor settles what an earlier driver left before it is known which trials are missing."""

from __future__ import annotations

import shutil

from harness import Executor, Outcome
from harness.discovery.registry import load_plugins
from harness.planning.planner import expand
from harness.planning.suite import loads
from harness.records.paths import MEASUREMENT
from harness.running.run import Run
from harness.running.run_folder import create

SUITE = """
suite: recovered
backend: {name: host}
meters: []
trials: 2
windows: {count: 1, min_seconds: 0.01}
warm_up: {max_seconds: 0}
cases: [{workload: spin, options: {iterations: 10}}]
"""


class Late(Executor):
    """An earlier driver's trial ends while it is waited for."""

    def __init__(self, finished):
        self.finished = finished
        self.began: list[str] = []

    def recover(self, folder, listener):
        listener({"type": "note", "text": "waiting"})
        shutil.copytree(self.finished, folder / self.finished.name)

    def begin(self, jobs):
        self.began = [job.trial_id for job in jobs]

    def run(self, job, listener):
        return Outcome(ok=False, reason="not run in this test")


def test_a_trial_that_ended_while_it_was_waited_for_is_kept(tmp_path):
    from harness.builtin.local import LocalExecutor

    registry = load_plugins()
    plan = expand([loads(SUITE)], registry)
    first = create(tmp_path / "a", plan, ["s"], ["harness"], 0)
    Run(first, plan.points, 0, registry=registry, executor=LocalExecutor(), watcher=lambda _event: None).execute()
    finished, other = sorted(path.parent for path in first.glob("*/measurement.json"))

    second = create(tmp_path / "b", plan, ["s"], ["harness"], 0)
    executor = Late(finished)
    told: list[object] = []
    run = Run(second, plan.points, 0, registry=registry, executor=executor, watcher=told.append)
    tally = run.execute()
    assert tally.kept == 1
    assert executor.began == [other.name]
    assert told[0] == {"type": "note", "text": "waiting"}
    kept = second / finished.name / MEASUREMENT
    assert kept.read_bytes() == (finished / MEASUREMENT).read_bytes()
