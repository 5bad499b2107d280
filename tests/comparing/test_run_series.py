"""What is kept of a run says what its records say, for every name of a metric, and is never read when they changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from platformdirs import user_cache_path

from harness.comparing import run_series
from harness.comparing.history import History, history, run_folders
from harness.errors import UsageError
from harness.quantity import Amount, Method
from harness.records.files import load_record, records_of, trial_folders, write_record
from harness.records.metric import Metric
from harness.records.paths import RECORD
from harness.records.trials import group, value_of
from harness.storing.places import open_store

StoredRun = Callable[..., Path]
ASKED = [
    Metric("energy_j", "token"), Metric("rate", "token"), Metric("carbon_g"), Metric("energy_j"), Metric("duration_s"),
    Metric("reward"), Metric("reward.mean"), Metric("reward.p95"), Metric("no_such"), Metric("energy_j", "no_unit"),
]  # fmt: skip


@pytest.fixture
def store(stored_run: StoredRun, request: pytest.FixtureRequest) -> Path:
    """Runs at random: points, cards, methods, factors, starts, missing values, trials that are not valid."""
    generator = random.Random(request.param)
    for number in range(8):
        points = {
            label: [generator.choice([None, generator.uniform(1, 9)]) for _ in range(generator.randint(1, 3))]
            for label in generator.sample("abc", generator.randint(1, 3))
        }
        folder = stored_run(
            f"r{number}", points,
            started=f"2026-01-{number + 1:02d}T00:00:00+00:00",
            parent=generator.choice(["", "", "", "r0"]),
            card=generator.choice(["GPU-1", "GPU-2"]),
            method=generator.choice([Method.COUNTER, Method.INTEGRATED]),
            factor=generator.choice(["", "one", "other"]),
            invalid=generator.random() < 0.2,
            environment={"start": "fork"} if generator.random() < 0.3 else {},
        )  # fmt: skip
    return folder.parent


def answer(store: Path, metric: Metric, *, only: str = "", plainly: bool = False) -> History | str:
    """The history, or why there is none."""
    runs = list(run_folders(open_store(store))) if plainly else ()
    try:
        return history(store, metric, only=only, runs=runs)
    except UsageError as error:
        return str(error)


@pytest.mark.parametrize("store", range(25), indirect=True)
def test_every_answer_is_that_of_the_records(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for only in ("", ": b"):
        from_records = [answer(store, metric, only=only, plainly=True) for metric in ASKED]
        first = [answer(store, metric, only=only) for metric in ASKED]
        with monkeypatch.context() as without:
            without.setattr(run_series, "read", lambda run: pytest.fail(f"{run} was read again"))
            second = [answer(store, metric, only=only) for metric in ASKED]
        assert from_records == first == second


@pytest.mark.parametrize("store", range(10), indirect=True)
def test_a_history_holds_the_median_of_each_runs_values(store: Path) -> None:
    """By another way: what a metric is worth in the records, whatever else tells series apart."""
    for metric in ASKED:
        expected = {}
        for run in run_folders(open_store(store)):
            if run_series.recosted(run):
                continue
            for point in group(records_of(run)):
                values = [value_of(metric, finished) for finished in point.records]
                found = [value.value for value in values if isinstance(value, Amount)]
                if found:
                    expected[point.name, run.name] = (median(found), len(found))
        answered = answer(store, metric)
        if isinstance(answered, str):
            assert not expected
            continue
        assert expected == {
            (series.key.point, entry.run): (entry.value, entry.trials)
            for series in answered.series for entry in series.entries
        }  # fmt: skip


def test_forked_and_fresh_trials_are_different_series_and_old_records_were_fresh(stored_run: StoredRun) -> None:
    stored_run("r1", {"a": [1.0]})
    stored_run("r2", {"a": [1.0]}, environment={"start": "spawn"})
    store = stored_run("r3", {"a": [1.0]}, environment={"start": "fork"}).parent
    found = history(store, Metric("duration_s"))
    assert [(each.key.start, len(each.entries)) for each in found.series] == [("spawn", 2), ("fork", 1)]


def test_a_record_that_was_made_anew_is_read_anew(stored_run: StoredRun) -> None:
    run = stored_run("r1", {"a": [10.0]})
    metric = Metric("energy_j")
    assert history(run.parent, metric).series[0].entries[0].value == 10.0
    (trial,) = trial_folders(run)
    changed = load_record(trial)
    totals = {**changed.totals, "energy_j": Amount.of(20.0, "J", Method.COUNTER)}
    (trial / RECORD).unlink()
    write_record(trial, replace(changed, totals=totals))
    assert history(run.parent, metric).series[0].entries[0].value == 20.0


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"recosted":false,"points":[]}'])
def test_a_damaged_copy_is_not_read(stored_run: StoredRun, damage: bytes) -> None:
    store = stored_run("r1", {"a": [10.0]}).parent
    before = history(store, Metric("energy_j"))
    copies = list(user_cache_path("joule-harness").rglob(f"*{run_series.SUFFIX}"))
    assert copies
    for path in copies:
        path.write_bytes(damage)
    assert history(store, Metric("energy_j")) == before


def test_other_code_does_not_read_what_this_one_kept(stored_run: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored_run("r1", {"a": [10.0]}).parent
    history(store, Metric("energy_j"))
    read: list[Path] = []
    plain = run_series.read
    monkeypatch.setattr(run_series, "_code", lambda: "another version")
    monkeypatch.setattr(run_series, "read", lambda run: (read.append(run), plain(run))[1])
    history(store, Metric("energy_j"))
    assert [run.name for run in read] == ["r1"]
