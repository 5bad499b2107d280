"""The command `harness rewards`: counts, shares, prediction and cost of a run's methods."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from harness_speculative_decoding import reward_table

from harness.errors import UsageError
from harness.functional_unit import UnitCount
from harness.quantity import Amount, Method, Unavailable


def trial(
    rewards: list[float | None],
    cpu_s: float | None,
    energy_j: float,
    *,
    good: float | Unavailable | None = None,
    method: Method = Method.ESTIMATED,
    valid: bool = True,
    predicted: float | None = 0.5,
) -> Any:
    if good is None:
        good = float(sum(reward is not None and reward >= 1 for reward in rewards))
    rows = [{"status": "ok", "window": 0, "target_calls": 4} for _ in rewards]
    known = [reward for reward in rewards if reward is not None]
    mean = Amount.of(sum(known) / len(known), "1", Method.MEASURED) if known else Unavailable("never filled")
    record = SimpleNamespace(
        columns={"reward": {"mean": mean}},
        units={"good_answer": SimpleNamespace(count=UnitCount(good, len(rewards), 0, 0))},
        measurement=SimpleNamespace(
            loads=[SimpleNamespace(own_s=cpu_s)], workload={"predicted": guess(predicted)}, foreign_load={}
        ),
    )
    readings = {"energy_j": Amount.of(energy_j, "J", method)}
    warm_up = {"status": "ok", "window": -1, "target_calls": 99}
    return SimpleNamespace(record=record, readings=readings, items=lambda: iter([warm_up, *rows]), valid=valid)


def guess(share: float | None) -> dict[str, Any] | None:
    if share is None:
        return None
    return {"answered": share, "target_odds": 0.25, "aligned_odds": 8.0, "sft_odds": 2.0, "odds": share / (1 - share)}


def shown(monkeypatch: pytest.MonkeyPatch, *trials: Any) -> list[reward_table.Line]:
    run = SimpleNamespace(points=[SimpleNamespace(label="sss", trials=trials)])
    monkeypatch.setattr(reward_table, "load", lambda _run: run)
    return list(reward_table.lines("a run"))


def test_trials_are_taken_together(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = shown(monkeypatch, trial([0, 0, 0, 0], 2.0, 8.0))
    assert (line.reward, line.error) == (0.0, None), "none of four is not none for certain"
    (line,) = shown(monkeypatch, trial([1, 0, 0, 0], 2.0, 8.0), trial([1, 1, 0, 0], 4.0, 16.0))
    assert (line.answers, line.reward, line.target_calls) == (8, 0.375, 4.0)
    assert line.error == pytest.approx((0.375 * 0.625 / 8) ** 0.5)
    assert (line.cpu_s, line.cpu_s_per_good) == (0.75, 2.0)
    assert line.energy_j_per_good == "8 (estimated)"
    reward_table.show("a run")
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["method", "answers", "reward"]
    assert row.split()[:3] == ["sss", "8", "0.375"]


def test_what_is_not_known_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = shown(monkeypatch, trial([0.5, 0.25], None, 8.0))
    assert (line.error, line.cpu_s, line.cpu_s_per_good, line.energy_j_per_good) == (None, None, None, "-")
    unscored = trial([None, None], 1.0, 8.0)
    with pytest.raises(UsageError, match="no answer of a run counts"):
        shown(monkeypatch, unscored)


def test_a_trial_without_rewards_is_not_one_of_bad_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = shown(monkeypatch, trial([1, 1], 2.0, 8.0), trial([None], 1.0, 1.0), trial([], 1.0, 1.0))
    assert (line.answers, line.reward, line.error, line.cpu_s) == (2, 1.0, None, 1.0)


def test_a_trial_that_does_not_know_its_good_answers_leaves_the_cost_of_one_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = trial([1, 0], 2.0, 8.0, good=Unavailable("column reward was never filled"))
    (line,) = shown(monkeypatch, trial([1, 0], 2.0, 8.0), unknown)
    assert (line.answers, line.cpu_s) == (4, 1.0)
    assert (line.cpu_s_per_good, line.energy_j_per_good) == (None, "-")


def test_joules_of_several_trials_are_as_weak_as_the_weakest(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = shown(monkeypatch, trial([1], 1.0, 3.0, method=Method.COUNTER), trial([1], 1.0, 5.0))
    assert line.energy_j_per_good == "4 (estimated)"


def test_trials_that_are_not_valid_are_left_out_and_said_to_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = shown(monkeypatch, trial([0, 0], 90.0, 90.0, valid=False, predicted=0.75), trial([1, 0], 2.0, 8.0))
    assert (line.answers, line.reward, line.cpu_s, line.energy_j_per_good) == (2, 0.5, 1.0, "8 (estimated)")
    assert (line.predicted, line.invalid) == (0.5, 1)
    reward_table.show("a run")
    assert capsys.readouterr().out.splitlines()[-1] == "sss: 1 trial not valid, left out"
    with pytest.raises(UsageError, match="no answer of a run counts: 2 trials not valid"):
        shown(monkeypatch, *(trial([1], 1.0, 1.0, valid=False) for _ in range(2)))


def test_the_prediction_is_of_all_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = shown(monkeypatch, trial([1], 1.0, 1.0), trial([1, 1, 1], 1.0, 1.0, predicted=0.9))
    assert line.predicted == pytest.approx((0.5 + 3 * 0.9) / 4)
    assert line.odds == "0.25 x 8 / 2 = 7"
    (line,) = shown(monkeypatch, trial([1], 1.0, 1.0), trial([1], 1.0, 1.0, predicted=None))
    assert (line.predicted, line.odds) == (None, None)
