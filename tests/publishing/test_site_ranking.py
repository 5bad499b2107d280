"""Which results of many runs are ranked with each other, and what their intervals leave open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.publishing.badges import badges
from harness.publishing.comparable import Ranking, rankings
from harness.publishing.results import SAMPLE, Items, Published, Result, quality_text, results
from harness.quantity import Method
from harness.records.files import load_record, trial_folders, write_measurement, write_record
from harness.records.summary import load

MakeRun = Callable[..., Path]
StoredRun = Callable[..., Path]


@pytest.fixture
def measured(stored_run: StoredRun) -> Callable[..., list[Result]]:
    """Measures a run: name, then joules a trial by label; its day is the number in its name."""

    def make(name: str, points: dict[str, list[float | None]], **facts: Any) -> list[Result]:
        day = int("".join(filter(str.isdigit, name)) or 1)
        started = f"2026-01-{day:02d}T00:00:00+00:00"
        report = load(stored_run(name, points, started=started, **facts))
        return results(report, Published(name=name, page=f"runs/{name}/index.html", started_utc=started, status="ok"))

    return make


def ranks(found: list[Result], metric: str = "energy_j") -> list[list[tuple[str, int | None, int | None]]]:
    return [[(row.result.label, row.best, row.worst) for row in each.rows] for each in rankings(found, metric)]


def only(found: list[Result], metric: str = "energy_j") -> Ranking:
    (ranking,) = rankings(found, metric)
    return ranking


def test_results_whose_intervals_overlap_share_a_rank(measured: Callable[..., list[Result]]) -> None:
    found = measured("r1", {"a": [100, 101, 102], "b": [100, 102, 103], "c": [200, 201, 202]})
    assert ranks(found) == [[("a", 1, 2), ("b", 1, 2), ("c", 3, 3)]]


def test_across_devices_the_bounds_must_lie_apart_too(measured: Callable[..., list[Result]]) -> None:
    near = [*measured("r1", {"a": [100, 100.1, 100.2]}), *measured("r2", {"b": [106, 106.1, 106.2]}, card="GPU-2")]
    assert ranks(near) == [[("a", 1, 2), ("b", 1, 2)]]
    far = [*measured("r3", {"a": [100, 100.1, 100.2]}), *measured("r4", {"b": [120, 120.1, 120.2]}, card="GPU-2")]
    assert ranks(far) == [[("a", 1, 1), ("b", 2, 2)]]


def test_processors_of_two_runs_may_be_two_processors(measured: Callable[..., list[Result]]) -> None:
    found = measured("r1", {"a": [100, 100.1, 100.2], "b": [106, 106.1, 106.2]})
    anonymous = [replace(each, identified=False) for each in found]
    assert ranks(anonymous) == [[("a", 1, 1), ("b", 2, 2)]], "in one run it is one instrument"
    elsewhere = replace(anonymous[1], run=replace(found[1].run, name="r2", page="runs/r2/index.html"))
    assert ranks([anonymous[0], elsewhere]) == [[("a", 1, 2), ("b", 1, 2)]]
    assert ranks([found[0], replace(elsewhere, identified=True)]) == [[("a", 1, 1), ("b", 2, 2)]]


def test_a_bound_that_is_not_known_tells_devices_not_apart(measured: Callable[..., list[Result]]) -> None:
    found = [*measured("r1", {"a": [100, 100.1, 100.2]}), *measured("r2", {"b": [500, 501, 502]}, card="GPU-2")]
    costs = {name: replace(each, value=replace(each.value, low=None)) for name, each in found[1].costs.items()}  # type: ignore[type-var]
    assert ranks([found[0], replace(found[1], costs=costs)]) == [[("a", 1, 2), ("b", 1, 2)]]
    same = replace(found[1], costs=costs, cards=found[0].cards)
    assert ranks([found[0], same]) == [[("a", 1, 1), ("b", 2, 2)]]


def test_more_is_better_of_a_rate(measured: Callable[..., list[Result]]) -> None:
    slow, fast = measured("r1", {"a": [1, 1, 1]}, seconds=80.0), measured("r2", {"b": [1, 1, 1]}, seconds=40.0)
    (ranking,) = ranks([*slow, *fast], "rate")
    assert ranking == [("b", 1, 1), ("a", 2, 2)]
    assert ranks([*slow, *fast], "duration_s") == [ranking]


@pytest.mark.parametrize(
    "change",
    [
        {"definition": "tokens where reward >= 1"},
        {"suite": "another"},
        {"workload": "another"},
        {"kind": "offline"},
        {"meters": "plug on host"},
        {"factors": {"energy_j": ("grid-2026",)}},
        {"work": "other options under one label"},
        {"items": Items.of(["x"])},
        {"embodied": ("another table",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_another_quantity_stands_in_another_table(
    measured: Callable[..., list[Result]], change: dict[str, Any]
) -> None:
    (first,) = measured("r1", {"a": [100, 101, 102]})
    first = replace(first, items=Items.of(["1", "2"]))
    second = replace(first, run=replace(first.run, name="r2", page="runs/r2/index.html"), cards=("GPU-2",))
    metric = "carbon_g" if "embodied" in change else "energy_j"
    first, second = (
        replace(each, costs={**each.costs, "carbon_g": each.costs["energy_j"]}) for each in (first, second)
    )
    assert len(rankings([first, second], metric)) == 1
    assert len(rankings([first, replace(second, **change)], metric)) == 2


def test_other_methods_are_not_ranked_with_each_other(measured: Callable[..., list[Result]]) -> None:
    found = [
        *measured("r1", {"a": [100, 101, 102]}),
        *measured("r2", {"a": [50, 51, 52]}, method=Method.ESTIMATED, card="GPU-2"),
    ]
    assert {each.terms.method for each in rankings(found, "energy_j")} == {"counter", "estimated"}
    assert len(rankings(found, "duration_s")) == 1, "a clock is one method, whatever meter counts"


def test_points_of_other_options_are_ranked_where_no_label_means_two_things(
    measured: Callable[..., list[Result]],
) -> None:
    found = measured("r1", {"a": [100, 101, 102]}, options={"size": 1})
    found += measured("r2", {"b": [200, 201, 202]}, options={"size": 2})
    assert ranks(found) == [[("a", 1, 1), ("b", 2, 2)]]
    changed = measured("r3", {"a": [300, 301, 302]}, options={"size": 3})
    made = rankings([*found, *changed], "energy_j")
    assert [[row.result.run.name for row in each.rows] for each in made] == [["r2", "r3"], ["r1"]]


def test_points_of_one_run_may_differ_in_their_factors(measured: Callable[..., list[Result]]) -> None:
    found = measured("r1", {"here": [100, 101, 102], "there": [200, 201, 202]})
    found = [replace(each, factors={"energy_j": (each.label,)}) for each in found]
    assert ranks(found) == [[("here", 1, 1), ("there", 2, 2)]]
    (later,) = measured("r2", {"here": [300, 301, 302]})
    made = rankings([*found, replace(later, factors={"energy_j": ("another year's grid",)})], "energy_j")
    assert [len(each.rows) for each in made] == [2, 1]


def test_fewer_items_of_one_list_are_the_same_work(measured: Callable[..., list[Result]]) -> None:
    (first,) = measured("r1", {"a": [100, 101, 102]})
    variants = {"all": ["1", "2", "3"], "begin": ["1", "2"], "end": ["3"], "none": []}
    found = [replace(first, cards=(name,), items=Items.of(items)) for name, items in variants.items()]
    made = rankings(found, "energy_j")
    assert [sorted(row.result.cards[0] for row in each.rows) for each in made] == [["all", "begin", "none"], ["end"]]


def test_samples_of_many_items_tell_other_lists_apart() -> None:
    names = [f"prompt-{number}" for number in range(20 * SAMPLE)]
    whole, half, other = (
        Items.of(names),
        Items.of(names[: 10 * SAMPLE]),
        Items.of([*names[:-500], *map(str, range(500))]),
    )
    assert len(whole.sample) == SAMPLE
    assert half.within(whole)
    assert not whole.within(half)
    assert not other.within(whole)
    assert not whole.within(other)


@pytest.mark.parametrize(
    ("joules", "reason"),
    [
        ([100.0, 101.0], "fewer than 3 trials"),
        ([100.0, 101.0, None, 102.0], "3 of 4 trials have a value"),
        ([0.0, 0.0, 0.0], "0 or less, which no ratio compares"),
    ],
    ids=["few", "missing", "zero"],
)
def test_what_cannot_be_ranked_stands_last_with_its_reason(
    measured: Callable[..., list[Result]], joules: list[float | None], reason: str
) -> None:
    ranking = only(measured("r1", {"a": [200, 201, 202], "b": joules}))
    assert [(row.result.label, row.best, row.reason) for row in ranking.rows] == [("a", 1, ""), ("b", None, reason)]


def test_what_is_not_valid_has_no_rank(measured: Callable[..., list[Result]]) -> None:
    found = measured("r1", {"a": [100, 101, 102]}, invalid=True)
    assert [row.reason for row in only(found).rows] == ["not valid"]


def test_the_newest_run_of_a_point_and_device_counts(measured: Callable[..., list[Result]]) -> None:
    found = [result for day in (1, 3, 2) for result in measured(f"r{day}", {"a": [100 + day, 101 + day, 102 + day]})]
    (row,) = only(found).rows
    assert (row.result.run.name, row.others) == ("r3", 2)
    bad = measured("r4", {"a": [1, 2, 3]}, invalid=True)
    (row,) = only([*found, *bad]).rows
    assert (row.result.run.name, row.others) == ("r3", 3)


def test_a_run_that_was_costed_again_is_not_another_measurement(measured: Callable[..., list[Result]]) -> None:
    found = measured("r1", {"a": [100, 101, 102]}, factor="grid:1")
    run = replace(found[0].run, name="r1-recost", page="runs/r1-recost/index.html", recosted=True)
    again = [replace(each, run=run, factors={**each.factors, "carbon_g": ("grid:2",)}) for each in found]
    for both in ([*found, *again], [*again, *found]):
        (row,) = only(both).rows
        assert (row.result.run.name, row.others) == ("r1", 0)
        assert list(badges(both)) == list(badges(found))
    (row,) = only(again).rows
    assert (row.result.run.name, row.others) == ("r1-recost", 0)


def test_a_result_has_the_quality_that_its_runs_page_shows(make_run: MakeRun) -> None:
    run = make_run(points=1, trials=2)
    for trial in trial_folders(run):
        finished = load_record(trial)
        said = replace(finished.measurement, validation=({"miou": 0.1}, {"miou": 0.5}))
        write_measurement(trial, said)
        write_record(trial, replace(finished, measurement=said, qualities={"latency_s": False}))
    (result,) = results(load(run), Published(name="run", page="", started_utc="", status=""))
    assert quality_text(result) == "latency_s 0.02, reward 1, miou 0.5"
    assert result.lower == {"latency_s"}


def test_the_order_in_which_runs_are_read_decides_nothing(measured: Callable[..., list[Result]]) -> None:
    found = [
        result
        for day, level in enumerate((100, 103, 99, 140, 101), start=1)
        for result in measured(f"r{day}", {"a": [level, level + 1, level + 2]}, card=f"GPU-{day}")
    ]
    assert ranks(found) == ranks(found[::-1]) == ranks(found[2:] + found[:2])
