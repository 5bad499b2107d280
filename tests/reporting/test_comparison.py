"""Runs side by side in a report: the numbers of `harness compare`, whichever runs are shown in whichever order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.comparing.compare import Comparison, compare, to_json
from harness.quantity import Method
from harness.records.summary import load
from harness.reporting.comparison import compared, interval, names_of, section, sections

StoredRun = Callable[..., Path]
MakeRun = Callable[..., Path]
STEADY = [100.0, 101.0, 99.0, 100.5, 99.5]


def shown(found: Comparison) -> list[list[str]]:
    """What `harness compare` prints of costs and rates of functional units: point, metric, change, conclusion."""
    return [
        [point.name, row[0], row[1], row[-1]]
        for point in found.points
        for row in next(sections(point, details=False)).table.rows  # type: ignore[union-attr]
        if " per " in row[0] and not row[0].startswith(("duration_s", "energy_j:"))
    ]


def reported(folders: Sequence[Path]) -> list[list[str]]:
    found = section([load(folder) for folder in folders], names_of(len(folders)))
    assert found is not None
    assert found.table is not None
    return [[row[0], row[1], row[2], row[-1]] for row in found.table.rows]


def test_report_and_compare_say_the_same_of_every_order_of_runs(stored_run: StoredRun) -> None:
    generator = random.Random(4)
    runs = [
        stored_run(
            f"r{number}",
            {label: [factor * joules * generator.uniform(0.97, 1.03) for joules in STEADY] for label in "ab"},
            seconds=40.0 * factor,
            **facts,
        )
        for number, (factor, facts) in enumerate(
            [(1.0, {}), (1.1, {}), (0.9, {"method": Method.ESTIMATED}), (1.0, {"options": {"batch": 2}})]
        )
    ]
    for order in itertools.permutations(runs, 3):
        wanted = [row for other in order[1:] for row in shown(compare(order[0], other))]
        assert wanted
        assert reported(order) == wanted


def test_the_commands_print_the_same_interval(stored_run: StoredRun) -> None:
    runs = [stored_run("r1", {"a": STEADY}), stored_run("r2", {"a": [1.1 * joules for joules in STEADY]})]

    def line(command: str, start: str) -> str:
        done = CliRunner().invoke(app, [command, *map(str, runs)], catch_exceptions=False, env={"COLUMNS": "220"})
        assert done.exit_code == 0, done.output
        return next(line for line in done.output.splitlines() if start in line and "change" not in line)

    for text in (line("compare", "energy_j per token"), line("report", "energy_j per token")):
        assert "+8.91 % to +11.1 % (+10 %)" in text
        assert text.rstrip().endswith("higher")


def test_the_order_of_the_trials_changes_nothing(stored_run: StoredRun) -> None:
    head = [104.0, 99.0, 107.0, 101.0, 103.0]
    base = stored_run("r1", {"a": STEADY})
    first, second = (
        compare(base, stored_run(name, {"a": values})) for name, values in (("r2", head), ("r3", sorted(head)))
    )
    assert [point["metrics"] for point in to_json(first)["points"]] == [
        point["metrics"] for point in to_json(second)["points"]
    ]


def test_swapped_runs_turn_the_interval(stored_run: StoredRun) -> None:
    runs = [load(stored_run("r1", {"a": STEADY})), load(stored_run("r2", {"a": [1.2 * joules for joules in STEADY]}))]
    forth, back = (compared(order)[0].points[0].metrics for order in (runs, runs[::-1]))
    for one, other in zip(forth, back, strict=True):
        if one.effect is not None:
            assert other.effect is not None
            assert (one.effect.low, one.effect.high) == pytest.approx((-other.effect.high, -other.effect.low))
            assert one.p_value == other.p_value


def test_runs_of_few_trials_have_an_estimate_and_no_interval(make_run: MakeRun) -> None:
    runs = [load(make_run("one")), load(make_run("two", slower=1.5))]
    (found,) = compared(runs)
    energy = next(each for each in found.points[0].metrics if str(each.metric) == "energy_j per token")
    assert energy.conclusion == "too few trials for an interval"
    assert interval(energy) == "(+49.8 %)"


def test_energies_of_different_methods_are_not_compared(make_run: MakeRun) -> None:
    runs = [load(make_run("one")), load(make_run("two", method=Method.SIMULATED))]
    (found,) = compared(runs)
    energy = next(each for each in found.points[0].metrics if str(each.metric) == "energy_j per token")
    assert energy.effect is None
    assert energy.conclusion == (
        "not comparable: obtained by different methods (counter and estimated, estimated and simulated)"
    )


def test_units_of_two_definitions_are_not_compared(stored_run: StoredRun) -> None:
    first, second = stored_run("r1", {"a": STEADY}), stored_run("r2", {"a": STEADY})
    for path in second.glob("*/record.json"):
        path.write_text(path.read_text().replace('"unit": "tokens"', '"unit": "tokens where reward >= 1"'))
    conclusions = {str(each.metric): each.conclusion for each in compare(first, second).points[0].metrics}
    wanted = "not comparable: token is defined as tokens and as tokens where reward >= 1"
    assert conclusions["energy_j per token"] == wanted
    assert conclusions["energy_j"] == "no difference shown"


def test_a_point_without_a_valid_trial_is_named_and_not_compared(stored_run: StoredRun) -> None:
    first = stored_run("r1", {"a": STEADY, "b": STEADY})
    second = stored_run("r2", {"a": STEADY})
    hot = stored_run("hot", {"b": STEADY}, invalid=True)
    for folder in hot.iterdir():
        if folder.is_dir():
            folder.rename(second / folder.name)
    found = section([load(first), load(second)], ["A", "B"])
    assert found is not None
    assert "A and B: no trial of s: b in the second is valid" in found.paragraphs
    assert "no trial of s: b in the second is valid" in compare(first, second).notes
    assert {row[0] for row in reported([first, second])} == {"s: a"}
