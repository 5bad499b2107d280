"""The process of one trial: `python -m harness.worker [--fetch] FOLDER`.

With `--fetch` it measures nothing: it brings what the trial's work needs from elsewhere. FOLDER holds `job.json`.
Messages go as JSON lines to the file descriptor named by HARNESS_MESSAGES, so that whatever a plugin prints cannot
disturb them. The module's name is a protocol: executors and gates start it in other environments, with another version
of the harness.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

from harness.errors import MeasurementError
from harness.executor import FETCH
from harness.machine import leftovers
from harness.measuring.attempt import attempt
from harness.measuring.messenger import Messenger
from harness.planning.named_offers import load_named


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
    return attempt(folder, messenger, load_named, alone=True, only_fetch=only_fetch)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    fetches = arguments[:1] == [FETCH]
    if len(arguments) != 1 + fetches:
        raise MeasurementError(f"usage: python -m harness.worker [{FETCH}] FOLDER")
    code = main(Path(arguments[-1]), only_fetch=fetches)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads and atexit handlers of plugins must not hold the next trial up
