from __future__ import annotations

import io
import itertools
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness.planning.point import Choice, Point
from harness.quantity import Method, Undefined
from harness.records.files import write_measurement, write_record
from harness.records.paths import ITEMS
from harness.records.summary import RunReport, load
from harness.reporting.finding import Finding, finding
from harness.reporting.terminal import print_report
from harness.statistics.intervals import mean_interval, ratio_interval
from tests.conftest import StoredRun, trial


def run_of(
    folder: Path, points: dict[str, Sequence[float]], *, methods: dict[str, Method] | None = None, invalid: str = ""
) -> RunReport:
    """A run with a trial a number of joules."""
    for place, (label, joules) in enumerate(points.items()):
        point = Point(id=f"{place:012x}", suite="s", label=label, workload="spin", backend=Choice("host"))
        for number, energy in enumerate(joules):
            method = (methods or {}).get(label, Method.COUNTER)
            finished = trial(point, folder.name, number, energy, method=method, invalid=label == invalid)
            where = folder / finished.measurement.trial_id
            where.mkdir(parents=True)
            write_measurement(where, finished.measurement)
            write_record(where, finished)
    return load(folder)


def found(folder: Path, points: dict[str, Sequence[float]]) -> Finding:
    return finding(run_of(folder, points), "token")


def printed(report: RunReport, *, width: int | None = None, encoding: str = "utf-8", details: bool = False) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, force_terminal=width is not None, color_system=None)
    print_report(console, report, details=details)
    stream.seek(0)
    return stream.read()


LOW, HIGH, BETWEEN = (10.0, 10.1, 10.2), (20.0, 20.2, 20.4), (9.0, 10.3, 12.0)


# The sentence


def test_the_cheapest_is_told_with_its_interval(tmp_path: Path) -> None:
    text = found(tmp_path / "r", {"dear": HIGH, "cheap": LOW}).text
    estimate, low, high = ratio_interval(HIGH, LOW) or (0.0, 0.0, 0.0)
    assert text.startswith("Least energy per token: cheap, 1.01 J (counter), 50 % less than dear")
    assert f"(95 % interval {100 * (1 - high):.0f} % to {100 * (1 - low):.0f} %)" in text
    assert low < estimate < high < 1


def test_overlapping_points_are_not_ranked(tmp_path: Path) -> None:
    seen = found(tmp_path / "r", {"a": LOW, "b": BETWEEN})
    assert seen.cheapest == ()
    assert seen.text == "Least energy per token cannot be told: the intervals of b; a overlap."


def test_a_group_is_told_apart_from_the_rest_but_not_within(tmp_path: Path) -> None:
    seen = found(tmp_path / "r", {"a": LOW, "b": BETWEEN, "far": (40.0, 40.5, 41.0)})
    assert set(seen.cheapest) == {"a", "b"}
    assert "they lie below the other 1 point" in seen.text


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_trials_claim_nothing(tmp_path: Path, count: int) -> None:
    seen = found(tmp_path / "r", {"a": LOW[:count], "b": HIGH})
    assert seen.cheapest == ()
    assert "fewer than 3 trials of a" in seen.text


def test_zeros_are_not_ranked(tmp_path: Path) -> None:
    zero = (0.0, 0.0, 0.0)
    assert "a; b read 0" in found(tmp_path / "two", {"a": zero, "b": zero}).text
    assert found(tmp_path / "one", {"a": zero, "b": HIGH}).cheapest == ()


def test_other_methods_are_not_ranked(tmp_path: Path) -> None:
    seen = finding(run_of(tmp_path / "r", {"a": LOW, "b": HIGH}, methods={"a": Method.ESTIMATED}), "token")
    assert seen.cheapest == ()
    assert seen.text.startswith("Not ranked by energy_j per token: they were obtained by different methods")


def test_points_that_their_workload_ranks_apart_are_not_ranked(tmp_path: Path) -> None:
    report = run_of(tmp_path / "r", {"a": LOW, "b": HIGH})
    for point in report.points:
        measured = [replace(each.measurement, workload={"ranked_as": f"kind {point.label}"}) for each in point.records]
        point.records[:] = [replace(each, measurement=new) for each, new in zip(point.records, measured, strict=True)]  # type: ignore[index]  # a list
    seen = finding(report, "token")
    assert seen.cheapest == ()
    assert "they are ranked apart by their workload (kind a: a; kind b: b)" in seen.text


def test_a_point_that_is_not_valid_is_left_out_and_said(tmp_path: Path) -> None:
    seen = finding(run_of(tmp_path / "r", {"a": LOW, "b": HIGH, "c": (1.0, 1.0, 1.1)}, invalid="c"), "token")
    assert seen.cheapest == ("a",)
    assert seen.notes == ("Not ranked, not valid: c.",)


@pytest.mark.parametrize(("second", "ranked"), [(("x", "y"), True), (("x", "z"), False)])
def test_points_that_did_other_items_are_not_ranked(tmp_path: Path, second: tuple[str, str], ranked: bool) -> None:
    report = run_of(tmp_path / "r", {"a": LOW, "b": HIGH})
    for folder, items in zip(sorted((tmp_path / "r").iterdir()), [("x", "y")] * 3 + [second] * 3, strict=True):
        (folder / ITEMS).write_text("".join(json.dumps({"item_id": item, "status": "ok"}) + "\n" for item in items))
    seen = finding(report, "token")
    assert bool(seen.cheapest) is ranked
    assert ("different work items" in seen.text) is not ranked


SAMPLES = st.lists(st.floats(1.0, 100.0), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(SAMPLES, min_size=2, max_size=4), st.randoms())
def test_the_order_of_points_and_trials_changes_nothing_and_overlap_forbids_a_claim(
    tmp_path_factory: pytest.TempPathFactory, samples: list[list[float]], shuffle: object
) -> None:
    import random

    assert isinstance(shuffle, random.Random)
    points: dict[str, Sequence[float]] = {f"point {place}": values for place, values in enumerate(samples)}
    seen = found(tmp_path_factory.mktemp("r") / "first", points)
    labels = list(points)
    shuffle.shuffle(labels)
    again = {label: shuffle.sample(points[label], len(points[label])) for label in labels}
    permuted = found(tmp_path_factory.mktemp("r") / "second", again)
    assert set(permuted.cheapest) == set(seen.cheapest)
    for label, other in itertools.product(seen.cheapest, set(points) - set(seen.cheapest)):
        below, above = mean_interval(points[label]), mean_interval(points[other])
        assert below is not None
        assert above is not None
        assert below[1] < above[0]
    tied = dict(points) | {"twin": points[seen.cheapest[0]]} if len(seen.cheapest) == 1 else {}
    if tied:
        assert len(found(tmp_path_factory.mktemp("r") / "third", tied).cheapest) != 1


# The screen


def ten(folder: Path) -> RunReport:
    labels = [f"spin · draft_tokens={number}, target=a-rather-long/model-name-7b" for number in range(10)]
    return run_of(
        folder, {label: [10.0 * (place + 1) + step for step in (0, 0.1, 0.2)] for place, label in enumerate(labels)}
    )


def test_ten_points_fit_a_screen(tmp_path: Path) -> None:
    report = ten(tmp_path / "r")
    assert len(printed(report, width=120).splitlines()) <= 24
    assert "Least energy per token: spin · draft_tokens=0" in printed(report).splitlines()[1]


def test_ten_points_fit_a_screen_of_80_columns(tmp_path: Path) -> None:
    report = run_of(tmp_path / "r", {f"spin of {number} iterations": LOW for number in range(10)})
    assert len(printed(report, width=80).splitlines()) <= 45


@pytest.mark.parametrize("width", [40, 60, 80, 120, None])
@pytest.mark.parametrize("details", [False, True])
def test_no_identifier_is_broken_at_any_width(tmp_path: Path, width: int | None, details: bool) -> None:
    text = printed(ten(tmp_path / "r"), width=width, details=details)
    assert text.count("target=a-rather-long/model-name-7b") >= 10
    words = set(text.split())
    assert not {word for word in words if word.startswith("target=a-rather-long/mod")} - {
        f"target=a-rather-long/model-name-7b{mark}" for mark in ("", ",", ";", ":")
    }
    if width:
        long = [line for line in text.splitlines() if len(line) > width]
        assert all(max(map(len, line.split())) > width - 30 for line in long)


def test_a_pipe_gets_whole_lines_and_no_boxes(tmp_path: Path) -> None:
    report = ten(tmp_path / "r")
    text = printed(report, details=True)
    assert not set(text) & set("│┃┏┓└┘━╭╮")
    assert any(len(line) > 100 for line in text.splitlines())
    assert f"records   {report.folder}" in text.splitlines()


def test_a_terminal_that_knows_ascii_alone_is_served(tmp_path: Path) -> None:
    text = printed(ten(tmp_path / "r"), encoding="ascii", details=True)
    assert text.isascii()
    assert "spin - draft_tokens=0" in text
    assert "+- 5 %" in text


def test_what_all_points_lack_for_one_reason_is_a_note_and_no_column(
    stored_run: StoredRun,
) -> None:
    lines = printed(load(stored_run("none", {"a": [None], "b": [None]}))).splitlines()
    assert "J/token: unavailable, the counter is gone" in lines
    (head,) = (line for line in lines if line.startswith("point "))
    assert "J/token" not in head
    some = printed(load(stored_run("some", {"a": [None], "b": [1.0]}))).splitlines()
    (head,) = (line for line in some if line.startswith("point "))
    assert "J/token" in head


def test_every_point_stands_in_a_table_whatever_its_functional_unit(tmp_path: Path) -> None:
    """The second and the fifth count other things than the first; the second's unit is the first's further one."""
    units = {"a": ["token"], "b": ["token", "image"], "c": ["image"], "d": ["page"], "e": ["line"], "f": ["word"]}
    report = run_of(tmp_path / "r", dict.fromkeys(units, LOW))
    points = []
    for point, names in zip(report.points, units.values(), strict=True):
        cost, definition = point.units["token"], point.definitions["token"]
        points.append(replace(point, units=dict.fromkeys(names, cost), definitions=dict.fromkeys(names, definition)))
    text = printed(replace(report, points=tuple(points)))
    tables = text.split("\nPer ")[1:]
    assert [table.split()[0] for table in tables] == ["token", "image", "page", "line", "word"]
    rows = [[line.split()[0] for line in table.splitlines() if line[:2].strip() in units] for table in tables]
    assert rows == [["a", "b"], ["b", "c"], ["d"], ["e"], ["f"]]
    assert "f: 1.01 J (counter) per word" in text


def test_the_experiment_as_a_whole_is_told_with_what_it_leaves_out(tmp_path: Path) -> None:
    text = printed(run_of(tmp_path / "r", {"a": LOW, "b": HIGH}))
    assert "The experiment: 90.9 J (counter) in the windows of 6 trials (240 s); not metered: warm-up of 6 s" in text


def test_the_experiment_as_a_whole_names_the_weakest_method_of_each_sum(tmp_path: Path) -> None:
    report = run_of(tmp_path / "r", {"a": LOW, "b": HIGH}, methods={"b": Method.ESTIMATED})
    assert "The experiment: 90.9 J (estimated) in the windows" in printed(report)


def test_the_command_for_more_can_be_copied_whatever_the_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "my runs" / "it's"
    text = printed(run_of(folder, {"a": LOW}))
    (command,) = (line for line in text.splitlines() if line.startswith("More: "))
    words = shlex.split(command.removeprefix("More: ").partition(", or ")[0])
    assert words == ["harness", "report", str(folder), "--details"]


def test_energy_that_bought_no_unit_was_read_all_the_same(tmp_path: Path) -> None:
    report = run_of(tmp_path / "r", {"a": LOW}, methods={"a": Method.ESTIMATED})
    (point,) = report.points
    none = replace(point.units["token"]["energy_j"], value=Undefined("no token: nothing passed"), values=())
    costs = {**point.units["token"], "energy_j": none}
    text = printed(replace(report, points=(replace(point, units={"token": costs}),)))
    assert "; energy: estimated." in text
    assert "not read" not in text
