"""Files of this machine: listed below a folder, and told apart by a stamp."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def stamp(path: Path) -> str:
    """Changes when a local file is replaced or written to; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return stamp_of(found)


def stamp_of(found: os.stat_result) -> str:
    """Likewise, from what the system says of the file."""
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"


def files_below(folder: Path, name: str) -> Iterator[str]:
    """The files below a folder of the mirror, by path; hidden ones are half written and left out."""
    place = folder / name
    if place.is_file():
        yield name
        return
    try:
        children = sorted(os.scandir(place), key=lambda child: child.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for child in children:
        if child.name.startswith(".") or child.is_symlink():
            continue
        if child.is_dir():
            yield from files_below(folder, f"{name}/{child.name}")
        elif child.is_file():
            yield f"{name}/{child.name}"
