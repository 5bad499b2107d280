"""Lends the running harness to a revision's environment that has none: a project need not require what judges it.

What is lent are links to the distributions of the harness, of its plugins and of what these require, behind everything
that the revision installed itself: nothing is downloaded, and of the running environment nothing else can be imported,
least of all another version of the project that is judged.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from harness.errors import MeasurementError
from harness.hookspecs import PROJECT_NAME

DISTRIBUTION: Final = "joule-harness"
_LENT: Final = "lent-harness"
_REQUIREMENT: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?")
_EXTRA: Final = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_ASKED: Final = (
    "import json, sys, sysconfig; "
    "print(json.dumps([sysconfig.get_path('purelib'), sys.implementation.cache_tag, sysconfig.get_platform()]))"
)
"""Where an environment's packages lie, and what tells whether compiled ones of another environment fit."""


def lend(environment: Path) -> None:
    """Makes the running harness and its plugins importable in an environment, behind what it has itself.

    Args:
        environment: of the revision, with an interpreter at `bin/python`.

    Raises:
        MeasurementError: its Python is another version than this one, or cannot be asked.
    """
    site = Path(_fitting(environment / "bin" / "python"))
    lent = environment / _LENT
    lent.mkdir()
    for name, place in _modules():
        _link(lent / name, place)
    for distribution in needed(_offering()):
        for entry in _entries(distribution):
            _link(lent / entry, Path(str(distribution.locate_file(entry))))
    # `addsitedir` and not a plain path: it also reads the .pth files of distributions that are installed editable.
    (site / f"~{_LENT}.pth").write_text(f"import site; site.addsitedir({str(lent)!r})\n", encoding="utf-8")


def _fitting(python: Path) -> str:
    """The folder of an interpreter's packages."""
    answers = []
    for asked in (python, sys.executable):
        done = subprocess.run([str(asked), "-c", _ASKED], capture_output=True, text=True, check=False)
        if done.returncode:
            raise MeasurementError(f"cannot be asked for its packages: {done.stderr.strip()}", where=str(asked))
        answers.append(json.loads(done.stdout))
    (site, *theirs), (_, *ours) = answers
    if theirs != ours:
        raise MeasurementError(
            f"the environment runs {' on '.join(theirs)} and the harness {' on '.join(ours)}: it cannot be lent",
            hint="--install puts joule-harness into the environment, or makes one of this Python",
        )
    return str(site)


def _modules() -> Iterator[tuple[str, Path]]:
    """Name and place of the packages that run here: what is imported counts, whatever the installation says."""
    names = {PROJECT_NAME, *(entry.module.partition(".")[0] for entry in metadata.entry_points(group=PROJECT_NAME))}
    for name in sorted(names):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        place = Path(spec.origin)
        place = place.parent if spec.submodule_search_locations else place
        yield place.name, place


def _offering() -> set[str]:
    """The distributions of the harness and its plugins."""
    entries = metadata.entry_points(group=PROJECT_NAME)
    return {DISTRIBUTION, *(entry.dist.name for entry in entries if entry.dist is not None)}


def needed(names: Iterable[str]) -> list[metadata.Distribution]:
    """The installed distributions of these names, and of what they require, each once."""
    found: dict[str, metadata.Distribution] = {}
    due = [(name, frozenset[str]()) for name in sorted(names)]
    seen = set(due)
    while due:
        name, extras = due.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform, or of an extra that is not installed
            continue
        found[_plain(name)] = distribution
        for required in distribution.requires or ():
            requirement = _wanted(required, extras)
            if requirement is not None and requirement not in seen:
                seen.add(requirement)
                due.append(requirement)
    return list(found.values())


def _wanted(required: str, extras: frozenset[str]) -> tuple[str, frozenset[str]] | None:
    """Name and extras of a requirement; None where it belongs to an extra that nobody asked for."""
    text, _, marker = required.partition(";")
    match = _REQUIREMENT.match(text)
    of = set(_EXTRA.findall(marker))
    if match is None or (of and not of & extras):
        return None
    return _plain(match[1]), frozenset(filter(None, (extra.strip() for extra in (match[2] or "").split(","))))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _entries(distribution: metadata.Distribution) -> list[str]:
    """The names right in the folder of packages that a distribution put there, its metadata among them."""
    tops = {file.parts[0] for file in distribution.files or ()}
    return sorted(tops - {"..", "__pycache__", "/"})


def _link(link: Path, place: Path) -> None:
    """Links to a package or a file; the first of a name stays, as it would on a path."""
    if place.exists() and not link.is_symlink():
        link.symlink_to(place.resolve())
