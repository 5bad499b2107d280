"""A stranger's path from wheels, in an empty folder: install, init, run, report, site, guard a repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
PROJECTS = [
    ROOT,
    *(file.parent for file in sorted(ROOT.glob("plugins/*/pyproject.toml"))),
    ROOT / "tests/example_plugin",
]
WORK = """\
def parse(text):
    return [int(word) for word in text.split() for _ in range({times})][::{times}]
"""
GUARD = """\
suite: guard
backend: host
meters: []
windows: {count: 1, min_seconds: 1}
warm_up: {max_seconds: 2, tolerance: 50%}
calibration: optional
cases:
  - {workload: function, name: parse, options: {call: "work.py:parse", args: ["1 2 3 4 5 6 7 8 9"]}}
gate:
  - {metric: duration_s, per: call, worse_by_at_most: 50%}
"""

pytestmark = pytest.mark.slow


class Stranger:
    """An environment of its own with our wheels; what others publish comes from the environment of the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.environment = folder / "work", folder / "venv"
        self.folder.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.environment)], check=True)
        self.python = self.environment / "bin/python"
        wheels = folder / "wheels"
        for project in PROJECTS:
            list(WheelBuilder(str(project)).build(directory=str(wheels), versions=["standard"]))
        install = ["install", "--quiet", "--no-index", "--no-deps", *map(str, sorted(wheels.glob("*.whl")))]
        subprocess.run([sys.executable, "-m", "pip", "--python", str(self.python), *install], check=True)
        (site,) = self.environment.glob("lib/python*/site-packages")
        (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    def __call__(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("GIT", "PYTHON"))}
        keep |= {"PATH": f"{self.environment / 'bin'}:{os.environ['PATH']}", "COLUMNS": "200"}
        keep |= {"XDG_CACHE_HOME": str(self.folder / ".cache"), "TMPDIR": str(self.environment)}
        done = subprocess.run(
            words, cwd=self.folder, env=keep, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode in codes, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def test_a_strangers_path(tmp_path: Path) -> None:
    stranger = Stranger(tmp_path)
    where = stranger("python", "-c", "import harness; print(harness.__file__)")
    assert where.startswith(str(stranger.environment))
    assert "written: suite.yaml" in stranger("harness", "init")
    assert "points" in stranger("harness", "plan", "suite.yaml")
    assert "Per call" in stranger("harness", "run", "suite.yaml")
    (run,) = (stranger.folder / "reports").glob("*-suite-*")
    stranger("harness", "report", str(run), "--format", "html", "--output", "report.html")
    assert "<!doctype html>" in (stranger.folder / "report.html").read_text(encoding="utf-8").lower()[:50]
    stranger("harness", "site", "public", "reports")
    assert "<h1" in (stranger.folder / "public/index.html").read_text(encoding="utf-8")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for times, message in ((1, "parse"), (30, "be thorough")):
        (stranger.folder / "work.py").write_text(WORK.format(times=times), encoding="utf-8")
        (stranger.folder / "guard.yaml").write_text(GUARD, encoding="utf-8")
        stranger("git", "init", "--quiet", "--initial-branch=main")
        stranger("git", "add", "work.py", "guard.yaml")
        stranger(*git, "commit", "--quiet", "--message", message)
    judged = stranger("harness", "gate", "guard.yaml", "--base", "HEAD~1", "--pairs", "5", codes=(1, 3))
    assert re.search("^ *regressed +guard: parse", judged, re.MULTILINE)
    assert "REGRESSED" in judged or "the machine was busy" in judged
