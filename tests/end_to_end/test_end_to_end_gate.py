"""`harness gate` as a user runs it: revisions of a repository, environments of their own, real worker processes.

The workload sleeps: its time is what it was told, whatever else the machine does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import pytest

from harness.testing import until

pytestmark = pytest.mark.slow

PLUGIN = """\
import time

from harness import Column, FunctionalUnit, Options, Workload, WorkloadSpec, hookimpl


class NapOptions(Options):
    kind: str = "short"


class Nap(Workload):
    def __init__(self, options):
        self.kind, self.count = options.kind, 0

    def prepare(self, context):
        pass

    def step(self, window):
        {step}
        self.count += 1
        window.item(str(self.count), naps=1.0)


@hookimpl
def harness_workloads():
    yield WorkloadSpec(
        name="nap",
        summary="sleeps",
        factory=Nap,
        columns=(Column("naps", "1", "naps taken", higher_is_better=True),),
        functional_units={{"nap": FunctionalUnit("naps")}},
        options=NapOptions,
    )
"""
NORMAL = "time.sleep(0.02)"
SLOW = 'time.sleep(0.032 if self.kind == "long" else 0.02)'
CRASH = 'raise RuntimeError("this revision is broken")'

# A shell starts its background jobs with SIGINT ignored; so would a gate be that is started by tests that are one.
HEEDS_CTRL_C = """\
import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
from harness.cli import main

main()
"""

SUITE = """\
suite: naps
backend: {{name: host}}
meters: []
trials: 1
windows: {{count: 1, min_seconds: {seconds}}}
warm_up: {{max_seconds: 1}}
calibration: optional
cases:
  - workload: nap
    matrix: {{kind: [{kinds}]}}
gate:
  - {{metric: {metric}, per: nap, worse_by_at_most: {tolerance}}}
"""

# An environment in a second, without the network: the revision, then what this interpreter finds.
INSTALL = (
    "{python} -m venv --without-pip {environment} && for site in {environment}/lib/python*/site-packages; "
    "do (echo {worktree}; cat paths) > $site/paths.pth; done"
)


class Repository:
    """A repository with a small workload plugin, revisions `base`, `head` (60 % slower) and `broken`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.store = folder / "store"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.folder.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "GITHUB_"))},
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "COLUMNS": "200",
        }
        self.git("init", "--quiet", "--initial-branch=main")
        packaged = self.folder / "nap-1.dist-info"
        packaged.mkdir()
        (packaged / "METADATA").write_text("Metadata-Version: 2.1\nName: nap\nVersion: 1\n", encoding="utf-8")
        (packaged / "entry_points.txt").write_text("[harness]\nnap = nap_plugin\n", encoding="utf-8")
        ours = [path for path in sys.path if path and Path(path).is_dir()]
        (self.folder / "paths").write_text("\n".join(ours) + "\n", encoding="utf-8")
        for name, step in (("base", NORMAL), ("broken", CRASH), ("head", SLOW)):
            (self.folder / "nap_plugin.py").write_text(PLUGIN.format(step=step), encoding="utf-8")
            self.git("add", ".")
            self.git("commit", "--quiet", "--message", name)
            self.git("tag", name)

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", "-C", self.folder, *identity, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout

    def suite(self, **changes: object) -> Path:
        values = {
            "kinds": "short",
            "tolerance": "25%",
            "seconds": 1,
            "metric": "duration_s",
            **changes,
        }
        path = self.folder.parent / "naps.yaml"
        path.write_text(SUITE.format(**values), encoding="utf-8")
        return path

    def command(self, *arguments: object) -> list[str]:
        return [
            *(sys.executable, "-m", "harness", "gate", str(arguments[0]), "--store", str(self.store)),
            *("--install", INSTALL, *map(str, arguments[1:])),
        ]

    def gate(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def leftovers(self) -> list[str]:
        """What a gate must not leave: worktrees, and environments in the temporary folder."""
        worktrees = self.git("worktree", "list", "--porcelain").count("worktree ") - 1
        return [f"{worktrees} worktrees"] * bool(worktrees) + [
            path.name for path in self.temporary.glob("harness-gate*")
        ]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    made = Repository(tmp_path)
    yield made
    assert made.leftovers() == []
    # a worker whose parent is gone ends by itself, a moment later
    until(lambda: not [each for each in psutil.process_iter(["cmdline"]) if about(each, tmp_path)])


def about(process: psutil.Process, folder: Path) -> bool:
    return str(folder) in " ".join(process.info["cmdline"] or ())


def test_a_slowdown_fails_the_build_and_names_the_case(repository: Repository, tmp_path: Path) -> None:
    repository.environment["GITHUB_STEP_SUMMARY"] = str(tmp_path / "step.md")
    done = repository.gate(
        repository.suite(kinds="short, long"),
        *("--base", "base", "--head", "head", "--pairs", 6),
        *("--json", tmp_path / "out/gate.json", "--junit", tmp_path / "gate.xml", "--summary", tmp_path / "gate.md"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads((tmp_path / "out/gate.json").read_text())
    verdicts = {cell["name"]: cell["verdict"] for cell in found["cells"]}
    assert verdicts == {
        "naps: nap · kind=short: duration_s per nap": "pass",
        "naps: nap · kind=long: duration_s per nap": "regressed",
    }
    (slow,) = [cell for cell in found["cells"] if cell["verdict"] == "regressed"]
    assert 0.25 < slow["low"] <= slow["estimate"] == pytest.approx(0.6, abs=0.1)
    assert "REGRESSED" in done.stdout
    (failure,) = ET.fromstring((tmp_path / "gate.xml").read_text()).iter("failure")
    assert failure.get("type") == "regressed"
    assert (tmp_path / "gate.md").read_text() == (tmp_path / "step.md").read_text()
    assert "| regressed | naps: nap · kind=long" in (tmp_path / "gate.md").read_text()


def test_the_same_revision_passes_a_wide_tolerance(repository: Repository) -> None:
    done = repository.gate(repository.suite(), "--base", "base", "--head", "base", "--pairs", 5)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout


def test_the_same_revision_never_fails_a_narrow_tolerance(repository: Repository) -> None:
    done = repository.gate(repository.suite(tolerance="5%"), "--base", "base", "--head", "base", "--pairs", 5)
    assert done.returncode in {0, 3, 4}, done.stdout + done.stderr


def test_a_head_that_crashes_could_not_be_measured(repository: Repository) -> None:
    done = repository.gate(repository.suite(), "--base", "base", "--head", "broken", "--pairs", 5)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "this revision is broken" in done.stdout
    assert "INVALID" in done.stdout


def test_a_budget_that_ends_undecided_is_inconclusive(repository: Repository) -> None:
    done = repository.gate(repository.suite(), "--base", "base", "--head", "base", "--budget", 0.01)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "INCONCLUSIVE" in done.stdout


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, ("--base", "base", "--pairs", 4), "at least 5"),
        ({"kinds": "short, long"}, ("--base", "base", "--pairs", 5), "at least 6"),
        ({}, ("--base", "nowhere"), "nowhere"),
        ({}, (), "--base REF"),
        ({"metric": "durations_s", "seconds": 0.1}, ("--base", "base", "--pairs", 5), "did you mean 'duration_s'?"),
    ],
)
def test_what_could_decide_nothing_is_a_usage_error(
    repository: Repository, changes: dict[str, object], arguments: tuple[object, ...], said: str
) -> None:
    done = repository.gate(repository.suite(**changes), *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_short_windows_are_not_gated(repository: Repository) -> None:
    done = repository.gate(repository.suite(seconds=0.1), "--base", "base", "--head", "base", "--pairs", 5)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "too short to gate time" in done.stdout
    assert "a time takes 1 s and 20 iterations" in done.stdout


def test_an_environment_in_which_no_harness_works_is_told(repository: Repository) -> None:
    command = repository.command(repository.suite(), "--base", "base", "--head", "base")
    broken = "echo 'raise ImportError(\"too old\")' > $(echo {environment}/lib/python*/site-packages)/pydantic.py"
    command[command.index("--install") + 1] = f"{{python}} -m venv --without-pip {{environment}} && {broken}"
    done = subprocess.run(
        command,
        cwd=repository.folder,
        env=repository.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "has no working harness: ImportError: too old" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("during", ["installing", "measuring"])
def test_nothing_is_left_after_an_interruption(repository: Repository, number: signal.Signals, during: str) -> None:
    command = repository.command(repository.suite(), "--base", "base", "--head", "head", "--pairs", 5)
    if during == "installing":
        command[command.index("--install") + 1] = "mkdir {environment} && sleep 100"
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDS_CTRL_C, *command[3:]],
        cwd=repository.folder,
        env=repository.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    folder, pattern = (
        (repository.temporary, "harness-gate*/env-*")
        if during == "installing"
        else (repository.store, "*/base/*/job.json")
    )
    try:
        until(lambda: list(folder.glob(pattern)))
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, output
