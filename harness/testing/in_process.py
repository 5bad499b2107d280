"""Trials without processes of their own: for tests of what is around a trial, which run dozens of them.

What only a process can show stays with the executor `local`: limits of time and of silence, signals, what a trial
leaves running, and whatever ends an interpreter.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from harness.costing import coster
from harness.discovery.registry import Registry
from harness.executor import LOG, MEASUREMENT, SKIPPED, Executor, Job, Listener, Outcome, tail
from harness.measuring.attempt import attempt
from harness.measuring.messenger import Messenger
from harness.planning.named_offers import load_named
from harness.records.paths import COSTING_LOG


class _Direct(Messenger):
    """Hands messages to a listener of the same process."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.reason = ""
        self.skipped = False

    def send(self, message: str, /, **content: object) -> None:
        """Hands over one message."""
        if message == "failed":
            self.reason = str(content["reason"]) or message
            self.skipped = content.get("kind") == SKIPPED
        self._listener({"type": message, **content})


class InProcessExecutor(Executor):
    """Runs each trial in this process, in the thread that asks; its output goes to the trial's log as elsewhere.

    No limit ends a trial here, no device is locked, and what a trial changes in the process stays changed.

    Args:
        registry: the plugins; without it, those that a job names, as its worker would load them.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry

    def _load(self, job: Mapping[str, Any]) -> Registry:
        return self._registry or load_named(job)

    def run(self, job: Job, listener: Listener) -> Outcome:
        """Runs one trial to its end."""
        messenger = _Direct(listener)
        path = job.folder / LOG
        with (
            path.open("a", encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
            mock.patch.dict(os.environ, job.environment),
        ):
            attempt(job.folder, messenger, self._load, alone=False)
        if messenger.reason or not (job.folder / MEASUREMENT).exists():
            reason = messenger.reason or "no measurement was written"
            return Outcome(ok=False, reason=reason, log_tail=tail(path), skipped=messenger.skipped)
        return Outcome(ok=True)


def cost_in_process(run: Path, *, again: bool = False, registry: Registry | None = None) -> str:
    """Scores and costs the measured trials of a run in this process.

    Args:
        run: its folder.
        again: also those that have a record.
        registry: the plugins; without it, every installed one.

    Returns:
        What went wrong, or an empty string.
    """
    path = run / COSTING_LOG
    with (
        path.open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        failed = coster.main(run, again=again, registry=registry)
    return f"scoring or costing failed, see {path}" if failed else ""
