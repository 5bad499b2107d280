"""What is installed of the harness and its plugins: versions, and digests of their source files.

Standard library only: a node runs the text of this module before it is known what else is there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

GROUP = "harness"
"""Entry-point group of the harness; its own distribution offers the built-in plugins there."""


def offering() -> dict[str, Distribution]:
    """Normal name -> distribution, of those that offer plugins; where two are installed, the one found first."""
    found: dict[str, Distribution] = {}
    for each in distributions():
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"] or "").lower()
        if any(point.group == GROUP for point in each.entry_points):
            found.setdefault(name, each)
    return dict(sorted(found.items()))


def modules(distribution: Distribution) -> list[str]:
    """Names of the top-level modules and packages: those of its entry points, and of the files that it lists."""
    named = {point.module.partition(".")[0] for point in distribution.entry_points if point.group == GROUP}
    for file in distribution.files or ():
        if file.suffix == ".py" and ".." not in file.parts:  # an editable install lists no source
            named.add(file.parts[0].removesuffix(".py"))
    return sorted(named)


def sources(module: str) -> Iterator[tuple[str, Path]]:
    """Every source and data file of a module or package, with its name from `sys.path`; none where it is missing."""
    found = importlib.util.find_spec(module)
    if found is None:
        return
    if found.submodule_search_locations is None:
        if found.origin:
            yield Path(found.origin).name, Path(found.origin)
        return
    for root in map(Path, found.submodule_search_locations):
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
            if path.is_file() and not hidden and path.suffix != ".pyc":
                yield f"{module}/{inside.as_posix()}", path


def digest(module: str) -> str:
    """Of names and contents of its source files: 16 hex digits; empty where there is no source."""
    whole = hashlib.sha256()
    count = 0
    for name, path in sources(module):
        whole.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        count += 1
    return whole.hexdigest()[:16] if count else ""


def describe() -> dict[str, Any]:
    """This environment, as JSON values: Python's minor version, distributions' versions, their modules' digests."""
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "distributions": {
            name: {"version": each.version, "modules": {module: digest(module) for module in modules(each)}}
            for name, each in offering().items()
        },
    }


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """How another environment differs, one phrase each; what is installed only there does not matter."""
    found = []
    if here["python"] != there["python"]:
        found.append(f"Python {there['python']} there, {here['python']} here")
    for name, mine in here["distributions"].items():
        theirs = there["distributions"].get(name)
        if theirs is None:
            found.append(f"{name} is not installed there")
        elif theirs["version"] != mine["version"]:
            found.append(f"{name} {theirs['version']} there, {mine['version']} here")
        else:  # an editable install knows fewer of its modules than another
            both = mine["modules"].keys() & theirs["modules"].keys()
            other = sorted(module for module in both if mine["modules"][module] != theirs["modules"][module])
            if other:
                found.append(f"{name} {mine['version']} has other source files there in {', '.join(other)}")
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe()) + "\n")
