"""Keeps lm-eval, datasets and the hub's client from writing bars, notes and telemetry."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from typing import Final

_SETTINGS: Final = {
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
"""Variables that the libraries read when they are imported; one that the user has set stays."""
_LOGGERS: Final = ("lm_eval", "datasets", "evaluate", "absl")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While it lasts, nothing of lm-eval goes to standard error; its loggers tell errors only, from then on."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()):
        yield
