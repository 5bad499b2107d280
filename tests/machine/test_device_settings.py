"""What is set on devices for a trial: kept in a file first, put back, and never by somebody else's word."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.backend import DeviceSettings, Setting
from harness.errors import MeasurementError, NotPossibleHereError
from harness.machine.device_locks import device_locks
from harness.machine.device_settings import left_behind, restored, settings_file, settled

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
LIMIT = Setting(device="GPU-1", name="limit", value=200.0, unit="W")
CLOCK = Setting(device="GPU-1", name="clock", value=1.2e9, unit="Hz")
OTHER = Setting(device="GPU-2", name="limit", value=200.0, unit="W")


class Fake(DeviceSettings):
    """Registers of devices; a clock cannot be read, and what is forbidden cannot be set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now: dict[tuple[str, str], float | None] = {
            ("GPU-1", "limit"): 350.0,
            ("GPU-1", "clock"): None,
            ("GPU-2", "limit"): 400.0,
        }
        self.forbidden: set[tuple[str, str]] = set()
        self.deaf: set[tuple[str, str]] = set()
        self.kept: list[list[str]] = []

    def read(self, device: str, name: str) -> float | None:
        return None if name == "clock" else self.now[device, name]

    def write(self, device: str, name: str, value: float | None) -> float | None:
        path = settings_file(self.folder, device)
        self.kept.append([each["name"] for each in json.loads(path.read_text())] if path.exists() else [])
        if (device, name) in self.forbidden:
            raise NotPossibleHereError("not permitted")
        if (device, name) in self.deaf:
            raise MeasurementError("lost")
        self.now[device, name] = value
        return value


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "locks"
    made.mkdir(mode=0o700)
    monkeypatch.setenv("HARNESS_LOCKS", str(made))
    return made


@pytest.fixture
def fake(folder: Path) -> Fake:
    return Fake(folder)


def test_what_is_to_be_put_back_is_on_the_disk_before_a_device_is_touched(fake: Fake, folder: Path) -> None:
    with settled("b", [LIMIT, CLOCK, OTHER], fake) as found:
        assert fake.now == {("GPU-1", "limit"): 200.0, ("GPU-1", "clock"): 1.2e9, ("GPU-2", "limit"): 200.0}
        assert fake.kept == [["limit"], ["limit", "clock"], ["limit"]]
        assert len(left_behind()) == 2
    assert fake.now == {("GPU-1", "limit"): 350.0, ("GPU-1", "clock"): None, ("GPU-2", "limit"): 400.0}
    assert list(folder.iterdir()) == []
    assert found.faults == []
    assert found.facts[0] == {
        "device": "GPU-1", "name": "limit", "value": 200.0, "unit": "W", "before": 350.0, "read_back": 200.0,
        "at_end": 200.0,
    }  # fmt: skip
    assert (found.facts[1]["before"], found.facts[1]["at_end"]) == (None, None)


def test_a_refusal_puts_back_what_was_set_before_it_and_leaves_no_file(fake: Fake, folder: Path) -> None:
    fake.forbidden = {("GPU-2", "limit")}
    with pytest.raises(NotPossibleHereError), settled("b", [LIMIT, CLOCK, OTHER], fake):
        pytest.fail("nothing may be measured")
    assert fake.now == {("GPU-1", "limit"): 350.0, ("GPU-1", "clock"): None, ("GPU-2", "limit"): 400.0}
    assert list(folder.iterdir()) == []


def test_an_error_of_the_work_puts_it_back(fake: Fake, folder: Path) -> None:
    with pytest.raises(RuntimeError), settled("b", [LIMIT], fake):
        raise RuntimeError("lost")
    assert fake.now["GPU-1", "limit"] == 350.0
    assert list(folder.iterdir()) == []


def test_what_somebody_else_changed_meanwhile_is_theirs_and_a_fault_of_the_trial(fake: Fake, folder: Path) -> None:
    with settled("b", [LIMIT], fake) as found:
        fake.now["GPU-1", "limit"] = 300.0
    assert fake.now["GPU-1", "limit"] == 300.0
    assert found.faults == [
        "limit of GPU-1 was 300 W at the end, not 200 W as set",
        "limit of GPU-1 is 300 W, not 200 W as set: left alone",
    ]
    assert list(folder.iterdir()) == []


def test_what_cannot_be_put_back_stays_in_its_file_until_it_can(fake: Fake, folder: Path) -> None:
    with settled("b", [LIMIT], fake) as found:
        fake.deaf = {("GPU-1", "limit")}
    assert found.faults == ["limit of GPU-1 could not be put back to 350 W (lost); it is 200 W"]
    assert [note.done for note in restored(lambda _: fake)] == [False]
    fake.deaf = set()
    (note,) = restored(lambda _: fake)
    assert note.text == "left behind by a process that was killed: limit of GPU-1 put back from 200 W to 350 W"
    assert fake.now["GPU-1", "limit"] == 350.0
    assert restored(lambda _: fake) == []
    assert not list(folder.glob("*.settings"))


def left(fake: Fake, *wanted: Setting) -> None:
    """What a process leaves that is killed between setting and putting back."""
    context = settled("b", wanted, fake)
    context.__enter__()
    copies = {path: path.read_bytes() for path in fake.folder.glob("*.settings")}
    now = dict(fake.now)
    context.__exit__(None, None, None)
    fake.now = now
    for path, content in copies.items():
        path.write_bytes(content)


def test_a_device_that_is_held_is_left_to_its_holder(fake: Fake) -> None:
    left(fake, LIMIT, OTHER)
    with device_locks(("GPU-1",), lambda _: None, node_of=lambda _: None):
        (note,) = restored(lambda _: fake)
        assert "GPU-2" in note.text
        assert fake.now["GPU-1", "limit"] == 200.0
        (note,) = restored(lambda _: fake, held={"GPU-1", "GPU-7"})
        assert "GPU-1" in note.text
    assert fake.now["GPU-1", "limit"] == 350.0


def test_a_backend_that_is_not_there_is_named(fake: Fake) -> None:
    left(fake, LIMIT)
    (note,) = restored(lambda _: None)
    assert "limit of GPU-1 was set by a process that was killed; the backend 'b' that can put it back" in note.text
    assert not note.done
    assert len(left_behind()) == 1


@root_only
def test_nobody_sets_a_device_by_another_users_word(fake: Fake, folder: Path) -> None:
    left(fake, LIMIT)
    os.chown(settings_file(folder, "GPU-1"), 12_345, 12_345)
    assert left_behind() == []
    assert restored(lambda _: fake) == []
    assert fake.now["GPU-1", "limit"] == 200.0


@pytest.mark.parametrize("content", ["", "[", "{}", "[1]", '[{"backend": "b"}]', "null"])
def test_a_torn_file_harms_nothing(fake: Fake, folder: Path, content: str) -> None:
    settings_file(folder, "GPU-1").write_text(content)
    assert restored(lambda _: fake) == []
    with settled("b", [LIMIT], fake):
        assert fake.now["GPU-1", "limit"] == 200.0
    assert fake.now["GPU-1", "limit"] == 350.0


def test_a_link_is_not_followed(fake: Fake, folder: Path, tmp_path: Path) -> None:
    left(fake, LIMIT)
    path = settings_file(folder, "GPU-1")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert left_behind() == []
