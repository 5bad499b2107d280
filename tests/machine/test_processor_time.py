"""Processor time of process trees and of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from harness.machine import processor_time
from harness.machine.processor_time import machine_times, tree_cpu_s, trees_cpu_s
from harness.quantity import Unavailable

BURN = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"


def test_real_cpu_time_counts_living_and_ended_children() -> None:
    before = tree_cpu_s(os.getpid())
    subprocess.run([sys.executable, "-c", BURN], check=True)
    after = tree_cpu_s(os.getpid())
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert after - before >= 0.19


def test_a_tree_that_lies_in_another_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor_time, "_spent_s", lambda _process: 5.0)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        alone, both = trees_cpu_s([os.getpid()]), trees_cpu_s([os.getpid(), child.pid, child.pid])
    finally:
        child.communicate(b"\n")
    assert alone == both


def test_tree_that_changes_while_it_is_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    child = psutil.Process()
    lists = iter([[child, child], [child], [child], [child]])
    monkeypatch.setattr(processor_time, "_living", lambda _roots: next(lists))
    monkeypatch.setattr(processor_time, "_spent_s", lambda _process: 5.0)
    assert tree_cpu_s(os.getpid()) == 5


def test_tree_that_never_rests_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = iter(range(1, 100))
    monkeypatch.setattr(processor_time, "_living", lambda roots: list(roots) * next(lengths))
    lost = tree_cpu_s(os.getpid())
    assert isinstance(lost, Unavailable)
    assert "come and go" in lost.reason


def test_a_process_that_is_gone_is_named() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lost = trees_cpu_s([os.getpid(), ended.pid])
    assert lost == Unavailable(f"process {ended.pid} is gone")


def test_the_machine_has_more_time_than_it_works() -> None:
    times = machine_times()
    assert not isinstance(times, Unavailable)
    assert times.elapsed_s > times.busy_s > 0
    assert times.resolution_s > 0


def test_stolen_time_is_read_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = SimpleNamespace(user=10.0, nice=1.0, system=2.0, irq=0.0, softirq=1.0, idle=30.0, iowait=1.0, steal=5.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: shown)
    times = machine_times()
    assert not isinstance(times, Unavailable)
    assert (times.busy_s, times.stolen_s, times.elapsed_s) == (14.0, 5.0, 50.0)


def test_a_system_without_steal_and_iowait_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(user=3.0, nice=0.0, system=1.0, idle=6.0))
    times = machine_times()
    assert not isinstance(times, Unavailable)
    assert (times.busy_s, times.stolen_s, times.elapsed_s) == (4.0, 0.0, 10.0)


def test_zeros_and_a_container_s_own_times_are_not_the_machine_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(user=0.0, system=0.0, idle=0.0))
    assert isinstance(machine_times(), Unavailable)
    mounts = tmp_path / "mountinfo"
    mounts.write_text("36 35 0:50 /proc/stat /proc/stat rw - fuse.lxcfs lxcfs rw\n")
    monkeypatch.undo()
    monkeypatch.setattr(processor_time, "_MOUNTS", mounts)
    lost = machine_times()
    assert isinstance(lost, Unavailable)
    assert "mounted over" in lost.reason
