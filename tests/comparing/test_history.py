"""Histories: series kept apart, change points named by their run, and what the command shows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.comparing.history import history, sparkline, to_json
from harness.errors import UsageError
from harness.records.metric import Metric

StoredRun = Callable[..., Path]
ENERGY = Metric("energy_j", "token")


def runs(make: StoredRun, levels: list[float], first_day: int = 1, prefix: str = "r", **facts: Any) -> Path:
    """One run a day, three trials each, around a level."""
    generator = random.Random(first_day)
    for day, level in enumerate(levels, start=first_day):
        energies = [level * (1 + generator.gauss(0, 0.01)) for _ in range(3)]
        folder = make(f"{prefix}{day:03d}", {"a": energies}, started=f"2026-01-{day:02d}T00:00:00+00:00", **facts)
    return folder.parent


def test_a_known_change_is_named_by_its_run(stored_run: StoredRun) -> None:
    store = runs(stored_run, [100.0] * 12 + [110.0] * 12)
    found = history(store, ENERGY)
    (series,) = found.series
    (change,) = series.changes
    assert series.entries[change.index].run == "r013"
    assert [change.before, change.after] == pytest.approx([10.0, 11.0], rel=0.01)
    assert series.key.cards == ("gpu a card GPU-1",)
    assert series.key.methods == ("counter",)
    assert json.loads(json.dumps(to_json(found)))["series"][0]["change_points"][0]["run"] == "r013"


def test_steady_runs_have_none(stored_run: StoredRun) -> None:
    (series,) = history(runs(stored_run, [100.0] * 24), ENERGY).series
    assert len(series.entries) == 24
    assert not series.changes


@pytest.mark.parametrize(
    "facts",
    [{"card": "GPU-2"}, {"driver": "580.0"}, {"method": "integrated"}, {"options": {"batch": 2}}],
)
def test_another_card_driver_method_or_option_is_another_series(stored_run: StoredRun, facts: dict[str, Any]) -> None:
    if "method" in facts:
        from harness.quantity import Method

        facts = {"method": Method.INTEGRATED}
    store = runs(stored_run, [100.0] * 10)
    runs(stored_run, [150.0] * 9, first_day=11, **facts)
    found = history(store, ENERGY)
    assert [len(series.entries) for series in found.series] == [10, 9]
    assert not any(series.changes for series in found.series)


def test_factors_split_impacts_and_not_energies(stored_run: StoredRun) -> None:
    store = runs(stored_run, [100.0] * 2, factor="grid-2025")
    runs(stored_run, [100.0] * 2, first_day=3, factor="grid-2026")
    assert len(history(store, ENERGY).series) == 1
    assert [series.key.factors for series in history(store, Metric("carbon_g")).series] == [
        ("grid-2025",),
        ("grid-2026",),
    ]


def test_order_is_that_of_time_not_of_names(stored_run: StoredRun) -> None:
    store = runs(stored_run, [1.0, 2.0], first_day=10, prefix="z")
    runs(stored_run, [3.0], first_day=12, prefix="a")
    (series,) = history(store, ENERGY).series
    assert [entry.run for entry in series.entries] == ["z010", "z011", "a012"]


def test_recosted_runs_and_missing_values_are_no_entries(stored_run: StoredRun) -> None:
    store = stored_run("r1", {"a": [1.0, None]}).parent
    stored_run("r2", {"a": [None]})
    stored_run("r3", {"a": [9.0]}, parent="r1")
    found = history(store, ENERGY)
    (series,) = found.series
    assert [(entry.run, entry.trials) for entry in series.entries] == [("r1", 1)]
    assert found.notes == ["r3: costed again from another run, left out"]


def test_points_can_be_chosen(stored_run: StoredRun) -> None:
    store = stored_run("r1", {"a": [1.0], "b": [2.0]}).parent
    assert [series.key.point for series in history(store, ENERGY, only="s: b").series] == ["s: b"]


def test_what_is_not_there_is_a_usage_error(stored_run: StoredRun, tmp_path: Path) -> None:
    store = stored_run("r1", {"a": [1.0]}).parent
    with pytest.raises(
        UsageError, match=r"no run has a value of enregy_j per token.*did you mean 'energy_j per token'"
    ):
        history(store, Metric("enregy_j", "token"))
    with pytest.raises(UsageError, match="no such store"):
        history(tmp_path / "none", ENERGY)
    with pytest.raises(UsageError, match="at least 2"):
        history(store, ENERGY, min_size=1)
    (store / "r1/run.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"r1/run\.json: the run's description cannot be read"):
        history(store, ENERGY)


@pytest.mark.parametrize(
    ("values", "changes", "width", "drawn"),
    [
        ([1.0, 2.0, 3.0], (), 60, "▁▅█"),
        ([5.0, 5.0], (), 60, "▅▅"),
        ([0.0, 0.0, 7.0, 7.0], (2,), 60, "▁▁|██"),
        ([0.0] * 50 + [1.0] * 50, (50,), 10, "▁▁▁▁▁|█████"),
    ],
)
def test_sparkline(values: list[float], changes: tuple[int, ...], width: int, drawn: str) -> None:
    assert sparkline(values, changes, width) == drawn


def test_the_command_draws_and_tables(stored_run: StoredRun) -> None:
    store = runs(stored_run, [100.0] * 10 + [130.0] * 10)
    arguments = ["history", "energy_j", "--per", "token", "--store", str(store)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "|" in done.output
    assert "r011" in done.output
    assert "driver 575.1" in done.output
    data = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).output)
    assert [len(series["runs"]) for series in data["series"]] == [20]
    short = CliRunner().invoke(app, [*arguments, "--min-size", "11"], catch_exceptions=False, env={"COLUMNS": "200"})
    assert "too short for a change point" in short.output


def test_series_of_one_label_are_told_apart_by_their_points(stored_run: StoredRun) -> None:
    """A label alone does not say that other options, meters or windows stood under it."""
    store = runs(stored_run, [1.0] * 2)
    arguments = ["history", "energy_j", "--per", "token", "--store", str(store)]
    alone = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "200"}).output
    assert ", point " not in alone
    runs(stored_run, [2.0], first_day=9, prefix="t", options={"x": 2})
    said = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "200"}).output
    ids = [line.partition(", point ")[2] for line in said.splitlines() if ", point " in line]
    assert len(ids) == len(set(ids)) == 2


def test_a_torn_record_is_named_and_the_rest_is_shown(make_run: Callable[..., Path]) -> None:
    store = make_run("one", points=1, trials=2).parent
    make_run("two", points=1, trials=1)
    torn = next(store.glob("one/*/record.json"))
    torn.write_text("{", encoding="utf-8")
    (store / "three").mkdir()
    (store / "three" / "run.json").write_text("{", encoding="utf-8")
    arguments = ["history", "energy_j", "--store", str(store), "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    found = json.loads(done.stdout)
    assert [run["trials"] for run in found["series"][0]["runs"]] == [1, 1]
    assert [str(torn) in text or "three" in text for text in found["unread"]] == [True, True]
    assert done.stderr.count("warning: not read and left out") == 2
