"""The driver's end of a fork server: starts it, and has it fork the workers of trials."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from harness.executor import FORK_PACKET_BYTES, JOB, Job, fork_server_command

_ANSWER_S: Final = 60.0
"""Importing plugins takes seconds at most; so long may the first fork take."""


class ForkServerError(Exception):
    """There is no fork server, it does not fork, or it died; another process may run the trial."""


class ForkedProcess:
    """The worker of one trial, forked by a server; used as a `Popen` is.

    Its number is its own until `wait` was called after `kill_group`: the server leaves the zombie until then.
    """

    def __init__(self, told: socket.socket, stdin: IO[bytes], pid: int) -> None:
        self.pid = pid
        self.stdin: IO[bytes] | None = stdin
        self.left: list[str] = []
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        """The exit code, a signal as a negative number; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
            ForkServerError: the server died, and the worker with it.
        """
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                said = self._told.recv(FORK_PACKET_BYTES)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("worker", timeout or 0.0) from None
            except OSError:
                said = b""
            if not said:
                raise ForkServerError("the process that forks trials died")
            content = json.loads(said)
            self.returncode, self.left = int(content["code"]), list(content["left"])
        return self.returncode

    def release(self) -> None:
        """Ends its process group and lets the server forget it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            if self.stdin is not None:
                self.stdin.close()
        self._told.close()


class ForkServer:
    """One process that has imported the plugins of a job; forks workers for all jobs with these plugins.

    Args:
        folder: of the first trial: its job names the plugins, its log takes what importing them prints.
        log: that log.
        working: the folder that the workers run in.

    Raises:
        ForkServerError: no process could be started.
    """

    def __init__(self, folder: Path, log: IO[bytes], working: Path | None) -> None:
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                fork_server_command(folder.resolve()),
                cwd=working,
                stdin=theirs.fileno(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            self._control.close()
            raise ForkServerError(f"the process that forks trials did not start: {error}") from error
        finally:
            theirs.close()

    def fork(self, job: Job, environment: Mapping[str, str], log: IO[bytes], send: int) -> ForkedProcess:
        """Has a worker forked.

        Args:
            job: of the trial.
            environment: all variables of the worker but those of its parent's that it does not change.
            log: takes what it prints.
            send: descriptor for its messages.

        Raises:
            ForkServerError: the server died, or says why it does not fork.
        """
        wanted = {**os.environ, **environment}
        request = {
            "folder": str(job.folder.resolve()),
            "set": {name: value for name, value in wanted.items() if self._environment.get(name) != value},
            "unset": sorted(self._environment.keys() - wanted.keys()),
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stdin, held = os.pipe()
        try:
            answer = self._asked(request, [stdin, log.fileno(), send, theirs.fileno()], ours, theirs)
        finally:
            os.close(stdin)
            theirs.close()
        if "pid" not in answer:
            ours.close()
            os.close(held)
            raise ForkServerError(str(answer.get("refused") or "the process that forks trials died"))
        return ForkedProcess(ours, os.fdopen(held, "wb", buffering=0), int(answer["pid"]))

    def _asked(
        self, request: Mapping[str, Any], descriptors: list[int], ours: socket.socket, theirs: socket.socket
    ) -> Mapping[str, Any]:
        """The server's answer; without content where it is gone, says nothing, or the request is too long for it."""
        try:
            with self._lock:
                socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
            theirs.close()  # the server has the only other end: when it dies, that is read as an end here
            ours.settimeout(_ANSWER_S)
            return dict(json.loads(ours.recv(FORK_PACKET_BYTES) or b"{}"))
        except OSError as error:
            return {"refused": f"the process that forks trials does not answer: {error}"}

    def close(self) -> None:
        """Ends it, and with it every worker that it forked."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def can_fork(job: Job) -> bool:
    """Whether the worker of a job may be forked here.

    Not where variables are set for it: many are read once, when an interpreter or a library starts.
    """
    return job.fork_safe and not job.environment and sys.platform == "linux"


def plugins_of(job: Job) -> str:
    """What jobs that one server can fork for share: the plugins that their trials import."""
    content = json.loads((job.folder / JOB).read_text(encoding="utf-8"))
    offers = content.get("offers")
    found = {(each["distribution"], each["plugin"]) for each in offers or () if each["in_trial"]}
    return json.dumps(sorted(found)) if offers else ""
