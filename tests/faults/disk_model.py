"""A disk that may lose power: what a program asked of it, and what a folder may look like afterwards.

Model (what POSIX promises, no more): written bytes are safe after fsync of their file; a name (made, renamed, removed)
is safe after fsync of its folder. What is not safe may be there whole, in part, as zeros, or not at all.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

DATA = ("kept", "lost", "torn", "zeros")


class Op(NamedTuple):
    """One call: `make`, `write`, `sync`, `rename`, `remove`, `folder` or `sync-folder`."""

    kind: str
    path: str
    more: Any = None


class Disk:
    """Records the calls that change a folder; fails the one that it is told to fail.

    Args:
        root: what is recorded.
        fail_at: number of the call that raises.
        error: what it raises.
    """

    def __init__(self, root: Path, fail_at: int | None = None, error: OSError | None = None) -> None:
        self.root = str(root)
        self.ops: list[Op] = []
        self.calls = 0
        self.fail_at = fail_at
        self.error = error
        self.open: dict[int, str] = {}

    def note(self, kind: str, path: Any, more: Any = None) -> None:
        self.calls += 1
        if self.fail_at is not None and self.calls - 1 >= self.fail_at and self.error is not None:
            raise OSError(*self.error.args)  # a new one each time: one exception in its own context has no end
        self.ops.append(Op(kind, str(path), more))

    def mine(self, path: Any) -> bool:
        return isinstance(path, str | Path) and (str(path) + "/").startswith(self.root + "/")

    @contextmanager
    def watched(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
        with monkeypatch.context() as patch:
            for name in ("open", "write", "fsync", "close", "mkdir"):
                patch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))
            patch.setattr(os, "replace", self._two("rename", os.replace))
            for name in ("unlink", "rmdir"):
                patch.setattr(os, name, self._one("remove", getattr(os, name)))
            patch.setattr(io, "open", self._file(io.open))
            yield self

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if self.mine(path) and flags & (os.O_WRONLY | os.O_RDWR):
                self.note("make", path, bool(flags & os.O_TRUNC))
            number = real(path, flags, *rest, **more)
            if self.mine(path):
                self.open[number] = str(path)
            return number

        return call

    def _write(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(number: int, data: Any) -> int:
            if number in self.open:
                self.note("write", self.open[number], bytes(data))
            return real(number, data)

        return call

    def _fsync(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(number: int) -> None:
            if number in self.open:
                path = self.open[number]
                self.note("sync-folder" if os.path.isdir(path) else "sync", path)  # noqa: PTH112 - pathlib is watched
            real(number)

        return call

    def _close(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(number: int) -> None:
            self.open.pop(number, None)
            real(number)

        return call

    def _mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        return self._one("folder", real)

    def _one(self, kind: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, *rest: Any, **more: Any) -> None:
            real(path, *rest, **more)
            if self.mine(path):
                self.note(kind, path)

        return call

    def _two(self, kind: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(source: Any, target: Any, **more: Any) -> None:
            if self.mine(target):
                self.note(kind, source, str(target))
            real(source, target, **more)

        return call

    def _file(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if not self.mine(path) or not set(mode) & set("wax+"):
                return real(path, mode, *rest, **more)
            raw = _File(self, path, mode)
            buffered = io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")

        return call


class _File(io.FileIO):
    """A file whose writes are recorded."""

    def __init__(self, disk: Disk, path: Any, mode: str) -> None:
        disk.note("make", path, "w" in mode)
        super().__init__(path, mode.replace("t", "").replace("b", ""))
        self._disk, self._path = disk, str(path)
        disk.open[self.fileno()] = self._path

    def write(self, data: Any) -> int:
        self._disk.note("write", self._path, bytes(data))
        return super().write(data)

    def close(self) -> None:
        if not self.closed:
            self._disk.open.pop(self.fileno(), None)
        super().close()


def after_power_loss(ops: Sequence[Op], root: str, into: Path, *, names: str, data: str) -> None:
    """Writes what may be left of a folder after these calls.

    Args:
        ops: the calls that were made.
        root: folder that they were made in.
        into: receives what is left; emptied first.
        names: `kept` or `lost`: what becomes of names whose folder was not synced.
        data: one of DATA: what becomes of bytes that were not synced.
    """
    replay = _Replay(root)
    for op in ops:
        getattr(replay, op.kind.replace("-", "_"))(op)
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    folders, files = (replay.folders, replay.now) if names == "kept" else (replay.safe_folders, replay.safe)
    for each in sorted(folders):
        if (into / os.path.relpath(each, root)).parent.is_dir():
            (into / os.path.relpath(each, root)).mkdir(exist_ok=True)
    for each, number in files.items():
        target = into / os.path.relpath(each, root)
        if target.parent.is_dir():
            target.write_bytes(replay.contents[number].left(data))


class _Content:
    """The bytes of one file, and how many of them are safe."""

    def __init__(self) -> None:
        self.data = b""
        self.safe = 0

    def left(self, how: str) -> bytes:
        unsafe = self.data[self.safe :]
        left = {"kept": unsafe, "lost": b"", "torn": unsafe[: len(unsafe) // 2], "zeros": b"\0" * len(unsafe)}[how]
        return self.data[: self.safe] + left


class _Replay:
    """The calls once more: the names as the program saw them, and those that are safe."""

    def __init__(self, root: str) -> None:
        self.contents: list[_Content] = []
        self.now: dict[str, int] = {}
        self.safe: dict[str, int] = {}
        self.folders = {root}
        self.safe_folders = {root}

    def make(self, op: Op) -> None:
        if op.path not in self.now or op.more:
            self.contents.append(_Content())
            self.now[op.path] = len(self.contents) - 1

    def write(self, op: Op) -> None:
        self.contents[self.now[op.path]].data += op.more

    def sync(self, op: Op) -> None:
        content = self.contents[self.now[op.path]]
        content.safe = len(content.data)

    def rename(self, op: Op) -> None:
        self.now[op.more] = self.now.pop(op.path)

    def remove(self, op: Op) -> None:
        self.now.pop(op.path, None)
        self.folders.discard(op.path)

    def folder(self, op: Op) -> None:
        self.folders.add(op.path)

    def sync_folder(self, op: Op) -> None:
        self.safe_folders |= {each for each in self.folders if str(Path(each).parent) == op.path}
        self.safe = {each: number for each, number in self.safe.items() if str(Path(each).parent) != op.path}
        self.safe |= {each: number for each, number in self.now.items() if str(Path(each).parent) == op.path}
