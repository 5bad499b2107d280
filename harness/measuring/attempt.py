"""What becomes of a trial: its measurement is written, or its failure told, whatever a plugin raises."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness.discovery.registry import Registry
from harness.errors import HarnessError, NotPossibleHereError, PluginError, UsageError
from harness.executor import SKIPPED, SPAWN
from harness.machine import leftovers
from harness.measuring.messenger import Messenger
from harness.measuring.trial import Trial, fetch
from harness.records.files import write_measurement
from harness.records.paths import JOB

_CORE: Final = Path(__file__).parents[1]
LIMIT_REASON: Final = 4000
"""Characters of a failure's reason."""

Load = Callable[[Mapping[str, Any]], Registry]
"""A job -> the plugins that it needs."""


def attempt(
    folder: Path, messenger: Messenger, load: Load, *, alone: bool, only_fetch: bool = False, start: str = SPAWN
) -> int:
    """Runs the trial of a folder, or fetches for it, and tells how that ended; the exit code says whether it went well.

    Args:
        folder: of the trial; holds its job.
        messenger: is told of the progress and of a failure.
        load: job -> the plugins it needs.
        alone: this process runs nothing else: signals are the trial's, and processes left running are ended.
        only_fetch: what the work needs from elsewhere is brought, and nothing is measured.
        start: how this process came to be: `spawn` or `fork`.
    """
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    messenger.send("progress", phase="start", text="", done=None)
    try:
        trial = Trial(folder, job, load(job), messenger, start=start)
        if only_fetch:
            fetch(trial)
            return 0
        if alone:
            trial.interruptions.watch_signals()
        measurement = trial.run()
        left = leftovers.end_descendants() if alone else []
        faults = [f"left {name!r} running, which was ended" for name in left]
        measurement = replace(measurement, flags=(*measurement.flags, *faults))
        write_measurement(folder, measurement)
    except MemoryError:
        messenger.send("failed", kind="failed", reason="out of memory")
        return 1
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin raises is this trial's failure
        kind = _kind(error)
        reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        messenger.send("failed", kind=kind, reason=reason[:LIMIT_REASON])
        with contextlib.suppress(OSError):  # the log may lie on the disk that is full
            _print_error(error)
        return 1
    messenger.send("done", invalid=list(measurement.invalid))
    return 0


def _kind(error: BaseException) -> str:
    """How a trial ended, for its executor: `skipped` is no failure."""
    if isinstance(error, NotPossibleHereError):
        return SKIPPED
    return "usage" if isinstance(error, UsageError) else "failed"


def _print_error(error: BaseException) -> None:
    """The traceback of a plugin's own frames where a plugin raised it; those of the harness would hide them."""
    cause = error.__cause__ if isinstance(error, PluginError) else None
    if cause is None:
        traceback.print_exception(error)
        return
    found = traceback.TracebackException.from_exception(cause)
    own = [frame for frame in found.stack if not _of_the_core(frame.filename)]
    found.stack = traceback.StackSummary.from_list(own or found.stack)
    sys.stderr.write("".join(found.format(chain=True)))


def _of_the_core(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(_CORE) and not path.is_relative_to(_CORE / "builtin")
