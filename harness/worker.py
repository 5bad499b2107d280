"""The process of one trial: `python -m harness.worker FOLDER`.

FOLDER holds `job.json`. Messages go as JSON lines to the file descriptor named by HARNESS_MESSAGES, so that whatever a
plugin prints cannot disturb them. The module's name is a protocol: executors and gates start it in other environments,
with another version of the harness.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

from harness.errors import MeasurementError
from harness.machine import leftovers
from harness.measuring.messenger import Messenger
from harness.measuring.trial import attempt
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


def main(folder: Path) -> int:
    """Runs the trial of a folder; the exit code says whether `measurement.json` was written."""
    messenger = Messenger()
    leftovers.adopt_orphans()
    watch_parent()
    return attempt(folder, messenger, load_named, alone=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise MeasurementError("usage: python -m harness.worker FOLDER")
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads and atexit handlers of plugins must not hold the next trial up
