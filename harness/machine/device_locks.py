"""One lock a device, for every user, TMPDIR, job and, as far as it goes, container of this machine.

A lock is flock(2) on a file that every user may open, in a folder that all of them share; of a device with a node under
/dev also on that node, which containers may share too. The kernel gives a lock back when its holder ends, however it
ends; what a file says of its holder counts only while the lock is held.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MeasurementError
from harness.executor import Listener
from harness.machine.device_nodes import device_node
from harness.machine.lock_holder import Holder, here

SHARED: Final = (Path("/run/lock"), Path("/dev/shm"), Path("/tmp"), Path("/private/tmp"))  # noqa: S108 - what is opened in them is checked
"""Folders in which every user may make files and nobody may take away another's; the first that is one is taken."""
FOLDER: Final = "HARNESS_LOCKS"
"""Environment variable that names another folder of locks; runs that name different ones do not exclude each other."""
PREFIX: Final = "joule-harness-"
POLL_S: Final = 0.5
TELL_S: Final = 60.0
"""A run that waits says so at once, and again so often."""
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_OPEN: Final[set[int]] = set()
"""Locked files of this process; a child that is forked closes its copies, or it would hold the locks on."""


class DeviceHeldError(MeasurementError):
    """A device was held by somebody else for as long as this run would wait."""


@dataclass(frozen=True, slots=True)
class LockPlace:
    """Where locks lie.

    Attributes:
        folder: of the files.
        not_excluded: runs that may still measure beside; empty where those of all users are excluded.
        fallback: whether no folder is shared by all users, and the user's own stands in.
    """

    folder: Path
    not_excluded: str = ""
    fallback: bool = False


def lock_place(candidates: Sequence[Path] = SHARED) -> LockPlace:
    """The folder of the locks: the one that HARNESS_LOCKS names, else one shared by all, else the user's own.

    Raises:
        MeasurementError: the folder belongs to another user, or cannot be made.
    """
    named = os.environ.get(FOLDER)
    if named:
        return LockPlace(_own(Path(named).expanduser()), f"runs that do not have {FOLDER}={named}")
    for folder in candidates:
        if _is_shared(folder):
            return LockPlace(folder)
    own = _own(Path(tempfile.gettempdir()) / f"joule-harness-{os.getuid()}")
    return LockPlace(own, f"runs of other users, or with another TMPDIR: the locks lie in {own}", fallback=True)


def _is_shared(folder: Path) -> bool:
    """Whether the folder is root's and everybody may write into it, sticky: no user can put another folder there."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    everybody = stat.S_ISVTX | stat.S_IWOTH | stat.S_IXOTH
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == 0
        and found.st_mode & everybody == everybody
        and os.access(folder, os.W_OK | os.X_OK)
    )


def _own(folder: Path) -> Path:
    """A folder of this user, made if need be; refused where somebody else made it first in a shared place."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise MeasurementError(
            f"the folder of the device locks cannot be made: {error.strerror}", where=str(folder)
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise MeasurementError(
            "the folder of the device locks belongs to another user",
            where=str(folder),
            hint=f"set {FOLDER} or TMPDIR to a folder of your own",
        )
    return folder


def lock_files(folder: Path) -> list[Path]:
    """The files of the locks that were ever taken there."""
    return sorted(folder.glob(f"{PREFIX}*.lock"))


def lock_file(folder: Path, device: str) -> Path:
    """The file of a device's lock."""
    name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in device)
    return folder / f"{PREFIX}{name}.lock"


@contextmanager
def device_locks(
    devices: Sequence[str],
    listener: Listener,
    wait_s: float | None = None,
    *,
    node_of: Callable[[str], Path | None] = device_node,
) -> Iterator[dict[str, object]]:
    """Holds the locks of devices; says who holds one while waiting for it.

    Args:
        devices: their UUIDs.
        listener: is told `waiting`, with device, holder and since when.
        wait_s: gives up after so long; never if None.
        node_of: UUID -> the device's node.

    Yields:
        What the record keeps: the locks, and whom they do not exclude.

    Raises:
        DeviceHeldError: a device was held all that time.
        MeasurementError: there is no place for the locks.
    """
    if not devices:
        yield {}
        return
    place = lock_place()
    until = None if wait_s is None else time.monotonic() + wait_s
    with ExitStack() as stack:
        held: dict[str, list[str]] = {}
        for device in sorted(set(devices)):
            path = lock_file(place.folder, device)
            paths = [path, *filter(None, [node_of(device)])]
            for each in paths:
                lock = _Lock(each, device, is_node=each != path)
                if lock.acquire(listener, until):
                    stack.callback(lock.release)
                    held.setdefault(device, []).append(str(each))
        yield {"held": held, "not_excluded": _not_excluded(place, held), "fallback": place.fallback}


def _not_excluded(place: LockPlace, held: Mapping[str, Sequence[str]]) -> str:
    if place.not_excluded:
        return place.not_excluded
    without = [device for device, paths in held.items() if len(paths) < 2]
    return f"runs in containers that do not see {place.folder}" if without else ""


class _Lock:
    """flock on the file of a device's lock, or on the device's node.

    Args:
        path: of it.
        device: that it stands for.
        is_node: whether it is the device's node, which says nothing of its holder.
    """

    def __init__(self, path: Path, device: str, *, is_node: bool) -> None:
        self._path = path
        self._device = device
        self._is_node = is_node
        self._file = -1

    def acquire(self, listener: Listener, until: float | None) -> bool:
        """Waits for it; False for a device node that this user may not open."""
        try:
            self._wait(listener, until)
        except BaseException:
            self._close()
            raise
        if self._file < 0:
            return False
        _OPEN.add(self._file)
        if not self._is_node:
            with contextlib.suppress(OSError):  # another user's file may be open for reading alone
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, here().to_bytes(), 0)
        return True

    def _wait(self, listener: Listener, until: float | None) -> None:
        began = time.monotonic()
        told = -TELL_S
        while not self._try() and self._file >= 0:
            waited_s = time.monotonic() - began
            if until is not None and time.monotonic() >= until:
                raise DeviceHeldError(
                    f"device {self._device} is held by {self._holder()}; gave up after {waited_s:.0f} s",
                    hint="--wait says how long to wait",
                )
            if waited_s - told >= TELL_S:
                told = waited_s
                listener(
                    {
                        "type": "waiting",
                        "device": self._device,
                        "holder": self._holder(),
                        "waited_s": round(waited_s, 1),
                    }
                )
            time.sleep(POLL_S if until is None else max(0.0, min(POLL_S, until - time.monotonic())))

    def _holder(self) -> str:
        if self._is_node:
            return f"a run that locks {self._path} and does not share this run's folder of locks"
        return holder_text(self._file)

    def _try(self) -> bool:
        """Takes the lock if it is free; leaves the file open if it is not, and closed where there is none to open."""
        if self._file < 0:
            self._file = open_node(self._path) if self._is_node else open_lock(self._path)
            if self._file < 0:
                return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if self._is_node or _same(self._file, self._path):
                return False
        except OSError as error:
            self._close()
            if self._is_node:  # a driver may know no locks
                return False
            raise MeasurementError(f"the device cannot be locked: {error.strerror}", where=str(self._path)) from error
        else:
            if self._is_node or _same(self._file, self._path):
                return True
        self._close()  # somebody cleaned the folder up meanwhile: whoever comes next makes a new file
        return self._try()

    def release(self) -> None:
        if not self._is_node:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_UN)  # also of copies that a child was forked with
        _OPEN.discard(self._file)
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def open_lock(path: Path) -> int:
    """Opens the file of a lock, made if need be so that every user can lock it.

    A link, a pipe or a file that has a second name is none of ours: following it would let its owner decide what is
    written into. The file is made in a step of its own: Linux does not let O_CREAT open another user's file in a sticky
    folder (`fs.protected_regular`).

    Raises:
        MeasurementError: something else lies there, or this user may not open it.
    """
    for _ in range(3):
        with contextlib.suppress(FileExistsError):
            made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
            os.fchmod(made, 0o666)  # whatever the umask is
            return made
        try:
            return _checked(_opened(path), path)
        except FileNotFoundError:
            continue
    raise MeasurementError("the file of a device lock comes and goes", where=str(path))


def _opened(path: Path) -> int:
    try:
        try:
            return os.open(path, os.O_RDWR | _FLAGS)
        except PermissionError:
            return os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        raise
    except OSError as error:
        what = "it is a link" if error.errno == errno.ELOOP else str(error.strerror)
        raise MeasurementError(
            f"the device lock cannot be opened: {what}", where=str(path), hint="its owner, or root, can remove it"
        ) from error


def _checked(file: int, path: Path) -> int:
    found = os.fstat(file)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return file
    os.close(file)
    raise MeasurementError(
        "this is no device lock: it is no plain file, or it has a second name",
        where=str(path),
        hint="its owner, or root, can remove it",
    )


def open_node(path: Path) -> int:
    """Opens a device node; -1 where this user may not, or where it is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1
    if stat.S_ISCHR(os.fstat(file).st_mode):
        return file
    os.close(file)
    return -1


def _same(file: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(file), there)


def holder_text(file: int) -> str:
    """Who holds a lock, as its open file says; of use only while it is held."""
    holder = Holder.read(file)
    return "a process that did not leave its name" if holder is None else str(holder)


def holder_of(path: Path) -> tuple[str, bool] | None:
    """Who holds a lock now, and whether that process is seen from here; None if nobody does.

    Raises:
        MeasurementError: this is no lock, or it cannot be opened.
    """
    file = _checked(_opened(path), path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = Holder.read(file)
        return holder_text(file), holder is None or holder.seen
    finally:
        os.close(file)
    return None


def _let_go_in_child() -> None:
    while _OPEN:
        with contextlib.suppress(OSError):
            os.close(_OPEN.pop())


os.register_at_fork(after_in_child=_let_go_in_child)
