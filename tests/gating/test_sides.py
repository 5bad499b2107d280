"""A side of a gate: paths in a suite are those of its own tree."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.gating import sides
from harness.gating.sides import Side
from harness.planning.point import Choice, Point
from harness.testing import until

POINT = Point(id="a" * 12, suite="s", label="l", workload="command", backend=Choice("host"))


def planned(monkeypatch, side: Side, file: str) -> str:
    content = {"points": [replace(POINT, suite_file=file).to_json()], "skipped": []}
    monkeypatch.setattr(Side, "harness", lambda _self, *_arguments: json.dumps(content))
    return side.plan([Path(file)]).points[0].suite_file


def test_a_suite_of_the_repository_lies_in_the_worktree_of_each_side(monkeypatch):
    side = Side("base", "python", Path("/tree"), "abc", Path("/repository"))
    assert planned(monkeypatch, side, "/repository/bench/s.yaml") == "/tree/bench/s.yaml"
    assert planned(monkeypatch, side, "/elsewhere/s.yaml") == "/elsewhere/s.yaml"


def test_two_environments_share_the_suites_folder(monkeypatch):
    side = Side("base", "python", Path("/here"), "/env/python")
    assert planned(monkeypatch, side, "/here/s.yaml") == "/here/s.yaml"


def made(folder: Path) -> Path:
    """A repository with one commit."""
    folder.mkdir()
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "first"]):
        subprocess.run(["git", "-C", folder, *identity, *command], check=True)
    return folder


# A gate that is killed while it installs, or while it measures with both worktrees there.
KILLED = """\
import os, signal, sys
from pathlib import Path
from harness.gating.sides import revisions
with revisions(Path.cwd(), {"base": "HEAD"}, sys.argv[1], print):
    os.kill(os.getpid(), signal.SIGKILL)
"""
ENVIRONMENT = "{python} -m venv --without-pip --system-site-packages {environment}"
INSTALLING = "mkdir {environment}; echo $$ > ../installer; kill -9 $PPID; sleep 100"


def worktrees(repository: Path) -> list[str]:
    listed = subprocess.run(["git", "-C", repository, "worktree", "list"], capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()[1:]


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return made(tmp_path / "repository")


def killed(repository: Path, install: str) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, install],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    (folder,) = Path(os.environ["TMPDIR"]).glob("harness-gate-*")
    assert len(worktrees(repository)) == 1
    return folder


@pytest.mark.parametrize(
    ("install", "swept"),
    [(INSTALLING, False), (INSTALLING, True), pytest.param(ENVIRONMENT, False, marks=pytest.mark.slow)],
    ids=["installing", "temporary folder swept", "measuring"],
)
def test_what_a_killed_gate_left_is_removed_by_the_next_and_said(repository, install, swept):
    folder = killed(repository, install)
    installer = folder / "installer"
    pid = int(installer.read_text()) if installer.exists() else None
    if swept:
        shutil.rmtree(folder)
    told: list[str] = []
    with sides.revisions(repository, {"base": "HEAD"}, ENVIRONMENT, told.append) as made_now:
        assert not folder.exists()
        (worktree,) = worktrees(repository)
        assert worktree.startswith(str(made_now["base"].folder))
    assert f"removed what a killed gate left behind: {folder}" in told
    assert worktrees(repository) == []
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []
    if pid is not None:
        until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_a_worktree_that_git_was_killed_in_the_middle_of_is_removed(repository):
    folder = killed(repository, ENVIRONMENT)
    (state,) = (repository / ".git/worktrees").iterdir()
    (state / "locked").write_text("initializing")
    shutil.rmtree(next(folder.glob("tree-*")))
    with sides.revisions(repository, {"base": "HEAD"}, ENVIRONMENT, lambda _text: None):
        assert len(worktrees(repository)) == 1
    assert worktrees(repository) == []


def test_a_gate_beside_this_one_keeps_its_worktree(repository):
    told: list[str] = []
    with sides.revisions(repository, {"base": "HEAD"}, ENVIRONMENT, told.append) as outer:
        with sides.revisions(repository, {"base": "HEAD"}, ENVIRONMENT, told.append):
            assert len(worktrees(repository)) == 2
        assert outer["base"].folder.exists()
        assert len(worktrees(repository)) == 1
    assert not [text for text in told if "left behind" in text]
