"""Work that can be resumed goes on after its last finished window, whose cost and rows stand; and windows that tell."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness import Column, Workload, WorkloadSpec, builtin, hookimpl
from harness.costing.trace import read_trace
from harness.discovery.registry import Registry
from harness.measuring.window import PULSE_S, Pulse
from harness.planning.point import Choice, Plan, Point
from harness.planning.trial_rules import CoolDown, ForeignLoad, Limits, WarmUpRule, Windows
from harness.records.files import load_measurement, read_lines
from harness.records.journal import read_journal
from harness.records.paths import ENERGY, ITEMS, WINDOWS
from harness.running.order import Scheduled
from harness.running.run_folder import create, prepare
from harness.testing import InProcessExecutor
from harness.workload import TrialContext, Window


class Counting(Workload):
    """Counts on; its state is a file."""

    fails_in: int | None = None
    torn = False

    def prepare(self, context: TrialContext) -> None:
        self.context, self.done = context, context.windows_done
        if context.windows_done:
            assert json.loads((context.folder / "state.json").read_text())["done"] >= context.windows_done

    def step(self, window: Window) -> None:
        window.item(f"count-{self.done}", ones=1.0)
        if window.index == self.fails_in:
            if self.torn:
                for name in (WINDOWS, ITEMS):
                    with (self.context.folder / name).open("ab") as stream:
                        stream.write(b'{"window": 9, "item')
            raise RuntimeError("the power went")

    def after_window(self, window: Window) -> None:
        self.done += 1
        (self.context.folder / "state.json").write_text(json.dumps({"done": self.done}))

    def validate(self) -> dict[str, float]:
        return {"done": float(self.done)}


class Plugin:
    resumable = True

    @hookimpl
    def harness_workloads(self) -> list[WorkloadSpec]:
        return [
            WorkloadSpec(
                name="counting",
                summary="counts",
                factory=lambda _options: Counting(),
                columns=(Column("ones", "1", "one"),),
                resumable=self.resumable,
            )
        ]


@pytest.fixture
def attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    registry = Registry()
    registry.register(builtin, "builtin", distribution="joule-harness", version="0")

    def run(*fails: int | None, resumable: bool = True, torn: bool = False) -> tuple[Path, list[str]]:
        """Attempts at one trial, each of which fails in that window; None for in none."""
        plugin = Plugin()
        plugin.resumable = resumable
        registry.register(plugin, "counting", distribution="counting", version="1")
        point = Point(
            id="0123456789ab",
            suite="s",
            label="counting",
            workload="counting",
            backend=Choice("host"),
            meters=(Choice("tdp", {"watts": 100}),),
            windows=Windows(count=4, min_seconds=0.0),
            warm_up=WarmUpRule(max_iterations=0, min_iterations=0),
            functional_units={"one": {"sum": "ones", "where": {}}},
            foreign_load=ForeignLoad(at_most=0.0),  # so that each window's load is spoken of
        )
        folder = create(tmp_path / "store", Plan([point], []), [], [], 0, name="run")
        executor, reasons = InProcessExecutor(registry), []
        for window in fails:
            monkeypatch.setattr(Counting, "fails_in", window)
            monkeypatch.setattr(Counting, "torn", torn)
            job = prepare(folder, Scheduled(point, 0), resumable=resumable)
            reasons.append(executor.run(job, lambda _message: None).reason)
        return folder / "0123456789ab-t000", reasons

    return run


@pytest.mark.parametrize("torn", [False, True])
def test_windows_that_were_finished_keep_their_cost_and_rows(attempts: Any, torn: bool) -> None:
    trial, reasons = attempts(2, 2, 3, None, torn=torn)
    assert ["the power went" in reason for reason in reasons] == [True, True, True, False]
    found = load_measurement(trial)
    assert [span.window for span in found.windows] == [0, 1, 2, 3]
    assert [row["item_id"] for row in read_lines(trial / ITEMS)] == [f"count-{number}" for number in range(4)]
    assert [said["done"] for said in found.validation] == [1, 2, 3, 4]
    read = [(each.window, each.span) for each in found.readings if each.primary and each.span == "window"]
    assert read == [(number, "window") for number in range(4)]
    assert [load.window for load in found.loads] == [0, 1, 2, 3]
    assert any(flag.startswith("resumed: 3 of 4 windows are of earlier attempts") for flag in found.flags)
    assert found.side_cars[ITEMS] == (trial / ITEMS).stat().st_size


def test_a_window_whose_rows_a_power_cut_took_is_measured_again(attempts: Any) -> None:
    """The file would else be filled up with zeros, to where the window had ended."""
    trial, _ = attempts(3)
    assert len(read_journal(trial)) == 3
    rows = (trial / ITEMS).read_bytes().splitlines(keepends=True)
    (trial / ITEMS).write_bytes(b"".join(rows[:2]))
    assert [each.window for each in read_journal(trial)] == [0, 1]


@pytest.mark.parametrize("line", [b'{"window": 1, "of": "another version"}\n', b"no JSON\n"])
def test_one_bad_line_of_the_journal_costs_the_windows_from_there_on(attempts: Any, line: bytes) -> None:
    trial, _ = attempts(3)
    lines = (trial / WINDOWS).read_bytes().splitlines(keepends=True)
    (trial / WINDOWS).write_bytes(b"".join([lines[0], line, *lines[2:]]))
    assert [each.window for each in read_journal(trial)] == [0]


def test_rows_are_on_the_disk_before_the_window_that_wrote_them(attempts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    attempts(None)
    kept = [name for name in synced if name in {ITEMS, WINDOWS}]
    assert kept[: 2 * 4] == [ITEMS, WINDOWS] * 4


def test_the_trace_of_energy_goes_on_where_it_broke_off(attempts: Any) -> None:
    trial, _ = attempts(1, None)
    anchors = sum("anchor" in row for row in read_lines(trial / ENERGY))
    trace = read_trace(trial / ENERGY, load_measurement(trial))
    assert anchors == 2
    for joules in trace.joules.values():
        assert list(joules) == sorted(joules), "joules only grow, also where a meter began anew"
    assert list(trace.utc_s) == sorted(trace.utc_s)


def test_a_trial_that_broke_off_after_its_last_window_measures_none_again(attempts: Any) -> None:
    trial, _ = attempts(3, None)
    assert [each.attempt for each in read_journal(trial)] == [1, 1, 1, 2]


def test_a_trial_without_a_finished_window_begins_anew(attempts: Any) -> None:
    trial, _ = attempts(0, None)
    assert [each.attempt for each in read_journal(trial)] == [1, 1, 1, 1]
    assert not any("resumed" in flag for flag in load_measurement(trial).flags)


def test_other_work_begins_anew_and_keeps_no_journal(attempts: Any) -> None:
    trial, _ = attempts(2, None, resumable=False)
    assert len(load_measurement(trial).windows) == 4
    assert not (trial / WINDOWS).exists()
    assert len(list(read_lines(trial / ITEMS))) == 4


# Windows that tell that work goes on


class Open:
    """A window as far as a pulse looks at it."""

    def __init__(self, min_seconds: float) -> None:
        self.min_seconds, self.iteration, self.at_s = min_seconds, 0, 0.0
        self.items: list[object] = []

    def now_s(self) -> float:
        return self.at_s


def told(window: Any, worked: dict[float, int], until_s: float) -> list[str]:
    """What a pulse tells of a window that has so many iterations from those moments on."""
    said: list[str] = []
    pulse = Pulse(said.append)
    with pulse.of(window, "window 1 of 1"):
        for beat in range(int(until_s * 2)):
            window.at_s = beat / 2
            window.iteration = max([0, *(count for moment, count in worked.items() if moment <= window.at_s)])
            pulse.beat()
    window.at_s += 100
    pulse.beat()
    return said


def test_a_long_window_is_told_of_every_few_seconds() -> None:
    said = told(Open(0.0), {second: second for second in range(1200)}, 1200)
    assert len(said) == 1200 / PULSE_S - 1
    assert said[0] == "window 1 of 1: 5 iterations, 5 s"


def test_work_that_hangs_is_silent() -> None:
    assert len(told(Open(0.0), {0.0: 3}, 700)) == 1
    assert len(told(Open(600.0), {0.0: 3}, 1300)) == 600 / PULSE_S - 1  # so long is what the suite asks for


# Limits


def limited(**changes: Any) -> Point:
    made = Point(id="0" * 12, suite="s", label="l", workload="w", backend=Choice("host"))
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("windows", "hours"),
    [
        (Windows(), 1),
        (Windows(count=500, min_seconds=0.0, min_iterations=186), 500),
        (Windows(count=4, min_seconds=7200.0), 16),
        (Windows(count=4, min_seconds=7200.0, min_iterations=20, max_seconds=7200.0), 16),
    ],
)
def test_a_trial_may_take_as_long_as_its_windows(windows: Windows, hours: float) -> None:
    assert limited(windows=windows).trial_limit_s == pytest.approx(hours * 3600, rel=0.02)
    assert limited(windows=windows, limits=Limits(trial_s=60.0)).trial_limit_s == 60.0


def test_what_cannot_end_within_its_limit_is_told() -> None:
    rest = CoolDown(pause_s=1200.0)
    assert limited(windows=Windows(count=4, min_seconds=7200.0), cool_down=rest).warnings() == []
    short = limited(windows=Windows(count=4, min_seconds=30.0), limits=Limits(trial_s=100.0))
    assert "take 120 s at least, and a trial is ended after 100 s" in short.warnings()[0]
    assert "900 s of idle time are longer than the 600 s of silence" in limited(idle_seconds=900.0).warnings()[0]
