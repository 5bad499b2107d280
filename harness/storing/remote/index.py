"""The index of a store behind a URL: published by who wrote a run, believed while it stands.

A writer withdraws a run's index before it changes a record and publishes the new one after; its name holds the digest
of what the store lists of that run. So a reader needs one listing of the index for all runs; runs without an index are
listed and indexed in the mirror. `harness store check` holds every index against a listing of its run.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from harness.records.paths import DOCUMENTS, INDEX, RECORD, RUN
from harness.storing.index import Builder, Sources, basis, content, documents_of, forget, intact, parts
from harness.storing.local_files import stamp
from harness.storing.remote.files import Entry, RemoteFiles
from harness.storing.remote.mirror import Journal


class Remote(Protocol):
    """What the index asks of a store behind a URL.

    Attributes:
        files: the store itself.
        home: folder of everything kept here for the store.
        folder: the mirror of the store's files; one of `home`.
    """

    files: RemoteFiles
    home: Path
    folder: Path

    def runs(self) -> list[str]:
        """Names of the store's runs."""

    def published(self, run: str | None = None) -> list[str]:
        """Names of the files of the store's index, of one run or of all."""

    def publish_index(self, run: str) -> None:
        """Makes a run's index anew and publishes it."""

    def fetch_run(self, name: str, only: Collection[str] = ()) -> dict[str, Entry]:
        """Brings what lies below a name into the mirror; returns what the store has there."""

    def journal(self, name: str) -> Journal:
        """What of a run is in the store and in the mirror."""


def listed(there: Mapping[str, Entry], run: str) -> dict[str, str]:
    """The documents of a run as the store has them: path in the run -> token."""
    found = {path.removeprefix(f"{run}/"): entry.token for path, entry in there.items()}
    return {
        path: token
        for path, token in found.items()
        if path == RUN or (path.count("/") == 1 and path.endswith(f"/{RECORD}"))
    }


def sources_of_store(store: Remote, *, rebuild: bool = False) -> Sources:
    """What to read of a store behind a URL; with `rebuild` every index is made and published anew."""
    published: dict[str, list[str]] = {}
    for name in store.published():
        if (named := parts(name)) is not None:
            published.setdefault(named[0], []).append(name)
    indexed: list[Path] = []
    plain: list[Path] = []
    missing: list[str] = []
    damaged: dict[Path, str] = {}

    def find(run: str) -> tuple[str, Path | None, bool]:
        names = published.get(run, [])
        if len(names) == 1 and not rebuild and (path := _bring(store, names[0])) is not None:
            return run, path, False
        return run, _index(store, run, anew=rebuild), True

    with ThreadPoolExecutor(store.files.workers) as pool:
        found = list(pool.map(find, store.runs()))
    for run, path, made in found:
        if path is not None:
            indexed.append(path)
        elif (store.folder / run).is_dir():
            plain.append(store.folder / run)
            with Builder([store.folder]) as builder:
                damaged |= builder.damaged(store.folder / run, documents_of(store.folder / run))
        if made:
            missing.append(run)
        if rebuild:
            store.publish_index(run)
    return Sources(indexed, plain, missing, damaged)


def _bring(store: Remote, name: str) -> Path | None:
    """A file of the store's index; None where it is damaged or has just gone."""
    path = store.home / INDEX / name
    if intact(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    try:
        store.files.download(f"{INDEX}/{name}", temporary)
        named = parts(name)
        if named is None or content(temporary) != named[2]:
            return None
        temporary.replace(path)
    except FileNotFoundError:
        return None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _index(store: Remote, run: str, *, anew: bool = False) -> Path | None:
    """The index of a run as the store has it now, made here unless it was before; None where a record does not read."""
    there = store.fetch_run(run, DOCUMENTS)
    documents = listed(there, run)
    made_of = basis(documents)
    home = store.home / INDEX
    standing = [path for path in home.glob("*.parquet") if (parts(path.name) or ("",))[0] == run]
    if not anew:
        for path in standing:
            if (parts(path.name) or ("", ""))[1] == made_of and intact(path):
                return path
    forget(standing)
    if not _same(store, run, documents):
        made_of = f"{made_of[:8]}mixed"
    here = [path for path in documents if (store.folder / run / path).is_file()]
    with Builder([store.folder, home]) as builder:
        return builder.build(store.folder / run, here, home, made_of, _size(there, documents))


def _size(there: Mapping[str, Entry], documents: Mapping[str, str]) -> tuple[int, int]:
    """Number of records, and of bytes."""
    return sum(path != RUN for path in documents), sum(entry.size for entry in there.values())


def _same(store: Remote, run: str, documents: Mapping[str, str]) -> bool:
    """Whether the mirror has these very documents."""
    known = store.journal(run).read()
    return all(
        (path := f"{run}/{name}") in known
        and known[path].token == token
        and known[path].stamp == stamp(store.folder / path)
        for name, token in documents.items()
    )


def publish(store: Remote, run: str) -> None:
    """Publishes the index of a run, unless its records in the store are not those of the mirror.

    Two writers of one run may both be here at once: each looks again at the end, and takes back an index that does not
    fit what the store lists then.
    """
    if find_spec("duckdb") is None:
        return
    there = store.files.tree(run)
    documents = listed(there, run)
    if not _same(store, run, documents):
        return  # another writer has sent records too: who has all of them publishes, or a reader indexes for itself
    home = store.home / INDEX
    with Builder([store.folder, home]) as builder:
        path = builder.build(store.folder / run, documents, home, basis(documents), _size(there, documents))
    if path is None:
        return
    store.files.put(f"{INDEX}/{path.name}", path)
    others: Sequence[str] = [name for name in store.published(run) if name != path.name]
    for name in others:
        store.files.remove(f"{INDEX}/{name}")
    if basis(listed(store.files.tree(run), run)) != basis(documents):
        store.files.remove(f"{INDEX}/{path.name}")
