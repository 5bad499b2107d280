"""An index of a store: one Parquet file a run with what the views of `query` show of its records.

It is made from the records and is a copy: a file whose name does not fit the records as they are, or whose content does
not fit its name, is made anew and never read. `<run>~<digest of what it was made from>~<digest of itself>.parquet`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Self

from platformdirs import user_cache_path

from harness.records.paths import INDEX, RECORD, RUN
from harness.storing import views
from harness.storing.local_files import files_below, stamp_of

SUFFIX: Final = ".parquet"
SIZES: Final = "store"
"""Rows of the index beside those of the views: one a run, with its number of trials and of bytes."""
_BATCH: Final = 500
"""Records in memory at once."""
_GRACE_S: Final = 3600.0


@cache
def layout() -> str:
    """Digest of what an index holds; another version of the views makes another index."""
    return hashlib.sha256(repr(views.VIEWS).encode()).hexdigest()


def basis(documents: Mapping[str, str]) -> str:
    """Digest of the documents of a run: path -> what changes when the document does."""
    text = json.dumps([layout(), sorted(documents.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content(path: Path) -> str:
    """Digest of a file of the index."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:16]


def parts(name: str) -> tuple[str, str, str] | None:
    """Run, basis and content by a file's name; None where it is not an index file."""
    found = name.removesuffix(SUFFIX).rsplit("~", 2)
    return (found[0], found[1], found[2]) if name.endswith(SUFFIX) and len(found) == 3 else None


def intact(path: Path) -> bool:
    """Whether a file of the index is what its name says."""
    named = parts(path.name)
    try:
        return named is not None and content(path) == named[2]
    except OSError:
        return False


def documents_of(run: Path) -> dict[str, str]:
    """The documents of a run's folder with their stamps: its description and its records."""
    found: dict[str, str] = {}
    try:
        children = list(os.scandir(run))
    except (FileNotFoundError, NotADirectoryError):
        return found
    for child in children:
        path = f"{child.path}/{RECORD}" if child.name != RUN else child.path
        if child.name.startswith("."):
            continue
        try:
            found[path.removeprefix(f"{run}/")] = stamp_of(os.stat(path))  # noqa: PTH116 - a Path a record takes twice as long
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


@dataclass(frozen=True, slots=True)
class Sources:
    """What a query reads.

    Attributes:
        indexed: files of the index, one a run.
        plain: folders of runs that could not be indexed, because a record does not read.
        missing: runs that were indexed only now.
        damaged: documents of these runs that do not read, and why.
    """

    indexed: Sequence[Path]
    plain: Sequence[Path]
    missing: Sequence[str] = ()
    damaged: Mapping[Path, str] = field(default_factory=dict)


class Builder:
    """Writes the indexes of runs, with one database for all of them. Not for several threads.

    Args:
        folders: that the runs lie in, and that indexes go to.

    Raises:
        UsageError: duckdb is missing.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._database = views.database(folders)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def build(
        self, run: Path, documents: Iterable[str], folder: Path, made_of: str, size: tuple[int, int]
    ) -> Path | None:
        """Writes the index of a run; None where a record cannot be read as the views read it.

        Args:
            run: its folder.
            documents: paths in it.
            folder: where the file goes.
            made_of: basis of the documents.
            size: number of trials, and of bytes.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{secrets.token_hex(8)}{SUFFIX}"
        temporary.touch()  # an OSError here, and not an error of duckdb, says that the folder cannot be written
        try:
            self._database.execute(views.table_of_all())
            self._database.execute(
                f"INSERT INTO indexed BY NAME SELECT '{SIZES}' AS \"table\", ? AS run, ? AS trial, ? AS value",
                [run.name, *size],
            )
            self._fill(run, sorted(documents))
            self._database.execute("COPY indexed TO ? (FORMAT parquet, COMPRESSION zstd)", [str(temporary)])
            final = folder / f"{run.name}~{made_of}~{content(temporary)}{SUFFIX}"
            temporary.replace(final)
        except views.errors():
            return None
        finally:
            temporary.unlink(missing_ok=True)
        return final

    def damaged(self, run: Path, documents: Iterable[str]) -> dict[Path, str]:
        """The documents of a run that do not read as the views read them, each asked by itself, and why."""
        found = {}
        for document in sorted(documents):
            self._database.execute(views.table_of_all())
            try:
                self._fill(run, [document])
            except views.errors() as error:
                found[run / document] = views.said(error)
        return found

    def _fill(self, run: Path, documents: Sequence[str]) -> None:
        records = [path for path in documents if path != RUN]
        groups = [(RUN, [RUN])] if RUN in documents else []
        groups += [(RECORD, records[at : at + _BATCH]) for at in range(0, len(records), _BATCH)]
        for kind, paths in groups:
            wanted = [view for view in views.VIEWS if view.files == kind]
            parsed = views.documents(wanted[0], [run / path for path in paths])
            self._database.execute(f"CREATE OR REPLACE TEMP TABLE documents AS {parsed}")
            for view in wanted:
                selected = views.select(view, "documents", tagged=True)
                self._database.execute(f"INSERT INTO indexed BY NAME {selected}")


def sources_of_folder(folder: Path, runs: Sequence[str], *, rebuild: bool = False) -> Sources:
    """What to read of a folder; a run without a fresh index gets one, in the user's cache where the store is read-only.

    Args:
        folder: of the store.
        runs: names of its runs.
        rebuild: make every index anew.
    """
    homes = [folder / INDEX, cache_of(folder)]
    standing: dict[str, list[tuple[str, Path]]] = {}
    for home in homes:
        for path in home.glob(f"*{SUFFIX}"):
            if (named := parts(path.name)) is not None:
                standing.setdefault(named[0], []).append((named[1], path))
    indexed: list[Path] = []
    missing: dict[str, dict[str, str]] = {}
    for run in runs:
        documents = documents_of(folder / run)
        if documents:
            fresh = (path for of, path in standing.get(run, ()) if of == basis(documents))
            found = None if rebuild else next(filter(intact, fresh), None)
            if found is None:
                missing[run] = documents
            else:
                indexed.append(found)
    if not missing:
        return Sources(indexed, [])
    plain = []
    damaged: dict[Path, str] = {}
    with Builder([folder, *homes]) as builder:
        for run, documents in missing.items():
            made = _build_in(builder, homes, folder / run, documents)
            forget(path for _, path in standing.get(run, ()) if path != made)
            if made is None:
                plain.append(folder / run)
                damaged |= builder.damaged(folder / run, documents)
            else:
                indexed.append(made)
    return Sources(indexed, plain, list(missing), damaged)


def _build_in(builder: Builder, homes: Sequence[Path], run: Path, documents: Mapping[str, str]) -> Path | None:
    size = (sum(path != RUN for path in documents), bytes_below(run))
    for home in homes:
        try:
            return builder.build(run, documents, home, basis(documents), size)
        except OSError:  # a store that may only be read
            continue
    return None


def cache_of(folder: Path) -> Path:
    """Where the index of a store's folder goes that cannot be written."""
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return user_cache_path("joule-harness") / "stores" / key / INDEX


def forget(paths: Iterable[Path]) -> None:
    """Removes files of the index that hold no more; young ones stay a while, another process may read them now."""
    for path in paths:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _GRACE_S:
                path.unlink()


def bytes_below(folder: Path) -> int:
    """Size of all files of a run."""
    return sum((folder.parent / path).stat().st_size for path in files_below(folder.parent, folder.name))
