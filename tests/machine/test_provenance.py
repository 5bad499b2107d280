"""What a run was made of, as git and the installed distributions say."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from harness.machine import provenance as module
from harness.machine.installed import distributions
from harness.machine.provenance import provenance, source_trees, suite_file, top_folder

IDENTITY = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
}  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], env={**clean, **IDENTITY}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working tree with one commit."""
    top = tmp_path / "project"
    top.mkdir()
    git(top, "init", "--quiet", "--initial-branch=main")
    git(top, "remote", "add", "origin", "https://user:secret@host/project.git")
    (top / "kept.py").write_text("x = 1\n")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "one")
    return top


def said(top: Path, **more: Any) -> dict[str, Any]:
    return source_trees([top], **more)[top]


def test_a_tree_says_revision_branch_and_whether_it_was_changed(tree: Path) -> None:
    revision = git(tree, "rev-parse", "HEAD")
    assert said(tree) == {"project": "project", "revision": revision, "branch": "main", "dirty": False}
    (tree / "new.py").write_text("untracked")
    assert said(tree)["dirty"] is False
    (tree / "kept.py").write_text("x = 2\n")
    assert said(tree)["dirty"] is True
    git(tree, "add", "kept.py")
    assert said(tree)["dirty"] is True
    git(tree, "checkout", "--quiet", "--detach", "--force", "HEAD")
    assert said(tree)["branch"] == "(detached)"


def test_nothing_of_the_remote_and_of_the_path_is_kept(tree: Path) -> None:
    shown = json.dumps(said(tree))
    assert "secret" not in shown
    assert str(tree) not in shown


def test_a_tree_without_a_commit_and_one_that_is_damaged_are_not_known(tmp_path: Path, tree: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    assert said(empty) == {"project": "empty", "unknown": "there is no commit yet"}
    (tree / ".git" / "HEAD").write_text("nonsense")
    assert "revision" not in said(tree)
    assert said(tree)["unknown"]


def test_without_git_the_revision_is_not_known(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert said(tree)["unknown"].startswith("git cannot be started")


def test_a_git_that_does_not_answer_is_ended(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    assert said(tree, limit_s=0.05) == {"project": "project", "unknown": "git took too long"}


def test_the_repository_of_a_hook_does_not_stand_in(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    assert said(tree)["revision"] == git(tree, "rev-parse", "HEAD")


def test_a_file_watcher_that_the_repository_names_is_not_started(tree: Path, tmp_path: Path) -> None:
    script = tmp_path / "watcher"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    script.chmod(0o755)
    git(tree, "config", "core.fsmonitor", str(script))
    assert said(tree)["dirty"] is False
    assert not (tmp_path / "started").exists()


def test_a_submodule_is_a_tree_of_its_own_and_outside_of_trees_there_is_none(tree: Path, tmp_path: Path) -> None:
    inner = tree / "inner"
    (inner / "deep").mkdir(parents=True)
    (inner / ".git").write_text("gitdir: ../.git/modules/inner\n")
    assert top_folder(inner / "deep") == inner
    assert top_folder(tree) == tree
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    if top_folder(tmp_path) is None:
        assert top_folder(lonely) is None


def test_the_sources_are_those_that_were_imported(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tree / ".venv/lib/python3/site-packages/plugin.py"
    installed.parent.mkdir(parents=True)
    monkeypatch.chdir(tree)
    found = provenance([], {"mine": tree / "kept.py", "copied": installed})
    assert found["working_folder"]["project"] == "project"
    assert found["sources"]["mine"] == found["working_folder"]
    assert "copied" not in found["sources"]
    assert found["host"]["cpu"]
    assert len(found["load_average"]) == 3
    json.dumps(found, allow_nan=False)


def test_what_was_installed_from_a_repository_names_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {
        "good": json.dumps({"url": "https://u:secret@h/x", "vcs_info": {"vcs": "git", "commit_id": "abc"}}),
        "folder": json.dumps({"url": "file:///x", "dir_info": {}}),
        "bad": "{",
        "odd": "[]",
        "plain": None,
    }

    class Installed:
        def __init__(self, name: str) -> None:
            self.name = name

        def read_text(self, _file: str) -> str | None:
            return urls[self.name]

    monkeypatch.setattr(metadata, "distribution", Installed)
    assert module._installed_from(urls) == {"good": {"project": "good", "revision": "abc"}}


def test_a_suite_has_the_digest_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes(b"suite: s\n")
    assert suite_file(str(file)) == {"path": str(file), "sha256": hashlib.sha256(b"suite: s\n").hexdigest()}
    for lost in (str(tmp_path), str(tmp_path / "none"), "a\0b"):
        assert "cannot be read" in suite_file(lost)["unknown"]


def test_distributions_are_those_that_importlib_finds() -> None:
    found = distributions()
    for name in ("pytest", "pydantic", "psutil"):
        assert found[name] == metadata.version(name)


def test_folders_that_state_no_version_and_the_order_of_the_path(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in ("A_B.c-1.0.dist-info", "old-2.1-py3.11.egg-info", "source.egg-info", "bare.egg-info"):
        (first / folder).mkdir(parents=True)
    (first / "source.egg-info/PKG-INFO").write_text("Metadata-Version: 2.1\nName: source\nVersion: 7\n")
    (second / "a_b_c-9.dist-info").mkdir(parents=True)
    found = distributions([str(tmp_path / "missing"), str(first), str(second)])
    assert found == {"a-b-c": "1.0", "bare": "", "old": "2.1", "source": "7"}
