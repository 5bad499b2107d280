"""How GGUF files are named where a model is asked for, and what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.errors import MeasurementError

PREFIX: Final = "gguf_file:"
"""In front of the path of a GGUF file, where a model is named."""
INSTALL: Final = "pip install 'joule-harness-workload-speculative-decoding[gguf]'"


def is_gguf(source: str) -> bool:
    """Whether the name of a model is the path of a GGUF file."""
    return source.startswith(PREFIX) or source.lower().endswith(".gguf")


def gguf_path(source: str) -> Path:
    """The file that a name stands for; raises MeasurementError where it is not there."""
    path = Path(source.removeprefix(PREFIX)).expanduser()
    if not path.is_file():
        raise MeasurementError(f"there is no GGUF file {path}", accepted=f"{PREFIX}/path/to/model.gguf")
    return path
