"""Processor times around blocks are read as often as their clock moves."""

from __future__ import annotations

import pytest

from harness.machine.processor_time import MachineTimes, clock_tick_s
from harness.session import load
from harness.units import nanoseconds


def test_times_are_read_anew_once_their_clock_can_have_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 1_000_000_000_000
    readings = iter(range(1, 9))
    monkeypatch.setattr(load, "now_ns", lambda: moment)
    monkeypatch.setattr(load, "machine_times", lambda: MachineTimes(0.0, 0.0, 0.0, 0.02))
    monkeypatch.setattr(load, "times_now", lambda: MachineTimes(float(next(readings)), 0.0, 100.0, 0.02))
    times = load.RecentTimes()
    first = times.now()
    moment += nanoseconds(clock_tick_s()) - 1
    assert times.now() is first
    moment += 1
    second = times.now()
    assert isinstance(first[0], MachineTimes)
    assert isinstance(second[0], MachineTimes)
    assert (first[0].busy_s, second[0].busy_s) == (1.0, 2.0)
    assert second[0].resolution_s == 0.04, "a reading that may be a tick old is known to two"
