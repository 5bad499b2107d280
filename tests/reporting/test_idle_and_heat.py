"""Gross, idle and net energy in every layout and export; temperatures, and drift that is or is not flagged."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.backend import Device
from harness.comparing.compare import compare
from harness.functional_unit import UnitCount, per_second, per_unit
from harness.quantity import Amount, Method, Unavailable, Value
from harness.records.files import write_json, write_measurement, write_record
from harness.records.metric import ABOVE_IDLE, IDLE_POWER, LOADED_IDLE_POWER
from harness.records.paths import RUN
from harness.records.record import Measurement, Record, Rest, Span, UnitResult, WarmUp
from harness.records.summary import RunReport, load
from harness.reporting.comparison import Runs
from harness.reporting.export import model_card, open_metrics, pytest_benchmark
from harness.reporting.figures import to_csv, to_json
from harness.reporting.heat import DRIFT, drifts
from harness.reporting.markdown import markdown
from harness.reporting.page import html
from harness.reporting.terminal import print_report

GPU = "n0/gpu:1"
NET = Amount.of(-2.5, "J", Method.COUNTER, low=-4.0, high=-1.0)
NOTE = "net: above loaded_idle"


def trial(
    number: int, *, point: str = "p", joules: float = 50.0, celsius: float = 40.0, at: int | None = None
) -> Record:
    """A trial that started `at` seconds after the first."""
    seconds = 60 + (number if at is None else at)
    window = Span(
        name="window", window=0, start_ns=0, end_ns=10**10, start_utc_s=0.0, celsius={GPU: (celsius, celsius + 9.0)}
    )
    measurement = Measurement(
        run="r",
        trial_id=f"{point}-t{number:03d}",
        trial=number,
        point={"id": point, "label": f"point {point}", "suite": "s"},
        started_utc=f"2026-01-02T03:{seconds // 60:02d}:{seconds % 60:02d}.000+00:00",
        environment={},
        backend={"name": "torch"},
        devices=(Device(kind="gpu", uuid="1", name="a card"),),
        plugins={},
        workload={},
        warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
        spans=(window,),
        readings=(),
        uses=(),
        meters=(),
        conditions=(),
        rest=Rest(waited_s=12.0, to_celsius=45.0, celsius={GPU: 44.0}, cooled=True),
    )
    totals: dict[str, Value] = {
        "duration_s": Amount.exact(10.0, "s"),
        "energy_j": Amount.of(joules, "J", Method.COUNTER, low=joules - 1, high=joules + 1),
        "carbon_g": Amount.of(0.01, "g", Method.ESTIMATED),
        IDLE_POWER: Amount.of(4.0, "W", Method.COUNTER, low=3.9, high=4.1),
        LOADED_IDLE_POWER: Amount.of(5.25, "W", Method.COUNTER, low=5.2, high=5.3),
        ABOVE_IDLE: NET,
    }
    counted = UnitCount(10.0, 1, 1, 0, {})
    unit = UnitResult(
        unit="tokens",
        count=counted,
        costs={name: per_unit(value, "token", counted) for name, value in totals.items() if not name.endswith("_w")},
        rate=per_second("token", counted, Amount.exact(10.0, "s")),
    )
    notes = {
        "energy_j": "gross",
        IDLE_POWER: "before the workload is loaded",
        LOADED_IDLE_POWER: "workload loaded, no work",
        ABOVE_IDLE: NOTE,
    }
    return Record(measurement=measurement, totals=totals, units={"token": unit}, columns={}, notes=notes)


def without_idle(record: Record) -> Record:
    """The record of a suite without `idle_seconds`."""
    lost = Unavailable("idle power was not measured")
    totals = {name: value for name, value in record.totals.items() if name not in {IDLE_POWER, LOADED_IDLE_POWER}}
    unit = record.units["token"]
    return replace(
        record,
        totals={**totals, ABOVE_IDLE: lost},
        units={"token": replace(unit, costs={**unit.costs, ABOVE_IDLE: lost})},
        notes={},
    )


def stored(folder: Path, records: Sequence[Record]) -> Path:
    for finished in records:
        where = folder / finished.measurement.trial_id
        where.mkdir(parents=True)
        write_measurement(where, finished.measurement)
        write_record(where, finished)
    write_json(folder / RUN, {"run": "r", "status": "ok"})
    return folder


def terminal(report: RunReport) -> str:
    stream = io.StringIO()
    print_report(Console(file=stream), report, details=True)
    return stream.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return stored(tmp_path / "r", [trial(number) for number in range(3)])


def test_every_layout_shows_gross_idle_and_net_side_by_side(run: Path) -> None:
    report = load(run)
    for text in (terminal(report), markdown(run).replace("\\_", "_"), html(Runs([report], ["A"]))):
        for part in (
            "Gross, idle and net",
            "gross energy (the result)",
            "idle power before loading",
            "idle power after loading",
            "net energy above idle",
            "50 J",
            "4 W",
            "5.25 W",
            "-2.5 J",
            "-4 J to -1 J",
            NOTE,
        ):
            assert part in text, part


def test_every_export_holds_them_labelled(run: Path) -> None:
    report = load(run)
    rows = [row for row in csv.DictReader(io.StringIO(to_csv([report]))) if row["per"] == "window time"]
    found = {row["metric"]: (float(row["value"]), row["note"]) for row in rows if row["note"]}
    assert found == {
        "energy_j": (50.0, "gross"),
        IDLE_POWER: (4.0, "before the workload is loaded"),
        LOADED_IDLE_POWER: (5.25, "workload loaded, no work"),
        ABOVE_IDLE: (-2.5, NOTE),
    }
    figures = json.loads(to_json([report]))["figures"]
    (net,) = (row for row in figures if (row["metric"], row["per"]) == (ABOVE_IDLE, "token"))
    assert (net["value"], net["low"], net["high"], net["note"]) == (-0.25, -0.4, -0.1, NOTE)
    extra = json.loads(pytest_benchmark(report))["benchmarks"][0]["extra_info"]
    assert extra[ABOVE_IDLE]["value"] == -0.25
    assert (extra[IDLE_POWER]["value"], extra[LOADED_IDLE_POWER]["value"]) == (4.0, 5.25)
    assert extra["notes"][ABOVE_IDLE] == NOTE
    exposed = open_metrics(report)
    assert 'harness_energy_above_idle_j{run="r",point="point p",point_id="p",per="window time",unit="J"' in exposed
    assert f'note="{NOTE}"}} -2.5' in exposed
    assert "150 J gross, to which the carbon belongs; idle_power_w 4 W, loaded_idle_power_w 5.25 W; -7.5 J " in (
        model_card(report)
    )


def test_a_run_without_idle_says_so_once_and_shows_no_table(tmp_path: Path) -> None:
    run = stored(tmp_path / "r", [without_idle(trial(number)) for number in range(3)])
    text = terminal(load(run))
    assert "Gross, idle and net" not in text
    assert text.count("idle power was not measured") == 1
    assert text.count(ABOVE_IDLE) == 2, "the total and the cost per token, in one item"
    assert " gross, to which" not in model_card(load(run))
    missing = [row for row in csv.DictReader(io.StringIO(to_csv([load(run)]))) if row["metric"] == ABOVE_IDLE]
    assert {(row["value"], row["reason"]) for row in missing} == {("", "idle power was not measured")}


def test_temperatures_and_rests_are_shown(run: Path) -> None:
    text = terminal(load(run))
    assert "Temperature and drift" in text
    for part in ("40.0 °C", "49.0 °C", "12.0 s", "3 of 3"):
        assert part in text


def drifting(tmp_path: Path, records: Sequence[Record]) -> list[tuple[str, str]]:
    return [(each.what, each.where) for each in drifts(load(stored(tmp_path, records)))]


def test_a_temperature_that_rises_over_trials_is_flagged_with_both_numbers(tmp_path: Path) -> None:
    records = [trial(number, celsius=40 + 2 * number) for number in range(5)]
    assert drifting(tmp_path / "r", records) == [(f"temperature of {GPU}", "point p")]
    text = terminal(load(tmp_path / "r"))
    assert f"{DRIFT}: temperature of {GPU}, point p: +8.0 °C from first to last, +2.0 °C a trial, p = 0.0083" in text
    (told,) = json.loads(to_json([load(tmp_path / "r")]))["runs"][0]["drifts"]
    assert (told["change"], told["slope"], told["trials"]) == (8.0, 2.0, 5)


@pytest.mark.parametrize(
    "celsius",
    [[40, 41, 42, 43, 44], [60, 55, 50, 45, 40], [40, 60, 40, 60, 50], [40, 60, 80]],
    ids=["5 degrees at most", "falling", "no order", "too few trials"],
)
def test_other_temperatures_are_not_flagged(tmp_path: Path, celsius: list[int]) -> None:
    records = [trial(number, celsius=each) for number, each in enumerate(celsius)]
    assert drifting(tmp_path / "r", records) == []


def test_trials_count_in_order_of_time_and_not_of_their_numbers(tmp_path: Path) -> None:
    order = [3, 0, 4, 1, 2]
    records = [trial(number, celsius=40 + 3 * at, at=at) for number, at in enumerate(order)]
    assert drifting(tmp_path / "r", records) == [(f"temperature of {GPU}", "point p")]


def test_points_of_few_trials_are_judged_together(tmp_path: Path) -> None:
    records = [
        trial(number, point=point, joules=100.0 * (index + 1) * (1 + 0.04 * number), at=3 * number + index)
        for index, point in enumerate("abc")
        for number in range(3)
    ]
    assert drifting(tmp_path / "r", records) == [("energy per token", "each point")]
    text = terminal(load(tmp_path / "r"))
    assert f"{DRIFT}: energy per token, each point: +7.7 % from first to last, +3.8 % a trial" in text


@pytest.mark.parametrize("seed", range(4))
def test_energies_without_order_are_not_flagged(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    records = [
        trial(number, point=point, joules=generator.gauss(50, 2), at=2 * number + index)
        for index, point in enumerate("ab")
        for number in range(6)
    ]
    assert drifting(tmp_path / "r", records) == []


@pytest.mark.parametrize("seed", range(4))
def test_energies_that_drift_in_noise_are_flagged(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    records = [trial(number, joules=50 + number + generator.gauss(0, 0.5)) for number in range(10)]
    assert drifting(tmp_path / "r", records) == [("energy per token", "point p")]


def test_runs_are_compared_by_net_energy_only_where_it_was_measured(tmp_path: Path) -> None:
    def known(name: str, *, idle: bool) -> set[str]:
        made = [trial(number) if idle else without_idle(trial(number)) for number in range(3)]
        folders = [stored(tmp_path / f"{name}{side}", made) for side in "ab"]
        return {each.metric.name for point in compare(*folders).points for each in point.metrics}

    assert ABOVE_IDLE in known("with", idle=True)
    assert ABOVE_IDLE not in known("without", idle=False)
