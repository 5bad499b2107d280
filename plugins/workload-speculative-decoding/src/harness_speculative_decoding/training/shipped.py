"""The built-in models that come with the package, trained by the same recipes: nobody trains before the first table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.errors import MeasurementError
from harness_speculative_decoding.networks.digest import file_digest
from harness_speculative_decoding.training.recipes import PREFIX

FOLDER: Final = Path(__file__).parents[1] / "models"
FACTS: Final = "recipe.json"
FILES: Final = "files_sha256"
"""Key of `recipe.json`: name -> sha256 of every other file of the model."""

_AGAIN: Final = "install joule-harness-workload-speculative-decoding again: pip install --force-reinstall --no-deps ..."


def shipped(name: str, folder: Path = FOLDER) -> Path | None:
    """The folder of a built-in model that comes with the package, its files checked; None where it must be trained.

    Args:
        name: what a suite writes after `builtin:`.
        folder: that holds the models, a folder each.

    Raises:
        MeasurementError: a file is missing or is not the one that was trained.
    """
    model = folder / name
    if not model.is_dir():
        return None
    try:
        recorded: Mapping[str, str] = json.loads((model / FACTS).read_text(encoding="utf-8"))[FILES]
        expected = dict(recorded)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(name, model / FACTS, f"{type(error).__name__}: {error}") from None
    for file, digest in expected.items():
        try:
            found = file_digest(model / file)
        except OSError as error:
            raise _damaged(name, model / file, error.strerror or str(error)) from None
        if found != digest:
            raise _damaged(name, model / file, f"sha256 {found}; {FACTS} says {digest}")
    return model


def digests(model: Path) -> dict[str, str]:
    """Name -> sha256 of each file of a model but `recipe.json`, sorted by name."""
    return {path.name: file_digest(path) for path in sorted(model.iterdir()) if path.name != FACTS}


def facts_of(folder: Path) -> dict[str, Any] | None:
    """What is recorded of a finished model; None where it is absent or its files are not the ones recorded."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return facts if facts[FILES] == digests(folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _damaged(name: str, file: Path, what: str) -> MeasurementError:
    return MeasurementError(
        f"the model {PREFIX}{name} that comes with the package is damaged: {what}", where=str(file), hint=_AGAIN
    )
