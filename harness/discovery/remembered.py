"""Imports the plugins that give what was chosen, and no others: what each gives is remembered between processes.

What is remembered holds for one interpreter, one path of modules, one set of installed distributions, and each plugin's
files as they were; where one of these differs, every plugin is imported and asked again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final

from platformdirs import user_cache_path

from harness.discovery.registry import PluginInfo, Registry, installed
from harness.hookspecs import PROJECT_NAME
from harness.machine.fingerprint import digest

AUTO: Final = "auto"
"""Stands for the meters that `auto` tries."""

Wanted = Mapping[str, Collection[str]]
"""Kind of plugin spec -> names."""


def load_chosen(wanted: Wanted, *, also: Collection[str] = ()) -> Registry:
    """The plugins that give one of these names; every plugin where a name is not known.

    Args:
        wanted: what is needed; meter `auto` stands for each that it tries.
        also: further kinds that the imported plugins are asked for.
    """
    place = _place()
    known = _read(place)
    needed = [entry for entry in known if _gives_any(entry, wanted)]
    others = [entry for entry in known if entry not in needed]
    if not needed or not all(_files(entry["roots"]) == entry["files"] for entry in others):
        return _load_all(place)
    registry = Registry((*wanted, *also))
    for entry in needed:
        info = PluginInfo(entry["name"], entry["distribution"], entry["version"])
        registry.load(EntryPoint(entry["name"], entry["value"], PROJECT_NAME), info)
    found = {kind: registry.offers(kind).keys() for kind in wanted}
    if registry.broken or any(name not in found[kind] for kind in wanted for name in wanted[kind] if name != AUTO):
        return _load_all(place)
    return registry


def _gives_any(entry: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether an entry gave something of what is wanted."""
    return any(
        name in names or (auto and AUTO in names)
        for kind, names in wanted.items()
        for name, auto in entry["gives"].get(kind, ())
    )


def _load_all(place: Path) -> Registry:
    """Every plugin; what they give is remembered unless one is broken, which is told each time."""
    registry = Registry()
    points = installed()
    for point in points:
        registry.load(point)
    if not registry.broken:
        entries = [
            {
                "name": info.name,
                "value": point.value,
                "distribution": info.distribution,
                "version": info.version,
                "gives": registry.given(info),
                "roots": (roots := _roots(point.module)),
                "files": _files(roots),
            }
            for point, info in zip(points, registry.plugins, strict=True)
        ]
        if all(entry["roots"] for entry in entries):
            _write(place, entries)
    return registry


# The files of a plugin


def _roots(module: str) -> list[str]:
    """The folders of the top package of a module, or its file; none of a module that is none of both."""
    top = sys.modules.get(module.partition(".")[0])
    folders = list(getattr(top, "__path__", ()))
    file = getattr(top, "__file__", None)
    return [str(each) for each in folders] or ([file] if file else [])


def _files(roots: Iterable[str]) -> str:
    """A digest of names, sizes and times of the code below some folders."""
    return digest([each for root in roots for each in _states(root)], 32)


def _states(place: str) -> Iterator[list[object]]:
    with contextlib.suppress(OSError):
        if not os.path.isdir(place):  # noqa: PTH112 - some hundred files, before anything is measured
            found = os.stat(place)  # noqa: PTH116
            yield [place, found.st_size, found.st_mtime_ns]
            return
        for each in sorted(os.scandir(place), key=lambda entry: entry.name):
            if each.name.endswith(".py"):
                state = each.stat()
                yield [each.path, state.st_size, state.st_mtime_ns]
            elif each.is_dir() and not each.name.startswith(("__pycache__", ".")):
                yield from _states(each.path)


# Where it is remembered


def _place() -> Path:
    """A file of its own for each installation, named for all that decides which plugins are found."""
    told: list[object] = [sys.version, sys.prefix, *sys.path]
    for entry in sys.path:
        with contextlib.suppress(OSError), os.scandir(entry or ".") as children:
            told += sorted(
                f"{each.name} {each.stat().st_mtime_ns}"
                for each in children
                if each.name.endswith((".dist-info", ".egg-info"))
            )
    return user_cache_path("joule-harness", ensure_exists=False) / "plugins" / f"{digest(told, 32)}.json"


def _read(place: Path) -> Sequence[dict[str, Any]]:
    """What was remembered; nothing where that does not read."""
    try:
        found = json.loads(place.read_bytes())
        return [
            {
                **{name: str(entry[name]) for name in ("name", "value", "distribution", "version", "files")},
                "roots": list(map(str, entry["roots"])),
                "gives": {
                    kind: [(str(name), bool(auto)) for name, auto in names] for kind, names in entry["gives"].items()
                },
            }
            for entry in found
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()


def _write(place: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Remembers, where the folder can be written."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(entries), encoding="utf-8")
        temporary.replace(place)
