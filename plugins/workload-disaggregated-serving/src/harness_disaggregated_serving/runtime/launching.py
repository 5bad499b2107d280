"""How a role's process is started and ended: on this machine, or wherever a launcher puts it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Protocol


class RoleProcess(Protocol):
    """A role's process."""

    def ended(self, wait_s: float = 0.0) -> str | None:
        """How it ended, `with code 1`, waiting so long for it; None while it runs."""

    def kill(self) -> None:
        """Ends it at once. May be called twice."""


class Launcher(Protocol):
    """Starts roles. A role connects to the client, and the other role to it, so both need an address."""

    def client_host(self) -> str:
        """Where the client listens, as the roles reach it."""

    def role_host(self, role: str) -> str:
        """Where a role listens, as the other one reaches it."""

    def launch(self, role: str, job: Mapping[str, Any]) -> RoleProcess:
        """Starts a role's process with its job; raises MeasurementError where it has no place."""


class LocalProcess:
    """A role as a child of this process; it ends when this process does."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "harness_disaggregated_serving.runtime.role"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(job).encode() + b"\n")
        self.popen.stdin.flush()

    def ended(self, wait_s: float = 0.0) -> str | None:
        """How it ended; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f"with code {self.popen.wait(wait_s)}"
        return None

    def kill(self) -> None:
        """Ends it at once."""
        self.popen.kill()
        self.popen.wait()
        if self.popen.stdin is not None:
            with contextlib.suppress(OSError):
                self.popen.stdin.close()


class LocalLauncher:
    """Both roles on this machine; nothing listens beyond loopback."""

    def client_host(self) -> str:
        """Loopback."""
        return "127.0.0.1"

    def role_host(self, role: str) -> str:  # noqa: ARG002 - the same for both
        """Loopback."""
        return "127.0.0.1"

    def launch(self, role: str, job: Mapping[str, Any]) -> RoleProcess:  # noqa: ARG002 - the job names it
        """A child process."""
        return LocalProcess(job)
