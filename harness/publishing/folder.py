"""The folder of a site: made beside the old one and put in its place whole, or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

from harness.errors import MeasurementError, UsageError
from harness.records.files import sync_folder, write_json

MARKER: Final = "site.json"
"""Says that a folder is a site of ours, and which of its files are."""
MAKER: Final = "joule-harness site"
FORMAT: Final = 1


def files_below(folder: Path) -> list[str]:
    """The files and links below a folder, by path, in order; links are not followed."""
    found = []
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        links = [name for name in folders if (here / name).is_symlink()]
        found += [(here / name).relative_to(folder).as_posix() for name in [*names, *links]]
    return sorted(found)


def own_files(folder: Path) -> list[str] | None:
    """The files that a site of ours wrote into a folder; None where it is no such site."""
    try:
        content: Any = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        ours = content["made_by"] == MAKER
        listed = [str(name) for name in content["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return listed if ours else None


def checked(out: Path, inputs: Iterable[Path], *, force: bool) -> Path:
    """The folder that a site goes to, behind links.

    Raises:
        UsageError: it is a file, holds something else without `force`, or it and the records lie in each other.
    """
    place = out.resolve()
    if place.exists() and not place.is_dir():
        raise UsageError("a site is a folder, and this is a file", where=str(out), accepted="a new or an empty folder")
    if not place.parent.is_dir():
        raise UsageError("there is no such folder", where=str(place.parent), accepted="a folder that exists")
    for each in (path.resolve() for path in inputs):
        if each.is_relative_to(place) or place.is_relative_to(each):
            raise UsageError(
                f"the site and the records would lie in each other: {each}",
                where=str(out),
                accepted="a folder beside the store",
            )
    if Path.cwd().is_relative_to(place):
        raise UsageError("the present folder cannot be replaced", where=str(out), accepted="a folder below it")
    recover(place)
    if place.is_dir() and any(place.iterdir()) and own_files(place) is None and not force:
        raise UsageError(
            "this folder holds something else than a site",
            where=str(out),
            accepted="a new or an empty folder, or a site of `harness site`",
            hint="--force puts the site into it, in the place of files of the same names",
        )
    return place


def put(place: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Makes a site and puts it in place of what stands there; returns what `make` does.

    Files of other origin stay, such as a `CNAME` or the `.git` of a branch that is published.

    Args:
        place: where the site goes.
        make: writes the site into a folder, and returns what the marker says of it beside its files.

    Raises:
        UsageError: something else there has a name that the site needs.
        MeasurementError: it cannot be written; what stood there still stands.
    """
    partial = place.with_name(f".{place.name}.harness-site-{_process()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        said = make(partial)
        files = files_below(partial)
        write_json(partial / MARKER, {"made_by": MAKER, "format": FORMAT, **said, "files": [*files, MARKER]})
        if place.is_dir():
            partial.chmod(place.stat().st_mode & 0o777)
            _refuse_clashes(partial, place)
        _swap(partial, place)
    except OSError as error:
        raise MeasurementError(
            f"the site cannot be written: {error.strerror or error}", where=str(error.filename or place)
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return said


def _swap(partial: Path, place: Path) -> None:
    """Two renames; a process that is killed between or behind them leaves what `recover` brings to its end."""
    old = _old(place)
    try:
        if place.exists():
            place.rename(old)
        partial.rename(place)
    except BaseException:
        if old.exists() and not place.exists():
            old.rename(place)
        raise
    try:
        sync_folder(place.parent)
        _keep_foreign(old, place)
    except KeyboardInterrupt:
        _keep_foreign(old, place)  # what is not ours is not left half moved
        raise


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.harness-site-old")


def recover(place: Path) -> None:
    """Ends what a killed build of a site began: the old site comes back, or gives its other files to the new one."""
    old = _old(place)
    if old.is_dir():
        if not place.exists():
            old.rename(place)
        else:
            _keep_foreign(old, place)
    name = re.escape(place.name)
    for left in place.parent.glob("*" if place.name.startswith(".") else ".*"):
        found = re.fullmatch(rf"\.{name}\.harness-site-(.+)-(\d+)", left.name)
        if found and found[1] == _host() and not _alive(int(found[2])):
            shutil.rmtree(left, ignore_errors=True)


def _keep_foreign(old: Path, place: Path) -> None:
    """Moves what no site wrote from the old folder into the new one, and removes the old one."""
    if not old.is_dir():
        return
    ours = {PurePosixPath(name) for name in own_files(old) or ()}
    _move(old, place, ours, {parent for name in ours for parent in name.parents}, PurePosixPath())
    shutil.rmtree(old)


def _move(old: Path, new: Path, ours: set[PurePosixPath], shared: set[PurePosixPath], at: PurePosixPath) -> None:
    """Moves what is not ours out of one folder; folders of other origin go whole, empty ones too."""
    for child in sorted(old.iterdir()):
        name, target = at / child.name, new / child.name
        if name in ours:
            continue
        if child.is_dir() and not child.is_symlink() and (name in shared or target.is_dir()):
            _move(child, target, ours, shared, name)
        elif not os.path.lexists(target):
            new.mkdir(parents=True, exist_ok=True)
            child.rename(target)


def _refuse_clashes(partial: Path, place: Path) -> None:
    """Raises UsageError where a folder of other origin has the name of a file of the site, or the reverse."""
    ours = {PurePosixPath(name) for name in own_files(place) or ()}
    for name in map(PurePosixPath, files_below(partial)):
        parents = [parent for parent in name.parents if (place / parent).is_file() and parent not in ours]
        if (place / name).is_dir() and not (place / name).is_symlink():
            parents.append(name)
        if parents:
            raise UsageError(
                f"the site needs the name {str(parents[0])!r}, which something else has",
                where=str(place),
                accepted="a folder without it",
            )


def _process() -> str:
    return f"{_host()}-{os.getpid()}"


def _host() -> str:
    return re.sub(r"\W+", "-", socket.gethostname()) or "host"


def _alive(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True
