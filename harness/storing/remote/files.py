"""Files of a store behind fsspec: listed, read, and written whole or not at all.

fsspec and the package of a protocol are imported when a URL is opened. No message of theirs passes without the
address's secrets taken out.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

from harness.errors import MeasurementError, UsageError
from harness.storing.url import StoreUrl

_OBJECTS: Final = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "wasb", "wasbs", "oci", "oss", "memory", "hf"}
)
"""Protocols where a file appears whole once it is written; elsewhere it gets a temporary name first."""
_TEMPORARY: Final = ".part-"
_WHOLE_BYTES: Final = 8 << 20
"""A file up to this size is sent in one piece."""


class UnreachableError(MeasurementError):
    """The store did not do what it was asked; it may the next time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the store.

    Attributes:
        size: in bytes.
        token: changes when the file's content does: an entity tag, else size and time of writing.
        changed: when it was written, seconds since 1970 by the store's clock; None where it does not say.
    """

    size: int
    token: str
    changed: float | None


def entity_tag(data: bytes) -> str:
    """What an S3 store calls a file that was sent in one piece, unless it encrypts with a key of its own."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def safe_parts(path: str) -> tuple[str, ...]:
    """The parts of a relative path; raises UsageError where one would lead out of the store or is no name."""
    parts = tuple(path.split("/"))
    for part in parts:
        if part in {"", ".", ".."} or "\\" in part or not part.isprintable():
            raise UsageError(
                f"{path!r} is not a valid name in a store", accepted="names without '..', '\\' and a leading '/'"
            )
    return parts


class RemoteFiles:
    """The files below a URL; paths are relative to it, with `/`.

    Raises:
        UsageError: fsspec or the package of the protocol is missing, or the protocol is unknown.
    """

    def __init__(self, url: StoreUrl) -> None:
        self.url = url
        self.in_parts = url.protocol in _OBJECTS
        try:
            import fsspec  # type: ignore[import-untyped]
        except ImportError:
            raise UsageError(
                "a store behind a URL needs fsspec", accepted="pip install 'joule-harness[stores]'"
            ) from None
        try:
            self._files, root = fsspec.core.url_to_fs(url.address, **url.options)
        except ImportError as error:
            raise UsageError(f"{url.protocol}:// needs another package: {error}", where=url.shown) from None
        except Exception as error:  # noqa: BLE001 - every protocol has errors of its own
            raise UsageError(f"this store cannot be opened: {self._said(error)}", where=url.shown) from None
        self._root = str(root).rstrip("/")

    @property
    def workers(self) -> int:
        """How many requests at once are of use."""
        return 16 if getattr(self._files, "async_impl", False) else 1

    def _said(self, error: Exception) -> str:
        return self.url.redact(f"{type(error).__name__}: {error}")

    @contextlib.contextmanager
    def _asking(self, what: str, passes: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        try:
            yield
        except passes:
            raise
        except Exception as error:  # noqa: BLE001 - likewise
            raise UnreachableError(f"{what}: {self._said(error)}", where=self.url.shown) from None

    def _path(self, path: str) -> str:
        return f"{self._root}/{'/'.join(safe_parts(path))}" if path else self._root

    def _entry(self, info: Mapping[str, Any]) -> Entry:
        times = (info.get(name) for name in ("LastModified", "mtime", "last_modified", "modified", "created"))
        time = next((time for time in times if time is not None), None)
        changed = time.timestamp() if isinstance(time, datetime) else time if isinstance(time, (int, float)) else None
        tag = str(info.get("ETag") or info.get("etag") or "").strip('"')
        size = int(info.get("size") or 0)
        return Entry(size, tag or f"{size}:{changed if time is None or changed is not None else time}", changed)

    def _named(self, path: str) -> str:
        """A path of the filesystem, relative to the store; empty for one that has no name in it."""
        rest = path.rstrip("/")
        bare = self._root.lstrip("/")
        rest = rest.lstrip("/").removeprefix(bare).lstrip("/") if bare else rest.lstrip("/")
        parts = rest.split("/")
        odd = any(part in {"", ".", ".."} or "\\" in part or not part.isprintable() for part in parts)
        return "" if odd or parts[-1].startswith(_TEMPORARY) else rest

    def tree(self, folder: str) -> dict[str, Entry]:
        """All files below a folder, by path; empty where there is none."""
        with self._asking("listing"):
            self._files.invalidate_cache()
            try:
                found = self._files.find(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
        return {name: self._entry(info) for path, info in found.items() if (name := self._named(path))}

    def level(self, folder: str = "") -> tuple[dict[str, Entry], list[str]]:
        """The files and the names of the folders right below a folder.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._asking("listing", passes=FileNotFoundError):
            self._files.invalidate_cache()
            found = self._files.ls(self._path(folder), detail=True)
        files = {n: self._entry(info) for info in found if info["type"] == "file" and (n := self._named(info["name"]))}
        names = [n for info in found if info["type"] == "directory" and (n := self._named(info["name"]))]
        return files, sorted(PurePosixPath(name).name for name in names)

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is no such file."""
        with self._asking(f"reading {path}"):
            try:
                return bytes(self._files.cat_file(self._path(path)))
            except FileNotFoundError:
                return None

    def download(self, path: str, target: Path) -> None:
        """Writes a file's content to a local one; raises FileNotFoundError where it is gone."""
        with self._asking(f"reading {path}", passes=FileNotFoundError):
            self._files.get_file(self._path(path), str(target))

    def token(self, path: str, data: bytes | None) -> str:
        """The token of a file just written with that content."""
        if data is not None and self.url.protocol in {"s3", "s3a"}:
            return entity_tag(data)
        with self._asking(f"looking at {path}"):
            self._files.invalidate_cache()
            return self._entry(self._files.info(self._path(path))).token

    def put(self, path: str, content: bytes | Path) -> str:
        """Writes a file, in place of one that stands; returns its token."""
        data = content if isinstance(content, bytes) else None
        if isinstance(content, Path) and content.stat().st_size <= _WHOLE_BYTES:
            data = content.read_bytes()
        with self._asking(f"writing {path}"):
            target = self._path(path)
            folder, _, name = target.rpartition("/")
            sent = target if self.in_parts else f"{folder}/{_TEMPORARY}{secrets.token_hex(4)}-{name}"
            if not self.in_parts:
                self._files.makedirs(folder, exist_ok=True)
            if data is not None:
                self._files.pipe_file(sent, data)
            else:
                self._files.put_file(str(content), sent)
            if sent != target:
                self._files.mv(sent, target)
        return self.token(path, data)

    def claim(self, path: str, data: bytes) -> bool:
        """Writes a small file unless one stands there; of two writers at one instant exactly one does.

        It need not appear whole: a reader of half a claim waits.
        """
        if self.in_parts:
            return self.create(path, data)
        with self._asking(f"writing {path}"):
            target = self._path(path)
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            try:
                with self._files.open(target, "xb") as stream:
                    stream.write(data)
            except FileExistsError:
                return False
        return True

    def create(self, path: str, data: bytes) -> bool:
        """Writes a file, whole, unless one stands there; returns whether it did.

        S3 and its like refuse the second of two writers by themselves. Elsewhere two writers at one instant may both
        believe that they were first, so that a claim comes before.
        """
        if not self.in_parts:
            if self.read(path) is not None:
                return False
            self.put(path, data)
            return True
        with self._asking(f"writing {path}"):
            try:
                self._files.pipe_file(self._path(path), data, mode="create")
            except FileExistsError:
                return False
        return True

    def clock(self) -> float:
        """What time it is by the store's clock, which dates its files: this machine's may be minutes off."""
        path = f"{_TEMPORARY}clock-{secrets.token_hex(4)}"
        with self._asking("asking for the time"):
            target = self._path("") + f"/{path}"
            self._files.pipe_file(target, b"")
            try:
                self._files.invalidate_cache()
                changed = self._entry(self._files.info(target)).changed
            finally:
                self._files.rm_file(target)
        return time.time() if changed is None else changed

    def remove(self, path: str) -> None:
        """Removes a file, if it is there."""
        with self._asking(f"removing {path}"), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(path))
