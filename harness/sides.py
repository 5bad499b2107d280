"""The two sides of a comparison: a revision in a worktree with an environment of its own, or an installed environment.

Worktrees and environments lie in one temporary folder and are gone when the comparison ends, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from harness.errors import ExitCode, MeasurementError, UsageError
from harness.plan import Point

BASE: Final = "base"
HEAD: Final = "head"

INSTALL: Final = "{python} -m venv {environment} && {environment}/bin/python -m pip install --quiet {worktree}"
"""How a revision is installed where nothing else is said; the environment must contain the harness afterwards."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Side:
    """One side, ready to run trials.

    Attributes:
        name: `base` or `head`.
        python: interpreter of its environment.
        folder: where its processes run: the worktree of its revision.
        revision: commit, or the path of the environment.
    """

    name: str
    python: str
    folder: Path
    revision: str

    def harness(self, *arguments: str | Path) -> str:
        """Runs this side's own `harness` command and returns its standard output.

        Raises:
            UsageError: it says that the suite or an option is wrong.
            MeasurementError: it failed otherwise.
        """
        done = subprocess.run(
            [self.python, "-m", "harness", *map(str, arguments)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode == ExitCode.OK:
            return done.stdout
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        kind = UsageError if done.returncode == ExitCode.USAGE else MeasurementError
        raise kind(f"{self.name}: {said.splitlines()[-1].removeprefix('error: ')}", where=self.revision)

    def plan(self, suite: Path) -> tuple[list[Point], dict[str, str]]:
        """Its points of a suite, and the labels of skipped ones with their reasons."""
        content = json.loads(self.harness("plan", suite.resolve(), "--json"))
        return [Point.from_json(point) for point in content["points"]], {
            f"{skipped['label']}": str(skipped["reason"]) for skipped in content["skipped"]
        }


def git(folder: Path, *arguments: str) -> str:
    """Standard output of a git command; raises UsageError with what git says."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError((done.stderr.strip() or "git failed").splitlines()[-1], where=f"git {' '.join(arguments)}")
    return done.stdout.strip()


def installed(name: str, python: str | Path) -> Side:
    """A side that is an installed environment."""
    path = shutil.which(str(python))
    if path is None:
        raise UsageError(f"there is no interpreter {python}", where=f"--{name}-python")
    return Side(name, path, Path.cwd(), path)


@contextmanager
def terminated_is_interrupted() -> Iterator[None]:
    """Makes SIGTERM end the comparison as Ctrl-C does, so that worktrees and environments are removed."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def revisions(
    repository: Path, wanted: Mapping[str, str], install: str, tell: Tell, environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Side]]:
    """Checks revisions out and installs each into an environment of its own; removes both at the end.

    Args:
        repository: a folder of a git repository.
        wanted: side -> revision; equal revisions share one worktree and environment.
        install: a shell command with {python}, {environment}, {worktree} and {revision}; it must leave an interpreter
            at {environment}/bin/python.
        tell: is told what is being done.
        environment: variables set for the install command besides the present ones.

    Raises:
        UsageError: no repository, no such revision, or a template with an unknown field.
        MeasurementError: the install command failed.
    """
    top = Path(git(repository, "rev-parse", "--show-toplevel"))
    commits = {name: git(top, "rev-parse", "--verify", f"{ref}^{{commit}}") for name, ref in wanted.items()}
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="harness-gate-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(terminated_is_interrupted())
        made: dict[str, tuple[str, Path]] = {}
        for commit in dict.fromkeys(commits.values()):
            worktree, target = folder / f"tree-{commit[:12]}", folder / f"env-{commit[:12]}"
            tell(f"checking out {commit[:12]}")
            stack.callback(_remove_worktree, top, worktree)
            git(top, "worktree", "add", "--detach", "--quiet", str(worktree), commit)
            tell(f"installing {commit[:12]}")
            _install(install, worktree, target, commit, environment or {})
            made[commit] = str(target / "bin" / "python"), worktree
        yield {name: Side(name, *made[commit], commit) for name, commit in commits.items()}


def _remove_worktree(top: Path, worktree: Path) -> None:
    with contextlib.suppress(UsageError):
        git(top, "worktree", "remove", "--force", str(worktree))
    with contextlib.suppress(UsageError):
        git(top, "worktree", "prune")


def _install(template: str, worktree: Path, environment: Path, revision: str, variables: Mapping[str, str]) -> None:
    fields = {
        "python": shlex.quote(sys.executable),
        "environment": shlex.quote(str(environment)),
        "worktree": shlex.quote(str(worktree)),
        "revision": revision,
    }
    try:
        command = template.format_map(fields)
    except (KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f"the install command does not fill in: {error}", accepted=", ".join(f"{{{name}}}" for name in fields)
        ) from None
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=worktree,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **variables},
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise MeasurementError(f"installing {revision[:12]} failed with exit code {done.returncode}:\n{tail}")
    if not (environment / "bin" / "python").exists():
        raise MeasurementError(f"the install command left no {environment / 'bin' / 'python'}")


def same_points(base: Sequence[Point], head: Sequence[Point]) -> tuple[list[tuple[Point, Point]], list[str]]:
    """Points of both sides matched by suite and label, and the labels that only one side has."""

    def by_label(points: Sequence[Point]) -> dict[tuple[str, str], Point]:
        return {(point.suite, point.label): point for point in points}

    ours, theirs = by_label(base), by_label(head)
    odd: list[Any] = sorted(ours.keys() ^ theirs.keys())
    return [(ours[key], theirs[key]) for key in ours if key in theirs], [label for _, label in odd]
