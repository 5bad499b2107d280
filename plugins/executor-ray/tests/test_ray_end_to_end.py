"""Runs on a cluster of two nodes, as a user starts them, and what becomes of them when something fails."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from harness_executor_ray import RayOptions, keeper, parcel
from harness_executor_ray.executor import RayExecutor
from harness_executor_ray.placement import HOLD

from harness import Job
from harness.testing import check_executor, until

pytestmark = pytest.mark.slow

HEAD = """
suite: {name}
backend: host
meters: []
trials: {trials}
windows: {{count: 1, min_seconds: {seconds}}}
warm_up: {{max_iterations: 1}}
cases:
"""


def suite(folder: Path, name: str, cases: str, *, trials: int = 1, seconds: float = 0.1) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(HEAD.format(name=name, trials=trials, seconds=seconds) + cases)
    return file


def spin(case: str, requires: str = "{}", **options: object) -> str:
    return f"  - {{workload: spin, name: {case}, requires: {requires}, options: {json.dumps(options)}}}\n"


def command(cluster: Any, *words: object, **options: object) -> list[str]:
    told = [f"{key}={value}" for key, value in {"address": cluster.address, **options}.items()]
    given = [each for text in told for each in ("--executor-option", text)]
    return [sys.executable, "-m", "harness", "run", *map(str, words), "--executor", "ray", *given]


@contextmanager
def started(cluster: Any, words: list[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    """A driver in a process group of its own, away from the sources, ended with the test."""
    with subprocess.Popen(
        words,
        cwd=cluster.folder,
        env={**cluster.environment("driver"), "NO_COLOR": "1", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def done(cluster: Any, words: list[str], **more: str) -> tuple[int, str]:
    with started(cluster, words, **more) as process:
        out, err = process.communicate(timeout=170)
    return process.returncode, out + err


def measurements(store: Path) -> dict[str, dict[str, Any]]:
    """Case's name -> its measurement, of the only run of a store."""
    found = {}
    for file in sorted(store.glob("*/*/measurement.json")):
        content = json.loads(file.read_text())
        found[content["point"]["label"].partition(" ")[0]] = content
    return found


def interval(measurement: dict[str, Any]) -> tuple[float, float]:
    began = datetime.fromisoformat(measurement["started_utc"]).timestamp()
    spans = measurement["spans"]
    return began, began + sum(span["end_ns"] - span["start_ns"] for span in spans) * 1e-9


def test_trials_go_where_they_belong_side_by_side_and_say_so(two_nodes, tmp_path):
    cases = spin("here", "{labels: {side: left}}", iterations=1000)
    cases += spin("there", "{labels: {side: right}, resources: {licence: 2}}", iterations=1001)
    cases += spin("nowhere", "{accelerator: B200, labels: {side: left}}", iterations=1002)
    file = suite(tmp_path, "belong", cases, seconds=6)
    with started(two_nodes, command(two_nodes, file, "--store", tmp_path / "store")) as process:
        until(
            lambda: two_nodes.workers("left") and two_nodes.workers("right"),
            what="both nodes work at the same time",
            limit_s=120,
        )
        out, err = process.communicate(timeout=170)
    code, said = process.returncode, out + err
    assert code == 0, said
    assert "requires CPU 1, GPU 1, accelerator B200, labels side=left; the cluster has " in said
    assert "1 x [CPU 2, GPU 1, accelerator H100, licence 2, memory 2 GB, labels side=right]" in said
    found = measurements(tmp_path / "store")
    assert set(found) == {"here", "there"}
    facts = {case: content["environment"]["executor"] for case, content in found.items()}
    assert facts["here"]["node"] != facts["there"]["node"]
    for case, side in {"here": "left", "there": "right"}.items():
        assert facts[case]["name"] == "ray"
        assert facts[case]["log"].startswith(str(two_nodes.folder / side / "ray"))
        assert len(facts[case]["task"]) == 48
        assert facts[case]["environment"] == "check"
        assert facts[case]["shared_node"] is False
        assert not any(address in json.dumps(facts) for address in ("127.0.0.2", "127.0.0.3"))
    assert two_nodes.leaves_nothing()


def test_measured_trials_never_share_a_node(two_nodes, tmp_path):
    cases = "".join(spin(f"n{number}", "{labels: {side: right}}", iterations=1000 + number) for number in range(3))
    file = suite(tmp_path, "alone", cases, seconds=1)
    code, said = done(two_nodes, command(two_nodes, file, "--store", tmp_path / "store"))
    assert code == 0, said
    intervals = sorted(map(interval, measurements(tmp_path / "store").values()))
    assert len(intervals) == 3
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(intervals))


def test_a_killed_worker_is_one_failure_and_the_run_goes_on(two_nodes, tmp_path):
    cases = spin("killed", "{labels: {side: left}}", seconds="60s") + spin("fine", "{labels: {side: right}}")
    file = suite(tmp_path, "killed", cases)
    with started(two_nodes, command(two_nodes, file, "--store", tmp_path / "store")) as process:
        until(lambda: two_nodes.workers("left"))[0].kill()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 3, out + err
    (failure,) = (tmp_path / "store").glob("*/*/failure.json")
    assert json.loads(failure.read_text())["reason"] == "the worker was killed by SIGKILL"
    assert (failure.parent / "worker.log").exists(), "what it printed came back"
    assert set(measurements(tmp_path / "store")) == {"fine"}
    assert two_nodes.leaves_nothing()


def test_a_killed_driver_leaves_nothing_and_its_run_is_resumed(two_nodes, tmp_path):
    cases = "".join(spin(f"n{number}", iterations=1000 + number) for number in range(3))
    file = suite(tmp_path, "resumed", cases, trials=2, seconds=1)
    store = tmp_path / "store"
    with started(two_nodes, command(two_nodes, file, "--store", store)) as process:
        until(lambda: list(store.glob("*/*/measurement.json")), limit_s=120)
        until(two_nodes.workers)
        os.killpg(process.pid, signal.SIGKILL)
    until(lambda: not two_nodes.trials())  # the trials of a driver that is gone end by themselves
    before = {path.parent.name: path.stat().st_mtime_ns for path in store.glob("*/*/measurement.json")}
    assert 1 <= len(before) < 6
    (run,) = store.iterdir()
    words = [sys.executable, "-m", "harness", "run", "--resume", str(run)]
    code, said = done(two_nodes, words)
    assert code == 0, said
    after = {path.parent.name: path.stat().st_mtime_ns for path in store.glob("*/*/measurement.json")}
    assert len(after) == 6
    assert {name: stamp for name, stamp in after.items() if name in before} == before, "what was there was not repeated"
    points = json.loads((run / "run.json").read_text())["points"]
    assert set(after) == {f"{point['id']}-t{trial:03d}" for point in points for trial in range(2)}
    assert two_nodes.leaves_nothing()


def test_control_c_ends_the_trials(two_nodes, tmp_path):
    cases = spin("left", "{labels: {side: left}}", seconds="60s")
    cases += spin("right", "{labels: {side: right}}", seconds="61s") + spin("pending", seconds="62s")
    file = suite(tmp_path, "interrupted", cases)
    with started(two_nodes, command(two_nodes, file, "--store", tmp_path / "store")) as process:
        until(lambda: len(two_nodes.workers()) == 2, limit_s=120)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert two_nodes.leaves_nothing()


def test_other_sources_are_named_and_may_be_shipped(two_nodes, tmp_path):
    """The driver runs a copy of the harness that says something else of itself than what the nodes have."""
    copy = tmp_path / "copy"
    keeper.unpack(parcel.pack()[1], copy)
    source = copy / "harness/machine/fingerprint.py"
    text = source.read_text()
    assert '"implementation": sys.implementation.name' in text
    source.write_text(text.replace('"implementation": sys.implementation.name', '"implementation": "the copy"'))
    path = os.pathsep.join([str(copy), two_nodes.environment("driver")["PYTHONPATH"]])
    file = suite(tmp_path, "copied", spin("one"))
    words = command(two_nodes, file, "--store", tmp_path / "checked")
    code, said = done(two_nodes, words, PYTHONPATH=path)
    assert code == 3, said
    (failure,) = (tmp_path / "checked").glob("*/*/failure.json")
    reason = json.loads(failure.read_text())["reason"]
    assert reason.endswith(
        "differs: joule-harness 0.1.0 has other source files there in harness; "
        "`environment: ship` runs this machine's there"
    )
    words = command(two_nodes, file, "--store", tmp_path / "shipped", environment="ship")
    code, said = done(two_nodes, words, PYTHONPATH=path)
    assert code == 0, said
    assert measurements(tmp_path / "shipped")["one"]["environment"]["implementation"] == "the copy"
    words = command(two_nodes, file, "--store", tmp_path / "ignored", environment="ignore")
    code, said = done(two_nodes, words, PYTHONPATH=path)
    assert code == 0, said
    assert measurements(tmp_path / "ignored")["one"]["environment"]["implementation"] == "cpython"


def test_the_contract_of_executors(connected, tmp_path):
    check_executor(lambda: RayExecutor(RayOptions(address=connected["address"])), tmp_path)


def test_a_place_that_does_not_come_free_is_a_failure_that_says_what_is_there(connected, tmp_path):
    executor = RayExecutor(RayOptions(address=connected["address"], timeout_s=2.0))
    requires = {"labels": {"side": "right"}}
    job = Job(trial_id="t", folder=tmp_path, devices=(), timeout_s=60, silence_s=60, requires=requires)
    executor.begin(())
    import ray

    holder = ray.remote(object).options(num_cpus=0, resources={HOLD: 1.0}, label_selector={"side": "right"}).remote()
    try:
        ray.get(holder.__ray_ready__.remote(), timeout=60)
        outcome = executor.run(job, lambda message: None)
    finally:
        ray.kill(holder)
        executor.close()
    assert not outcome.ok
    assert not outcome.skipped
    assert outcome.reason.startswith(
        "no node took the trial within 2 s; it requires CPU 1, labels side=right; free now"
    )
    assert "labels side=left" in outcome.reason
    assert executor.run(job, lambda message: None).reason == "the executor was closed"


def test_a_lost_node_is_a_named_failure(two_nodes, tmp_path):
    """Last of all: the node does not come back."""
    cases = spin("lost", "{labels: {side: right}}", seconds="60s") + spin("fine", "{labels: {side: left}}")
    file = suite(tmp_path, "lost", cases)
    with started(two_nodes, command(two_nodes, file, "--store", tmp_path / "store")) as process:
        until(lambda: two_nodes.workers("right"))
        two_nodes.end("right", signal.SIGKILL)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 3, out + err
    (failure,) = (tmp_path / "store").glob("*/*/failure.json")
    reason = json.loads(failure.read_text())["reason"]
    assert reason.startswith("the cluster lost the trial: Actor"), reason
    assert set(measurements(tmp_path / "store")) == {"fine"}
    assert two_nodes.trials() == []
