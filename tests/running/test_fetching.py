"""What a trial's work needs from elsewhere is brought before any device is locked, once for all that need the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness import FetchContext, Workload, WorkloadSpec, hookimpl
from harness.builtin.local import LocalExecutor, fetched_by
from harness.cli import app
from harness.commands.console import waiting_s
from harness.discovery.registry import Registry
from harness.errors import PluginError, UsageError
from harness.executor import FETCH, LOCKS, MEASUREMENT, Job, Outcome
from harness.machine.device_locks import DeviceHeldError, device_locks
from harness.measuring.attempt import fetch
from harness.measuring.messenger import Messenger
from harness.measuring.trial import Trial
from harness.options import Options
from harness.planning.named_offers import fetch_key
from harness.planning.point import Choice, Point


class Watched(LocalExecutor):
    """Notes what it would start, and whether the device was locked then."""

    def __init__(self, fails: int = 0, wait_s: float | None = None) -> None:
        super().__init__(wait_s=wait_s)
        self.fails = fails
        self.started: list[tuple[str, bool]] = []
        self.told: list[Any] = []

    def _run(self, job: Job, _listener: object, command: list[str], environment: Mapping[str, str]) -> Outcome:
        try:
            with device_locks(("cpu",), lambda _message: None, 0.0):
                locked = False
        except DeviceHeldError:
            locked = True
        self.told.append(json.loads(environment.get(LOCKS, "null")))
        self.started.append(("fetch" if FETCH in command else "trial", locked))
        if FETCH in command and self.fails:
            self.fails -= 1
            return Outcome(ok=False, reason="no network")
        (job.folder / MEASUREMENT).touch()
        return Outcome(ok=True)


def job(folder: Path, name: str, needed: str = "") -> Job:
    (folder / name).mkdir()
    (folder / name / "job.json").write_text(json.dumps({"fetch": needed} if needed else {}))
    return Job(trial_id=name, folder=folder / name, devices=("cpu",), timeout_s=9, silence_s=9)


def silent(_message: object) -> None:
    """A listener."""


def test_fetching_holds_no_lock_and_comes_once_for_all_that_need_the_same(tmp_path: Path) -> None:
    executor = Watched()
    for name, needed in (("a", "m1"), ("b", "m1"), ("c", "m2"), ("d", "")):
        assert executor.run(job(tmp_path, name, needed), silent).ok
    assert executor.started == [
        ("fetch", False), ("trial", True), ("trial", True), ("fetch", False), ("trial", True), ("trial", True),
    ]  # fmt: skip


def test_what_could_not_be_fetched_fails_its_trial_and_is_tried_again(tmp_path: Path) -> None:
    executor = Watched(fails=1)
    first, second = executor.run(job(tmp_path, "a", "m"), silent), executor.run(job(tmp_path, "b", "m"), silent)
    assert (first.ok, first.reason, second.ok) == (False, "no network", True)
    assert [what for what, _ in executor.started] == ["fetch", "fetch", "trial"]


def test_a_worker_is_told_its_locks_and_how_long_it_may_wait(tmp_path: Path) -> None:
    executor = Watched(wait_s=7.0)
    executor.run(job(tmp_path, "a"), silent)
    (told,) = executor.told
    assert told["wait_s"] == 7.0
    assert list(told["held"]) == ["cpu"]
    assert told["fallback"] is False


def test_who_will_not_wait_gives_up_and_starts_nothing(tmp_path: Path) -> None:
    executor = Watched(wait_s=0.0)
    with device_locks(("cpu",), silent), pytest.raises(DeviceHeldError):
        executor.run(job(tmp_path, "a"), silent)
    assert executor.started == []


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"fetch": null}', "{}"])
def test_a_job_that_names_nothing_fetches_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "job.json").write_text(content)
    assert fetched_by(tmp_path) == ""
    assert fetched_by(tmp_path / "nowhere") == ""


# The worker


class Wanted(Options):
    """Options of a workload.

    Attributes:
        model: what is fetched.
        tokens: something else.
    """

    model: str = "m"
    tokens: int = 1


class Work(Workload):
    """Keeps what it was called with."""

    log: list[Any]

    def __init__(self, options: Wanted) -> None:
        self.options = options

    def fetch(self, context: FetchContext) -> None:
        if self.options.model == "broken":
            raise ValueError("no such model")
        context.progress("downloading", 0.5)
        self.log.append((self.options.model, context.cache))

    def step(self, window: object) -> None:
        raise AssertionError("nothing is measured")

    def close(self) -> None:
        self.log.append("closed")


@pytest.fixture
def registry() -> Registry:
    Work.log = []

    class Plugin:
        @hookimpl
        def harness_workloads(self) -> Iterable[WorkloadSpec]:
            yield WorkloadSpec(name="w", summary="", factory=Work, options=Wanted, fetched_by=("model",))
            yield WorkloadSpec(name="plain", summary="", factory=Work, options=Wanted)

    from harness.discovery.registry import load_plugins

    found = load_plugins()
    assert found.register(Plugin(), "p")
    return found


def point(workload: str = "w", **options: object) -> Point:
    return Point(id="a" * 12, suite="s", label="l", workload=workload, options=options, backend=Choice("host"))


def test_trials_that_agree_in_the_named_options_fetch_together(registry: Registry) -> None:
    one = fetch_key(point(model="a", tokens=1), registry)
    assert one
    assert one == fetch_key(point(model="a", tokens=2), registry)
    assert one != fetch_key(point(model="b", tokens=1), registry)
    assert fetch_key(point("plain", model="a"), registry) == ""


def test_the_worker_fetches_and_closes_and_measures_nothing(registry: Registry, tmp_path: Path) -> None:
    asked = {"point": point(model="a").to_json(), "cache": str(tmp_path)}
    fetch(Trial(tmp_path, asked, registry, Messenger()))
    assert Work.log == [("a", tmp_path), "closed"]
    assert not (tmp_path / MEASUREMENT).exists()


def test_what_a_workload_raises_while_it_fetches_names_it(registry: Registry, tmp_path: Path) -> None:
    asked = {"point": point(model="broken").to_json(), "cache": str(tmp_path)}
    with pytest.raises(PluginError, match="'w' of in-process, fetch: ValueError: no such model"):
        fetch(Trial(tmp_path, asked, registry, Messenger()))
    assert Work.log == ["closed"]


def test_how_long_to_wait_is_a_time() -> None:
    assert (waiting_s(None), waiting_s("0"), waiting_s("10m"), waiting_s("10min")) == (None, 0.0, 600.0, 600.0)
    with pytest.raises(UsageError, match="--wait: 'soon'"):
        waiting_s("soon")


def test_a_run_ends_when_its_device_is_held_too_long(tmp_path: Path) -> None:
    suite = tmp_path / "s.yaml"
    suite.write_text(
        "suite: s\nmeters: []\ntrials: 2\nwindows: {count: 1, min_seconds: 0.01}\nwarm_up: {max_iterations: 0}\n"
        "cases: [{workload: spin, options: {iterations: 10}}]\n"
    )
    command = ["run", str(suite), "--store", str(tmp_path / "store"), "--wait", "0"]
    with device_locks(("cpu",), silent):
        ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 3
    assert ended.output.count("device cpu is held by process") == 1  # the second trial is not tried
    (described,) = (tmp_path / "store").glob("*/run.json")
    assert json.loads(described.read_text())["status"] == "failed"
