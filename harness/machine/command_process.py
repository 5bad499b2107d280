"""Commands as child processes: found before they start, timed with their CPU time and memory, ended with their tree."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import psutil

from harness.errors import MeasurementError
from harness.sample import now_ns
from harness.units import seconds

_GRACE_S: Final = 2.0
"""How long a process may take to end by itself after it was asked to."""
_POLL_S: Final = 0.02
"""How often it is looked whether it did."""
_SHELL: Final = "/bin/sh"


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run.

    Attributes:
        words: program and arguments; one text for the shell where there is a shell.
        shell: whether `/bin/sh -c` reads it.
        folder: where it runs.
        environment: variables set besides the present ones.
    """

    words: tuple[str, ...]
    folder: Path
    shell: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        run: str | Sequence[str],
        folder: Path,
        *,
        shell: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Command:
        """A command as a suite writes it: a text is split into words as a shell does, unless a shell reads it.

        Raises:
            ValueError: the text has an open quotation, or there is no word.
        """
        if shell:
            words = [run if isinstance(run, str) else shlex.join(run)]
        else:
            words = shlex.split(run) if isinstance(run, str) else list(run)
        if not words or not words[0].strip():
            raise ValueError("there is no command")
        return cls(tuple(words), folder, shell, dict(environment or {}))

    def __str__(self) -> str:
        return self.words[0] if self.shell else shlex.join(self.words)

    @property
    def _surroundings(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def missing(self) -> str:
        """Why it cannot be started; empty where it can. Of what a shell would run nothing is known."""
        if not self.folder.is_dir():
            return f"there is no folder {self.folder}"
        program = _SHELL if self.shell else self.words[0]
        if "/" in program:
            path = self.folder / program
            if not path.exists():
                return f"there is no program {path}"
            return "" if path.is_file() and os.access(path, os.X_OK) else f"{path} is not executable"
        if shutil.which(program, path=self._surroundings.get("PATH")) is None:
            return f"there is no command {program!r}"
        return ""

    def start(
        self,
        stdout: IO[Any] | int | None,
        stderr: IO[Any] | int | None,
        stdin: IO[Any] | int | None = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Starts it, without an input unless one is given; raises MeasurementError where the system refuses."""
        words = [_SHELL, "-c", *self.words] if self.shell else list(self.words)
        try:
            return subprocess.Popen(
                words,
                cwd=self.folder,
                env=self._surroundings,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
        except OSError as error:
            raise MeasurementError(f"cannot be started: {error.strerror or error}", where=str(self)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A command that ended.

    Attributes:
        exit_code: as a shell gives it: 128 and the signal's number where a signal ended it.
        duration_s: from before its start until its end was seen.
        cpu_s: user and system time of it and of the children that it waited for.
        peak_bytes: largest resident memory of one of these processes; None where it was no larger than that of this
            process, which the system counts in: a child is for a moment its parent (getrusage(2), exec_mmap in Linux).
    """

    exit_code: int
    duration_s: float
    cpu_s: float
    peak_bytes: int | None


def run(
    command: Command,
    stdout: IO[Any] | int | None,
    stderr: IO[Any] | int | None,
    limit_s: float | None = None,
    *,
    stdin: IO[Any] | int | None = subprocess.DEVNULL,
) -> Finished:
    """Runs a command to its end; whatever interrupts that, and a time limit, ends its process tree.

    Args:
        command: what is run.
        stdout: where its output goes, as for `subprocess`.
        stderr: likewise.
        limit_s: the longest that it may take.
        stdin: where its input comes from.

    Raises:
        MeasurementError: it cannot be started, or takes longer than the limit.
    """
    began_ns = now_ns()
    child = command.start(stdout, stderr, stdin)
    late = threading.Event()

    def end() -> None:
        late.set()
        end_tree(child, reap=False)

    timer = threading.Timer(limit_s or 0.0, end)
    if limit_s is not None:
        timer.daemon = True
        timer.start()
    try:
        _, status, usage = os.wait4(child.pid, 0)
    except BaseException:
        end_tree(child)
        raise
    finally:
        timer.cancel()
    ended_ns = now_ns()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # now, as it may have grown until the child began
    code = os.waitstatus_to_exitcode(status)
    child.returncode = code  # it was waited for here, and Popen must not do so again
    if late.is_set():
        raise MeasurementError(f"took longer than {limit_s:g} s", where=str(command))
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, else KiB
    return Finished(
        exit_code=code if code >= 0 else 128 - code,
        duration_s=seconds(ended_ns - began_ns),
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * unit if usage.ru_maxrss > own else None,
    )


def end_tree(child: subprocess.Popen[bytes], *, reap: bool = True) -> None:
    """Ends a child and its descendants: asked first, killed when they do not heed it.

    Args:
        child: root of the tree.
        reap: whether its end is waited for here; another thread does, else.
    """
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(child.pid)
        found = [*root.children(recursive=True), root]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + _GRACE_S
    while any(map(_runs, found)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    if reap:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            child.wait(timeout=_GRACE_S)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
