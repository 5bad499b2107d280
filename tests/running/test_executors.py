"""Executors: which one a suite gets, trials side by side, and what an executor may not do to a run."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import PositiveInt

from harness.backend import Device
from harness.builtin.local import LocalExecutor
from harness.commands.run import kept_between
from harness.discovery.guard import GuardedExecutor
from harness.discovery.registry import Registry, load_plugins
from harness.errors import ExitCode, MeasurementError, UsageError
from harness.executor import Executor, ExecutorSpec, Job, Outcome
from harness.gating import job as gate_command
from harness.hookspecs import hookimpl
from harness.machine.device_locks import device_locks
from harness.options import Options
from harness.planning.planner import expand
from harness.planning.point import unmet
from harness.planning.probe import plan_probed
from harness.planning.suite import Suite, loads
from harness.records.files import trial_folders, write_json
from harness.records.paths import FAILURE, MEASUREMENT, RUN
from harness.records.record import WarmUp
from harness.running.executor_choice import LOCAL, Chosen, Wish, choose
from harness.running.run import Run, start
from harness.running.run_folder import create, executors_of

SPIN = """\
suite: {name}
{executor}
meters: [{{tdp: {{watts: 10}}}}]
trials: {trials}
windows: {{count: 1, min_seconds: 0.01}}
warm_up: {{max_seconds: 0.1, max_iterations: 1}}
cases: [{{workload: spin, {case}}}]
"""


def suite(name: str = "s", executor: str = "", case: str = "options: {iterations: 100}", trials: int = 1) -> Suite:
    return loads(SPIN.format(name=name, executor=executor, case=case, trials=trials), f"{name}.yaml", {})


class FarOptions(Options):
    address: str
    at_most: PositiveInt = 8


@pytest.fixture
def registry() -> Registry:
    class Plugin:
        @hookimpl
        def harness_executors(self) -> Iterable[ExecutorSpec]:
            yield ExecutorSpec(name="far", summary="", factory=lambda options: options, options=FarOptions, remote=True)

    found = load_plugins()
    assert found.register(Plugin(), "far"), found.broken
    return found


def test_the_command_line_goes_before_the_suite_and_the_suite_before_local(registry: Registry) -> None:
    plain, own = suite("plain"), suite("own", "executor: {name: far, address: a, at_most: 2}")
    assert {name: each.name for name, each in choose([plain, own], registry).items()} == {"plain": LOCAL, "own": "far"}
    assert choose([own], registry)["own"] == Chosen("far", {"address": "a", "at_most": 2})
    over = choose([own], registry, Wish(settings=("at_most=3",)))
    assert over["own"].options == {"address": "a", "at_most": 3}
    assert choose([own], registry, Wish(LOCAL))["own"] == Chosen(LOCAL, {"jobs": 1, "wait": None, "start": "auto"})
    assert choose([plain], registry, Wish("far", ("address=b:1",)))["plain"].options["address"] == "b:1"
    assert choose([plain], registry, Wish(jobs=4))["plain"] == Chosen(LOCAL, {"jobs": 4, "wait": None, "start": "auto"})


@pytest.mark.parametrize(
    ("executor", "options", "said"),
    [
        ("executor: nowhere", {}, "s.yaml:2:11"),
        ("executor: {name: far, adress: a}", {}, "s.yaml:2:23"),
        ("executor: {name: far}", {}, "'address' is missing"),
        ("executor: 7", {}, "accepted: a name, or a mapping with 'name' and its options"),
        ("", {"name": "nowhere"}, "'nowhere'"),
        ("", {"name": "far"}, "address is missing"),
        ("", {"name": "far", "settings": ("address=a", "at_most=0")}, "--executor-option address=a"),
        ("", {"settings": ("jobs",)}, "accepted: KEY=VALUE"),
        ("", {"settings": ("jops=2",)}, "did you mean 'jobs'?"),
        ("executor: {name: far, address: a}", {"jobs": 2}, "--jobs 2"),
        ("executor: {name: far, address: a}", {"wait_s": 600.0}, "--wait 600s"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(
    registry: Registry, executor: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as raised:
        choose([suite(executor=executor)], registry, Wish(**options))
    assert said in str(raised.value)


def test_a_resumed_run_keeps_its_executors_unless_told_otherwise(registry: Registry) -> None:
    known = {
        "a": Chosen("far", {"address": "x", "at_most": 8}),
        "b": Chosen(LOCAL, {"jobs": 1, "wait": None, "start": "auto"}),
    }
    assert Wish().over(["a", "b", "a"], known, registry) == known
    moved = Wish("far", ("address=y",)).over(["a", "b"], known, registry)
    assert {each.options["address"] for each in moved.values()} == {"y"}
    assert Wish(LOCAL).over(["a"], known, registry) == {"a": Chosen(LOCAL, {"jobs": 1, "wait": None, "start": "auto"})}
    assert Wish().over(["new"], known, registry) == {"new": Chosen()}


def test_an_unset_variable_skips_the_points_and_asks_no_executor(registry: Registry) -> None:
    lost = suite(executor="executor: {name: far, address: '${env:NOT_SET_ANYWHERE}'}")
    assert choose([lost], registry)["s"].name == LOCAL
    (skipped,) = expand([lost], registry).skipped
    assert "NOT_SET_ANYWHERE" in skipped.reason


def test_only_local_gates(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        SPIN.format(name="g", executor="executor: {name: ray}", case="", trials=1)
        + "gate: [{metric: energy_j, per: iteration, worse_by_at_most: 5%}]\n",
        encoding="utf-8",
    )
    with pytest.raises(UsageError, match="cannot use the executor 'ray'"):
        gate_command.load([path])


def test_a_machine_elsewhere_is_not_asked_here(registry: Registry) -> None:
    far = suite("far", "executor: {name: far, address: a}", "requires: {gpu: 64, accelerator: X9, labels: {zone: b}}")
    near = suite("near", case="requires: {gpu: 64}")
    planned = plan_probed([near, far], registry, remote=["far"])
    assert [point.suite for point in planned.points] == ["far"]
    assert planned.points[0].requires == {"gpu": 64, "accelerator": "X9", "labels": {"zone": "b"}}
    assert [each.point.suite for each in planned.skipped] == ["near"]


GPU = Device(kind="gpu", uuid="g", name="NVIDIA H100 80GB HBM3", memory_bytes=80 * 10**9)


@pytest.mark.parametrize(
    ("requires", "reason"),
    [
        ({"accelerator": "h100", "gpu": 1, "memory": 79 * 10**9}, ""),
        ({"accelerator": "A100"}, "requires the accelerator A100, the backend has NVIDIA H100 80GB HBM3"),
        ({"accelerator": "H100", "gpu": 2}, "requires 2 GPU, the backend has 1"),
        ({"accelerator": "H100", "memory": 81 * 10**9}, "the smallest GPU has 80.0 GB"),
        ({"cpu": 10_000}, "requires 10000 processors"),
        ({"labels": {"zone": "b"}}, "requires labels zone, which only a cluster has"),
        ({"resources": {"tpu": 1.0}}, "requires resources tpu, which only a cluster has"),
    ],
)
def test_requirements_of_this_machine(requires: dict[str, Any], reason: str) -> None:
    assert reason in unmet([GPU], requires)
    assert bool(unmet([GPU], requires)) == bool(reason)


def test_gpus_and_cpus_are_other_words_for_gpu_and_cpu() -> None:
    assert suite(case="requires: {gpus: 2, cpus: 3}").cases[0].requires.model_dump(exclude_none=True) == {
        "gpu": 2,
        "cpu": 3,
    }


# Side by side


class Stand(Executor):
    """Brings one recorded measurement for every trial, after `work`."""

    def __init__(self, measurement: bytes, side_by_side: int, work: Callable[[Job], object]) -> None:
        self.measurement = measurement
        self.side_by_side = side_by_side
        self.work = work
        self.ran: list[str] = []
        self.begun: list[str] = []
        self.closed = threading.Event()

    @property
    def at_once(self) -> int:
        return self.side_by_side

    def begin(self, jobs: Iterable[Job]) -> None:
        self.begun = [job.trial_id for job in jobs]

    def run(self, job: Job, listener: Callable[[Any], object]) -> Outcome:
        self.ran.append(job.trial_id)
        said = self.work(job)
        if said is not None:
            return said  # type: ignore[return-value]
        described = json.loads(self.measurement)
        described |= {"trial_id": job.trial_id, "run": job.folder.parent.name, "trial": int(job.trial_id[-3:])}
        described["side_cars"] = {}
        write_json(job.folder / MEASUREMENT, described)
        listener({"type": "progress", "phase": "window", "text": job.trial_id, "done": 1.0})
        return Outcome(ok=True)

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    store = tmp_path_factory.mktemp("measured")
    registry = load_plugins()
    plan = expand([suite()], registry)
    folder = create(store, plan, ["s.yaml"], ["harness"], 0)
    work = Run(folder, plan.points, 0, registry=registry, executor=LocalExecutor(), watcher=lambda _event: None)
    assert work.execute().measured == 1
    (trial,) = trial_folders(folder)
    return (trial / MEASUREMENT).read_bytes()


def run_on(executor: Executor, store: Path, trials: int) -> Run:
    registry = load_plugins()
    plan = expand([suite(trials=trials)], registry)
    folder = create(store, plan, ["s.yaml"], ["harness"], 0)
    guarded = GuardedExecutor(executor, "executor 'stand' of somewhere 1.0")
    return Run(folder, plan.points, 0, registry=registry, executor=guarded, watcher=lambda _event: None)


def test_so_many_run_at_once_each_once_and_begin_is_told_of_all(measured: bytes, tmp_path: Path) -> None:
    meet = threading.Barrier(4, timeout=20)  # breaks unless four are under way together
    stand = Stand(measured, 4, lambda _job: (meet.wait(), None)[1])
    work = run_on(stand, tmp_path, 8)
    tally = work.execute()
    assert not tally.failed
    assert tally.measured == 8
    assert sorted(stand.ran) == sorted(stand.begun) == sorted(path.name for path in trial_folders(work.folder))
    assert len(set(stand.ran)) == 8
    assert stand.closed.is_set()


@pytest.mark.parametrize("side_by_side", [1, 3])
def test_what_an_executor_does_wrong_is_the_failure_of_that_trial(
    measured: bytes, tmp_path: Path, side_by_side: int
) -> None:
    def wrong(job: Job) -> object:
        kind = int(job.trial_id[-3:])
        if kind == 0:
            raise RuntimeError("the cluster is gone")
        return {1: "done", 2: Outcome(ok=True), 3: Outcome(ok=False, reason="lost")}.get(kind)

    work = run_on(Stand(measured, side_by_side, wrong), tmp_path, 5)
    tally = work.execute()
    assert tally.measured == 1
    told = " ".join(tally.failed)
    for said in (
        "of somewhere 1.0, run: RuntimeError: the cluster is gone",
        "it returned 'done'",
        "brought no measurement",
        "lost",
    ):
        assert said in told
    assert tally.exit_code is ExitCode.MEASUREMENT
    assert sum((folder / FAILURE).exists() for folder in trial_folders(work.folder)) == 4


def test_an_executor_that_cannot_begin_fails_the_run_and_the_others_go_on(measured: bytes, tmp_path: Path) -> None:
    class Down(Stand):
        def begin(self, jobs: Iterable[Job]) -> None:
            raise MeasurementError("there is no cluster", where="far:6379")

        def close(self) -> None:
            raise RuntimeError("nothing to close")

    suites = [suite("near", trials=2), suite("far", trials=3)]
    plan = expand(suites, load_plugins())
    folder = create(tmp_path, plan, [], [], 0)
    stands = {
        name: GuardedExecutor(kind(measured, 2, lambda _job: None), name)
        for name, kind in {"near": Stand, "far": Down}.items()
    }
    tally = Run(
        folder,
        plan.points,
        0,
        registry=load_plugins(),
        executor=stands["far"],
        watcher=lambda _event: None,
        elsewhere=stands,
    ).execute()
    assert tally.measured == 2
    assert tally.exit_code is ExitCode.MEASUREMENT
    assert [text for text in tally.failed if "far:6379: there is no cluster" in text]
    assert [text for text in tally.failed if "far, close: RuntimeError: nothing to close" in text]
    assert json.loads((folder / RUN).read_text())["status"] == "failed"


def test_an_executor_that_cannot_say_how_many_fails_the_run(measured: bytes, tmp_path: Path) -> None:
    class Mute(Stand):
        @property
        def at_once(self) -> int:
            return "many"  # type: ignore[return-value]

    tally = run_on(Mute(measured, 1, lambda _job: None), tmp_path, 2).execute()
    assert tally.measured == 0
    assert tally.exit_code is ExitCode.MEASUREMENT
    assert "at_once: it returned 'many'" in tally.failed[0]


def test_ctrl_c_ends_all_and_what_was_under_way_has_not_failed(measured: bytes, tmp_path: Path) -> None:
    stand: Stand

    def work(job: Job) -> object:
        if job.trial_id == stand.begun[4]:
            raise KeyboardInterrupt
        if job.trial_id in stand.begun[:2]:
            return None
        stand.closed.wait(20)
        return Outcome(ok=False, reason="ended")

    stand = Stand(measured, 3, work)
    runs = run_on(stand, tmp_path, 9)
    tally = runs.execute()
    assert tally.interrupted
    assert tally.exit_code is ExitCode.INTERRUPTED
    assert not tally.failed
    assert 5 <= len(stand.ran) < 9
    assert [path.name for path in trial_folders(runs.folder)] == sorted(stand.begun[:2])
    again = Stand(measured, 3, lambda _job: None)
    resumed = Run(
        runs.folder, runs.points, 0, registry=load_plugins(), executor=again, watcher=lambda _event: None
    ).execute()
    assert (resumed.kept, resumed.measured) == (2, 7)
    assert sorted(again.ran) == sorted(set(stand.begun) - set(stand.begun[:2]))


def test_what_a_cluster_lacks_is_skipped_and_tried_again_by_a_resume(measured: bytes, tmp_path: Path) -> None:
    stand = Stand(measured, 1, lambda _job: Outcome(ok=False, skipped=True, reason="no H100 in this cluster"))
    runs = run_on(stand, tmp_path, 2)
    tally = runs.execute()
    assert tally.exit_code is ExitCode.OK
    assert [each["reason"] for each in tally.skipped] == ["no H100 in this cluster"] * 2
    assert list(trial_folders(runs.folder)) == []
    assert len(json.loads((runs.folder / RUN).read_text())["skipped"]) == 2
    again = Stand(measured, 1, lambda _job: None)
    later = Run(runs.folder, runs.points, 0, registry=load_plugins(), executor=again, watcher=lambda _event: None)
    assert later.execute().measured == 2


def test_each_suite_goes_to_its_executor_and_a_resume_remembers_it(
    measured: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    stands = {LOCAL: Stand(measured, 1, lambda _job: None), "far": Stand(measured, 2, lambda _job: None)}
    monkeypatch.setattr(Chosen, "make", lambda self, _registry: stands[self.name])
    suites = [suite("near", trials=2), suite("far", "executor: {name: far, address: a}", trials=3)]
    executors = choose(suites, registry)
    planned = plan_probed(suites, registry, remote=["far"])
    folder = create(tmp_path, planned, [], [], 0, executors=executors)
    tally = start(folder, planned.points, 0, executors, registry, lambda _event: None).execute()
    assert tally.measured == 5
    assert {name: len(stand.ran) for name, stand in stands.items()} == {LOCAL: 2, "far": 3}
    assert executors_of(folder, registry) == executors


# Local


class Counting(LocalExecutor):
    """Counts the trials under way instead of starting workers."""

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs=jobs)
        self.under_way: list[bool] = []
        self.seen: list[tuple[int, int]] = []
        self.guard = threading.Lock()

    def _run(self, job: Job, *_: object) -> Outcome:
        (job.folder / MEASUREMENT).touch()
        with self.guard:
            self.under_way.append(job.measured)
            self.seen.append((sum(self.under_way), len(self.under_way)))
        time.sleep(0.01)
        with self.guard:
            self.under_way.remove(job.measured)
        return Outcome(ok=True)


def test_what_is_measured_runs_alone_and_what_is_modelled_side_by_side(tmp_path: Path) -> None:
    executor = Counting(jobs=4)
    jobs = [
        Job(trial_id=str(n), folder=tmp_path, devices=("cpu",), timeout_s=9, silence_s=9, measured=n % 3 == 0)
        for n in range(24)
    ]
    threads = [threading.Thread(target=executor.run, args=(job, lambda _m: None)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(executor.seen) == 24
    for measured, all_of_them in executor.seen:
        assert not measured or all_of_them == 1
    assert max(count for _, count in executor.seen) > 1


def test_nothing_is_sent_beside_a_trial_that_may_be_measured(tmp_path: Path) -> None:
    sent: list[Path] = []
    for jobs, expected in ((1, [tmp_path / "t", tmp_path]), (2, [tmp_path])):
        sent.clear()
        keep = kept_between(sent.append, tmp_path, {"s": Chosen(LOCAL, {"jobs": jobs}), "far": Chosen("far")})
        keep(tmp_path / "t")
        keep(tmp_path)
        assert sent == expected


def test_a_modelled_trial_waits_for_no_device(tmp_path: Path) -> None:
    executor = Counting(jobs=1)
    with device_locks(("cpu",), lambda _message: None):
        job = Job(trial_id="m", folder=tmp_path, devices=("cpu",), timeout_s=9, silence_s=9, measured=False)
        thread = threading.Thread(target=executor.run, args=(job, lambda _m: None), daemon=True)
        thread.start()
        thread.join(10)
    assert executor.seen == [(0, 1)]


def test_a_closed_executor_starts_nothing(tmp_path: Path) -> None:
    executor = LocalExecutor()
    executor.close()
    job = Job(trial_id="late", folder=tmp_path, devices=(), timeout_s=9, silence_s=9)
    assert executor.run(job, lambda _m: None) == Outcome(ok=False, reason="the executor was closed")


def test_the_record_names_what_its_executor_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.machine import fingerprint

    monkeypatch.setenv("HARNESS_EXECUTOR", json.dumps({"name": "far", "node": "n7"}))
    assert fingerprint.environment()["executor"] == {"name": "far", "node": "n7"}
    for broken in ("{", "[1]", ""):
        monkeypatch.setenv("HARNESS_EXECUTOR", broken)
        assert fingerprint.environment()["executor"] == {}


def test_a_trial_that_ran_foreign_code_is_flagged(tmp_path: Path) -> None:
    from harness.measuring.messenger import Messenger
    from harness.measuring.trial import Trial

    point = expand([suite()], load_plugins()).points[0].to_json()
    for said, flagged in ((True, 1), (False, 0), ("yes", 0)):
        job = {"point": {**point, "options": {**point["options"], "trust_remote_code": said}}}
        trial = Trial(tmp_path, job, load_plugins(), Messenger())
        warm_up = WarmUp(iterations=5, seconds=1.0, converged=True)
        assert sum("trust_remote_code" in flag for flag in trial.notable(warm_up)) == flagged


class Listening:
    """Keeps every notification, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    @hookimpl
    def harness_trial_started(self, trial: dict[str, Any]) -> None:
        self.heard.append(("started", {"trial": trial}))

    @hookimpl
    def harness_trial_finished(self, trial: dict[str, Any], folder: Path) -> None:
        self.heard.append(("finished", {"trial": trial, "folder": folder}))

    @hookimpl
    def harness_run_finished(self, run: dict[str, Any], folder: Path) -> None:
        assert (folder / RUN).exists()
        self.heard.append(("run", {"run": run, "folder": folder}))


def test_every_notification_has_the_keys_that_its_hook_promises(measured: bytes, tmp_path: Path) -> None:
    def work(job: Job) -> object:
        kind = int(job.trial_id[-3:])
        if kind == 0:
            throttled = {"kind": "throttle", "scope": "n0/a", "detail": "hot", "fails": True, "count": 1, "first_ns": 1}
            described = {**json.loads(measured), "side_cars": {}, "conditions": [throttled]}
            write_json(job.folder / MEASUREMENT, described)
            return Outcome(ok=True)
        return {1: Outcome(ok=False, reason="lost"), 2: Outcome(ok=False, skipped=True, reason="no such node")}.get(
            kind
        )

    run = run_on(Stand(measured, 1, work), tmp_path, 5)
    listening = Listening()
    run.registry.register(listening, "listening")
    run.execute()
    point = run.points[0]
    about = {"run": run.folder.name, "point": point.id, "workload": "spin"}
    started = [each["trial"] for kind, each in listening.heard if kind == "started"]
    assert sorted(started, key=lambda trial: trial["trial"]) == [{**about, "trial": number} for number in range(5)]
    finished = {each["trial"]["trial"]: each for kind, each in listening.heard if kind == "finished"}
    ended = {0: "invalid", 1: "failed", 2: "skipped", 3: "measured", 4: "measured"}
    for number, status in ended.items():
        reason = finished[number]["trial"]["reason"]
        assert finished[number]["trial"] == {**about, "trial": number, "status": status, "reason": reason}
        assert bool(reason) == (status != "measured")
        assert finished[number]["folder"] == run.folder / f"{point.id}-t{number:03d}"
    assert "hot" in finished[0]["trial"]["reason"]
    trials = {"measured": 2, "invalid": 1, "failed": 1, "skipped": 1, "kept": 0}
    ended_run = {"run": run.folder.name, "exit_code": 3, "trials": trials}
    assert listening.heard[-1] == ("run", {"run": ended_run, "folder": run.folder})


def test_what_was_kept_from_before_a_resume_is_counted_apart(measured: bytes, tmp_path: Path) -> None:
    run = run_on(Stand(measured, 1, lambda _job: None), tmp_path, 2)
    run.execute()
    listening = Listening()
    registry = load_plugins()
    registry.register(listening, "listening")
    again = Stand(measured, 1, lambda _job: None)
    Run(run.folder, run.points, 0, registry=registry, executor=again, watcher=lambda _event: None).execute()
    ((kind, told),) = listening.heard
    assert kind == "run"
    assert told["run"]["trials"] == {"measured": 0, "invalid": 0, "failed": 0, "skipped": 0, "kept": 2}


@pytest.mark.parametrize(
    ("start", "measured", "variables", "forked"),
    [("auto", False, {}, True), ("auto", True, {}, False), ("fork", True, {}, True), ("spawn", False, {}, False),
     ("fork", False, {"PYTHONHASHSEED": "1"}, False)],
)  # fmt: skip
def test_which_trials_are_forked(
    tmp_path: Path, start: Any, variables: dict[str, str], *, measured: bool, forked: bool
) -> None:
    """A variable set for a trial alone is read when an interpreter starts; of modelled work nothing depends on it."""
    job = Job(
        trial_id="t", folder=tmp_path, devices=(), timeout_s=1, silence_s=1, environment=variables, measured=measured,
        fork_safe=True,
    )  # fmt: skip
    assert LocalExecutor(start=start)._may_fork(job) is (forked and sys.platform == "linux")
    assert not LocalExecutor(start=start, python="/other/python")._may_fork(job)
    assert not LocalExecutor()._may_fork(job)
