"""SQL over a store answers what the records say, and reaches nothing else."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from harness.commands.query import query
from harness.errors import UsageError
from harness.quantity import Amount
from harness.records.files import records_of, trial_folders, write_json
from harness.records.paths import ITEMS, MEASUREMENT, RECORD

pytest.importorskip("duckdb", reason="a query needs duckdb")

from harness.storing.query import ask
from harness.storing.views import VIEWS

MakeRun = Callable[..., Path]
Harness = Callable[..., "subprocess.CompletedProcess[str]"]
Holds = Callable[[Path], None]


def test_views_say_what_the_records_say(make_run: MakeRun) -> None:
    store = make_run("one", points=2, trials=3).parent
    make_run("two", points=1, trials=1)
    records = {
        (run.name, finished.measurement.trial_id): finished
        for run in (store / "one", store / "two")
        for finished in records_of(run)
    }
    _, rows = ask(store, "SELECT run, trial_id, energy_j, duration_s FROM trials")
    assert len(rows) == len(records) == 7
    for run, trial, energy, duration in rows:
        totals = records[run, trial].totals
        assert [energy, duration] == [
            value.value for name in ("energy_j", "duration_s") if isinstance(value := totals[name], Amount)
        ]
    _, rows = ask(store, "SELECT run, trial_id, per, metric, value, low, high, unit, reason FROM units")
    assert len(rows) == sum(1 + len(finished.units["token"].costs) for finished in records.values())
    for run, trial, per, metric, *numbers in rows:
        unit = records[run, trial].units[per]
        value = unit.rate if metric == "rate" else unit.costs[metric]
        assert isinstance(value, Amount)
        assert numbers == [value.value, value.low, value.high, value.unit, None]
    _, rows = ask(
        store, "SELECT count(*), count(*) FILTER (is_primary), sum(value) FROM readings WHERE span = 'window'"
    )
    wanted = [r for f in records.values() for r in f.measurement.readings if r.span == "window"]
    total = sum(r.value.value for r in wanted if isinstance(r.value, Amount))
    assert rows == [(len(wanted), sum(r.primary for r in wanted), pytest.approx(total))]
    _, rows = ask(store, "SELECT count(*), max(latency_s), sum((item->>'output_tokens')::INT) FROM items")
    assert rows == [(7 * 20, 0.2, 7 * 20 * 50)]
    assert ask(store, "SELECT DISTINCT name, value, licence FROM factors")[1] == [
        ("grid_intensity", 360.0, "CC BY 4.0")
    ]
    assert ask(store, "SELECT run, status FROM runs ORDER BY run")[1] == [("one", "ok"), ("two", "ok")]


def test_missing_values_are_null_with_their_reason(make_run: MakeRun) -> None:
    run = make_run("one", points=1, trials=1)
    path = next(trial_folders(run)) / RECORD
    content = json.loads(path.read_text(encoding="utf-8"))
    missing = {"kind": "unavailable", "reason": "no meter"}
    content["units"]["token"]["costs"]["energy_j"] = content["totals"]["energy_j"] = missing
    measurement = json.loads((path.parent / MEASUREMENT).read_text(encoding="utf-8"))
    measurement["readings"][0]["value"] = missing
    measurement["conditions"] = [
        {"kind": "throttle", "scope": "n0", "detail": "hot", "fails": True, "count": 1, "first_ns": 0}
    ]
    write_json(path.parent / MEASUREMENT, measurement)
    content["measurement"]["sha256"] = hashlib.sha256((path.parent / MEASUREMENT).read_bytes()).hexdigest()
    path.write_text(json.dumps(content), encoding="utf-8")
    assert ask(run.parent, "SELECT value, reason FROM units WHERE metric = 'energy_j'")[1] == [(None, "no meter")]
    assert ask(run.parent, "SELECT energy_j, invalid FROM trials")[1] == [(None, True)]
    assert ask(run.parent, "SELECT count(*) FROM readings WHERE reason = 'no meter'")[1] == [(1,)]


def test_a_record_that_holds_its_measurement_says_the_same(make_run: MakeRun, hold_measurement: Holds) -> None:
    store = make_run("one", points=2, trials=2).parent
    asked = [f'SELECT * EXCLUDE (run) FROM "{view.name}" ORDER BY ALL' for view in VIEWS]
    before = [ask(store, sql) for sql in asked]
    for trial in list(trial_folders(store / "one"))[1:]:
        hold_measurement(trial)
    assert [ask(store, sql) for sql in asked] == before


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text("{}", encoding="utf-8")])
def test_a_record_without_the_measurement_that_it_refers_to_is_named_and_left_out(
    make_run: MakeRun, change: Callable[[Path], object]
) -> None:
    run = make_run("one", points=1, trials=2)
    change(max(run.glob("*/measurement.json")))
    said: list[str] = []
    assert len(ask(run.parent, "SELECT cpu FROM trials", said.append)[1]) == 1
    assert ["t001/record.json: the measurement that it refers to is not in" in each for each in said] == [True]


def test_an_empty_store_has_empty_views(tmp_path: Path) -> None:
    for view in VIEWS:
        columns, rows = ask(tmp_path, f'SELECT * FROM "{view.name}"')
        assert columns == list(view.selects)
        assert rows == []


def test_columns_of_filled_and_empty_views_have_the_documented_types(make_run: MakeRun, tmp_path: Path) -> None:
    store = make_run("one").parent
    (tmp_path / "none").mkdir()
    for view in VIEWS:
        wanted = [(name, column.kind) for name, column in view.selects.items()]
        for each in (store, tmp_path / "none"):
            _, rows = ask(each, f'DESCRIBE "{view.name}"')
            assert [(row[0], row[1]) for row in rows] == wanted


def test_a_half_written_trial_and_an_odd_folder_name_do_no_harm(make_run: MakeRun) -> None:
    run = make_run("it's [odd] *", points=1, trials=2)
    trials = list(trial_folders(run))
    (trials[0] / RECORD).unlink()
    with (trials[0] / ITEMS).open("a", encoding="utf-8") as stream:
        stream.write('{"item_id": "9", "win')
    assert ask(run.parent, "SELECT DISTINCT run, trial_id FROM items")[1] == [(run.name, trials[1].name)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/hostname')",
        "COPY (SELECT 1) TO '/tmp/harness-query.csv'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM 'https://example.com/x.parquet'",
        "SELEKT 1",
        "SELECT nothing FROM trials",
    ],
)
def test_a_query_reads_the_store_and_nothing_else(make_run: MakeRun, sql: str) -> None:
    store = make_run(points=1, trials=1).parent
    with pytest.raises(UsageError) as caught:
        ask(store, sql)
    assert "runs, trials, readings, items, units, factors" in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{store}/x.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{store}/x.csv'",
        "SELECT 1; COPY (SELECT 1) TO '{store}/x.csv'",
        "ATTACH '{store}/x.csv'",
        "EXPORT DATABASE '{store}/x.csv'",
        "CREATE TABLE t AS SELECT 1",
    ],
)
def test_a_query_writes_nothing_into_the_store(make_run: MakeRun, sql: str) -> None:
    store = make_run(points=1, trials=1).parent
    with pytest.raises(UsageError, match="SELECT over runs"):
        ask(store, sql.format(store=store))
    assert not (store / "x.csv").exists()


@pytest.fixture
def harness(harness_in_process: Harness) -> Harness:
    return partial(harness_in_process, environment={"COLUMNS": "200"})


def test_command_lists_the_views_and_answers(make_run: MakeRun, harness: Harness) -> None:
    store = make_run(points=1, trials=2).parent
    listed = harness("query")
    assert listed.returncode == 0, listed.stderr
    for view in VIEWS:
        assert f"{view.name}: {view.summary}" in " ".join(listed.stdout.split())
    sql = "SELECT trial_id, energy_j FROM trials ORDER BY trial_id"
    found = harness("query", sql, "--store", store, "--format", "json")
    assert json.loads(found.stdout) == [
        {"trial_id": "p0000-t000", "energy_j": 100.0},
        {"trial_id": "p0000-t001", "energy_j": 101.0},
    ]
    found = harness("query", sql, "--store", store, "--format", "csv")
    assert list(csv.reader(io.StringIO(found.stdout)))[1:] == [["p0000-t000", "100.0"], ["p0000-t001", "101.0"]]


def test_command_names_a_store_that_is_none(tmp_path: Path, harness: Harness) -> None:
    done = harness("query", "SELECT 1", "--store", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "there is no such store" in done.stderr


@pytest.mark.parametrize("end", ["", ";", "; -- that is all", " -- of today"])
def test_times_with_a_zone_need_no_further_package(make_run: MakeRun, end: str) -> None:
    columns, rows = ask(make_run("one").parent, f"SELECT now(), 1 AS number, [now()] AS listed, now(){end}")
    assert columns[1:3] == ["number", "listed"]
    ((now, number, listed, again),) = rows
    assert (number, listed) == (1, f"['{now}']")
    assert now == again


def test_cells_for_a_spreadsheet_are_no_formulas(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_run("one").parent
    query(
        "SELECT '=1+1' AS \"=a\", '@x' AS b, -1.5 AS c, chr(27) || '[2J' AS d, '-' AS e", store=str(store), form="csv"
    )
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        ["'=a", "b", "c", "d", "e"],
        ["'=1+1", "'@x", "-1.5", "\\x1b[2J", "-"],
    ]
    query("SELECT chr(27) || '[2J' AS d", store=str(store))
    assert "\\x1b[2J" in capsys.readouterr().out


def test_a_torn_record_is_named_and_the_rest_of_the_store_answers(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_run("one", points=2, trials=2).parent
    make_run("two", points=1, trials=1)
    torn = next(trial_folders(store / "one")) / RECORD
    torn.write_bytes(torn.read_bytes()[:100])
    said: list[str] = []
    _, rows = ask(store, "SELECT run, count(*) FROM trials GROUP BY run ORDER BY run", said.append)
    assert rows == [("one", 3), ("two", 1)]
    assert [str(torn) in each for each in said] == [True]
    query("SELECT count(*) AS n FROM trials", store=str(store), form="json")
    out, error = capsys.readouterr()
    assert json.loads(out) == [{"n": 4}]
    assert f"warning: not read and left out: {torn}" in error
    (store / "two" / "run.json").write_text("{", encoding="utf-8")
    _, rows = ask(store, "SELECT run FROM runs", said.append)
    assert rows == [("one",)]
    assert "run.json" in said[-1]


def test_torn_work_items_are_named_too(make_run: MakeRun) -> None:
    store = make_run("one", points=1, trials=2).parent
    items = next(trial_folders(store / "one")) / ITEMS
    items.write_bytes(b'{"item_id": "0",\n' + items.read_bytes())
    said: list[str] = []
    _, rows = ask(store, "SELECT count(*) FROM items", said.append)
    assert rows == [(20,)]
    assert str(items) in said[0]
