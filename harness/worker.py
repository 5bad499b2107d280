"""The process of one trial: `python -m harness.worker [--fetch] FOLDER`.

With `--fetch` it measures nothing: it brings what the trial's work needs from elsewhere. FOLDER holds `job.json`.
Messages go as JSON lines to the file descriptor named by HARNESS_MESSAGES, so that whatever a plugin prints cannot
disturb them. The module's name is a protocol: executors and gates start it in other environments, with another version
of the harness.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from harness.errors import HarnessError, MeasurementError, UsageError
from harness.executor import FETCH
from harness.machine import leftovers
from harness.measuring.messenger import Messenger
from harness.measuring.trial import Trial, fetch
from harness.planning.named_offers import load_named
from harness.records.files import write_measurement
from harness.records.paths import JOB

LIMIT_REASON = 4000
"""Characters of a failure's reason."""


def watch_parent() -> None:
    """Ends this process group when the parent's end of standard input closes: no worker outlives its driver."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        leftovers.end_descendants()
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="harness-parent-watch", daemon=True).start()


def main(folder: Path, *, only_fetch: bool = False) -> int:
    """Runs the trial of a folder, or fetches for it; the exit code says whether that went well."""
    messenger = Messenger()
    leftovers.adopt_orphans()
    watch_parent()
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    messenger.send("progress", phase="start", text="", done=None)
    try:
        trial = Trial(folder, job, load_named(job), messenger)
        if only_fetch:
            fetch(trial)
            return 0
        trial.interruptions.watch_signals()
        measurement = trial.run()
        write_measurement(folder, measurement)
    except MemoryError:
        messenger.send("failed", kind="failed", reason="out of memory")
        return 1
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin raises is this trial's failure
        kind = "usage" if isinstance(error, UsageError) else "failed"
        reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        messenger.send("failed", kind=kind, reason=reason[:LIMIT_REASON])
        with contextlib.suppress(OSError):  # the log may lie on the disk that is full
            traceback.print_exc()
        return 1
    messenger.send("done", invalid=list(measurement.invalid))
    return 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    fetches = arguments[:1] == [FETCH]
    if len(arguments) != 1 + fetches:
        raise MeasurementError(f"usage: python -m harness.worker [{FETCH}] FOLDER")
    code = main(Path(arguments[-1]), only_fetch=fetches)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads and atexit handlers of plugins must not hold the next trial up
