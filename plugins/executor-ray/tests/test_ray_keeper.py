"""A trial on its node, without a cluster: started, followed, ended, and nothing of it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness_executor_ray.keeper import Keeper

from harness.discovery.registry import load_plugins
from harness.planning.planner import expand
from harness.planning.suite import loads
from harness.testing import until

ORDER = {
    "trial_id": "t0",
    "timeout_s": 60.0,
    "silence_s": 60.0,
    "environment": {},
    "measured": True,
    "facts": {"name": "ray", "task": "42"},
}


def job(seconds: str = "10ms", requires: str = "{}", backend: str = "host") -> str:
    text = f"""
suite: kept
backend: {{name: {backend}}}
meters: []
trials: 1
windows: {{count: 1, min_seconds: 0.05}}
warm_up: {{max_iterations: 1}}
cases:
  - workload: spin
    requires: {requires}
    options: {{seconds: {seconds}}}
"""
    (point,) = expand([loads(text)], load_plugins()).points
    content = {"run": "r", "trial_id": "t0", "trial": 0, "node": "n0", "cache": "/nowhere", "point": point.to_json()}
    return json.dumps(content)


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    made = Keeper()
    yield made
    made.close()


def follow(keeper: Keeper, *, last: str = "end") -> list[dict[str, Any]]:
    news: list[dict[str, Any]] = []

    def came() -> bool:
        news.extend(keeper.take(1.0))
        return any(last in each or each.get("message", {}).get("phase") == last for each in news)

    until(came, what=lambda: f"{last} in {news}")
    return news


def workers(folder: Path) -> list[psutil.Process]:
    """Processes that have a folder below this one on their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()[1:]):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [each for each in found if each.pid != os.getpid()]


def gone(folder: Path, limit_s: float = 60.0) -> bool:
    return until(lambda: not workers(folder), limit_s=limit_s, every_s=0.1)


def test_a_trial_is_measured_and_nothing_of_it_stays(keeper: Keeper, tmp_path: Path):
    keeper.prepare("", threads=False)
    keeper.start(ORDER, job())
    news = follow(keeper)
    assert news[-1] == {"end": {"ok": True, "reason": "", "log_tail": [], "skipped": False}}
    assert any(each.get("message", {}).get("phase") == "window" for each in news)
    names = {name for name, _, _ in keeper.files()}
    assert {"measurement.json", "items.jsonl", "worker.log"} <= names
    assert "job.json" not in names
    found = json.loads(keeper.read("measurement.json", 0, 10**6))
    assert found["environment"]["executor"] == ORDER["facts"]
    keeper.close()
    assert gone(tmp_path)
    assert list(tmp_path.glob("joule-harness-trial-*")) == []


def test_what_the_machine_lacks_skips_the_trial(keeper: Keeper):
    keeper.prepare("", threads=False)
    keeper.start(ORDER, job(requires="{gpu: 1}"))
    end = follow(keeper)[-1]["end"]
    assert end["skipped"]
    assert "requires 1 GPU, the backend has 0 (on node " in end["reason"]


def test_gpu_memory_is_looked_at_on_the_node(keeper: Keeper):
    keeper.prepare("", threads=False)
    keeper.start(ORDER, job(requires="{gpu: 1, accelerator: H100, memory: 900GB}", backend="simulated"))
    end = follow(keeper)[-1]["end"]
    assert end["skipped"]
    assert "requires 900 GB of memory, the smallest GPU has" in end["reason"]


def test_a_trial_without_a_job_fails(keeper: Keeper):
    keeper.prepare("", threads=False)
    keeper.start(ORDER, None)
    end = follow(keeper)[-1]["end"]
    assert (end["ok"], end["skipped"]) == (False, False)
    assert "exit code 1" in end["reason"]


def test_a_limit_of_time_holds_on_the_node(keeper: Keeper, tmp_path: Path):
    keeper.prepare("", threads=False)
    keeper.start({**ORDER, "timeout_s": 1.5}, job(seconds="60s"))
    assert follow(keeper)[-1]["end"]["reason"] == "the trial took longer than its limit of 1.5 s"


def test_a_process_that_is_killed_is_named(keeper: Keeper, tmp_path: Path):
    keeper.prepare("", threads=False)
    keeper.start(ORDER, job(seconds="60s"))
    follow(keeper, last="warm-up")
    assert keeper._process is not None
    keeper._process.send_signal(signal.SIGKILL)
    end = follow(keeper)[-1]["end"]
    assert not end["ok"]
    assert "was killed by SIGKILL" in end["reason"]
    keeper.close()
    assert gone(tmp_path), "the worker outlived the process that locked its devices"
    assert list(tmp_path.glob("joule-harness-trial-*")) == []


def test_an_interpreter_without_the_harness_is_a_named_failure(keeper: Keeper, tmp_path: Path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    bare.chmod(0o755)
    keeper.prepare(str(bare), threads=False)
    found = keeper.manifest("import harness")
    assert found == {"fault": "ModuleNotFoundError: No module named 'harness'"}
    keeper.start(ORDER, job())
    end = follow(keeper)[-1]["end"]
    assert "ended with exit code 1" in end["reason"]
    assert "harness_executor_ray" in "".join(end["log_tail"])
    keeper.prepare(str(tmp_path / "missing"), threads=False)
    assert "No such file" in keeper.manifest("")["fault"]


def test_rays_number_of_threads_goes_unless_processors_were_asked_for(keeper: Keeper, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(keeper._environment, "OMP_NUM_THREADS", "1")
    monkeypatch.setattr("harness_executor_ray.keeper._environment_of", lambda pid: {"OMP_NUM_THREADS": "1"})
    keeper.prepare("", threads=False)
    assert keeper._environment["OMP_NUM_THREADS"] == "1", "the cluster's owner wanted that"
    monkeypatch.setattr("harness_executor_ray.keeper._environment_of", lambda pid: {})
    keeper.prepare("", threads=True)
    assert keeper._environment["OMP_NUM_THREADS"] == "1"
    keeper.prepare("", threads=False)
    assert "OMP_NUM_THREADS" not in keeper._environment


def test_news_that_nobody_fetches_are_forgotten_and_the_end_is_not(keeper: Keeper):
    for number in range(5000):
        keeper._tell({"message": {"done": number}})
    keeper._tell({"end": {}})
    news = keeper.take(0.0)
    assert len(news) == 1000
    assert news[-1] == {"end": {}}
    assert keeper.take(0.0) == []


def test_what_a_lost_keeper_left_goes_when_the_next_one_starts(keeper: Keeper, tmp_path: Path):
    """As after a loss of power, or where Ray killed both processes at once."""
    words = [sys.executable, "-c", LEASH, json.dumps(ORDER), job(seconds="60s")]
    with subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"measuring\n"
        process.send_signal(signal.SIGSTOP)
        for each in workers(tmp_path):
            each.kill()
        (left,) = tmp_path.glob("joule-harness-trial-*")
        keeper.start(ORDER, None)
        assert left.exists(), "its keeper is only slow"
        process.kill()
        process.wait()
        assert left.exists()
    keeper.close()
    keeper.start(ORDER, None)
    assert not left.exists()


LEASH = """
import json, sys, time
from harness_executor_ray.keeper import Keeper
keeper = Keeper()
keeper.prepare("", threads=False)
keeper.start(json.loads(sys.argv[1]), sys.argv[2])
while not any(news.get("message", {}).get("phase") == "warm-up" for news in keeper.take(1.0)):
    pass
print("measuring", flush=True)
time.sleep(60)
"""


def test_a_keeper_that_is_killed_takes_its_trial_along(tmp_path: Path):
    """As Ray ends its workers when their driver is gone: no process and no folder stays on the node."""
    words = [sys.executable, "-c", LEASH, json.dumps(ORDER), job(seconds="60s")]
    with subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"measuring\n"
        assert len(workers(tmp_path)) == 2
        process.kill()
    assert gone(tmp_path)
    assert list(tmp_path.glob("joule-harness-trial-*")) == []
