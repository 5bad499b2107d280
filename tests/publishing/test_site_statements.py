"""What a site says of its results: which is best, what is left out, what a run that was costed again adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.backend import Device
from harness.publishing import leaderboards
from harness.publishing.badges import badges
from harness.publishing.build import build
from harness.publishing.results import Published, Result, of_history, results
from harness.records.files import load_record, trial_folders, write_measurement, write_record
from harness.records.summary import load

MakeRun = Callable[..., Path]
StoredRun = Callable[..., Path]


@pytest.fixture
def measured(stored_run: StoredRun) -> Callable[..., list[Result]]:
    """Measures a run: name, then joules a trial by label."""

    def make(name: str, points: dict[str, list[float]], **facts: Any) -> list[Result]:
        run = Published(name=name, page=f"runs/{name}/index.html", started_utc="2026", status="ok")
        return results(load(stored_run(name, points, **facts)), run)

    return make


def said(found: list[Result]) -> list[str]:
    ((part, _),) = leaderboards.parts(found, "token", "energy_j")
    return [text for text in part.paragraphs if not text.startswith("token: ")]


def test_a_leaderboard_says_where_its_best_cannot_be_told(measured: Callable[..., list[Result]]) -> None:
    apart, near = {"a": [100, 101, 102], "b": [200, 201, 202]}, {"a": [100, 101, 102], "b": [100, 102, 103]}
    assert said(measured("r1", apart)) == []
    assert said(measured("r2", near)) == ["Which one is the best cannot be told: intervals or bounds overlap."]
    assert said(measured("r3", {"a": [100, 101, 102]})) == ["Fewer than two results can be ranked here."]


def test_a_leaderboard_says_where_bounds_are_not_known(measured: Callable[..., list[Result]]) -> None:
    found = [*measured("r1", {"a": [100, 101, 102]}), *measured("r2", {"b": [500, 501, 502]}, card="GPU-2")]
    value: Any = found[1].costs["energy_j"].value
    costs = {**found[1].costs, "energy_j": replace(found[1].costs["energy_j"], value=replace(value, low=None))}
    unknown = "Bounds are not known: results of different devices cannot be told apart."
    assert unknown not in said(found)
    assert said([found[0], replace(found[1], costs=costs)])[-1] == unknown
    assert unknown not in said([found[0], replace(found[1], costs=costs, cards=found[0].cards)])


def test_what_is_not_valid_has_no_badge_and_no_history(
    measured: Callable[..., list[Result]], stored_run: StoredRun
) -> None:
    assert len(list(badges(measured("r1", {"a": [100, 101, 102]})))) == 3
    assert list(badges(measured("r2", {"a": [100, 101, 102]}, invalid=True))) == []
    assert len(of_history(load(stored_run("r3", {"a": [100, 101, 102]})))) == 1
    assert of_history(load(stored_run("r4", {"a": [100, 101, 102]}, invalid=True))) == []


def test_a_machine_without_accelerators_is_not_identified(make_run: MakeRun) -> None:
    run = make_run(points=1, trials=1)
    published = Published(name="run", page="", started_utc="", status="")
    assert [each.identified for each in results(load(run), published)] == [True]
    (trial,) = trial_folders(run)
    finished = load_record(trial)
    bare = replace(finished.measurement, devices=())
    write_measurement(trial, bare)
    write_record(trial, replace(finished, measurement=bare))
    (result,) = results(load(run), published)
    assert (result.identified, result.device) == (False, "Example CPU")


def test_equal_devices_are_counted_and_only_meters_that_count_are_named(make_run: MakeRun) -> None:
    run = make_run(points=1, trials=1)
    (trial,) = trial_folders(run)
    finished = load_record(trial)
    cards = tuple(Device(kind="gpu", uuid=f"GPU-{number}", name="a card") for number in range(2))
    measurement = replace(finished.measurement, devices=(*cards, Device(kind="gpu", uuid="GPU-3", name="another")))
    write_measurement(trial, measurement)
    write_record(trial, replace(finished, measurement=measurement))
    (result,) = results(load(run), Published(name="run", page="", started_utc="", status=""))
    assert (result.device, result.cards) == ("2 x a card, another", ("GPU-0", "GPU-1", "GPU-3"))
    assert result.meters == "nvml on gpu and tdp on cpu-package"


def test_a_run_that_was_costed_again_is_in_no_history_and_no_change(stored_run: StoredRun, tmp_path: Path) -> None:
    for day, parent in ((1, ""), (2, "r1")):
        stored_run(f"r{day}", {"a": [100.0, 101.0]}, parent=parent, started=f"2026-01-0{day}T00:00:00+00:00")
    build(tmp_path / "site", [str(tmp_path / "store")], tell=lambda _: None)
    (history,) = (tmp_path / "site/history").glob("token-energy_j-*.html")
    text = history.read_text(encoding="utf-8")
    assert (">r1<" in text, ">r2<" in text) == (True, False)
    assert "r2 against r1" not in (tmp_path / "site/changes.html").read_text(encoding="utf-8")
    assert "costed again" in (tmp_path / "site/runs.html").read_text(encoding="utf-8")
