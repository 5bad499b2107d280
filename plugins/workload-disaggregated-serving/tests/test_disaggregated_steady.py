"""Feasibility: growth is seen, a steady load is not mistaken for one, and an overloaded cell shows no saving."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_disaggregated_serving.choosing.profile_table import ProfileKey, row_to_json
from harness_disaggregated_serving.choosing.steady import Load, judge, share_with_error, warm_up
from harness_disaggregated_serving.commands.sweep import CELLS_FILE, ROW_FILE, TABLE_FILE, write_sweep
from harness_disaggregated_serving.load.slo import Slo, parsed, targets
from harness_disaggregated_serving.simulator.cell import Rule, judged, settle
from harness_disaggregated_serving.simulator.options import SimulatedOptions
from harness_disaggregated_serving.simulator.workload import profile_row, rule_of, setup_of, stream_of
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.quantity import Unavailable

KEY = ProfileKey(model="m", dtype="fp16", engine="e", driver="d", link_kind="simulated", seed=0)
OVERLOADED: dict[str, Any] = {"configuration": "dpd", "old": {"kind": "V100-16GB"}, "qps": 1.0, "sizes": "chat"}


def queue(load: float, count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Arrivals and ends of a single server with random gaps and random work."""
    draws = np.random.default_rng(seed)
    arrivals = np.cumsum(draws.exponential(1.0, count))
    free, ends = 0.0, []
    for arrival, work in zip(arrivals.tolist(), draws.exponential(load, count).tolist(), strict=True):
        free = max(free, arrival) + work
        ends.append(free)
    return arrivals, np.array(ends)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_a_steady_load_is_steady_in_nearly_every_stream(load: float) -> None:
    found = [judge(*queue(load, 16_000, seed)).load for seed in range(10)]
    assert found.count(Load.STEADY) >= 9


@pytest.mark.parametrize(("load", "count"), [(1.05, 16_000), (1.2, 2000), (2.0, 500)])
def test_more_than_can_be_served_is_growth(load: float, count: int) -> None:
    found = [judge(*queue(load, count, seed)) for seed in range(10)]
    assert sum(one.load is Load.OVERLOADED for one in found) >= 9
    assert np.mean([one.piled for one in found]) == pytest.approx(1 - 1 / load, rel=0.35)
    assert all(one.fault.startswith("overloaded: ") for one in found if one.growing)


def test_what_cannot_be_told_is_not_called_steady() -> None:
    assert judge([0.0, 1.0], [1.0, 2.0]).load is Load.UNDECIDED
    assert judge([0.0] * 500, list(range(1, 501))).reason == "all requests come at once"
    full = judge(*queue(0.3, 500, 1), {"link": 1.4})
    assert (full.load, "1.4 times its bandwidth" in full.reason) == (Load.OVERLOADED, True)


def test_the_warm_up_is_cut_where_the_transient_ends() -> None:
    draws = np.random.default_rng(3)
    level = draws.poisson(20, 2000)
    cold = level.copy()
    cold[:300] = (cold[:300] * np.linspace(0, 1, 300)).astype(int)
    cut, settled = warm_up(cold)
    assert settled
    assert 150 <= cut <= 450
    assert warm_up(np.arange(2000)) == (1000, False)
    assert warm_up(np.full(2000, 3)) == (0, True)


def test_the_interval_of_a_share_holds_it() -> None:
    draws = np.random.default_rng(1)
    inside = sum(
        abs(share - 0.9) <= half
        for share, half in (share_with_error((draws.random(1000) < 0.9).tolist()) for _ in range(200))
    )
    assert 180 <= inside <= 200
    assert share_with_error([True] * 5)[1] == float("inf")


def test_a_short_stream_flatters_an_overloaded_cell_and_the_rule_does_not() -> None:
    options = SimulatedOptions(**OVERLOADED)
    setup, slo = setup_of(options), targets(options.slo)
    assert not isinstance(setup, Unavailable)
    short = judged(setup, stream_of(options, 200), slo)
    assert short.outcome.attainment == 0.985
    found = settle(setup, lambda count: stream_of(options, count), slo, Rule(least=1000, most=16_000))
    assert found.steadiness.load is Load.OVERLOADED
    assert found.steadiness.utilisation["old"] > 0.97
    assert found.attainment[0] < 0.5


def test_a_stream_grows_until_its_attainment_is_known() -> None:
    options = SimulatedOptions(configuration="standalone", qps=0.5, slo={"ttft": "100ms", "tpot": "14.5ms"})
    setup = setup_of(options)
    assert not isinstance(setup, Unavailable)
    wide, narrow = (
        settle(setup, lambda count: stream_of(options, count), targets(options.slo), Rule(least=400, precision=width))
        for width in (0.2, 0.04)
    )
    assert wide.asked < narrow.asked
    assert narrow.attainment[1] <= 0.04
    assert narrow.steadiness.load is Load.STEADY
    assert len(narrow.kept) == narrow.asked - narrow.steadiness.warm_up


def test_an_overloaded_cell_and_one_that_misses_its_targets_show_no_saving(tmp_path: Path) -> None:
    for name, options in {
        "a": {"configuration": "standalone", "qps": 1.0},
        "b": OVERLOADED,
        "c": {"configuration": "spec-local", "qps": 1.0, "slo": {"ttft": "15s", "tpot": "1ms"}},
        "d": {"configuration": "standalone", "qps": 1.0, "slo": {"ttft": "15s", "tpot": "1ms"}},
    }.items():
        given = SimulatedOptions(**{**options, "requests": 1000, "most_requests": 16_000})
        setup = setup_of(given)
        assert not isinstance(setup, Unavailable)
        found = settle(setup, lambda count, given=given: stream_of(given, count), targets(given.slo), rule_of(given))
        (tmp_path / name).mkdir()
        (tmp_path / name / ROW_FILE).write_text(json.dumps(row_to_json(KEY, profile_row(given, found))))
    write_sweep(tmp_path)
    text = (tmp_path / TABLE_FILE).read_text()
    (over,) = [line for line in text.splitlines() if "| dpd with V100" in line]
    assert "| overloaded |" in over
    assert "none: overloaded" in over
    assert "an arrival finds" in text
    (missed,) = [line for line in text.splitlines() if "| spec-local" in line]
    assert "| not feasible |" in missed
    assert "| none: " in missed
    assert "15 s, 0.001 s" in missed  # the targets varied, so they are a column
    for row in csv.DictReader(io.StringIO((tmp_path / CELLS_FILE).read_text())):
        assert not row["saving"] or row["state"] == "feasible"


def test_targets_on_a_command_line() -> None:
    assert parsed("longbench") == Slo(15.0, 0.15)
    assert parsed("ttft=2s, tpot=100ms") == Slo(2.0, 0.1)
    for text in ("ttft=2s", "ttft=2s,tpot=soon", "fast"):
        with pytest.raises(UsageError):
            parsed(text)
