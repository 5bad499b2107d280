"""A stranger's repository in continuous integration: it knows nothing of the harness, and its pull requests are judged.

The runner is a shell with `harness` on its path, as the README's workflow leaves it; what the workflow downloads is not
downloaded.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from harness.testing import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))

PRICING = """\
import time


def total(prices):
    time.sleep({seconds})
    return sum(prices)
"""
BENCHMARK = """\
import time

from harness import Column, FunctionalUnit, Workload, WorkloadSpec, hookimpl
from pricing import total


class Total(Workload):
    count = 0

    def step(self, window):
        total([1.0, 2.0])
        self.count += 1
        window.item(str(self.count), orders=1.0)


@hookimpl
def harness_workloads():
    yield WorkloadSpec(
        name="total",
        summary="prices an order",
        factory=lambda options: Total(),
        columns=(Column("orders", "1", "orders priced", higher_is_better=True),),
        functional_units={"order": FunctionalUnit("orders")},
    )
"""
SUITE = """\
suite: shop
backend: {name: host}
meters: []
windows: {count: 1, min_seconds: 1}
warm_up: {max_seconds: 0.5}
calibration: optional
cases:
  - {workload: total}
gate:
  - {metric: duration_s, per: order, worse_by_at_most: 25%}
"""
# The second trial of every pair is slower, whichever side it is of: as on a machine that the first one has warmed.
WARMED = """
    def prepare(self, context):
        with open({trials!r}, "a+") as trials:
            self.second = trials.tell() % 2
            trials.write(".")

    def step(self, window):
        time.sleep({seconds} if self.second else 0)
"""
FAKE_GH = """\
import shutil, sys
if "--jq" not in sys.argv:
    shutil.copy(sys.argv[-1].removeprefix("body=@"), "comment")
"""

GATE = ("gate.yaml", "--base", "origin/main", "--pairs", "5", "--json", "gate.json", "--junit", "gate.xml")


class Runner:
    """A clone of a repository whose `origin/main` is the base of a pull request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.origin, self.clone = folder / "origin", folder / "clone"
        for name in ("origin", "bin", "tmp"):
            (folder / name).mkdir()
        ours = [path for path in sys.path if path and Path(path).is_dir()]
        self.program("harness", f"import sys\nsys.path[:0] = {ours!r}\nfrom harness.cli import main\nmain()\n")
        self.program("pip", "")
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("GIT", "PYTHON"))}
        self.environment = {
            **keep,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "TMPDIR": str(folder / "tmp"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "COLUMNS": "200",
            "GITHUB_REPOSITORY": "me/shop",
            "GITHUB_OUTPUT": str(folder / "set"),
        }
        self._git(self.origin, "init", "--quiet", "--initial-branch=main")

    def program(self, name: str, code: str) -> None:
        """Puts a program on the path."""
        program = self.folder / "bin" / name
        program.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
        program.chmod(0o755)

    def _git(self, folder: Path, *arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)

    def _commit(self, folder: Path, files: dict[str, str]) -> None:
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        self._git(folder, "add", ".")
        self._git(folder, "commit", "--quiet", "--message", "a change")

    def pull_request(self, base: dict[str, str], change: dict[str, str]) -> None:
        """Puts `base` on the main branch, and `change` on a branch of a clone."""
        self._commit(self.origin, base)
        self._git(self.folder, "clone", "--quiet", str(self.origin), str(self.clone))
        self._commit(self.clone, change)

    def step(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a step as GitHub's runner does."""
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.clone,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    def gate(self, *options: str) -> subprocess.CompletedProcess[str]:
        """The gate as a step calls it; what it found is in `gate.json`."""
        return self.step(f"harness gate {' '.join(GATE + options)}")

    def begin_gate(self) -> subprocess.Popen[str]:
        """A gate that goes on while the test does."""
        return subprocess.Popen(
            [self.folder / "bin" / "harness", "gate", *GATE],
            cwd=self.clone,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def found(self) -> Any:
        """What the last gate found."""
        return json.loads((self.clone / "gate.json").read_text(encoding="utf-8"))

    def left(self) -> list[str]:
        """What a gate must not leave behind: environments, worktrees."""
        trees = subprocess.run(
            ["git", "-C", self.clone, "worktree", "list"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        return [path.name for path in (self.folder / "tmp").glob("harness-gate-*")] + trees[1:]


def blocks(kind: str) -> list[str]:
    """The code blocks of a kind in the README's section on continuous integration."""
    section = README.partition("\n## In continuous integration\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)


def test_the_readmes_example_runs_whole_in_a_plain_repository(tmp_path: Path) -> None:
    suite, workflow = blocks("yml")
    (job,) = yaml.safe_load(workflow)["jobs"].values()
    assert job["steps"][0]["with"]["fetch-depth"] == 0
    runner = Runner(tmp_path)
    runner.pull_request({"README": "a project", "gate.yaml": suite}, {"README": "a project, changed"})
    installs, gates = (step["run"] for step in job["steps"] if "run" in step)
    assert installs.startswith("python -m pip install ")
    assert runner.step(installs.removeprefix("python -m ")).returncode == 0
    done = runner.step(gates)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(("PASS", "IMPROVED"))
    assert ET.parse(runner.clone / "gate.xml").getroot().get("failures") == "0"
    assert runner.left() == []


PLUGIN = {
    "pricing.py": PRICING.format(seconds=0.02),
    "benchmark.py": BENCHMARK,
    "shop-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: shop\nVersion: 1\n",
    "shop-1.dist-info/entry_points.txt": "[harness]\nshop = benchmark\n",
    "gate.yaml": SUITE,
}


@pytest.mark.parametrize(
    ("seconds", "code", "verdict"), [(0.02, 0, "pass"), (0.04, 1, "regressed")], ids=["unchanged", "slower"]
)
def test_a_function_that_got_slower_fails_the_build_by_name(
    tmp_path: Path, seconds: float, code: int, verdict: str
) -> None:
    runner = Runner(tmp_path)
    runner.pull_request(PLUGIN, {"pricing.py": PRICING.format(seconds=seconds), "notes": "what changed"})
    gate, comment = (step["run"] for step in ACTION["runs"]["steps"])
    runner.program("gh", FAKE_GH)
    done = runner.step(
        gate,
        SUITES="gate.yaml",
        BASE="origin/main",
        HEAD=ACTION["inputs"]["head"]["default"],
        PAIRS="12",
        BUDGET="",
        INSTALL="",
        STORE=ACTION["inputs"]["store"]["default"],
        ALLOW_INCONCLUSIVE="false",
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert f"verdict={verdict}\n" in (tmp_path / "set").read_text()
    assert json.loads((runner.clone / "reports/gate.json").read_text())["verdict"] == verdict
    (case, *_) = ET.parse(runner.clone / "reports/gate.xml").getroot().findall("testcase")
    assert "total" in str(case.get("name"))
    assert (case.find("failure") is not None) == (code == 1)
    said = runner.step(comment, SUITES="gate.yaml", STORE="reports", GH_TOKEN="t", PULL_REQUEST="7")
    assert (said.returncode, said.stdout) == (0, ""), said.stdout + said.stderr
    written = (runner.clone / "comment").read_text()
    assert written.startswith("<!-- joule-harness gate: gate.yaml -->\n## Gate: ")
    assert f"| {verdict} | total" in written or f"| {verdict} | shop" in written
    assert runner.left() == []


@pytest.mark.parametrize(
    ("slower_s", "pairs", "codes", "said"),
    [(0.002, 5, {0, 4}, ""), (0.015, 12, {3}, "the second trial of a pair differs from the first by")],
    ids=["by less than is allowed", "by more"],
)
def test_a_slower_second_trial_is_no_regression(
    tmp_path: Path, slower_s: float, pairs: int, codes: set[int], said: str
) -> None:
    warmed = WARMED.format(trials=str(tmp_path / "trials"), seconds=slower_s)
    runner = Runner(tmp_path)
    benchmark = BENCHMARK.replace("\n    def step(self, window):\n", warmed)
    runner.pull_request({**PLUGIN, "benchmark.py": benchmark}, {"notes": "what changed"})
    # of another seed, there might be too few pairs of one order
    done = runner.gate("--pairs", str(pairs), "--seed", "1")
    found = runner.found()
    assert done.returncode in codes, done.stdout + done.stderr
    assert said in str(found["reason"])
    assert ET.parse(runner.clone / "gate.xml").getroot().get("failures") == "0"
    (total,) = found["cells"]
    assert total["order_effect"]["estimate"] == pytest.approx(slower_s / 0.02, rel=0.3)


def test_a_busy_machine_is_no_regression(tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    runner.pull_request(PLUGIN, {"notes": "what changed"})
    with ExitStack() as stack:
        for _ in range(1 + (os.cpu_count() or 1)):
            loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(loop.wait)
            stack.callback(loop.kill)
        done = runner.gate()
    found = runner.found()
    assert done.returncode in {0, 3, 4}, done.stdout + done.stderr
    assert ET.parse(runner.clone / "gate.xml").getroot().get("failures") == "0"
    if done.returncode:
        assert found["reason"] or all(cell["reason"] for cell in found["cells"] if cell["verdict"] != "pass"), found
    assert runner.left() == []


def test_a_runner_that_was_killed_does_not_harm_the_next(tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    runner.pull_request(PLUGIN, {"notes": "what changed"})
    killed = runner.begin_gate()
    try:
        until(lambda: list(runner.clone.glob("reports/*/head/*/measurement.json")))
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    left = runner.left()
    assert len(left) == 1 + 2, "a folder and two worktrees"
    done = runner.gate()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"removed what a killed gate left behind: {tmp_path / 'tmp' / left[0]}" in done.stdout + done.stderr
    assert runner.left() == []
    checked = runner.step("harness store check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
