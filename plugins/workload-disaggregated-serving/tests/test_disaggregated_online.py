"""A day replayed: switching, hysteresis, start-up, savings that add up; days as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import harness_disaggregated_serving
import pytest
from harness_disaggregated_serving.carbon.accounting import SECONDS_PER_YEAR
from harness_disaggregated_serving.choosing.interval import SavingRange
from harness_disaggregated_serving.choosing.profile_files import read_profiles
from harness_disaggregated_serving.choosing.profile_table import ProfileTable
from harness_disaggregated_serving.choosing.scheduler import Demand, Hysteresis
from harness_disaggregated_serving.load.slo import Slo
from harness_disaggregated_serving.online.day import DAY_S, Moment, read_day, synthetic
from harness_disaggregated_serving.online.options import OnlineOptions
from harness_disaggregated_serving.online.replay import Replay, replay
from harness_disaggregated_serving.online.workload import as_text, day_of
from pydantic import ValidationError

from harness.errors import UsageError
from harness.quantity import Undefined

HEAD = (
    "configuration,new,sizes,prompt_tokens,qps,requests,attainment,new_energy_j,new_busy_s,new_reserved_s,"
    "new_embodied_kg,source,old,bandwidth_gbit_s,old_energy_j,old_busy_s,old_reserved_s,old_embodied_kg\n"
)
BASE = "standalone,NEW,chat,512,{qps},1000,0.99,3600000,1800,3600,30,a test,,,,,,\n"
PAIR = "dsd,NEW,chat,512,{qps},1000,{met},2400000,900,3600,30,a test,OLD,16,300000,900,3600,3000\n"
DEMAND = Demand(
    prompt_tokens=1,
    size="chat",
    qps=1.0,
    slo=Slo(15, 0.15),
    bandwidth=2e9,
    intensity=0,
    lifetimes_s={"new": 5 * SECONDS_PER_YEAR, "old": 5 * SECONDS_PER_YEAR},
)
FLIP = 3_000_000 * 3.6 / (5 * SECONDS_PER_YEAR) / 0.25 * 1000
"""Grid intensity in g/kWh at which the pair breaks even: embodied carbon added over energy saved."""


@pytest.fixture
def table(tmp_path: Path) -> ProfileTable:
    path = tmp_path / "profiles.csv"
    rows = [BASE.format(qps=1), PAIR.format(qps=1, met=0.95), BASE.format(qps=4), PAIR.format(qps=4, met=0.5)]
    path.write_text(HEAD + "".join(rows), encoding="utf-8")
    return read_profiles(path)


def day(*held: tuple[float, float]) -> list[Moment]:
    return [Moment(number * 900.0, 900.0, qps, intensity) for number, (qps, intensity) in enumerate(held)]


def run(table: ProfileTable, moments: list[Moment], margin: float = 0.0, dwell_s: float = 0.0) -> Replay:
    return replay(table, moments, DEMAND, Hysteresis(margin=margin, dwell_s=dwell_s), 60.0)


def ran(found: Replay) -> list[str]:
    return [one.step.running.partition(" ")[0] for one in found.intervals]


def test_it_follows_the_grid_and_leaves_what_misses_its_targets(table: ProfileTable) -> None:
    found = run(table, day((1, FLIP / 2), (1, FLIP * 4), (1, FLIP * 4), (4, FLIP * 4), (1, FLIP / 2)))
    assert ran(found) == ["standalone", "dsd", "dsd", "standalone", "standalone"]
    assert found.switches == 2
    assert list(found.broken) == ["dsd on NEW and OLD"]
    assert isinstance(found.saving_against("dsd on NEW and OLD"), Undefined)
    saved = found.saving_against("standalone on NEW")
    assert isinstance(saved, SavingRange)
    online = sum(one.carbon_g for one in found.intervals if isinstance(one.carbon_g, float))
    alone = sum(one.baseline_g for one in found.intervals if isinstance(one.baseline_g, float))
    assert saved.value == pytest.approx(1 - online / alone)
    assert saved.value > 0
    assert "2 changes after the first choice" in as_text(found)
    assert "left at once: 0.5 of the requests" in as_text(found)


def test_hysteresis_keeps_what_runs_where_little_is_saved(table: ProfileTable) -> None:
    around = day(*[(1, FLIP * (0.9 if step % 2 else 1.1)) for step in range(8)])
    assert run(table, around).switches == 7
    assert run(table, around, margin=0.1).switches == 0
    apart = day(*[(1, FLIP * (0.2 if step % 2 else 5)) for step in range(8)])
    assert run(table, apart, dwell_s=0).switches == 7
    assert run(table, apart, dwell_s=2700).switches == 2
    eager, patient = run(table, apart), run(table, apart, dwell_s=1e9)
    best = sum(one.best_g for one in eager.intervals if isinstance(one.best_g, float))
    running = sum(one.carbon_g - one.start_up_g for one in eager.intervals if isinstance(one.carbon_g, float))
    assert best == pytest.approx(running)
    assert best < sum(one.carbon_g for one in patient.intervals if isinstance(one.carbon_g, float))


def test_start_up_is_charged_at_the_idle_watts_of_what_takes_over(table: ProfileTable) -> None:
    watts = (("serving", 100.0, 100.0, 100.0), ("idle", 10.0, 20.0, 40.0))
    rows = tuple(
        replace(
            row,
            devices=tuple(replace(device, watts=watts, phases=(("serving", device.busy_s),)) for device in row.devices),
        )
        for row in table.rows
        if row.configuration == "standalone" or row.qps == 1
    )
    dear = tuple(replace(row, qps=1.0) for row in rows if row.configuration == "dsd")
    cheap = ProfileTable(table.key, (*(row for row in rows if row.configuration == "standalone"), *dear))
    found = run(cheap, day((1, 1.0), (1, 1.0)))
    (first, second) = found.intervals
    assert (first.start_up_g, second.start_up_g) == (0.0, 0.0)  # the first choice has the night to start
    moved = run(cheap, day((1, 1.0), (4, 100.0), (1, 100.0)))
    for one in moved.intervals[1:]:
        held = 2 if one.step.running.startswith("dsd") else 1
        expected = held * 20 * 60 / 3.6e6 * one.moment.intensity if one.step.switched else 0.0
        assert one.start_up_g == pytest.approx(expected)


def idle_table(folder: Path, *idle: str) -> ProfileTable:
    """A pair that wins on a dirty grid: at 1000 W and 667 W new, 83 W old on average; idle power as given."""
    head = HEAD.replace("\n", ",new_idle_w,old_idle_w\n")
    rows = [row.format(qps=1, met=0.95).replace("\n", f",{','.join(idle)}\n") for row in (BASE, PAIR)]
    (folder / "idle.csv").write_text(head + "".join(rows), encoding="utf-8")
    return read_profiles(folder / "idle.csv")


def test_start_up_of_measured_profiles_is_charged_at_their_measured_idle_power(tmp_path: Path) -> None:
    found = run(idle_table(tmp_path, "50", "12.5"), day((1, FLIP / 2), (1, FLIP * 4)))
    assert ran(found) == ["standalone", "dsd"]
    assert found.intervals[1].start_up_g == pytest.approx(62.5 * 60 / 3.6e6 * FLIP * 4)
    terms = found.terms["online"][0]
    assert terms["measured idle watts of OLD"] == pytest.approx((12.5 * 60 / 3.6e6 * FLIP * 4,) * 3)


def test_start_up_without_idle_power_is_charged_at_the_mean_power_and_says_so(tmp_path: Path) -> None:
    found = run(idle_table(tmp_path, "", ""), day((1, FLIP / 2), (1, FLIP * 4)))
    mean_w = (2_400_000 + 300_000) / 3600
    assert found.intervals[1].start_up_g == pytest.approx(mean_w * 60 / 3.6e6 * FLIP * 4)
    low, value, high = found.terms["online"][0]["start-up watts of NEW"]
    assert (low, value) == (0.0, high)
    (new,) = [device for device in found.devices if device.role == "new"]
    assert new.energy_idle_j == pytest.approx(2_400_000 / 3600 * 60)


def test_a_day_as_a_spreadsheet_saves_it(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_bytes("\ufeffat_s;qps;intensity_g_per_kwh\r\n0;1,5;100,25\r\n600;2;200\r\n".encode())
    assert read_day(path) == [Moment(0, 600, 1.5, 100.25), Moment(600, 600, 2, 200)]


def test_a_day_in_which_nothing_can_run_is_told(table: ProfileTable) -> None:
    found = run(table, day((1, 100.0), (9, 100.0)))
    assert found.intervals[1].step.reason.startswith("kept: ")
    assert "beyond the profile" in found.broken["standalone on NEW"]
    assert isinstance(found.saving_against("standalone on NEW"), Undefined)


def test_the_synthetic_day_is_a_day_within_its_rates() -> None:
    moments = synthetic(0.5, 4.0)
    assert sum(moment.lasts_s for moment in moments) == DAY_S
    assert all(0.5 <= moment.qps <= 4.0 for moment in moments)
    noon, evening = (next(one for one in moments if one.at_s == hour * 3600) for hour in (12, 20))
    assert noon.intensity < 60
    assert evening.intensity > 350


def test_a_users_day(tmp_path: Path, table: ProfileTable) -> None:
    path = tmp_path / "day.csv"
    path.write_text("at_s,qps,intensity_g_per_kwh\n0,1,100\n600,2,200\n1800,1,50\n", encoding="utf-8")
    assert read_day(path) == [Moment(0, 600, 1, 100), Moment(600, 1200, 2, 200), Moment(1800, 1200, 1, 50)]
    options = OnlineOptions(day=str(path))
    assert len(day_of(options, table)) == 3
    path.write_text("at_s,qps,intensity_g_per_kwh\n0,1,100\n600,40,200\n", encoding="utf-8")
    with pytest.raises(UsageError, match="40 requests/s"):
        day_of(options, table)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["0,1,100", "0,1,100"], "later times"),
        (["0,1,100", "600,0,100"], r"day\.csv:3: qps is '0'; accepted: a finite number, above 0"),
        (["0,1,100", "600,one,100"], "qps is 'one'"),
        (["0,1,-5", "600,1,100"], "intensity_g_per_kwh is '-5'; accepted: a finite number, 0 or more"),
        (["0,1,100"], "at least 2"),
    ],
)
def test_a_wrong_day_is_refused(tmp_path: Path, lines: list[str], reason: str) -> None:
    path = tmp_path / "day.csv"
    path.write_text("\n".join(["at_s,qps,intensity_g_per_kwh", *lines]), encoding="utf-8")
    with pytest.raises(UsageError, match=reason):
        read_day(path)


@pytest.mark.parametrize(
    ("day_rates", "given", "told"),
    [
        ("0.5 1", {}, []),
        ("0.5 9", {"rates": [0.5, 1]}, ["day: the day has 9 requests/s"]),
        ("0.5 abc", {}, ["day.csv:3: qps is 'abc'"]),
        ("1 4", {"profiles": "p.csv"}, []),
        ("1 9", {"profiles": "p.csv"}, ["day: the day has 9 requests/s"]),
        ("1 4", {"profiles": "p.csv", "sizes": "poems"}, ["sizes: ", "no profile of 'poems'"]),
        ("1 4", {"profiles": "day.csv"}, ["profiles: ", "column configuration"]),
        ("1 4", {"profiles": "none.csv"}, ["profiles: there is no file"]),
    ],
    ids=["good", "beyond", "odd", "profiles", "beyond-profiles", "sizes", "columns", "missing"],
)
def test_files_that_do_not_fit_are_refused_while_planning(
    tmp_path: Path, table: ProfileTable, day_rates: str, given: dict[str, Any], told: list[str]
) -> None:
    lines = [f"{place * 600},{qps},100" for place, qps in enumerate(day_rates.split())]
    (tmp_path / "day.csv").write_text("\n".join(["at_s,qps,intensity_g_per_kwh", *lines]), encoding="utf-8")
    (tmp_path / "p.csv").write_bytes((tmp_path / "profiles.csv").read_bytes())
    spec = next(one for one in harness_disaggregated_serving.harness_workloads() if one.name == "greenllm-online")
    given = {**given, "profiles": str(tmp_path / given["profiles"])} if "profiles" in given else given
    assert spec.check is not None
    faults = spec.check(OnlineOptions.model_validate({"day": str(tmp_path / "day.csv"), **given}), tmp_path)
    shown = "; ".join(f"{fault.option}: {fault.message}" for fault in faults if not isinstance(fault, str))
    assert bool(shown) is bool(told)
    assert not [part for part in told if part not in shown], shown


@pytest.mark.parametrize("change", [{"new": "B7"}, {"old": ["B7"]}, {"sizes": "talk"}, {"slo": "soon"}, {"old": []}])
def test_wrong_options_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OnlineOptions.model_validate(change)
