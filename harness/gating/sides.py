"""The two sides of a comparison: a revision in a worktree with an environment of its own, or an installed environment.

Worktrees and environments lie in one temporary folder and are gone when the comparison ends. What a killed comparison
could not remove, the next one of the same repository does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

import psutil

from harness.discovery.lending import lend
from harness.errors import ExitCode, MeasurementError, UsageError
from harness.executor import WORKER
from harness.planning.named_offers import Offers
from harness.planning.point import Point, canonical

BASE: Final = "base"
HEAD: Final = "head"

INSTALL: Final = (
    "{python} -m venv {environment} && if [ -e {worktree}/pyproject.toml ] || [ -e {worktree}/setup.py ]; then "
    "{environment}/bin/python -m pip install --quiet {worktree}; fi"
)
"""How a revision is installed where nothing else is said; without a package in it, its files are run where they lie."""

_PREFIX: Final = "harness-gate-"
"""Of the temporary folder of a comparison."""
_LOCK: Final = "lock"
"""File in it that a living comparison holds locked."""

_ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Tell = Callable[[str], None]


def run_whole(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; when this process is interrupted, ends it with every process that it started."""
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        out, err = process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@dataclass(frozen=True, slots=True)
class Planned:
    """What one side plans.

    Attributes:
        points: that run here.
        skipped: label -> why it does not run here.
        directions: column -> whether higher is better, as this side's plugins declare it; None where they do not.
        offers: point id -> the offers that it needs and their plugins; empty where this side's harness names none.
        provenance: what this side is made of; empty where its harness does not say.
        fetch: point id -> what its work needs from elsewhere; empty where this side's harness does not say.
    """

    points: Sequence[Point]
    skipped: Mapping[str, str] = field(default_factory=dict)
    directions: Mapping[str, bool | None] = field(default_factory=dict)
    offers: Mapping[str, Offers] = field(default_factory=dict)
    fetch: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Side:
    """One side, ready to run trials.

    Attributes:
        name: `base` or `head`.
        python: interpreter of its environment.
        folder: where its processes run: the worktree of its revision.
        revision: commit, or the path of the environment.
        top: of the repository that the worktree is of; None where there is no worktree.
    """

    name: str
    python: str
    folder: Path
    revision: str
    top: Path | None = None

    def harness(self, *arguments: str | Path) -> str:
        """Runs this side's own `harness` command and returns its standard output.

        Raises:
            UsageError: it says that the suite or an option is wrong.
            MeasurementError: it failed otherwise.
        """
        done = run_whole([self.python, "-m", "harness", *arguments], self.folder)
        if done.returncode == ExitCode.OK:
            return done.stdout
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        kind = UsageError if done.returncode == ExitCode.USAGE else MeasurementError
        raise kind(f"{self.name}: {said.splitlines()[-1].removeprefix('error: ')}", where=self.revision)

    def plan(self, suites: Sequence[Path]) -> Planned:
        """Its points of suites; raises as `harness` does."""
        content = json.loads(self.harness("plan", *(suite.resolve() for suite in suites), "--json"))
        return Planned(
            [self._in_own_tree(Point.from_json(point)) for point in content["points"]],
            {str(skipped["label"]): str(skipped["reason"]) for skipped in content["skipped"]},
            dict(content.get("directions", {})),
            dict(content.get("offers", {})),
            dict(content.get("fetch", {})),
            dict(content.get("provenance", {})),
        )

    def _in_own_tree(self, point: Point) -> Point:
        """A point whose relative paths are those of this side's worktree, not those of the tree the gate runs in."""
        file = Path(point.suite_file)
        if self.top is None or not file.is_relative_to(self.top):
            return point
        return replace(point, suite_file=str(self.folder / file.relative_to(self.top)))


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
def interrupted_once() -> Iterator[Callable[[], None]]:
    """Makes SIGTERM and SIGHUP end the work as Ctrl-C does; yields what shuts all three out while things are removed.

    A runner that cancels a job sends SIGINT and, seconds later, SIGTERM: the second may not stop the removing.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _ENDINGS}

    def shut_out() -> None:
        for number in _ENDINGS:
            signal.signal(number, signal.SIG_IGN)

    for number in _ENDINGS:
        if before[number] is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, interrupt)
    try:
        yield shut_out
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    with interrupted_once() as shut_out, ExitStack() as stack:
        _remove_leftovers(top, tell)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(os.close, _locked(folder))
        stack.callback(shut_out)
        made: dict[str, tuple[str, Path]] = {}
        for commit in dict.fromkeys(commits.values()):
            worktree, target = folder / f"tree-{commit[:12]}", folder / f"env-{commit[:12]}"
            tell(f"checking out {commit[:12]}")
            stack.callback(_remove_worktree, top, worktree, shut_out)
            git(top, "worktree", "add", "--detach", "--quiet", str(worktree), commit)
            tell(f"installing {commit[:12]}")
            _install(install, worktree, target, commit, environment or {})
            made[commit] = str(target / "bin" / "python"), worktree
        yield {name: Side(name, *made[commit], commit, top.resolve()) for name, commit in commits.items()}


def _locked(folder: Path) -> int:
    """Marks a comparison's folder as in use for as long as this process lives; a descriptor.

    The file gets its name once it is locked: whoever finds it and can lock it knows that nobody works there.
    """
    unnamed = folder / f".{_LOCK}"
    descriptor = os.open(unnamed, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unnamed.rename(folder / _LOCK)
    return descriptor


def _remove_leftovers(top: Path, tell: Tell) -> None:
    """Removes the worktrees and folders of comparisons that were killed, and says so; what is in use stays."""
    worktrees = [
        Path(line.removeprefix("worktree "))
        for line in git(top, "worktree", "list", "--porcelain").splitlines()
        if line.startswith("worktree ")
    ]
    ours: dict[Path, list[Path]] = {folder: [] for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")}
    for worktree in worktrees:
        if worktree.parent.name.startswith(_PREFIX):
            ours.setdefault(worktree.parent, []).append(worktree)
    for folder, left in ours.items():
        if not _abandoned(folder):
            continue
        _end_processes(folder)
        for worktree in left:
            with contextlib.suppress(UsageError):  # twice: also one that git was killed in the middle of making
                git(top, "worktree", "remove", "--force", "--force", str(worktree))
        shutil.rmtree(folder, ignore_errors=True)
        tell(f"removed what a killed gate left behind: {folder}")
    with contextlib.suppress(UsageError):
        git(top, "worktree", "prune")


def _end_processes(folder: Path) -> None:
    """Ends what a killed comparison's commands still do in its folder; a person's shell there stays."""
    for process in psutil.process_iter(["cwd", "terminal"]):
        if process.info["terminal"] is None and Path(process.info["cwd"] or "/").is_relative_to(folder.resolve()):
            with contextlib.suppress(psutil.Error):
                process.kill()


def _abandoned(folder: Path) -> bool:
    """Whether no living comparison uses a folder: it is gone, or this user's and its lock is free."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return not folder.exists()
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _remove_worktree(top: Path, worktree: Path, shut_out: Callable[[], None]) -> None:
    shut_out()
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
    done = run_whole(["/bin/sh", "-c", command], worktree, variables)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise MeasurementError(f"installing {revision[:12]} failed with exit code {done.returncode}:\n{tail}")
    if not (environment / "bin" / "python").exists():
        raise MeasurementError(f"the install command left no {environment / 'bin' / 'python'}")
    if _lacks_harness(environment, worktree):
        lend(environment)
        if said := _lacks_harness(environment, worktree):
            raise MeasurementError(
                f"the environment of {revision[:12]} has no working harness: {said}",
                hint="it has none of its own and the running one does not work in it; --install may add one",
            )


def _lacks_harness(environment: Path, worktree: Path) -> str:
    """Why an environment cannot run trials; empty if it can."""
    found = run_whole([environment / "bin" / "python", "-c", f"import {WORKER}"], worktree)
    return (found.stderr.strip() or f"exit code {found.returncode}").splitlines()[-1] if found.returncode else ""


def same_points(base: Sequence[Point], head: Sequence[Point]) -> tuple[list[tuple[Point, Point]], list[str]]:
    """Points of both sides matched by their place in the suite, and the labels that only one side has.

    A place is a suite, a case and the values of its matrix: a new default of a plugin's option changes a point's id
    and not its place. Labels come out unique.
    """

    def by_place(points: Sequence[Point]) -> dict[str, Point]:
        return {canonical([point.suite, point.case, dict(point.matrix)]): point for point in points}

    ours, theirs = by_place(base), by_place(head)
    often = Counter((point.suite, point.label) for point in ours.values())

    def named(point: Point) -> Point:
        unique = often[point.suite, point.label] < 2
        return point if unique else replace(point, label=f"{point.label} (case {point.case + 1})")

    odd = {**ours, **theirs}
    return (
        [(named(ours[place]), named(theirs[place])) for place in ours if place in theirs],
        [odd[place].label for place in sorted(ours.keys() ^ theirs.keys())],
    )
