"""Devices of a command are those that processes of its tree were seen on, also when they appear late."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from harness import Amount, Condition, Device, Meter, MeterContext, MeterSpec, Method, Scope, Snapshot, hookimpl, now_ns
from harness.discovery.registry import Registry, load_plugins
from harness.records.record import MeterReport, Record
from harness.session import answers
from harness.session.commands import Answer, Asked, measure_commands

UUIDS = ("GPU-a", "GPU-b")
HELD = [sys.executable, "-c", "import time; time.sleep(2)"]


class Cards(Meter):
    """Two cards of 10 J a reading; who uses the second is asked of the test."""

    sample_hz = 1.0

    def __init__(self, who: Callable[[], Collection[int]]) -> None:
        self._who = who
        self._joules = 0.0

    def open(self, context: MeterContext) -> Mapping[str, Scope]:
        assert context.every_device
        return {f"n0/gpu:{each}": Scope(method=Method.COUNTER, gain=0.0, device=each) for each in UUIDS}

    def found(self) -> Mapping[str, Device]:
        return {f"n0/gpu:{each}": Device(kind="gpu", uuid=each, name="Card") for each in UUIDS}

    def users(self) -> Mapping[str, Collection[int]]:
        return {"n0/gpu:GPU-a": [1], "n0/gpu:GPU-b": self._who()}

    def read(self) -> Snapshot:
        self._joules += 10.0
        return Snapshot(now_ns(), dict.fromkeys((f"n0/gpu:{each}" for each in UUIDS), self._joules))

    def conditions(self) -> Sequence[Condition]:
        return [Condition("foreign_process", "n0/gpu:GPU-a", "process 1 uses the device", fails=True)]

    def close(self) -> None:
        pass


def registry(who: Callable[[], Collection[int]]) -> Registry:
    class Plugin:
        @hookimpl
        def harness_meters(self) -> Iterable[MeterSpec]:
            yield MeterSpec(name="cards", summary="", factory=lambda _: Cards(who))

    found = load_plugins()
    assert found.register(Plugin(), "cards"), found.broken
    return found


def measured(folder: Path, who: Callable[[], Collection[int]]) -> tuple[Answer, Record]:
    answer = measure_commands(Asked(commands=[HELD], meters=[("cards", {})]), folder, registry(who), print)
    ((record,),) = answer.records.values()
    return answer, record


def children() -> list[int]:
    return [each.pid for each in psutil.Process().children(recursive=True)]


def test_only_the_card_of_the_commands_process_is_charged(tmp_path: Path) -> None:
    began_ns = now_ns()

    def midway() -> Collection[int]:
        return children() if now_ns() - began_ns > 200_000_000 else []

    answer, record = measured(tmp_path, midway)
    energy = record.totals["energy_j"]
    assert isinstance(energy, Amount)
    assert energy.value > 0
    assert {reading.scope for reading in record.measurement.readings} == {"n0/gpu:GPU-b"}
    assert [device.uuid for device in record.measurement.devices if device.kind == "gpu"] == ["GPU-b"]
    seen = {condition.kind for condition in record.measurement.conditions}
    assert "foreign_process" not in seen, "who uses the other card is nobody's concern here"
    assert not answer.faults


def test_a_command_without_a_card_is_charged_none(tmp_path: Path) -> None:
    _, record = measured(tmp_path, list)
    assert not record.measurement.readings
    assert "meter cards: no process of the command was seen on 2 devices" in answers.notes([record])


def test_meters_that_were_only_tried_share_a_note_and_one_that_was_asked_for_has_its_own(tmp_path: Path) -> None:
    _, record = measured(tmp_path, children)
    scope = record.measurement.scopes["n0/gpu:GPU-b"]
    meters = (
        MeterReport(name="lamp", asked=False, missing={"*": "no bulb"}),
        MeterReport(name="oven", asked=True, missing={"*": "no gas"}),
        MeterReport(name="fire", asked=False, missing={"*": "no wood"}),
        MeterReport(name="cards", asked=False, scopes={"n0/gpu:GPU-b": scope}, missing={"n0/gpu:GPU-a": "lost"}),
    )
    tried = replace(record, measurement=replace(record.measurement, meters=meters))
    told = [note for note in answers.notes([tried]) if note.startswith("meter")]
    assert told == [
        "meter oven: no gas",
        "meter cards: lost",
        "meters that read nothing here: lamp (no bulb); fire (no wood)",
    ]


def test_a_process_that_cannot_be_seen_is_told(tmp_path: Path) -> None:
    _, record = measured(tmp_path, lambda: [2**22 + 1])
    assert not record.measurement.readings
    (note,) = [note for note in answers.notes([record]) if note.startswith("meter cards")]
    assert "a process on n0/gpu:GPU-b cannot be seen from here" in note
    assert "--backend torch" in note


def test_a_meter_that_fails_to_say_it_is_named(tmp_path: Path) -> None:
    def broken() -> Collection[int]:
        raise OSError("no answer")

    _, record = measured(tmp_path, broken)
    assert any("'cards' does not say who uses what: OSError: no answer" in note for note in answers.notes([record]))


def test_this_process_is_part_of_the_work(tmp_path: Path) -> None:
    _, record = measured(tmp_path, lambda: [os.getpid()])
    assert {reading.scope for reading in record.measurement.readings} == {"n0/gpu:GPU-b"}
