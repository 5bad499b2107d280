"""Which store, and which folder, a path or a URL names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from harness.errors import UsageError
from harness.storing.store import Store
from harness.storing.url import is_url

_RUN_ID: Final = re.compile(r"\d{8}T\d{6}-")
"""How the name of a run begins."""


def open_store(place: str | Path) -> Store:
    """The store of that name: a folder, made when the first run is written, or a URL.

    Raises:
        UsageError: no name, a path that is a file, a URL that is none, or one whose protocol needs a package that is
            missing.
    """
    text = str(place)
    if not text:  # `--store "$STORE"` with no such variable: not the present folder
        raise UsageError("no store is named: the name is empty", accepted="a folder that runs are kept in, or a URL")
    if not is_url(text):
        folder = Path(text)
        if folder.exists() and not folder.is_dir():
            raise UsageError("this is no store but a file", where=text, accepted="a folder that runs are kept in")
        return Store(folder)
    from harness.storing.remote.store import RemoteStore

    return RemoteStore(text)


def run_folder(place: str | Path) -> Path:
    """The local folder of a run that is named by a path or by the URL of its store, a `/` and its name."""
    text = str(place)
    return located(text)[1] if is_url(text) else Path(text)


def located(place: str) -> tuple[Store, Path]:
    """The store of a run that is named by a path or a URL, and its folder on this machine."""
    if not is_url(place):
        return Store(Path(place).absolute().parent), Path(place)
    address, question, query = place.partition("?")
    rest, _, last = query.rpartition("/")
    if _RUN_ID.match(last):  # a / and the run were put behind the address of a store as a whole
        address, query = f"{address.rstrip('/')}/{last}", rest
    parent, _, name = address.rstrip("/").rpartition("/")
    if parent.endswith(("/", ":")):
        raise UsageError("this does not name a run", accepted="the URL of a store, a / and the name of a run")
    store = open_store(f"{parent}{question}{query}")
    return store, store.find(name)


def to_resume(store: Store, run: str) -> tuple[Store, Path]:
    """The store and the folder of a run to go on with: a path, a URL, or a name in the store."""
    if is_url(run) or Path(run).exists():
        return located(run)
    return (store, store.find(run)) if "/" not in run else (store, Path(run))
