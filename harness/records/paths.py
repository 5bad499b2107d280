"""Names of the files and folders of a store."""

from __future__ import annotations

from typing import Final

from harness.errors import UsageError

BASELINES: Final = "baselines"
CALIBRATIONS: Final = "calibrations"
INDEX: Final = "index"
RESERVED: Final = frozenset({BASELINES, CALIBRATIONS, INDEX})
"""Folders of a store that are no runs."""
GATE: Final = "gate.json"
"""What a gate found, in its folder."""
RECORDS: Final = frozenset({"run.json", "record.json"})
"""The files of a run that say what it found, without side-cars."""


def checked_name(name: str) -> str:
    """The name of a run or a trial; raises UsageError for one that would lie elsewhere or hide."""
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable() or len(name) > 255:
        raise UsageError(f"{name!r} is no name of a run or trial", accepted="one name, without '/' and a leading '.'")
    if name in RESERVED:
        raise UsageError(f"{name!r} is a folder of the store and no run", accepted="another name")
    return name
