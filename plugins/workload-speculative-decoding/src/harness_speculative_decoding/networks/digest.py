"""Identity of a model's files: sha256 of its configuration and weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
"""Weight files that `from_pretrained` reads, in the order in which it looks for them."""
WHOLE_BELOW_BYTES = 8 * 2**30
"""Larger weights are identified by their first MiB (a safetensors header) and size: reading them takes minutes."""
_HEAD = 2**20


def weight_files(folder: Path) -> list[Path]:
    """Weight files of a saved model, sorted by name; empty where it has none."""
    for pattern in WEIGHTS:
        found = sorted(folder.glob(pattern))
        if found:
            return found
    return []


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(folder: Path) -> dict[str, str]:
    """sha256 over `config.json` and the weights, and whether it covers the weights whole or by header and size."""
    weights = weight_files(folder)
    whole = sum(path.stat().st_size for path in weights) < WHOLE_BELOW_BYTES
    parts = [
        f"{path.name} {file_digest(path) if whole else _head(path)}" for path in (folder / "config.json", *weights)
    ]
    return {"sha256": _sha256(parts), "covers": "config and weights" if whole else "config, weight headers and sizes"}


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.stat().st_size} {hashlib.sha256(file.read(_HEAD)).hexdigest()}"


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
