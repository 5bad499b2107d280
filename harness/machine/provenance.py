"""What a run was made of: revisions of the sources in use, installed distributions, suites, and the machine's load.

Of a source tree the name of its top folder is kept, never its path, its remotes or its changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from harness.machine import fingerprint
from harness.machine.installed import distributions

GIT_S: Final = 5.0
"""What git has not said after so long, of all trees together, is not known."""
_GIT: Final = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false")
"""Without writing the index, and without starting what a repository names as its file watcher."""
_STATUS: Final = ("status", "--porcelain=v2", "--branch", "--untracked-files=no")
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})


def provenance(suites: Sequence[str] = (), sources: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """What `run.json` keeps beside the plan, as JSON values.

    Args:
        suites: files of the suites.
        sources: distribution -> a file of its code, as it was imported.
    """
    used = {"joule-harness": Path(__file__), **(sources or {})}
    tops = {name: top for name, file in sorted(used.items()) if (top := _source_tree(file)) is not None}
    here = top_folder(Path.cwd())
    trees = source_trees([*([] if here is None else [here]), *tops.values()])
    return {
        "working_folder": None if here is None else trees[here],
        "sources": {
            **{name: trees[top] for name, top in tops.items()},
            **_installed_from([*used.keys() - tops.keys()]),
        },
        "suites": [suite_file(name) for name in suites],
        "distributions": distributions(),
        "host": fingerprint.environment(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def _installed_from(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The commits that installed distributions were built from, where the installer took them from a repository."""
    found = {}
    for name in sorted(names):
        try:
            said: Any = json.loads(metadata.distribution(name).read_text("direct_url.json") or "{}")
            origin = said["vcs_info"]
            found[name] = {"project": name, "revision": str(origin["commit_id"])}
        except (metadata.PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
            continue
    return found


def top_folder(folder: Path) -> Path | None:
    """The top of the git working tree that holds a folder; None where there is none."""
    try:
        whole = folder.resolve()
        return next((each for each in (whole, *whole.parents) if (each / ".git").exists()), None)
    except (OSError, RuntimeError):
        return None


def _source_tree(file: Path) -> Path | None:
    """The working tree that code was imported from; None for an installed copy, even in a tree's own environment."""
    return None if _INSTALLED & set(file.parts) else top_folder(file.parent)


def source_trees(tops: Iterable[Path], limit_s: float = GIT_S) -> dict[Path, dict[str, Any]]:
    """Revision, branch and state of each tree: one git process a tree, all at the same time.

    Args:
        tops: top folders.
        limit_s: after so long the rest is not known.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["LC_ALL"] = "C"  # a hook of git sets GIT_DIR, which would make every tree look like the hook's
    started: dict[Path, subprocess.Popen[bytes] | str] = {}
    for top in dict.fromkeys(tops):
        try:
            started[top] = subprocess.Popen(
                [*_GIT, "-C", str(top), *_STATUS],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            started[top] = f"git cannot be started: {error.strerror}"
    until = time.monotonic() + limit_s
    return {top: {"project": top.name, **_said(process, until)} for top, process in started.items()}


def _said(process: subprocess.Popen[bytes] | str, until: float) -> dict[str, Any]:
    if isinstance(process, str):
        return {"unknown": process}
    try:
        out, err = process.communicate(timeout=max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"unknown": "git took too long"}
    if process.returncode:
        first = err.decode("utf-8", "replace").strip().partition("\n")[0]
        return {"unknown": first.partition(" in repository at ")[0] or f"git ended with {process.returncode}"}
    lines = out.decode("utf-8", "replace").splitlines()
    told = {words[1]: words[2] for line in lines if len(words := line.split(" ", 2)) == 3 and words[0] == "#"}
    revision = told.get("branch.oid", "")
    if not re.fullmatch(r"[0-9a-f]{40,64}", revision):
        return {"unknown": "there is no commit yet"}
    return {
        "revision": revision,
        "branch": told.get("branch.head", ""),
        "dirty": any(not line.startswith("#") for line in lines),
    }


def suite_file(name: str) -> dict[str, str]:
    """Path and digest of a suite, as it lies there now; why there is none where it cannot be read."""
    try:
        return {"path": name, "sha256": hashlib.sha256(Path(name).read_bytes()).hexdigest()}
    except (OSError, ValueError) as error:
        return {"path": name, "unknown": f"{type(error).__name__}: cannot be read"}
