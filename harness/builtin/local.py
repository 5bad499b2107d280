"""The executor `local`: one worker process after another on this machine, one at a time per device.

Each is a fresh process, unless the option `start` and the plugins of a trial allow that it is forked.

Executors whose trials run elsewhere use it there: it locks the devices, passes messages on and ends the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Final, Literal

from pydantic import Field, PositiveInt

from harness.builtin.forking import ForkedProcess, ForkServer, ForkServerError, can_fork, plugins_of
from harness.executor import (
    FORK,
    JOB,
    LOCKS,
    LOG,
    MEASUREMENT,
    MESSAGES,
    SKIPPED,
    SPAWN,
    Executor,
    ExecutorSpec,
    Job,
    Listener,
    Outcome,
    fetch_command,
    tail,
    worker_command,
)
from harness.machine.device_locks import device_locks
from harness.machine.leftovers import MARK, end_of_trial, kernel_kills
from harness.options import Duration, Options

LOG_LIMIT_BYTES: Final = 16 * 2**20
"""A worker that writes more into its log is ended: it would fill the disk."""
MESSAGE_LIMIT_BYTES: Final = 2**20
Start = Literal["auto", "fork", "spawn"]
"""Which workers are forked, see `LocalOptions`."""
Process = subprocess.Popen[bytes] | ForkedProcess
"""A worker that runs."""
_GRACE_S: Final = 3.0
_POLL_S: Final = 0.5


Starter = Callable[[IO[bytes], int], Process | None]
"""Starts a worker that prints into a log and sends to a descriptor; None where the executor was closed."""


class _Turns:
    """Lets trials that measure a device run alone, and the others side by side."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._running = 0
        self._waiting_alone = 0

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        with self._free:
            self._waiting_alone += alone
            self._free.wait_for(lambda: not self._running if alone else self._running >= 0 and not self._waiting_alone)
            self._waiting_alone -= alone
            self._running = -1 if alone else self._running + 1
        try:
            yield
        finally:
            with self._free:
                self._running = 0 if alone else self._running - 1
                self._free.notify_all()


class LocalExecutor(Executor):
    """Starts each worker in a process group of its own and ends the whole group when it must.

    Args:
        python: the interpreter that the worker runs on; this one unless another environment is to be measured.
        working: the folder it runs in; this process's own by default.
        jobs: how many trials that measure no device run side by side; one that does always runs alone.
        wait_s: how long a trial waits for a device that another run holds; without end if None.
        start: which workers are forked, see `LocalOptions`; none unless asked for. What judges a difference never
            asks: all that is forked from one process shares its memory layout and hash seed.
    """

    def __init__(
        self,
        python: str = sys.executable,
        working: Path | None = None,
        jobs: int = 1,
        wait_s: float | None = None,
        start: Start = "spawn",
    ) -> None:
        self._start_of = start
        self._servers: dict[str, ForkServer] = {}
        self._forks = start != SPAWN and python == sys.executable
        self._python = python
        self._working = working
        self._jobs = jobs
        self._wait_s = wait_s
        self._fetching = threading.Lock()
        self._fetched: set[str] = set()
        self._turns = _Turns()
        self._lock = threading.Lock()
        self._processes: set[Process] = set()
        self._closed = False

    @property
    def at_once(self) -> int:
        """As many as were asked for."""
        return self._jobs

    def run(self, job: Job, listener: Listener) -> Outcome:
        """Runs one trial to its end; what it needs from elsewhere is brought before its devices are locked.

        Raises:
            DeviceHeldError: another run held a device for as long as this one would wait.
        """
        with self._turns.turn(alone=job.measured):
            fetched = self._fetch(job, listener)
            if not fetched.ok:
                return fetched
            with device_locks(job.devices if job.measured else (), listener, self._wait_s) as locks:
                environment = {LOCKS: json.dumps({**locks, "wait_s": self._wait_s})}
                outcome = self._forked(job, listener, environment) if self._may_fork(job) else None
                if outcome is None:
                    command = worker_command(job.folder.resolve(), self._python)
                    outcome = self._run(job, listener, command, environment)
        if outcome.ok and not (job.folder / MEASUREMENT).exists():
            return Outcome(ok=False, reason="the worker wrote no measurement", log_tail=tail(job.folder / LOG))
        return outcome

    def _fetch(self, job: Job, listener: Listener) -> Outcome:
        """Brings what the trial's work needs from elsewhere, once for all trials that need the same."""
        needed = fetched_by(job.folder)
        with self._fetching:
            if not needed or needed in self._fetched:
                return Outcome(ok=True)
            command = fetch_command(job.folder.resolve(), self._python)
            outcome = self._run(job, listener, command, {})
            if outcome.ok:
                self._fetched.add(needed)
            return outcome

    def _may_fork(self, job: Job) -> bool:
        return self._forks and can_fork(job) and (self._start_of == FORK or not job.measured)

    def _forked(self, job: Job, listener: Listener, environment: Mapping[str, str]) -> Outcome | None:
        """Runs a trial in a forked process; None, and a note, where that cannot be done: then a fresh one is due."""
        try:
            return self._watched(job, listener, lambda log, send: self._fork(job, environment, log, send))
        except ForkServerError as error:
            self._forks = False
            end_of_trial(0, str(job.folder.resolve()))
            (job.folder / MEASUREMENT).unlink(missing_ok=True)
            listener({"type": "note", "text": f"{error}; this and all later trials start in fresh processes"})
            return None

    def _fork(self, job: Job, environment: Mapping[str, str], log: IO[bytes], send: int) -> ForkedProcess | None:
        plugins = plugins_of(job)
        with self._lock:
            if self._closed:
                return None
            if plugins not in self._servers:
                self._servers[plugins] = ForkServer(job.folder, log, self._working)
            process = self._servers[plugins].fork(job, self._variables(job, environment), log, send)
            self._processes.add(process)
            return process

    def _run(self, job: Job, listener: Listener, command: list[str], environment: Mapping[str, str]) -> Outcome:
        return self._watched(job, listener, lambda log, send: self._start(job, command, environment, log, send))

    def _watched(self, job: Job, listener: Listener, start: Starter) -> Outcome:
        log_path = job.folder / LOG
        receive, send = os.pipe()
        kills = kernel_kills()
        with log_path.open("ab") as log, os.fdopen(receive, "rb", buffering=0) as pipe:
            try:
                process = start(log, send)
            finally:
                os.close(send)
            if process is None:
                return Outcome(ok=False, reason="the executor was closed")
            kinds: set[object] = set()

            def told(message: Mapping[str, object]) -> None:
                kinds.update([message.get("kind")] if message.get("type") == "failed" else ())
                listener(message)

            try:
                reason = self._listen(process, pipe, job, told, log_path)
                if reason:
                    reason += _aftermath(process, str(job.folder.resolve()), kills)
            finally:
                self._end(process)
        if not reason:
            return Outcome(ok=True)
        return Outcome(ok=False, reason=reason, log_tail=tail(log_path), skipped=SKIPPED in kinds)

    def _variables(self, job: Job, environment: Mapping[str, str]) -> dict[str, str]:
        return {**job.environment, **environment, MARK: str(job.folder.resolve()), "PYTHONUNBUFFERED": "1"}

    def _start(
        self, job: Job, command: list[str], environment: Mapping[str, str], log: IO[bytes], send: int
    ) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._closed:
                return None
            process = subprocess.Popen(
                command,
                cwd=self._working,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(send,),
                env={**os.environ, **self._variables(job, environment), MESSAGES: str(send)},
                start_new_session=True,
            )
            self._processes.add(process)
            return process

    def _listen(
        self,
        process: Process,
        pipe: object,
        job: Job,
        listener: Listener,
        log_path: Path,
    ) -> str:
        """Passes messages on until the worker is gone; returns why the trial failed, or an empty string."""
        started = heard = time.monotonic()
        buffered = b""
        failure = ""
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)  # type: ignore[arg-type]
            while True:
                if selector.select(_POLL_S):
                    chunk = pipe.read(65_536)  # type: ignore[attr-defined]
                    if not chunk:
                        break
                    heard = time.monotonic()
                    *lines, buffered = (buffered + chunk).split(b"\n")
                    for line in lines:
                        failure = _pass_on(line, listener) or failure
                elif process.poll() is not None:
                    break  # a child of the worker may hold the pipe open; the worker itself is gone
                now = time.monotonic()
                if now - started > job.timeout_s:
                    return f"the trial took longer than its limit of {job.timeout_s:g} s"
                if now - heard > job.silence_s:
                    return f"the worker was silent for {job.silence_s:g} s"
                if flooded := _flooded(log_path, buffered):
                    return flooded
        try:
            code = process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            return "the worker closed its messages and did not end"
        if failure:
            return failure
        if code < 0:
            return f"the worker was killed by {signal.Signals(-code).name}"
        return f"the worker ended with exit code {code}" if code else ""

    def close(self) -> None:
        """Ends every worker and all processes of their groups, and lets none start afterwards."""
        with self._lock:
            self._closed = True
            running = list(self._processes)
            servers = list(self._servers.values())
            self._servers.clear()
        for process in running:
            self._end(process)
        for server in servers:
            server.close()

    def _end(self, process: Process) -> None:
        """Ends a worker and every process of its group."""
        if isinstance(process, ForkedProcess):
            process.release()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(BrokenPipeError, OSError):
                if process.stdin is not None:
                    process.stdin.close()
            process.wait()
        with self._lock:
            self._processes.discard(process)


def fetched_by(trial: Path) -> str:
    """What stands for all that a trial's work needs from elsewhere, by its job; empty where that names nothing."""
    try:
        content = json.loads((trial / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(content.get("fetch") or "") if isinstance(content, Mapping) else ""


def _flooded(log_path: Path, buffered: bytes) -> str:
    """What of a worker grew too long; an empty string if nothing did."""
    if log_path.stat().st_size > LOG_LIMIT_BYTES:
        return f"the worker wrote more than {LOG_LIMIT_BYTES // 2**20} MiB into its log"
    if len(buffered) > MESSAGE_LIMIT_BYTES:
        return f"the worker sent a message of more than {MESSAGE_LIMIT_BYTES // 2**20} MiB"
    return ""


def _aftermath(worker: Process, mark: str, kills: int) -> str:
    """Ends what a failed worker left running, and says so; says when the kernel was short of memory."""
    left = [*end_of_trial(worker.pid, mark), *(worker.left if isinstance(worker, ForkedProcess) else ())]
    said = f"; it left {', '.join(sorted(set(left)))} running, which was ended" if left else ""
    return said + ("; the kernel ended a process for want of memory meanwhile" if kernel_kills() > kills else "")


def _pass_on(line: bytes, listener: Listener) -> str:
    """Hands a message to the listener; returns the reason if it says that the trial failed."""
    try:
        message = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(message, Mapping):
        return ""
    listener(message)
    return str(message.get("reason") or "failed") if message.get("type") == "failed" else ""


class LocalOptions(Options):
    """Options of the executor `local`.

    Attributes:
        jobs: trials that run side by side where the workload only models its hardware; measured ones run alone.
        wait: how long a trial waits for a device that another run holds, then the run gives up; without end if not set.
        start: `spawn` starts a fresh process for each trial; `auto` forks those of modelled work, and `fork` also those
            that measure time alone (`meters: []`), where workload, backend and meters say that they are `fork_safe`.
            Forked trials start sooner and share one hash seed and memory layout, so they are no independent draws.
    """

    jobs: PositiveInt = 1
    wait: Annotated[Duration, Field(ge=0)] | None = None
    start: Start = "auto"


EXECUTOR = ExecutorSpec(
    name="local",
    summary="one worker process after another on this machine",
    factory=lambda options: LocalExecutor(jobs=options.jobs, wait_s=options.wait, start=options.start),
    options=LocalOptions,
)
