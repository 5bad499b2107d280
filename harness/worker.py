"""The process of one trial: `python -m harness.worker [--fetch | --forks] FOLDER`.

With `--fetch` it measures nothing: it brings what the trial's work needs from elsewhere. FOLDER holds `job.json`. With
`--forks` it imports the plugins which that job names, and then forks a process for each trial that it is told of.
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
from pathlib import Path

from harness.errors import MeasurementError
from harness.executor import FETCH, FORK, FORKS, SPAWN
from harness.machine import leftovers
from harness.measuring import fork_server
from harness.measuring.attempt import attempt
from harness.measuring.messenger import Messenger
from harness.measuring.trial import Trial
from harness.planning.named_offers import load_named
from harness.records.paths import JOB


def watch_parent() -> None:
    """Ends this process group when the parent's end of standard input closes: no worker outlives its driver."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        leftovers.end_descendants()
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="harness-parent-watch", daemon=True).start()


def main(folder: Path, *, only_fetch: bool = False, start: str = SPAWN) -> int:
    """Runs the trial of a folder, or fetches for it; the exit code says whether that went well."""
    messenger = Messenger()
    leftovers.adopt_orphans()
    watch_parent()
    return attempt(folder, messenger, load_named, alone=True, only_fetch=only_fetch, start=start)


def fork_trials(folder: Path) -> int:
    """Imports what the job of a folder names and forks trials until the driver is gone."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    trial = Trial(folder, job, load_named(job), Messenger())
    trial.make()
    fork_server.serve(lambda each: main(each, start=FORK))
    return 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    mode = arguments[0] if arguments[:1] in ([FETCH], [FORKS]) else ""
    if len(arguments) != 1 + bool(mode):
        raise MeasurementError(f"usage: python -m harness.worker [{FETCH} | {FORKS}] FOLDER")
    asked = Path(arguments[-1])
    code = fork_trials(asked) if mode == FORKS else main(asked, only_fetch=mode == FETCH)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads and atexit handlers of plugins must not hold the next trial up
