"""Comparisons of two runs: the effect with its interval, what is refused, and what is shown."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.comparing.compare import Compared, compare, to_json
from harness.errors import MeasurementError, UsageError
from harness.quantity import Method
from harness.records.metric import Metric
from harness.statistics.unpaired import p_different, shift

StoredRun = Callable[..., Path]
STEADY = [100.0, 101.0, 99.0, 100.5, 99.5]
ENERGY = Metric("energy_j", "token")


def of(first: Path, second: Path, metric: Metric = ENERGY) -> Compared:
    (point,) = compare(first, second).points
    return next(each for each in point.metrics if each.metric == metric)


def scaled(factor: float) -> list[float]:
    return [factor * joules for joules in STEADY]


def test_effect_interval_and_p_value_are_those_of_the_rank_bound(stored_run: StoredRun) -> None:
    found = of(stored_run("r1", {"a": STEADY}), stored_run("r2", {"a": scaled(1.1)}))
    logs = [[math.log(factor * joules) for joules in STEADY] for factor in (1.0, 1.1)]
    effect = shift(logs[0], logs[1])
    assert found.interval == pytest.approx(
        (math.expm1(effect.low), math.expm1(effect.high), math.expm1(effect.estimate))
    )
    assert found.p_value == pytest.approx(p_different(logs[0], logs[1]))
    assert found.conclusion == "higher"
    assert (found.first.n, found.second.n) == (5, 5)


@pytest.mark.parametrize(("factor", "says"), [(0.9, "lower"), (1.0, "no difference shown"), (1.1, "higher")])
def test_conclusions_are_turned_the_right_way(stored_run: StoredRun, factor: float, says: str) -> None:
    assert of(stored_run("r1", {"a": STEADY}), stored_run("r2", {"a": scaled(factor)})).conclusion == says


def test_two_trials_have_an_estimate_and_no_interval(stored_run: StoredRun) -> None:
    found = of(stored_run("r1", {"a": [100.0, 101.0]}), stored_run("r2", {"a": [200.0, 202.0]}))
    assert found.conclusion == "too few trials for an interval"
    assert found.interval is not None
    assert found.interval[2] == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("factor", "gain", "says"),
    [
        (1.08, 0.05, "not distinguishable: inside the bounds of both cards"),
        (1.08, 0.01, "higher"),
        (1.50, 0.05, "higher"),
    ],
)
def test_gain_cancels_on_one_card_and_not_between_two(
    stored_run: StoredRun, factor: float, gain: float, says: str
) -> None:
    first = stored_run("r1", {"a": STEADY}, gain=gain)
    assert of(first, stored_run("r2", {"a": scaled(factor)}, gain=gain)).conclusion == "higher"
    other = stored_run("r3", {"a": scaled(factor)}, gain=gain, card="GPU-2")
    assert of(first, other).conclusion == says
    assert any("not the same runner: devices" in note for note in compare(first, other).notes)


def test_values_that_are_not_positive_are_compared_by_difference(stored_run: StoredRun) -> None:
    first, second = stored_run("r1", {"a": STEADY}, reward=-1.0), stored_run("r2", {"a": STEADY}, reward=0.5)
    found = of(first, second, Metric("reward.mean"))
    assert not found.ratio
    assert found.interval == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("facts", "metric", "says"),
    [
        ({"method": Method.ESTIMATED}, ENERGY, "different methods"),
        ({"factor": "grid-2"}, Metric("carbon_g"), "other factors"),
    ],
)
def test_what_cannot_be_compared_says_so(
    stored_run: StoredRun, facts: dict[str, Any], metric: Metric, says: str
) -> None:
    first = stored_run("r1", {"a": STEADY}, factor="grid-1")
    found = of(first, stored_run("r2", {"a": STEADY}, **{"factor": "grid-1", **facts}), metric)
    assert says in found.conclusion
    assert found.effect is None


def test_missing_values_give_their_reason(stored_run: StoredRun) -> None:
    found = of(stored_run("r1", {"a": STEADY}), stored_run("r2", {"a": [None, None]}))
    assert found.conclusion == "no value: the counter is gone"


def test_single_records_and_different_points_can_be_compared(stored_run: StoredRun) -> None:
    first, second = stored_run("r1", {"a": STEADY, "c": [1.0]}), stored_run("r2", {"b": STEADY})
    comparison = compare(first / "aaaaaaaaaaa0-t000", second / "bbbbbbbbbbb0-t001")
    assert comparison.points[0].name == "s: a -> s: b"
    assert "different points" in comparison.notes[0]
    with pytest.raises(UsageError, match="no point in common"):
        compare(first, second)


def test_what_only_one_run_has_and_what_was_left_out_is_told(stored_run: StoredRun) -> None:
    first = stored_run("r1", {"a": STEADY, "b": [1.0]})
    second = stored_run("r2", {"a": STEADY}, options={"batch": 2}, environment={"packages": {"torch": "2.14.0"}})
    comparison = compare(first, second)
    assert "only one of the two has s: b" in comparison.notes
    assert any('other versions: torch: first "2.13.0", second "2.14.0"' in note for note in comparison.notes)
    assert comparison.points[0].notes == ["options, backend, meters or windows differ under this label"]


def test_faults_of_the_user_are_named(stored_run: StoredRun, tmp_path: Path) -> None:
    run = stored_run("r1", {"a": STEADY})
    with pytest.raises(UsageError, match="no such folder"):
        compare(run, tmp_path / "none")
    with pytest.raises(MeasurementError, match="no valid trial"):
        compare(run, tmp_path)
    with pytest.raises(UsageError, match=r"no metric 'energy'.*accepted"):
        compare(run, run, ["energy"])


def test_the_command_shows_interval_first_and_p_values_only_in_the_details(stored_run: StoredRun) -> None:
    first = stored_run("r1", {"a": STEADY}, check=104.0)
    second = stored_run("r2", {"a": scaled(1.1)}, check=110.0)
    wide = {"COLUMNS": "200"}

    def said(*options: str) -> str:
        done = CliRunner().invoke(app, ["compare", str(first), str(second), *options], catch_exceptions=False, env=wide)
        assert done.exit_code == 0
        return done.output

    plain = said("--metric", "energy_j")
    line = next(line for line in plain.splitlines() if line.startswith("energy_j per token"))
    assert line.index("+8.91 % to +11.1 % (+10 %)") < line.index("10 J/token")
    assert "duration_s" not in plain
    assert "p adjusted" not in plain
    assert "Primary meters and cross-checks" in plain
    check = next(line for line in plain.splitlines() if line.startswith("n0/host"))
    assert "lamp" in check
    assert "plug" in check
    assert "+4 %" in check
    assert "p adjusted" in said("--details")
    data = json.loads(said("--json"))
    assert data == json.loads(json.dumps(to_json(compare(first, second))))
    assert data["points"][0]["metrics"][0]["p_value"] is not None


def test_forked_trials_beside_fresh_ones_are_named(stored_run: StoredRun) -> None:
    fresh = stored_run("r1", {"a": STEADY})
    forked = stored_run("r2", {"a": STEADY}, environment={"start": "fork"})
    assert any('start: first "spawn", second "fork"' in note for note in compare(fresh, forked).notes)
    for trial in ("t000", "t001"):
        (fresh / f"aaaaaaaaaaa0-{trial}").rename(fresh / f"kept-{trial}")
    for folder in forked.glob("*-t00[01]"):
        folder.rename(fresh / folder.name)
    (point,) = compare(fresh, fresh).points
    assert "trials of the first started in several ways (fork, spawn): not alike" in point.notes
