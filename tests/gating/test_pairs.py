"""Pairs: redone whole, at most three times, counted; measured in random order; no trial left out for its value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.executor import Executor, Job, Listener, Outcome
from harness.gating import pairs as module
from harness.gating.pairs import REDOINGS, Pairs, draw_seed, faults
from harness.gating.sides import BASE, HEAD, Planned, Side, same_points
from harness.planning.point import Choice, Point
from harness.planning.trial_rules import WarmUpRule
from harness.quantity import Amount

Says = Callable[[str, int], str]
"""Side and number of its trial -> why it fails; empty where it does not."""


class Fake(Executor):
    def __init__(self, side: Side, says: Says, log: list[str]) -> None:
        self.side, self.says, self.log = side, says, log

    def run(self, job: Job, listener: Listener) -> Outcome:
        name = job.folder.parent.name
        reason = self.says(name, sum(each == name for each in self.log))
        self.log.append(name)
        return Outcome(ok=not reason, reason=reason)


def point(label: str = "spin", suite: str = "s", **more: Any) -> Point:
    return Point(id=f"{label:0>12}"[:12], suite=suite, label=label, workload="spin", backend=Choice("host"), **more)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = SimpleNamespace(invalid=(), foreign_load={}, warm_up=SimpleNamespace(converged=True))
    monkeypatch.setattr(module, "load_measurement", lambda folder: fine)


def made(folder: Path, says: Says = lambda side, number: "", *, seed: int = 0, **more: Any) -> tuple[Pairs, list[str]]:
    log: list[str] = []
    sides = {name: Side(name, f"python-of-{name}", folder, name) for name in (BASE, HEAD)}
    pairs = Pairs(
        folder,
        sides,
        more.pop("points", [(point(), point())]),
        seed=seed,
        watcher=lambda event: None,
        executor=lambda side: Fake(side, says, log),
        **more,
    )
    return pairs, log


def test_a_pair_is_one_trial_of_each_side_in_random_order(tmp_path: Path) -> None:
    pairs, log = made(tmp_path)
    pairs.measure(40)
    orders = [tuple(log[index : index + 2]) for index in range(0, 80, 2)]
    assert {frozenset(order) for order in orders} == {frozenset({BASE, HEAD})}
    assert 8 < orders.count((BASE, HEAD)) < 32
    assert pairs.series[0].pairs == 40


def test_the_order_is_that_of_the_seed(tmp_path: Path) -> None:
    logs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        pairs, log = made(tmp_path / name, seed=seed)
        pairs.measure(20)
        logs.append(log)
    assert logs[0] == logs[1] != logs[2]


def test_each_job_draws_an_order_of_its_own_and_knows_it(tmp_path: Path) -> None:
    assert len({draw_seed() for _ in range(20)}) == 20
    pairs, log = made(tmp_path, seed=draw_seed())
    pairs.measure(30)
    seconds = [second == HEAD for second in log[1::2]]
    assert pairs.series[0].head_second == seconds


def test_one_failed_trial_redoes_the_whole_pair_and_is_counted(tmp_path: Path) -> None:
    pairs, log = made(tmp_path, lambda side, number: "throttled" if (side, number) == (HEAD, 1) else "")
    pairs.measure(3)
    assert log.count(BASE) == log.count(HEAD) == 4
    assert pairs.redone == {HEAD: 1}
    assert pairs.tried == {BASE: 4, HEAD: 4}
    series = pairs.series[0]
    assert not series.lost
    assert series.pairs == 3
    assert series.kept[BASE] == series.kept[HEAD], "both trials of a pair are those of one attempt"
    assert len(set(series.kept[HEAD])) == 3


def test_a_pair_is_redone_three_times_and_then_its_point_is_lost(tmp_path: Path) -> None:
    pairs, log = made(tmp_path, lambda side, number: "it crashed" if side == HEAD and number >= 2 else "")
    pairs.measure(5)
    series = pairs.series[0]
    assert log.count(HEAD) == 2 + 1 + REDOINGS
    assert series.lost == "pair 3 could not be measured in 4 attempts: head: it crashed"
    assert series.pairs == 2
    assert pairs.going == []


def test_the_others_go_on_when_a_point_is_lost(tmp_path: Path) -> None:
    points = [(point("a"), point("a")), (point("b"), point("b"))]
    failing = iter([True] * 4)
    pairs, _ = made(tmp_path, points=points)
    pairs._trial = lambda series, name, trial: (  # type: ignore[method-assign]
        "broken" if series.label == "s: a" and name == BASE and next(failing, False) else ""
    )
    pairs.measure(3)
    assert {series.label: series.pairs for series in pairs.series} == {"s: a": 0, "s: b": 3}


def test_the_control_runs_on_bases_environment_and_counts_for_nobody(tmp_path: Path) -> None:
    pairs, _ = made(tmp_path, control=[point("loop", "control")])
    used: list[str] = []
    for name, executor in pairs._executors.items():
        run = executor.run
        executor.run = lambda *job, name=name, run=run: (used.append(name), run(*job))[1]  # type: ignore[method-assign]
    pairs.measure(6)
    (control,) = pairs.controls
    assert control.pairs == 6
    assert used.count(BASE) == 6 + 12
    assert pairs.tried == {BASE: 6, HEAD: 6}


@pytest.mark.parametrize(
    ("converged", "wanted", "counts"),
    [(True, WarmUpRule(), True), (False, WarmUpRule(), False), (False, WarmUpRule(max_iterations=0), True)],
)
def test_a_warm_up_that_did_not_converge_keeps_a_trial_out(converged: bool, wanted: WarmUpRule, counts: bool) -> None:
    warm_up = SimpleNamespace(converged=converged, iterations=50, seconds=1.0, duration_cv=0.2)
    measurement: Any = SimpleNamespace(invalid=(), foreign_load={}, warm_up=warm_up)
    assert (faults(measurement, point(warm_up=wanted)) == []) is counts


def reading(*flags: str, joules: float = 100.0, **more: Any) -> Any:
    given = {"primary": True, "span": "window", "window": 0, "meter": "m", "scope": "n0/gpu:0", **more}
    return SimpleNamespace(flags=flags, value=Amount.exact(joules, "J"), **given)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (reading("counter reset"), "counter reset"),
        (reading("low coverage"), "low coverage"),
        (reading(joules=400.0), "400 W at least, above the limit of 300 W"),
        (reading("not aligned"), ""),
        (reading("counter reset", primary=False), ""),
        (reading("counter reset", span="idle"), ""),
    ],
)
def test_readings_that_are_not_whole_keep_a_trial_out_where_energy_is_judged(found: Any, said: str) -> None:
    measurement: Any = SimpleNamespace(
        invalid=(),
        foreign_load={},
        warm_up=SimpleNamespace(converged=True),
        readings=(found,),
        windows=(SimpleNamespace(window=0, duration_s=1.0),),
        scopes={"n0/gpu:0": SimpleNamespace(max_power_w=300.0)},
    )
    reasons = faults(measurement, point(), energy=True)
    assert bool(reasons) is bool(said)
    assert said in "; ".join(reasons)
    assert faults(measurement, point()) == [], "a gate of times alone asks for no whole energy"
    if "W" in said:
        assert faults(measurement, point(power_cap="expected"), energy=True) == []


def test_a_reset_redoes_the_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = iter([reading("counter reset")])
    monkeypatch.setattr(
        module,
        "load_measurement",
        lambda folder: SimpleNamespace(
            invalid=(),
            foreign_load={},
            warm_up=SimpleNamespace(converged=True),
            readings=tuple(kept),
            windows=(SimpleNamespace(window=0, duration_s=1.0),),
            scopes={},
        ),
    )
    pairs, log = made(tmp_path, energy=["s"])
    pairs.measure(2)
    assert pairs.series[0].pairs == 2
    assert sum(pairs.redone.values()) == 1
    assert len(log) == 6


def test_what_meters_saw_keeps_a_trial_out() -> None:
    measurement: Any = SimpleNamespace(invalid=("throttled",), foreign_load={}, warm_up=SimpleNamespace(converged=True))
    assert faults(measurement, point()) == ["throttled"]


def test_points_are_matched_by_place_and_named_apart() -> None:
    twins = [point("spin", case=0), point("spin", case=1), point("gone", case=2)]
    matched, odd = same_points(twins, [*twins[:2], point("new", case=3)])
    assert [head.label for _, head in matched] == ["spin (case 1)", "spin (case 2)"]
    assert sorted(odd) == ["gone", "new"]


def test_each_job_names_the_offers_as_the_side_that_runs_it_planned_them(tmp_path: Path) -> None:
    ours, theirs = [{"kind": "workload", "name": "ours"}], [{"kind": "workload", "name": "theirs"}]
    measured_point, control = point("a"), point("c", suite="control")
    planned = {
        BASE: Planned([], offers={measured_point.id: ours, control.id: ours}, fetch={measured_point.id: "a model"}),
        HEAD: Planned([], offers={measured_point.id: theirs}),
    }
    points = [(measured_point, measured_point)]
    pairs, _ = made(tmp_path, points=points, control=[control], planned=planned)
    pairs.measure(1)
    named = {
        (side, one.id): json.loads((run / f"{one.id}-t000" / "job.json").read_text(encoding="utf-8"))["offers"]
        for side, run in pairs.runs.items()
        for one in (measured_point, control)
    }
    assert named == {
        (BASE, measured_point.id): ours,
        (HEAD, measured_point.id): theirs,
        (BASE, control.id): ours,
        (HEAD, control.id): ours,
    }
