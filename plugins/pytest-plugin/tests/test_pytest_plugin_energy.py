"""The fixture `energy_benchmark`, in a project of its own, with meters whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness_pytest.energy import extra_info, open_instrument

from harness import Amount, Block, Method

pytest_plugins = ["pytester"]

BENCHMARKS = """
import time

calls = []


def work(seconds, *, note="none"):
    calls.append(note)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:  # an idle processor would show the meter nothing
        pass
    return "done"


def test_plain(energy_benchmark):
    assert energy_benchmark(work, 0.002, note="kept") == "done"
    assert set(calls) == {"kept"}
    assert energy_benchmark.extra_info["energy_calls"] > 0


def test_pedantic(energy_benchmark):
    energy_benchmark.group = "mine"
    assert energy_benchmark.pedantic(work, args=(0.002,), rounds=3) == "done"


def test_with_set_up(energy_benchmark):
    energy_benchmark.pedantic(work, setup=lambda: ((0.002,), {}), rounds=3)
"""
OPTIONS = (
    "--benchmark-json=times.json",
    "--benchmark-max-time=0.02",
    "--harness-seconds=0.2",
    "-p",
    "no:cacheprovider",
)


def extra_infos(folder: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((folder / "times.json").read_text(encoding="utf-8"))
    return {each["name"]: each["extra_info"] for each in content["benchmarks"]}


def run(pytester: pytest.Pytester, *options: str, outcomes: dict[str, int] | None = None) -> dict[str, dict[str, Any]]:
    pytester.makepyfile(BENCHMARKS)
    pytester.runpytest_inprocess(*OPTIONS, *options).assert_outcomes(**(outcomes or {"passed": 3}))
    return extra_infos(pytester.path)


def test_energy_and_carbon_stand_beside_the_times(pytester: pytest.Pytester) -> None:
    grid = "fuel: {grid: 500, pue: 1}"
    found = run(pytester, "--harness-meter=tdp: {watts: 100, attribute: machine}", f"--harness-meter={grid}")
    plain = found["test_plain"]
    assert plain["energy_j_method"] == "estimated"
    assert plain["energy_j_composition"].keys() == {"estimated"}
    assert plain["energy_scopes"] == ["n0/cpu-package:0"]
    assert plain["energy_window_s"] >= 0.2
    assert "short" in plain["energy_flags"]
    # TDP x utilisation is at most 100 W; processor times move in ticks of 10 ms and are read around the window
    assert 0 <= plain["energy_j"] * plain["energy_calls"] <= 100 * (plain["energy_window_s"] + 0.1)
    # 500 g/kWh at a PUE of 1; the host's embodied carbon is in no table, and that is said
    assert plain["carbon_operational_g"] == pytest.approx(plain["energy_j"] / 3.6e6 * 500)
    assert plain["carbon_operational_g_method"] == "estimated"
    assert (plain["carbon_g"] is None) == ("carbon_g_unavailable" in plain)
    assert found["test_pedantic"]["energy_calls"] > 0


def test_a_set_up_in_each_round_leaves_the_energy_out(pytester: pytest.Pytester) -> None:
    found = run(pytester, "--harness-meter=tdp: {watts: 100}")["test_with_set_up"]
    assert found["energy_j"] is None
    assert "set-up" in found["energy_j_unavailable"]


def test_without_a_meter_that_reads_it_is_null_with_the_reason(pytester: pytest.Pytester) -> None:
    found = run(pytester, "--harness-meter=rapl: {root: /nowhere}")["test_plain"]
    assert found["energy_j"] is None
    assert "rapl: no RAPL" in found["energy_j_unavailable"]
    assert found["carbon_g"] is None
    assert found["carbon_g_unavailable"] == "no impact meter gives carbon"
    assert "energy_j_method" not in found


def test_meters_can_stand_in_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nharness_meters =\n    tdp: {watts: 50}\nharness_seconds = 0.1\n")
    pytester.makepyfile(BENCHMARKS)
    result = pytester.runpytest_inprocess("--benchmark-json=times.json", "--benchmark-max-time=0.02", "-k", "plain")
    result.assert_outcomes(passed=1, deselected=2)
    assert extra_infos(pytester.path)["test_plain"]["energy_j_method"] == "estimated"


def test_disabled_benchmarks_measure_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(energy_benchmark):\n    assert energy_benchmark(lambda: 7) == 7\n")
    pytester.runpytest_inprocess("--benchmark-disable", "--harness-seconds=1000").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--harness-meter=lamp", "*there is no meter 'lamp'*"),
        ("--harness-meter=tdp: {wats: 1}", "*tdp.wats*"),
        ("--harness-meter=[1", "*is not a meter*"),
        ("--harness-meter=tdp: 100", "*the options of meter tdp are 100*"),
        ("--harness-meter=declared_power: {watts: {busy: 9}}", "*device rows*"),
        ("--harness-seconds=0", "*a window cannot last 0.0 s*"),
        ("--harness-backend=quantum", "*there is no backend 'quantum'*"),
    ],
)
def test_wrong_settings_are_named(pytester: pytest.Pytester, option: str, says: str) -> None:
    pytester.makepyfile("def test_it(energy_benchmark):\n    energy_benchmark(lambda: 7)\n")
    result = pytester.runpytest_inprocess(option)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([says])


def test_energy_a_call_is_the_windows_energy_over_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    instrument = open_instrument(["tdp: {watts: 100}"], backend="host", seconds=0.1)
    known = Amount.of(60.0, "J", Method.COUNTER, low=57.0, high=63.0)
    monkeypatch.setattr(Block, "readings", {"energy_j": known})
    monkeypatch.setattr(Block, "per_unit", {"energy_j": known})
    called = 0

    def work() -> None:
        nonlocal called
        called += 1

    found = extra_info(instrument.measure(work, batch=50))
    instrument.session.close()
    assert found["energy_calls"] % 50 == 0
    assert called > found["energy_calls"]  # the lead-in is no part of the window
    assert found["energy_j"] == pytest.approx(60.0 / found["energy_calls"])
    assert (found["energy_j_low"], found["energy_j_high"]) == pytest.approx(
        (57.0 / found["energy_calls"], 63.0 / found["energy_calls"])
    )
    assert found["energy_j_method"] == "counter"


def test_a_table_of_energy_follows_the_times(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BENCHMARKS)
    result = pytester.runpytest_inprocess(*OPTIONS, "--harness-meter=tdp: {watts: 100}", "-k", "plain or pedantic")
    result.stdout.fnmatch_lines(["*energy by the harness*", "Name*Energy/call*Bound*", "test_plain*J*estimated*"])


def test_one_warning_where_nothing_reads(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BENCHMARKS)
    result = pytester.runpytest_inprocess(*OPTIONS, "--harness-meter=rapl: {root: /nowhere}", "-k", "plain or pedantic")
    warnings = [line for line in result.outlines if line.startswith("warning: no energy was read")]
    assert len(warnings) == 1
    assert "rapl" in warnings[0]
