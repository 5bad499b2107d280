"""The folder of a site: made beside the old one and put in its place whole, or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
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
        MeasurementError: it cannot be written; what stood there still stands.
    """
    partial = place.with_name(f".{place.name}.partial-{_process()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        said = make(partial)
        files = files_below(partial)
        write_json(partial / MARKER, {"made_by": MAKER, "format": FORMAT, **said, "files": [*files, MARKER]})
        if place.is_dir():
            partial.chmod(place.stat().st_mode & 0o777)
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
    if place.exists():
        place.rename(old)
    try:
        partial.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise
    sync_folder(place.parent)
    _keep_foreign(old, place)


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


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
        found = re.fullmatch(rf"\.{name}\.partial-(.+)-(\d+)", left.name)
        if found and found[1] == _host() and not _alive(int(found[2])):
            shutil.rmtree(left, ignore_errors=True)


def _keep_foreign(old: Path, place: Path) -> None:
    """Moves what no site wrote from the old folder into the new one, and removes the old one."""
    if not old.is_dir():
        return
    ours = set(own_files(old) or ())
    for name in files_below(old):
        target = place / name
        if name in ours or os.path.lexists(target) or _below_a_file(place, name):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        (old / name).rename(target)
    shutil.rmtree(old)


def _below_a_file(place: Path, name: str) -> bool:
    """Whether a file of the new site stands where a folder of the old one did."""
    return any((place / parent).is_file() for parent in Path(name).parents)


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
