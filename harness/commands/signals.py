"""How a command ends that is told to: SIGTERM and SIGHUP as Ctrl-C, and whatever comes second at once."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Final

ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal, a scheduler or a runner sends to end a command."""
KILLED_BY: Final = 128
"""Exit codes above it name the signal: 130, 143 and 129."""
_SHOW_CURSOR: Final = b"\x1b[?25h"
"""A progress bar hides it."""


def heed_signals() -> None:
    """Makes the first signal a KeyboardInterrupt, and the second end the process; one that is ignored stays ignored.

    Workers notice that this process is gone and end themselves; a trial that was under way is measured again.
    """
    heard: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1:
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)
            os._exit(KILLED_BY + number)
        raise KeyboardInterrupt

    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, interrupt)
