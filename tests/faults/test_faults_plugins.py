"""Plugins that leak, flood, fork, print, raise, and give what they must not: named, and no fault of the harness."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import (
    Backend,
    BackendSpec,
    Device,
    Meter,
    MeterSpec,
    Method,
    Scope,
    Snapshot,
    Workload,
    WorkloadSpec,
    builtin,
    hookimpl,
    now_ns,
)
from harness.discovery.registry import Registry
from harness.errors import PluginError
from harness.executor import Executor, ExecutorSpec, Job, Outcome
from harness.impact import Costed, Impact, ImpactMeter, ImpactMeterSpec
from harness.planning.point import Choice
from harness.planning.trial_rules import Windows
from harness.quantity import Amount, Unavailable
from harness.records.files import load_measurement, load_record, records_of
from harness.records.paths import FAILURE, MEASUREMENT, RECORD
from harness.running.executor_choice import Chosen
from harness.scorer import Scorer, ScorerSpec
from harness.workload import Column

CPU = Device(kind="cpu", uuid="cpu", name="a processor")
HOST = "n0/host"


class Work(Workload):
    def step(self, window: Any) -> None:
        window.item(str(window.iteration))


class Back(Backend):
    def open(self) -> Any:
        return [CPU]


class Lamp(Meter):
    def open(self, context: Any) -> Any:
        return {HOST: Scope(method=Method.ESTIMATED)}

    def read(self) -> Any:
        return Snapshot(now_ns(), {HOST: 1.0})

    def close(self) -> None:
        pass


def plugin(**parts: Any) -> Any:
    """A plugin of one offer a kind; each part is what its factory gives."""

    class Plugin:
        @hookimpl
        def harness_workloads(self) -> Any:
            yield WorkloadSpec(name="work", summary="", factory=lambda _: parts.get("workload", Work)())

        @hookimpl
        def harness_backends(self) -> Any:
            factory = parts.get("backend", Back)
            yield BackendSpec(name="back", summary="", factory=lambda _: factory(), probe=lambda _: [CPU])

        @hookimpl
        def harness_meters(self) -> Any:
            yield MeterSpec(name="lamp", summary="", factory=lambda _: parts.get("meter", Lamp)())
            factory = parts.get("impact", object)
            yield ImpactMeterSpec(
                name="cost", summary="", factory=lambda _: factory(), needs=(), yields={"cost_x": "x"}
            )

        @hookimpl
        def harness_scorers(self) -> Any:
            columns = (Column("mark", "1"),)
            yield ScorerSpec(name="judge", summary="", factory=lambda _: parts.get("scorer", object)(), columns=columns)

    return Plugin()


OWN = {
    "workload": "work",
    "options": {},
    "backend": Choice("back"),
    "meters": (Choice("lamp"),),
    "functional_units": {},
}


def giving(kind: type, method: str, value: Any) -> type:
    """A class of that kind whose method returns the value, or raises it."""

    def call(self: Any, *_: Any) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    return type(kind.__name__, (kind,), {method: call})


OBJECT = object()


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        (
            "workload",
            lambda: None,
            "workload 'work' of faulty-plugin 1.0, factory: it returned None; accepted: a Workload",
        ),
        ("workload", lambda: 1 / 0, "workload 'work' of faulty-plugin 1.0, factory: ZeroDivisionError"),
        ("workload", giving(Work, "devices", "cpu"), "devices: it returned 'c'"),
        ("workload", giving(Work, "devices", None), "devices: TypeError"),
        ("workload", giving(Work, "prepare", KeyError("x")), "prepare: KeyError: 'x'"),
        ("workload", giving(Work, "processes", [1]), "processes: it returned [1]"),
        ("workload", giving(Work, "step", RuntimeError("boom")), "window 1: RuntimeError: boom"),
        ("workload", giving(Work, "step", SystemExit(0)), "window 1: it tried to exit with code 0"),
        ("workload", giving(Work, "after_window", OSError("gone")), "window 1: OSError: gone"),
        ("workload", giving(Work, "validate", 5), "validate: it returned 5"),
        ("workload", giving(Work, "validate", {"miou": "high"}), "window 1: ValueError"),
        ("workload", giving(Work, "facts", ["x"]), "facts: it returned ['x']"),
        ("workload", giving(Work, "facts", {"model": OBJECT}), "facts: PydanticSerializationError"),
        ("workload", giving(Work, "why_zero", 3), "why_zero: it returned 3"),
        ("backend", lambda: "cpu", "backend 'back' of faulty-plugin 1.0, factory: it returned 'cpu'"),
        ("backend", giving(Back, "open", None), "backend 'back' of faulty-plugin 1.0, open: TypeError"),
        ("backend", giving(Back, "open", ["cpu"]), "open: it returned 'cpu'; accepted: a Device"),
        ("backend", giving(Back, "seed", ValueError("no")), "open: ValueError: no"),
        ("backend", giving(Back, "fingerprint", {1, 2}), "fingerprint: it returned {1, 2}"),
        ("backend", giving(Back, "synchronize", RuntimeError("lost")), "RuntimeError: lost"),
        ("meter", lambda: 7, "meter 'lamp' of faulty-plugin 1.0, factory: it returned 7; accepted: a Meter"),
        ("meter", giving(Lamp, "facts", OBJECT), "meter 'lamp', facts: it returned <object"),
    ],
)
def test_what_a_plugin_must_not_give_fails_its_trial_by_name(
    in_process: Callable[..., Any], part: str, value: Any, said: str
) -> None:
    trial, worker = in_process(plugin(**{part: value}), **OWN)
    assert said in worker.reason, worker.reason
    assert not (trial / MEASUREMENT).exists()


@pytest.mark.parametrize(
    ("method", "value", "said"),
    [
        ("open", None, "meter 'lamp' returned None"),
        ("open", "n0/host", "meter 'lamp' returned 'n0/host'"),
        ("open", {HOST: 5}, "meter 'lamp' returned 5, which is not a Scope"),
        ("open", OSError("no device"), "OSError: no device"),
        ("read", None, "meter 'lamp' returned None, which is not a Snapshot"),
        ("read", 3.0, "meter 'lamp' returned 3.0, which is not a Snapshot"),
        ("read", Snapshot(0, None), "which is not a Snapshot"),
        ("read", Snapshot(0, {HOST: "5"}), "the meter returned '5', which is not a number of joules"),
        ("read", Snapshot(0, {HOST: float("nan")}), "the meter returned nan"),
        ("read", Snapshot(0, {HOST: float("inf")}), "the meter returned inf"),
        ("read", Snapshot(0, {"n0/other": 1.0}), "the meter left this scope out"),
        ("read", SystemError("driver"), "SystemError: driver"),
    ],
)
def test_what_a_meter_must_not_give_is_unavailable_by_name(
    in_process: Callable[..., Any], method: str, value: Any, said: str
) -> None:
    trial, worker = in_process(plugin(meter=giving(Lamp, method, value)), cost=True, **OWN)
    assert not worker.reason
    found = load_record(trial)
    (report,) = found.measurement.meters
    reasons = [*report.missing.values()]
    reasons += [
        reading.value.reason for reading in found.measurement.readings if isinstance(reading.value, Unavailable)
    ]
    assert any(said in reason for reason in reasons), reasons
    assert isinstance(found.totals["energy_j"], Unavailable)


@pytest.mark.parametrize(
    ("method", "value", "said"),
    [
        ("close", OSError("stuck"), "meter 'lamp' did not close: OSError: stuck"),
        ("attach", 5, "meter 'lamp' did not attach: TypeError"),
    ],
)
def test_other_faults_of_a_meter_are_flags(in_process: Callable[..., Any], method: str, value: Any, said: str) -> None:
    work = giving(Work, "processes", {"role": 1})
    trial, worker = in_process(plugin(meter=giving(Lamp, method, value), workload=work), **OWN)
    assert not worker.reason
    assert any(said in flag for flag in load_measurement(trial).flags)


@pytest.mark.parametrize("value", [5, [5], RuntimeError("x")])
def test_conditions_that_cannot_be_read_are_a_condition(in_process: Callable[..., Any], value: Any) -> None:
    trial, worker = in_process(plugin(meter=giving(Lamp, "conditions", value)), **OWN)
    assert not worker.reason
    assert [seen.kind for seen in load_measurement(trial).conditions] == ["conditions_unreadable"]


class Bright(Lamp):
    """Shows 12 W, of a device that it says can draw `limit_w`."""

    limit_w = 10.0

    def open(self, context: Any) -> Any:
        return {HOST: Scope(method=Method.COUNTER, gain=0.05, max_power_w=self.limit_w)}

    def read(self) -> Any:
        now = now_ns()
        return Snapshot(now, {HOST: 12.0 * now / 1e9})


@pytest.mark.parametrize(("limit_w", "fails"), [(10.0, True), (12.0, False)])
def test_a_mean_power_above_the_meters_own_limit_fails_the_trial(
    in_process: Callable[..., Any], limit_w: float, fails: bool
) -> None:
    meter = type("Bright", (Bright,), {"limit_w": limit_w})
    windows = Windows(count=1, min_seconds=0.3)
    trial, worker = in_process(plugin(meter=meter), **{**OWN, "windows": windows})
    assert not worker.reason
    found = load_measurement(trial)
    assert [seen.kind for seen in found.conditions] == ["power_above_limit"] * fails
    assert any("its limit of 10 W" in reason for reason in found.invalid) is fails
    assert [("power above limit" in reading.flags) for reading in found.readings] == [fails]


@pytest.mark.parametrize("part", ["workload", "backend"])
def test_a_close_that_raises_costs_no_measurement_and_is_told(in_process: Callable[..., Any], part: str) -> None:
    kind = {"workload": Work, "backend": Back}[part]
    trial, worker = in_process(plugin(**{part: giving(kind, "close", OSError("stuck"))}), **OWN)
    assert not worker.reason
    assert any("close: OSError: stuck" in flag for flag in load_measurement(trial).flags)


class Cost(ImpactMeter):
    def apply(self, costed: Costed) -> Any:
        return Impact(readings={"cost_x": Amount.exact(1.0, "x")})


class Judge(Scorer):
    def score(self, items: Any) -> Any:
        return {row["item_id"]: {"mark": 1.0} for row, _ in items}


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("impact", lambda: None, "meter 'cost' of faulty-plugin 1.0, factory: it returned None"),
        ("impact", giving(Cost, "apply", None), "meter 'cost', apply: it returned None; accepted: a Impact"),
        ("impact", giving(Cost, "apply", {"cost_x": 1.0}), "meter 'cost', apply: it returned {'cost_x': 1.0}"),
        ("impact", giving(Cost, "apply", Impact(readings={"cost_x": 1.0})), "meter 'cost' returned 1.0 for cost_x"),  # type: ignore[dict-item]
        ("impact", giving(Cost, "apply", KeyError("site")), "meter 'cost', apply: KeyError: 'site'"),
        ("scorer", lambda: 5, "scorer 'judge' of faulty-plugin 1.0, factory: it returned 5"),
        ("scorer", giving(Judge, "score", None), "scorer 'judge' of faulty-plugin 1.0, score: it returned None"),
        ("scorer", giving(Judge, "score", RuntimeError("model")), "score: RuntimeError: model"),
        ("scorer", giving(Judge, "facts", 5), "facts: it returned 5"),
    ],
)
def test_faults_in_costing_name_the_plugin_and_leave_the_measurement(
    in_process: Callable[..., Any], capsys: pytest.CaptureFixture[str], part: str, value: Any, said: str
) -> None:
    more = {"meters": (Choice("lamp"), Choice("cost"))} if part == "impact" else {"scorers": (Choice("judge"),)}
    trial, worker = in_process(plugin(**{part: value}), cost=True, **{**OWN, **more})
    assert not worker.reason
    assert said in json.loads((trial / FAILURE).read_text())["reason"]
    assert load_measurement(trial)
    assert not (trial / RECORD).exists()
    capsys.readouterr()


# Plugin specs, executors, notification hooks


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("factory", None), ("summary", 5), ("columns", "abc"), ("columns", None), ("options", dict), ("options", "x"),
        ("functional_units", {"unit": "tokens"}), ("functional_units", []), ("backends", "host"), ("probe", 3),
    ],
)  # fmt: skip
def test_a_spec_with_a_wrong_field_is_a_broken_plugin(field: str, value: Any) -> None:
    class Plugin:
        @hookimpl
        def harness_workloads(self) -> Any:
            yield WorkloadSpec(**{"name": "work", "summary": "", "factory": lambda _: None, field: value})

    registry = Registry()
    assert not registry.register(Plugin(), "faulty", distribution="faulty-plugin", version="1.0")
    (broken,) = registry.broken
    assert f"yielded 'work' with {field}" in str(broken)
    assert "faulty-plugin 1.0" in str(broken)


class Runs(Executor):
    def run(self, job: Any, listener: Any) -> Any:
        return Outcome(ok=True)


def offered(factory: Any) -> Any:
    class Plugin:
        @hookimpl
        def harness_executors(self) -> Any:
            yield ExecutorSpec(name="far", summary="", factory=lambda _: factory())

    registry = Registry()
    assert registry.register(Plugin(), "faulty", distribution="faulty-plugin", version="1.0")
    return registry


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "run: it returned None"),
        ("ok", "run: it returned 'ok'"),
        (OSError("lost"), "OSError: lost"),
        (SystemExit(3), "3"),
    ],
)
def test_an_executor_that_is_wrong_fails_the_trial_and_not_the_driver(tmp_path: Path, value: Any, said: str) -> None:
    job = Job(trial_id="t", folder=tmp_path, devices=(), timeout_s=1, silence_s=1)
    outcome = Chosen("far").make(offered(giving(Runs, "run", value))).run(job, print)
    assert not outcome.ok
    assert "executor 'far' of faulty-plugin 1.0" in outcome.reason
    assert said in outcome.reason


@pytest.mark.parametrize("factory", [lambda: None, lambda: 1 / 0])
def test_what_is_no_executor_is_refused_by_name(factory: Any) -> None:
    with pytest.raises(PluginError, match=r"executor 'far' of faulty-plugin 1.0, factory"):
        Chosen("far").make(offered(factory))


def test_the_built_in_executor_is_guarded_like_any_other() -> None:
    registry = Registry()
    registry.register(builtin, "builtin")
    Chosen().make(registry).close()


LOUD = """
import os, subprocess, sys
print("PRINTED AT IMPORT")
from harness import Workload, WorkloadSpec, hookimpl, Options

class LoudOptions(Options):
    kind: str

class Loud(Workload):
    def __init__(self, options):
        self.kind = options.kind

    def step(self, window):
        if self.kind == "print":
            print('{"type": "failed", "reason": "forged"}', flush=True)
            os.write(1, b'{"type": "done"}\\n' * 1000)
            os.write(2, b"\\xff\\x00 noise\\n")
            sys.__stdout__.write("more\\n")
        elif self.kind == "leak":
            self.kept = getattr(self, "kept", [])
            for _ in range(3000):
                self.kept.append(b"x" * 2**20)
        elif self.kind == "flood":
            while True:
                os.write(1, b"x" * 2**16 + b"\\n")
        elif self.kind in ("children", "crash"):
            for session in (True, False):
                subprocess.Popen(
                    [sys.executable, "-c", "import time; time.sleep(600)", os.environ["TMPDIR"]],
                    start_new_session=session,
                )
            subprocess.run([sys.executable, "-c", "import os, time, sys\\nif os.fork() == 0:\\n os.setsid()\\n"
                            " if os.fork() == 0: time.sleep(600)", os.environ["TMPDIR"]])
            if self.kind == "crash":
                os.abort()
        window.item(str(window.iteration))

@hookimpl
def harness_workloads():
    yield WorkloadSpec(name="loud", summary="misbehaves", factory=Loud, options=LoudOptions)

@hookimpl
def harness_trial_started(trial):
    raise RuntimeError("news are too much")

@hookimpl
def harness_trial_finished(trial):
    print("PRINTED IN NEWS")
    raise SystemExit(9)

@hookimpl
def harness_run_finished(run):
    raise KeyError("run")
"""


def test_plugins_that_misbehave_at_run_time_are_named_and_leave_nothing_behind(bench: Any) -> None:
    bench.plugin(LOUD)
    kinds = ["print", "leak", "flood", "children", "crash"]
    suite = bench.suite(
        workload="loud", options="", matrix=f"kind: [{', '.join(kinds)}]", limits="{trial: 60s, memory: 600MB}"
    )
    done = bench.run_alone("run", suite, "--store", bench.store)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr.replace("  | Traceback", "")
    for hook in ("harness_trial_started", "harness_trial_finished", "harness_run_finished"):
        assert f"plugin faulty of faulty 1.0: {hook} failed" in done.stderr
    records = {kept.measurement.point["options"]["kind"]: kept.measurement for kept in records_of(bench.only_run)}
    assert set(records) == {"print", "children"}
    left = [flag for flag in records["children"].flags if flag.startswith("left 'python")]
    assert len(left) >= 3, records["children"].flags
    failures = {
        json.loads(path.read_text())["label"].rpartition("=")[2]: json.loads(path.read_text())["reason"]
        for path in bench.only_run.glob("*/failure.json")
    }
    assert set(failures) == {"leak", "flood", "crash"}
    assert "of memory; its limit is 600 MB" in failures["leak"]
    assert failures["flood"] == "the worker wrote more than 16 MiB into its log"
    assert failures["crash"].startswith("the worker was killed by SIGABRT; it left python")


def test_what_a_plugin_prints_at_import_gets_into_no_json(bench: Any) -> None:
    bench.plugin(LOUD)
    done = bench.run_alone("plan", bench.suite(), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["points"]
    assert "PRINTED AT IMPORT" in done.stderr
