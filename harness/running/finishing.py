"""Scoring and costing at the end of a run, in child processes."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from harness.errors import HarnessError
from harness.executor import costing_command
from harness.records.paths import COSTING_LOG, MEASUREMENT
from harness.records.questions import asked_in
from harness.running.run_folder import planned_points

FULL_BYTES = 1 << 20
"""A disk with less room than this is the likely reason for whatever went wrong on it."""
_SHARE: Final = 100
"""Trials that are worth a process of their own for costing."""


def finish(folder: Path, *, again: bool = False, limit_s: float | None = None) -> str:
    """Scores and costs a run's trials in child processes; returns what went wrong, or an empty string.

    Many trials that no scorer judges are shared out among the processors; a scorer's model is loaded once.

    Args:
        folder: of the run.
        again: also those that have a record, which is replaced only by a complete new one.
        limit_s: the processes are ended after so long; what has a record then keeps it.
    """
    trials = sum(1 for _ in folder.glob(f"*/{MEASUREMENT}"))
    parts = 1 if trials < 2 * _SHARE or _scored(folder) else min(trials // _SHARE, os.cpu_count() or 1)
    flags = ["--again"] if again else []
    with (folder / COSTING_LOG).open("ab") as log:
        children = [
            subprocess.Popen(
                costing_command(folder, *flags, "--part", f"{part}/{parts}"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            for part in range(parts)
        ]
        ends = math.inf if limit_s is None else time.monotonic() + limit_s
        try:
            failed = [child.wait(None if limit_s is None else max(0.0, ends - time.monotonic())) for child in children]
        except subprocess.TimeoutExpired:
            return f"not all was costed within {limit_s:g} s; `harness run --resume` costs the rest"
        finally:
            for child in children:
                child.kill()
                child.wait()
        if not any(failed) and limit_s is None and any(asked.swept for asked in asked_in(folder)):
            failed.append(
                subprocess.call(
                    costing_command(folder, "--questions"), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            )
    full = "; the disk is full" if shutil.disk_usage(folder).free < FULL_BYTES else ""
    return f"scoring or costing failed, see {folder / COSTING_LOG}{full}" if any(failed) else ""


def _scored(folder: Path) -> bool:
    """Whether a point of a run has a scorer; True where the plan cannot be read."""
    try:
        return any(point.scorers for point in planned_points(folder))
    except HarnessError:
        return True
