"""Settings of devices that a trial changed, kept beside the devices' locks until they are put back.

The file is written before a device is touched and removed after it was put back, so that whoever comes after a process
that was killed knows what to do: the driver of the run, the next trial on the device, or the next run.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from harness.backend import DeviceSettings, Setting
from harness.errors import HarnessError, MeasurementError, NotPossibleHereError
from harness.machine.device_locks import PREFIX, DeviceHeldError, device_locks, lock_file, lock_place
from harness.units import si

SUFFIX: Final = ".settings"
LIMIT_BYTES: Final = 65_536
_SAME: Final = 5e-3
"""A device may round what it is told by so large a part of it."""

SettingsOf = Callable[[str], DeviceSettings | None]
"""Name of a backend -> what sets and puts back the settings of its devices; None where it is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A setting that was changed.

    Attributes:
        backend: whose option asked for it.
        device: UUID of the device.
        name: of the setting.
        value: what it was set to.
        unit: of `value` and `before`.
        before: what it was before; None where none was in force, as far as the device says.
    """

    backend: str
    device: str
    name: str
    value: float
    unit: str
    before: float | None

    @property
    def was(self) -> str:
        """What it was before, in words."""
        return "none" if self.before is None else si(self.before, self.unit, 4)


class Settled:
    """What a trial set: for the record, and what could not be put back.

    Attributes:
        facts: per setting the device, name, unit, value asked for, the value before, and what the device said after it
            was set (`read_back`) and at the end (`at_end`); None where it does not say.
        faults: sentences of what was not put back; known after the end.
    """

    def __init__(self) -> None:
        self.facts: list[dict[str, object]] = []
        self.faults: list[str] = []


@contextmanager
def settled(backend: str, wanted: Sequence[Setting], settings: DeviceSettings | None) -> Iterator[Settled]:
    """Sets what a backend asks for, and puts it back at the end.

    Args:
        backend: its name.
        wanted: by its options.
        settings: sets them; whoever holds the locks of the devices calls this.

    Raises:
        NotPossibleHereError: not permitted, or there is no such setting; what was set until then is put back.
        MeasurementError: a device does not answer or did not take the value.
    """
    found = Settled()
    if not wanted:
        yield found
        return
    if settings is None:
        raise MeasurementError(f"the backend {backend} asks for settings and has nothing that sets them")
    folder = lock_place().folder
    kept: list[Path] = []
    try:
        for device in dict.fromkeys(each.device for each in wanted):
            path = settings_file(folder, device)
            kept.append(path)
            found.facts += _set(path, backend, [each for each in wanted if each.device == device], settings)
        yield found
        found.faults += _exceeded(found.facts, settings)
    finally:
        for path in reversed(kept):
            found.faults += [note.text for note in put_back(path, settings) if note.fault]


def _exceeded(facts: Sequence[dict[str, object]], settings: DeviceSettings) -> list[str]:
    """Adds to each fact what the device does at the end; sentences of those that go beyond what was asked for."""
    found = []
    for fact in facts:
        device, name, unit, value = str(fact["device"]), str(fact["name"]), str(fact["unit"]), fact["value"]
        assert isinstance(value, float)
        try:
            seen = settings.seen(device, name)
        except HarnessError as error:
            found.append(f"{name} of {device} cannot be read at the end: {error}")
            continue
        fact["at_end"] = seen
        if seen is not None and seen > value and not _same(seen, value):
            found.append(f"{name} of {device} was {si(seen, unit, 4)} at the end, not {si(value, unit, 4)} as set")
    return found


def _set(path: Path, backend: str, asked: Sequence[Setting], settings: DeviceSettings) -> list[dict[str, object]]:
    """Sets what is asked of one device, each with what was before in the file first; the facts of each."""
    changed: list[Changed] = []
    facts: list[dict[str, object]] = []
    for each in asked:
        one = Changed(backend=backend, **asdict(each), before=settings.read(each.device, each.name))
        _write(path, [*changed, one])
        try:
            shown = settings.write(each.device, each.name, each.value)
        except NotPossibleHereError:  # this one is as it was
            if changed:
                _write(path, changed)
            else:
                path.unlink(missing_ok=True)
            raise
        changed.append(one)
        facts.append({**asdict(each), "before": one.before, "read_back": shown})
    return facts


@dataclass(frozen=True, slots=True)
class Note:
    """What became of one setting.

    Attributes:
        text: a sentence.
        done: nothing is left to be put back.
        foreign: somebody else had changed it meanwhile.
    """

    text: str
    done: bool = field(kw_only=True)
    foreign: bool = False

    @property
    def fault(self) -> bool:
        """Whether whoever reads the trial's numbers must know of it."""
        return self.foreign or not self.done


def put_back(path: Path, settings: DeviceSettings) -> list[Note]:
    """Puts back what a file says and removes it; it stays where a device did not take its former value.

    A device that has another value than was set belongs to somebody else by now: it is left alone.
    """
    notes = []
    for each in reversed(_read(path)):
        name = f"{each.name} of {each.device}"
        try:
            now = settings.read(each.device, each.name)
            if now is not None and not _same(now, each.value):
                kept = si(now, each.unit, 4)
                text = f"{name} is {kept}, not {si(each.value, each.unit, 4)} as set: left alone"
                notes.append(Note(text, done=True, foreign=True))
                continue
            settings.write(each.device, each.name, each.before)
        except HarnessError as error:
            text = f"{name} could not be put back to {each.was} ({error}); it is {si(each.value, each.unit, 4)}"
            notes.append(Note(text, done=False))
        else:
            notes.append(Note(f"{name} put back from {si(each.value, each.unit, 4)} to {each.was}", done=True))
    if all(note.done for note in notes):
        path.unlink(missing_ok=True)
    return notes


def restored(settings_of: SettingsOf, *, held: Collection[str] | None = None) -> list[Note]:
    """Puts back what processes that were killed left behind.

    Args:
        settings_of: finds what sets the devices of a backend.
        held: devices whose locks the caller holds: these alone are looked at. None looks at all whose lock is free,
            and holds it meanwhile.
    """
    notes: list[Note] = []
    for path, changed in left_behind():
        device, backend = changed[0].device, changed[0].backend
        if held is not None and device not in held:
            continue
        lock: AbstractContextManager[Any] = contextlib.nullcontext()
        if held is None:
            lock = device_locks((device,), lambda _: None, 0.0)
        try:
            with lock:
                settings = settings_of(backend)
                if settings is None:
                    names = ", ".join(each.name for each in changed)
                    text = f"{names} of {device} was set by a process that was killed; the backend {backend!r} that can"
                    notes.append(Note(f"{text} put it back is not loaded here", done=False))
                elif path.exists():
                    notes += put_back(path, settings)
        except DeviceHeldError:
            continue
        except HarnessError as error:
            notes.append(Note(f"the settings in {path} were not put back: {error}", done=False))
    return [replace(note, text=f"left behind by a process that was killed: {note.text}") for note in notes]


def left_behind(folder: Path | None = None) -> list[tuple[Path, tuple[Changed, ...]]]:
    """The files of this user, or of root, that say what is to be put back, with what they say.

    A file of somebody else is not believed: its owner could have any value set with this user's permissions.
    """
    try:
        place = lock_place().folder if folder is None else folder
    except HarnessError:
        return []
    found = []
    for path in sorted(place.glob(f"{PREFIX}*{SUFFIX}")):
        with contextlib.suppress(MeasurementError):
            if changed := _read(path):
                found.append((path, changed))
    return found


def settings_file(folder: Path, device: str) -> Path:
    """The file that says what was set on a device."""
    return lock_file(folder, device).with_suffix(SUFFIX)


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME * max(abs(one), abs(other))


def _write(path: Path, changed: Sequence[Changed]) -> None:
    """Whole or not at all, and on the disk before a device is touched."""
    partial = path.with_suffix(f".{os.getpid()}")
    content = json.dumps([asdict(each) for each in changed]).encode()
    try:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, content)
            os.fsync(file)
        finally:
            os.close(file)
        partial.replace(path)
    except OSError as error:
        raise MeasurementError(
            f"what is to be put back cannot be kept, so nothing is set: {error.strerror}", where=str(path)
        ) from error


def _read(path: Path) -> tuple[Changed, ...]:
    """What a file says; nothing where it is gone. Raises MeasurementError where it is not to be believed."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise MeasurementError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode) or about.st_uid not in {0, os.geteuid()}:
            raise MeasurementError("this file belongs to another user", where=str(path))
        raw: Any = json.loads(os.read(file, LIMIT_BYTES))
        return tuple(_changed(each) for each in raw)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MeasurementError("this file does not say what is to be put back", where=str(path)) from error
    finally:
        os.close(file)


def _changed(raw: Mapping[str, Any]) -> Changed:
    before = raw["before"]
    return Changed(
        backend=str(raw["backend"]),
        device=str(raw["device"]),
        name=str(raw["name"]),
        value=float(raw["value"]),
        unit=str(raw["unit"]),
        before=None if before is None else float(before),
    )
