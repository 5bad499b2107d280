"""Replay meter: traces as ground truth."""

from __future__ import annotations

import json

import pytest

from harness.builtin.replay import ReplayMeter, ReplayOptions
from harness.errors import UsageError
from harness.meter import MeterContext
from harness.quantity import Method, Unavailable
from harness.testing import FakeClock, check_meter

GPU = "n0/gpu:A"


@pytest.fixture
def clock():
    return FakeClock()


def csv_trace(tmp_path, column, rows, scope="gpu:A"):
    path = tmp_path / "trace.csv"
    lines = [f"t_s,scope,{column}", *(f"{t},{scope},{'' if value is None else value}" for t, value in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def opened(path, clock, **options):
    meter = ReplayMeter(ReplayOptions(file=path, **options), clock)
    return meter, meter.open(MeterContext())


def test_constant_power(tmp_path, clock):
    meter, scopes = opened(csv_trace(tmp_path, "watts", [(t, 100) for t in range(11)]), clock, gain=0.05)
    assert scopes[GPU].method is Method.SIMULATED
    assert (scopes[GPU].tick_s, scopes[GPU].gain, scopes[GPU].device) == (1, 0.05, "A")
    assert "replay of" in scopes[GPU].note
    clock.advance(5.5)
    assert meter.read().joules[GPU].joules == pytest.approx(500)
    clock.advance(4.5)
    assert meter.read().joules[GPU].joules == pytest.approx(1000)


def test_counter_from_json_lines_with_two_scopes(tmp_path, clock):
    path = tmp_path / "trace.jsonl"
    rows = [{"t_s": t, "scope": s, "joules": j * t} for t in range(5) for s, j in (("gpu:A", 100), ("host", 300))]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    meter, scopes = opened(path, clock)
    assert set(scopes) == {GPU, "n0/host"}
    assert scopes["n0/host"].device is None
    clock.advance(3)
    assert {name: value.joules for name, value in meter.read().joules.items()} == {GPU: 300, "n0/host": 900}


def test_reads_between_rows_never_change_the_sum(tmp_path, clock):
    path = csv_trace(tmp_path, "watts", [(t / 10, 100 + 20 * (t % 7)) for t in range(51)])
    once, _ = opened(path, clock)
    often, _ = opened(path, clock)
    for _ in range(50):
        clock.advance(0.1)
        often.read()
    assert often.read().joules[GPU] == once.read().joules[GPU]


def test_empty_cell_is_a_failed_read(tmp_path, clock):
    meter, _ = opened(csv_trace(tmp_path, "joules", [(0, 10), (1, 20), (2, None), (3, 40)]), clock)
    clock.advance(2.5)
    lost = meter.read().joules[GPU]
    assert isinstance(lost, Unavailable)
    assert "failed read at 2 s" in lost.reason
    clock.advance(1)
    assert meter.read().joules[GPU].joules == pytest.approx(30)


def test_falling_joules_are_a_reset(tmp_path, clock):
    path = csv_trace(tmp_path, "joules", [(0, 100), (1, 150), (2, 10), (3, 60)])
    meter, _ = opened(path, clock, max_power_w=200)
    clock.advance(3)
    state = meter.read().joules[GPU]
    assert (state.joules, state.resets, state.gap_s) == (pytest.approx(110), 1, 1)
    assert state.under_j >= 200


def test_before_the_first_and_after_the_last_row_there_is_nothing(tmp_path, clock):
    meter, _ = opened(csv_trace(tmp_path, "watts", [(1, 100), (2, 100)]), clock)
    assert "not begun" in meter.read().joules[GPU].reason
    clock.advance(2.5)
    assert meter.read().joules[GPU].joules == pytest.approx(100)
    clock.advance(5)
    assert "ended at 2 s" in meter.read().joules[GPU].reason


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", ""),
        ("t_s,scope,watts\n", ""),
        ("t_s,scope,volts\n0,host,3\n", ":2"),
        ("t_s,scope,watts\n0,host,3\n0,host,4\n", ":3"),
        ("t_s,scope,watts\n0,host,3\nx,host,4\n", ":3"),
        ("t_s,scope,watts\n0,host,nan\n", ":2"),
        ("t_s,scope,watts\n-1,host,3\n", ":2"),
        ("t_s,scope,watts\n,host,3\n", ":2"),
        ("t_s,scope,watts\n0,,3\n", ":2"),
    ],
)
def test_malformed_traces_name_their_line(tmp_path, clock, text, where):
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        opened(path, clock)
    assert caught.value.where == f"{path}{where}"


def test_missing_file_wrong_method_and_broken_json(tmp_path, clock):
    with pytest.raises(UsageError, match="cannot be read"):
        opened(tmp_path / "none.csv", clock)
    with pytest.raises(UsageError):
        opened(csv_trace(tmp_path, "watts", [(0, 1)]), clock, method="counter")
    broken = tmp_path / "t.jsonl"
    broken.write_text('{"t_s": 0,\n', encoding="utf-8")
    with pytest.raises(UsageError, match="not a row"):
        opened(broken, clock)


def test_contract(tmp_path, clock):
    path = csv_trace(tmp_path, "joules", [(t, 3 * t) for t in range(10)])
    check_meter(ReplayMeter(ReplayOptions(file=path), clock), MeterContext(), between=lambda: clock.advance(1))
