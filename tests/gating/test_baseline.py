"""Stored baselines: kept whole, and refused where they must be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import MeasurementError, UsageError
from harness.gating import baseline
from harness.quantity import Amount, Method, Unavailable
from harness.records.trials import RUNNER_KEYS, differing, load, same_runner

StoredRun = Callable[..., Path]
STEADY = [100.0, 101.0, 99.0, 100.5, 99.5]


# Kept


def test_a_saved_baseline_is_read_back_whole(stored_run: StoredRun, tmp_path: Path) -> None:
    run = stored_run("r1", {"a": STEADY, "b": [1.0, None]}, factor="grid-1")
    made = baseline.build("main", [run])
    path = baseline.save(tmp_path, made)
    assert path == tmp_path / "baselines/main.json"
    assert baseline.load(tmp_path, "main") == made
    assert [point.label for point in made.points] == ["a", "b"]
    energy = next(each for each in made.points[0].metrics if (each.name, each.per) == ("energy_j", "token"))
    first = energy.values[0]
    assert isinstance(first, Amount)
    assert (first.value, first.low, first.high, first.label) == (10.0, 9.5, 10.5, Method.COUNTER)
    missing = next(each for each in made.points[1].metrics if each.name == "energy_j")
    assert missing.values[1] == Unavailable("the counter is gone")
    assert made.points[0].trials[0] == "r1/aaaaaaaaaaa0-t000"
    assert made.points[0].factors == ("grid-1",)
    assert made.plugins == {"joule-harness": "0.1.0"}
    assert "load_1min" not in made.fingerprint
    assert [entry.name for entry in (tmp_path / "baselines").iterdir()] == ["main.json"]


def test_trials_of_one_point_in_several_runs_are_put_together(stored_run: StoredRun) -> None:
    made = baseline.build("main", [stored_run("r1", {"a": [1.0, 2.0]}), stored_run("r2", {"a": [3.0]})])
    assert made.points[0].trials == ("r1/aaaaaaaaaaa0-t000", "r1/aaaaaaaaaaa0-t001", "r2/aaaaaaaaaaa0-t000")
    assert made.runs == ("r1", "r2")


def test_invalid_trials_are_left_out_and_counted(stored_run: StoredRun) -> None:
    good = stored_run("r1", {"a": [1.0]})
    hot = stored_run("r2", {"a": [9.0, 9.0]}, invalid=True)
    made = baseline.build("main", [good, hot])
    assert (len(made.points[0].trials), made.points[0].left_out) == (1, 2)
    with pytest.raises(MeasurementError, match="no valid trial"):
        baseline.build("main", [hot])


def test_two_runners_make_no_baseline(stored_run: StoredRun) -> None:
    runs = [stored_run("r1", {"a": [1.0]}), stored_run("r2", {"a": [1.0]}, environment={"cpu": "another"})]
    with pytest.raises(MeasurementError, match='one runner: cpu: one "a processor", another "another"'):
        baseline.build("main", runs)
    assert baseline.build("main", runs, ["system"]).keys == ("system",)


@pytest.mark.parametrize("name", ["", ".hidden", "../x", "a/b", "a b", "-x", "ä", "x" * 101, "a\n"])
def test_a_name_that_is_no_plain_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a valid name of a baseline"):
        baseline.path_of(tmp_path, name)


def test_a_taken_name_is_not_overwritten(stored_run: StoredRun, tmp_path: Path) -> None:
    made = baseline.build("main", [stored_run("r1", {"a": [1.0]})])
    baseline.save(tmp_path, made)
    with pytest.raises(UsageError, match="already"):
        baseline.save(tmp_path, made)
    baseline.save(tmp_path, made, replace=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a baseline"),
        ("[]", "not a baseline"),
        ('{"schema": 9}', "schema 9, not 1"),
        ('{"schema": 1, "name": "x"}', "not a baseline: saved_utc"),
    ],
)
def test_a_broken_file_says_where(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines/x.json").write_text(text, encoding="utf-8")
    with pytest.raises(MeasurementError, match=f"x\\.json: .*{says}"):
        baseline.load(tmp_path, "x")


def test_an_unknown_baseline_or_key_names_what_there_is(stored_run: StoredRun, tmp_path: Path) -> None:
    run = stored_run("r1", {"a": [1.0]})
    baseline.save(tmp_path, baseline.build("main", [run]))
    with pytest.raises(UsageError, match=r"accepted: main .did you mean 'main'"):
        baseline.load(tmp_path, "mian")
    with pytest.raises(UsageError, match=r"no 'cpus'.*did you mean 'cpu'"):
        baseline.build("main", [run], ["cpus"])
    with pytest.raises(UsageError, match="not a run folder"):
        baseline.build("main", [tmp_path])


# The commands


def test_the_commands_agree(stored_run: StoredRun, tmp_path: Path) -> None:
    run = stored_run("r1", {"a": STEADY}, factor="grid-1")
    store = ["--store", str(tmp_path / "reports")]
    runner = CliRunner()

    def said(*arguments: str) -> str:
        done = runner.invoke(app, ["baseline", *arguments, *store], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "no baseline is saved" in said("list")
    assert "1 points, 5 trials" in said("save", "main", str(run), "--key", "cpu", "--key", "devices")
    assert json.loads(said("list", "--json"))[0]["name"] == "main"
    assert "main" in said("list")
    shown = said("show", "main")
    assert 'cpu: "a processor"' in shown
    assert "energy_j per token" in shown
    assert "governor" not in shown
    assert json.loads(said("show", "main", "--json"))["keys"] == ["cpu", "devices"]
    assert "removed" in said("rm", "main")
    assert "no baseline is saved" in said("list")
    with pytest.raises(UsageError, match="there is no baseline 'main'"):
        said("rm", "main")


def test_forked_trials_make_no_baseline_and_fit_none(stored_run: StoredRun) -> None:
    """All trials of a fork server share one draw of what fresh processes draw each."""
    forked = stored_run("r1", {"a": [100.0, 101.0]}, environment={"start": "fork"})
    with pytest.raises(MeasurementError, match="forked from one process") as refused:
        baseline.build("main", [forked])
    assert refused.value.hint == "harness run --executor-option start=spawn"
    fresh = baseline.build("main", [stored_run("r2", {"a": [100.0, 101.0]}, environment={"start": "spawn"})])
    old = baseline.build("main", [stored_run("r3", {"a": [100.0, 101.0]})])
    assert fresh.fingerprint["start"] == old.fingerprint["start"] == "spawn"
    odd = differing(fresh.fingerprint, same_runner(load(forked), RUNNER_KEYS), RUNNER_KEYS)
    assert odd["start"] == ("spawn", "fork")
