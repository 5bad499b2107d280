"""Device locks: who is excluded, who is named, and what a stranger may have laid in their place."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ExitCode, MeasurementError
from harness.machine import device_locks as module
from harness.machine.device_locks import DeviceHeldError, device_locks, lock_file, lock_place, open_lock
from harness.machine.device_nodes import device_node
from harness.machine.lock_holder import Holder, command_words, here

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")


def silent(_message: object) -> None:
    """A listener."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of locks of this test."""
    monkeypatch.setenv("HARNESS_LOCKS", str(tmp_path / "locks"))
    return lock_place().folder


def held_elsewhere(folder: Path, device: str = "cpu") -> subprocess.Popen[str]:
    """Another process that holds a device until its input ends."""
    code = f"from harness.machine.device_locks import device_locks\nwith device_locks(({device!r},), print):\n"
    code += "    print('held', flush=True)\n    input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HARNESS_LOCKS": str(folder)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


# Waiting


def test_who_does_not_wait_is_told_the_holder_and_the_code_is_3(folder: Path) -> None:
    other = held_elsewhere(folder)
    try:
        said = f"device cpu is held by process {other.pid} of .* since 20"
        with pytest.raises(DeviceHeldError, match=said) as error, device_locks(("cpu",), silent, 0.0):
            pass
    finally:
        other.communicate("\n")
    assert error.value.exit_code is ExitCode.MEASUREMENT
    assert "gave up after 0 s" in str(error.value)
    with device_locks(("cpu",), silent, 0.0):
        pass


def test_a_holder_that_is_killed_holds_nothing(folder: Path) -> None:
    other = held_elsewhere(folder)
    other.kill()
    other.communicate()
    assert lock_file(folder, "cpu").read_text().startswith("{")  # what it said is still there
    with device_locks(("cpu",), silent, 0.0) as locks:
        assert locks["held"] == {"cpu": [str(lock_file(folder, "cpu"))]}


def test_waiting_is_said_at_once_and_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.001)
    monkeypatch.setattr(module, "TELL_S", 0.0)
    told: list[dict[str, Any]] = []
    other = held_elsewhere(folder)

    def listen(message: Any) -> None:
        told.append(message)
        if len(told) == 3:
            other.communicate("\n")

    with device_locks(("cpu",), listen):
        pass
    assert len(told) >= 3
    assert told[0]["type"] == "waiting"
    assert told[0]["device"] == "cpu"
    assert f"process {other.pid}" in told[0]["holder"]
    assert told[0]["waited_s"] <= told[-1]["waited_s"]


def test_waiting_is_said_once_a_minute_and_not_at_each_look(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("harness.machine.device_locks.time.monotonic", lambda: now[0])
    monkeypatch.setattr("harness.machine.device_locks.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    told: list[float] = []
    other = held_elsewhere(folder)
    try:
        listen = lambda message: told.append(message["waited_s"])  # noqa: E731 - a name for the line's sake
        with pytest.raises(DeviceHeldError), device_locks(("cpu",), listen, 150.0):
            pass
    finally:
        other.communicate("\n")
    assert told == [0.0, 60.0, 120.0]


def test_devices_are_locked_apart_and_all_or_none(folder: Path) -> None:
    other = held_elsewhere(folder, "gpu-2")
    try:
        with device_locks(("gpu-1",), silent, 0.0):
            pass
        with pytest.raises(DeviceHeldError), device_locks(("gpu-1", "gpu-2"), silent, 0.0):
            pass
        with device_locks(("gpu-1",), silent, 0.0):
            pass
    finally:
        other.communicate("\n")


def test_threads_of_one_process_exclude_each_other(folder: Path) -> None:
    inside = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with device_locks(("cpu",), silent):
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(30)
    with pytest.raises(DeviceHeldError), device_locks(("cpu",), silent, 0.0):
        pass
    leave.set()
    thread.join(30)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_hold_the_lock_on(folder: Path) -> None:
    read, write = os.pipe()
    with device_locks(("cpu",), silent):
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)
            os._exit(len(module._OPEN))
    try:
        with device_locks(("cpu",), silent, 0.0):
            pass
    finally:
        os.close(write)
        os.close(read)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_folder_that_is_cleaned_up_makes_no_second_lock_of_the_same_device(folder: Path) -> None:
    with device_locks(("cpu",), silent):
        lock_file(folder, "cpu").unlink()
        with device_locks(("cpu",), silent, 0.0):
            assert lock_file(folder, "cpu").exists()
    with device_locks(("cpu",), silent, 0.0):
        pass


def test_without_devices_there_is_nothing_to_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LOCKS", "/proc/nowhere")
    with device_locks((), silent) as locks:
        assert locks == {}
    with pytest.raises(MeasurementError, match="cannot be made"), device_locks(("cpu",), silent):
        pass


# Places


def test_the_shared_folder_is_root_s_and_sticky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_LOCKS")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    plain.mkdir(mode=0o755)
    linked.symlink_to(tmp_path)
    own = lock_place((plain, linked, tmp_path / "missing"))
    assert own.fallback
    assert own.folder == tmp_path / f"joule-harness-{os.getuid()}"
    assert "runs of other users, or with another TMPDIR" in own.not_excluded


@root_only
def test_the_first_shared_folder_is_taken_for_all_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_LOCKS")
    shared, foreign = tmp_path / "shared", tmp_path / "foreign"
    for each in (shared, foreign):
        each.mkdir()
        each.chmod(0o1777)
    os.chown(foreign, 12345, 12345)
    place = lock_place((foreign, shared))
    assert (place.folder, place.not_excluded, place.fallback) == (shared, "", False)
    monkeypatch.setattr(module, "lock_place", lambda: place)
    with device_locks(("cpu",), silent) as locks:
        assert locks["not_excluded"] == f"runs in containers that do not see {shared}"
        assert stat.S_IMODE(lock_file(shared, "cpu").stat().st_mode) == 0o666


@root_only
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_another_user_s_lock_excludes_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    for parent in [*shared.parents]:
        if not parent.stat().st_mode & stat.S_IXOTH:
            pytest.skip(f"another user does not get into {parent}")
    monkeypatch.setattr(module, "lock_place", lambda: module.LockPlace(shared))
    reading, writing = os.pipe()
    with device_locks(("cpu",), silent):
        child = os.fork()
        if not child:
            os.setuid(12345)
            try:
                with device_locks(("cpu",), silent, 0.0):
                    os.write(writing, b"taken")
            except DeviceHeldError:
                os.write(writing, b"held")
            os._exit(0)
        os.waitpid(child, 0)
    assert os.read(reading, 9) == b"held"
    child = os.fork()
    if not child:
        os.setuid(12345)
        with device_locks(("cpu",), silent, 0.0):
            os.write(writing, b"taken")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 9) == b"taken"
    for each in (reading, writing):
        os.close(each)


@root_only
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    monkeypatch.setenv("HARNESS_LOCKS", str(theirs))
    with pytest.raises(MeasurementError, match="belongs to another user"), device_locks(("cpu",), silent):
        pass


# What a stranger may have laid there


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def second_name(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def pipe(path: Path, _victim: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, _victim: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("lay", [link, second_name, pipe, directory])
def test_what_is_no_lock_is_refused_and_not_written(folder: Path, lay: Callable[[Path, Path], None]) -> None:
    victim = folder.parent / "victim"
    victim.write_text("precious")
    lay(lock_file(folder, "cpu"), victim)
    with pytest.raises(MeasurementError, match=r"joule-harness-cpu\.lock"), device_locks(("cpu",), silent, 0.0):
        pass
    assert victim.read_text() == "precious"


def test_a_link_that_leads_nowhere_makes_no_file(folder: Path) -> None:
    lock_file(folder, "cpu").symlink_to(folder.parent / "made")
    with pytest.raises(MeasurementError):
        open_lock(lock_file(folder, "cpu"))
    assert not (folder.parent / "made").exists()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"process 7",
        b"{",
        b"[1]",
        b'{"pid": 1}',
        b'{"pid": "x", "user": "u", "command": "c", "since_utc": "2026-01-01T00:00:00+00:00"}',
        b'{"pid": 1, "user": "u", "command": "c", "since_utc": "2026-01-01T00:00:00"}',
        b"[" * 4000,
        b"\xff\xfe",
    ],
)
def test_a_holder_that_says_nonsense_is_no_holder(tmp_path: Path, said: bytes) -> None:
    (tmp_path / "lock").write_bytes(said)
    file = os.open(tmp_path / "lock", os.O_RDONLY)
    assert Holder.read(file) is None
    assert module.holder_text(file) == "a process that did not leave its name"
    os.close(file)


def test_a_holder_s_words_move_no_cursor_and_are_short(tmp_path: Path) -> None:
    evil = {"pid": 1, "user": "\x1b[2J", "command": "a\n" * 500, "since_utc": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "lock").write_text(json.dumps(evil))
    file = os.open(tmp_path / "lock", os.O_RDONLY)
    shown = str(Holder.read(file))
    os.close(file)
    assert shown.isprintable()
    assert len(shown) < 300


def test_a_holder_leaves_no_option_and_no_address() -> None:
    words = ["/x/harness", "run", "a.yaml", "--store", "s3://user:secret@host/x"]
    assert command_words(words) == "harness run a.yaml"
    assert command_words(["/x/harness", "run", "--token", "secret"]) == "harness run"
    assert command_words(["/x/harness", "report", "s3://k:s@h/run"]) == "harness report"
    assert command_words(["/x/harness/__main__.py", "gate"]) == "harness gate"
    assert command_words([""]) == "python"
    assert here().pid == os.getpid()


# Device nodes


def test_the_node_of_a_card_is_found_by_its_uuid(tmp_path: Path) -> None:
    for number, uuid in ((3, "GPU-aaaa"), (0, "GPU-bbbb")):
        card = tmp_path / f"0000:0{number}:00.0"
        card.mkdir()
        (card / "information").write_text(f"Model: \t\t A card\nGPU UUID: \t {uuid}\nDevice Minor: \t {number}\n")
    assert device_node("GPU-aaaa", tmp_path, Path("/dev")) == Path("/dev/nvidia3")
    assert device_node("GPU-cccc", tmp_path) is None
    assert device_node("MIG-aaaa", tmp_path) is None
    assert device_node("cpu", tmp_path) is None
    assert device_node("GPU-aaaa", tmp_path / "no driver") is None


def test_a_node_is_locked_besides_the_file_and_excludes_other_folders(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Path("/dev/null")  # any device node: flock knows it by its inode
    with device_locks(("GPU-1",), silent, 0.0, node_of=lambda _uuid: node) as locks:
        assert locks["held"] == {"GPU-1": [str(lock_file(folder, "GPU-1")), str(node)]}
        monkeypatch.setenv("HARNESS_LOCKS", str(tmp_path / "other"))
        with (
            pytest.raises(DeviceHeldError, match="does not share this run's folder"),
            device_locks(("GPU-1",), silent, 0.0, node_of=lambda _uuid: node),
        ):
            pass


@pytest.mark.parametrize("node", ["/dev/there-is-none", "/etc/hostname"])
def test_a_node_that_cannot_be_locked_leaves_the_file(folder: Path, node: str) -> None:
    with device_locks(("GPU-1",), silent, 0.0, node_of=lambda _uuid: Path(node)) as locks:
        assert locks["held"] == {"GPU-1": [str(lock_file(folder, "GPU-1"))]}
