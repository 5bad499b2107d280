"""The installed distributions and their versions, told by the names of their folders."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path
from typing import Final

_SEPARATORS: Final = re.compile(r"[-_.]+")


def distributions(path: Sequence[str] | None = None) -> dict[str, str]:
    """Name -> version of every installed distribution, the first on the path of each name.

    Read from the names of their folders, which hold both (packaging.python.org, "Recording installed projects"):
    opening the metadata of some hundred distributions would take longer than all else that starts a run.
    """
    found: dict[str, str] = {}
    for entry in sys.path if path is None else path:
        try:
            folders = sorted(each.name for each in os.scandir(entry or "."))
        except OSError:
            continue
        for folder in folders:
            stem, _, kind = folder.rpartition(".")
            if kind in {"dist-info", "egg-info"}:
                name, _, version = stem.partition("-")
                version = version.partition("-py")[0] or _stated_version(Path(entry or ".", folder))
                found.setdefault(_SEPARATORS.sub("-", name).lower(), version)
    return dict(sorted(found.items()))


def _stated_version(folder: Path) -> str:
    """The version in the metadata of a source tree; its folder's name has none."""
    try:
        text = (folder / "PKG-INFO").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return str(HeaderParser().parsestr(text).get("Version", ""))
