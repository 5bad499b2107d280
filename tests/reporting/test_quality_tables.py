"""Quality beside costs and by class, and kinds of points that are never ranked with each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.quantity import Amount
from harness.records.files import load_record, trial_folders, write_measurement, write_record
from harness.records.summary import RunReport, load
from harness.reporting import by_class, content, quality
from harness.reporting.comparison import Runs
from harness.reporting.overview import overview
from harness.reporting.page import html
from harness.reporting.same_work import apart, differences
from harness.reporting.tables import Section

MakeRun = Callable[..., Path]
KINDS = ("training", "inference, weights: trained", "inference, weights: random")


def told(folder: Path, say: Callable[[int, int], Mapping[str, Any]]) -> RunReport:
    """The report of a run whose measurements say something else; the function gets point and trial."""
    for trial in trial_folders(folder):
        finished = load_record(trial)
        point = int(finished.measurement.point["id"][1:])
        measurement = replace(finished.measurement, **say(point, finished.measurement.trial))
        write_measurement(trial, measurement)
        write_record(trial, replace(finished, measurement=measurement))
    return load(folder)


def tables(report: RunReport) -> dict[str, Section]:
    return {section.title: section for section in content.build(report).sections if section.table}


# Kinds


@pytest.fixture
def kinds(make_run: MakeRun) -> RunReport:
    """Six points, two of each kind."""
    return told(make_run(points=6, trials=3), lambda point, _: {"workload": {"ranked_as": KINDS[point // 2]}})


def test_points_of_one_kind_are_not_taken_apart(make_run: MakeRun) -> None:
    report = load(make_run())
    assert apart(report) == [("", report)]
    assert "Per token (output_tokens)" in tables(report)


def test_every_table_that_ranks_holds_points_of_one_kind(kinds: RunReport) -> None:
    of_kind = {point.label: KINDS[place // 2] for place, point in enumerate(kinds.points)}
    ranking = [section for title, section in tables(kinds).items() if title.startswith(("Per token", "Embodied"))]
    assert len(ranking) == 2 * len(KINDS)
    for section in ranking:
        assert section.table is not None
        labels = {row[0].split("\n")[0] for row in section.table.rows}
        assert len(labels) == 2
        assert {of_kind[label] for label in labels} == {section.title.partition(": ")[2]}


def test_each_kind_has_a_finding_of_its_own(kinds: RunReport) -> None:
    seen = overview(kinds)
    assert [text.partition(": Least energy per token")[0] for text in seen.findings] == list(KINDS)
    assert [section.title for section in seen.sections[:-1]] == [f"Per token (output_tokens): {kind}" for kind in KINDS]


def test_what_is_the_same_of_two_units_is_said_once(make_run: MakeRun) -> None:
    folder = make_run(points=4, trials=2)
    for trial in trial_folders(folder):
        finished = load_record(trial)
        write_record(trial, replace(finished, units={**finished.units, "answer": finished.units["token"]}))
    report = told(folder, lambda point, _: {"workload": {"ranked_as": KINDS[point // 2]}})
    assert [text.partition(" cannot be told")[0] for text in overview(report).findings] == [
        "training: Least energy per token and per answer",
        "inference, weights: trained: Least energy per token and per answer",
    ]


def test_the_page_draws_each_kind_alone(kinds: RunReport) -> None:
    text = html(Runs([kinds], ["A"]))
    captions = re.findall(r"<figcaption>(energy_j per token[^<]*)</figcaption>", text)
    assert captions
    for caption in captions:
        assert sum(kind in caption for kind in KINDS) == 1, caption
    for kind in KINDS:
        assert f"Cost per token: median over n trials: {kind}" in text
        assert f"energy_j per token against latency_s (p95): {kind}" in text


def test_points_that_say_nothing_stand_apart_from_those_that_do(make_run: MakeRun) -> None:
    report = told(make_run(), lambda point, _: {"workload": {"ranked_as": "training"} if point else {}})
    assert [(kind, len(part.points)) for kind, part in apart(report)] == [("other work", 1), ("training", 2)]


# What a unit's column means


def test_units_whose_column_means_different_things_are_not_ranked(make_run: MakeRun) -> None:
    def say(point: int, _: int) -> Mapping[str, Any]:
        return {"workload": {"means": {"output_tokens": f"tokens of model {min(point, 1)}", "other": "no unit's"}}}

    report = told(make_run(), say)
    assert report.points[0].definitions == {"token": "output_tokens: tokens of model 0"}
    assert differences(report, report.points[1:], "token", "energy_j") == []
    (why,) = differences(report, report.points, "token", "energy_j")
    assert why.startswith("they count another token (output_tokens: tokens of model 0: ")


# Quality beside costs


def test_a_quality_stands_beside_the_costs(make_run: MakeRun) -> None:
    report = load(make_run())
    section = tables(report)["Per token (output_tokens)"]
    assert section.table is not None
    assert section.table.columns[2] == "reward"
    assert [row[2].split("\n")[0] for row in section.table.rows] == ["1", "2", "3"]
    first = overview(report).sections[0].table
    assert first is not None
    assert [row[first.columns.index("reward")] for row in first.rows] == ["1", "2", "3"]


def test_of_what_learns_the_quality_is_that_after_the_last_window(make_run: MakeRun) -> None:
    def say(point: int, trial: int) -> Mapping[str, Any]:
        return {"validation": [{"miou": 0.1, "reward": 0.0}, {"miou": 0.5 + 0.1 * point + 0.01 * trial}]}

    report = told(make_run(trials=3), say)
    assert quality.columns(report.points) == ["reward", "miou"]
    found = quality.of(report.points[1], "miou")
    assert found is not None
    assert isinstance(found.value, Amount)
    assert found.values == pytest.approx((0.6, 0.61, 0.62))
    assert found.value.value == pytest.approx(0.61)
    mean = quality.of(report.points[1], "reward")
    assert mean == report.points[1].columns["reward"]["mean"], "the last window says nothing of it"


def test_a_quality_that_a_trial_lacks_is_not_that_of_the_others(make_run: MakeRun) -> None:
    report = told(make_run(), lambda _, trial: {"validation": [{"miou": 0.5}] if trial else []})
    assert quality.columns(report.points) == ["reward"]


# By class


def test_classes_stand_side_by_side_with_their_names(make_run: MakeRun) -> None:
    def say(point: int, trial: int) -> Mapping[str, Any]:
        iou = {"sky": 0.9 - 0.1 * point, "pole": 0.2 + 0.1 * trial, "sign": None}
        return {"workload": {"iou_by_class": iou if point < 2 else {"wall": 1}, "note_by_class": "none"}}

    first, second = by_class.sections(told(make_run(trials=3), say))
    assert first.title == "iou of each class"
    assert first.table is not None
    assert list(first.table.columns) == ["class", "#1", "#2"]
    assert [list(row) for row in first.table.rows] == [["sky", "0.9", "0.8"], ["pole", "0.3", "0.3"], ["sign", "", ""]]
    assert first.paragraphs[0].startswith("#1 point 0; #2 point 1. ")
    assert second.table is not None
    assert [list(row) for row in second.table.rows] == [["wall", "1"]]


def test_many_points_are_told_by_class_in_several_tables(make_run: MakeRun) -> None:
    report = told(make_run(points=14), lambda *_: {"workload": {"iou_by_class": {"sky": 0.5}}})
    heads = [section.table.columns for section in by_class.sections(report) if section.table]
    assert [list(head) for head in heads] == [
        ["class", *(f"#{place}" for place in range(1, 13))],
        ["class", "#13", "#14"],
    ]


def test_points_keep_their_numbers_where_their_kinds_have_tables_of_their_own(make_run: MakeRun) -> None:
    def say(point: int, _: int) -> Mapping[str, Any]:
        return {"workload": {"iou_by_class": {"sky": 0.5}, "ranked_as": KINDS[point % 2]}}

    found = by_class.sections(told(make_run(points=3), say))
    assert [(section.title, list(section.table.columns)) for section in found if section.table] == [
        ("iou of each class: training", ["class", "#1", "#3"]),
        ("iou of each class: inference, weights: trained", ["class", "#2"]),
    ]


def test_names_of_classes_cannot_leave_their_place(make_run: MakeRun) -> None:
    report = told(make_run(), lambda *_: {"workload": {"iou_by_class": {"<script>alert(1)</script>": 0.5}}})
    assert "<script>alert" not in html(Runs([report], ["A"]))
    assert by_class.sections(load(make_run("none"))) == []
