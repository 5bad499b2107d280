"""Fault injection: a store, an environment with a plugin of the test, drivers and workers, alone or in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.records.files import records_of
from harness.testing import InProcessExecutor, cost_in_process

SUITE = """\
suite: {name}
backend: {backend}
meters: [{meters}]
trials: {trials}
windows: {{count: 1, min_seconds: {seconds}}}
warm_up: {{max_seconds: 1, max_iterations: 0, min_iterations: 0}}
limits: {limits}
foreign_load: {{at_most: 100%}}
cases:
  - workload: {workload}
    options: {{{options}}}
    matrix: {{{matrix}}}
"""

GRACE_S = 10.0


class Bench:
    """Runs `harness` in a folder of its own: `run` within this process, `run_alone` and `start` in processes.

    Attributes:
        folder: everything lies in it.
        store: where runs go.
        environment: of every process.
    """

    def __init__(self, folder: Path, in_process: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        self.folder = folder
        self.in_process = in_process
        self.store = folder / "store"
        self.site = folder / "site"
        for name in ("site", "tmp"):
            (folder / name).mkdir()
        self.environment = {
            **os.environ,
            "TMPDIR": str(folder / "tmp"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self.site), os.environ.get("PYTHONPATH")))),
            "COLUMNS": "250",
        }

    def plugin(self, code: str, name: str = "faulty") -> None:
        """Installs a plugin of one module."""
        (self.site / f"{name}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        packaged = self.site / f"{name}-1.0.dist-info"
        packaged.mkdir(exist_ok=True)
        (packaged / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        (packaged / "entry_points.txt").write_text(f"[harness]\n{name} = {name}\n", encoding="utf-8")

    def suite(self, **changes: object) -> Path:
        values: dict[str, object] = {
            "name": "faults",
            "backend": "host",
            "meters": "tdp: {watts: 100}",
            "trials": 1,
            "seconds": 0.02,
            "limits": "{trial: 60s, silence: 30s}",
            "workload": "spin",
            "options": "iterations: 2000",
            "matrix": "",
        }
        path = self.folder / "suite.yaml"
        path.write_text(SUITE.format(**{**values, **changes}), encoding="utf-8")
        return path

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "harness", *map(str, arguments)]

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.in_process(*arguments, environment={**self.environment, **environment}, plugins=self.site)

    def run_alone(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env={**self.environment, **environment}, capture_output=True, text=True,
            timeout=180, check=False,
        )  # fmt: skip

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), env={**self.environment, **environment}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    @property
    def only_run(self) -> Path:
        (folder,) = (path for path in self.store.iterdir() if path.is_dir())
        return folder

    def measured(self) -> dict[str, int]:
        """Trial id -> when its measurement was written, in ns: proves that a resume left it alone."""
        return {path.parent.name: path.stat().st_mtime_ns for path in self.store.glob("*/*/measurement.json")}

    def planned(self) -> set[str]:
        """The trial ids that the run was planned with."""
        return {
            f"{point['id']}-t{trial:03d}"
            for point in json.loads((self.only_run / "plan.json").read_text(encoding="utf-8"))
            for trial in range(point["trials"])
        }

    def resume(self) -> None:
        """Goes on with the run: exactly what was missing is measured, and every trial has its record."""
        before = self.measured()
        done = self.run("run", "--resume", self.only_run)
        assert done.returncode == 0, done.stdout + done.stderr
        after = self.measured()
        assert before.items() <= after.items(), "a finished trial was measured again"
        assert set(after) == self.planned()
        finished = [kept.measurement.trial_id for kept in records_of(self.only_run)]
        assert sorted(finished) == sorted(self.planned())


@pytest.fixture
def bench(tmp_path: Path, harness_in_process: Callable[..., Any]) -> Iterator[Bench]:
    yield Bench(tmp_path, harness_in_process)
    found = [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(_words(process))]
    _, left = psutil.wait_procs(found, timeout=GRACE_S)  # a worker sees a moment later that its driver is gone
    for process in left:
        process.kill()
    assert not left, "a process outlived its run"


def _words(process: psutil.Process) -> list[str]:
    words: list[str] = process.info["cmdline"] or []
    return words


@pytest.fixture
def workers_of() -> Callable[[subprocess.Popen[str]], list[psutil.Process]]:
    def workers(driver: subprocess.Popen[str]) -> list[psutil.Process]:
        try:
            children = psutil.Process(driver.pid).children(recursive=True)
            return [child for child in children if "harness.worker" in child.cmdline()]
        except psutil.Error:
            return []

    return workers


class Said:
    """Hears a trial's messages."""

    def __init__(self) -> None:
        self.messages: list[Mapping[str, object]] = []

    def hear(self, message: Mapping[str, object]) -> None:
        self.messages.append(message)

    @property
    def reason(self) -> str:
        """Why the trial failed; empty if it did not."""
        return next((str(said["reason"]) for said in self.messages if said["type"] == "failed"), "")


Trial = tuple[Path, Said]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Trial]:
    """Runs a trial in this process, with a plugin object beside the built-in ones: its folder, and what it said."""
    from harness import builtin
    from harness.discovery.registry import Registry
    from harness.planning.point import Choice, Plan, Point
    from harness.planning.trial_rules import ForeignLoad, WarmUpRule, Windows
    from harness.running.order import Scheduled
    from harness.running.run_folder import create, prepare

    registry = Registry()
    registry.register(builtin, "builtin", distribution="joule-harness", version="0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    executor = InProcessExecutor(registry)

    def run(plugin: object = None, *, store: Path | None = None, cost: bool = False, **changes: Any) -> Trial:
        if plugin is not None:
            assert registry.register(plugin, "faulty", distribution="faulty-plugin", version="1.0"), registry.broken
        values: dict[str, Any] = {
            "id": "0123456789ab", "suite": "s", "label": "a point", "workload": "spin",
            "options": {"iterations": 1000}, "backend": Choice("host"), "meters": (Choice("tdp", {"watts": 100}),),
            "trials": 1, "windows": Windows(count=1, min_seconds=0.0),
            "warm_up": WarmUpRule(max_seconds=1.0, max_iterations=0, min_iterations=0),
            "functional_units": {"operation": {"sum": "operations", "where": {}}},
            "foreign_load": ForeignLoad(at_most=1.0),  # the machine of a test run does other work too
        }  # fmt: skip
        values["meters"] = changes.pop("meters", values["meters"])
        point = Point(**{**values, **changes})
        said = Said()
        folder = create(store or tmp_path / "store", Plan([point], []), [], [], 0, name="run")
        job = prepare(folder, Scheduled(point, 0))
        executor.run(job, said.hear)
        if cost:
            cost_in_process(folder, registry=registry)
        return job.folder, said

    return run
