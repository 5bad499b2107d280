"""Loads that a meter's self-test switches on and off."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
from collections.abc import Callable
from typing import Final, Self

from harness.errors import MeasurementError

_CHILD: Final = """
import os, select
{setup}
os.write(1, b"r")
busy = False
while True:
    if select.select([0], [], [], 0 if busy else None)[0]:
        command = os.read(0, 1)
        if not command:
            break
        busy = command == b"1"
    elif busy:
        {step}
"""
"""A closed pipe ends the child, so that it never outlives the process that started it."""


class CallableLoad:
    """A load made of functions, such as those of a simulated accelerator.

    Args:
        busy: draws power from now on.
        idle: stops.
        true_joules: the energy used so far; None where it is not known.
        switch_s: how long a switch may take to have its effect.
    """

    def __init__(
        self,
        busy: Callable[[], object],
        idle: Callable[[], object],
        true_joules: Callable[[], float] | None = None,
        switch_s: float = 0.0,
    ) -> None:
        self._busy, self._idle, self._true_joules = busy, idle, true_joules
        self.switch_s = switch_s

    def busy(self) -> None:
        """Draws power from now on."""
        self._busy()

    def idle(self) -> None:
        """Stops."""
        self._idle()

    def true_joules(self) -> float | None:
        """The energy used so far, if it is known."""
        return None if self._true_joules is None else self._true_joules()


class ProcessLoad:
    """A child process that repeats a step while it is busy and sleeps otherwise. A context manager. POSIX only.

    Args:
        step: one line of Python that takes about a millisecond or less; by default it spins on one core.
        setup: Python that is run once before.
        processes: how many children.
        switch_s: how long a switch may take to have its effect.
        ready_s: how long the setup may take.

    Raises:
        MeasurementError: a child did not start.
    """

    def __init__(
        self,
        step: str = "for _ in range(10000): pass",
        setup: str = "",
        processes: int = 1,
        switch_s: float = 2e-3,
        ready_s: float = 120.0,
    ) -> None:
        self.switch_s = switch_s
        code = _CHILD.format(setup=setup, step=step)
        self._children = [
            subprocess.Popen(
                [sys.executable, "-I", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(processes)
        ]
        try:
            self._wait(ready_s)
        except MeasurementError:
            self.close()
            raise

    def _wait(self, ready_s: float) -> None:
        """Returns when every child has done its setup."""
        for child in self._children:
            assert child.stdout is not None
            if not select.select([child.stdout], [], [], ready_s)[0]:
                raise MeasurementError(f"the load was not ready after {ready_s:g} s")
            if child.stdout.read(1) != b"r":
                raise MeasurementError(f"the load's setup failed, exit code {child.wait()}")

    def _tell(self, command: bytes) -> None:
        for child in self._children:
            assert child.stdin is not None
            try:
                child.stdin.write(command)
                child.stdin.flush()
            except BrokenPipeError:
                raise MeasurementError(f"the load ended by itself, exit code {child.wait()}") from None

    def busy(self) -> None:
        """Lets the children work."""
        self._tell(b"1")

    def idle(self) -> None:
        """Lets them sleep after the step they are in."""
        self._tell(b"0")

    def true_joules(self) -> float | None:
        """Not known."""
        return None

    def close(self) -> None:
        """Ends the children. May be called twice."""
        for child in self._children:
            if child.stdin is not None and not child.stdin.closed:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdout is not None:
                child.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
