"""`harness greenllm choose`: answers from a user's file, a run and the simulator; changes, theory, refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness_disaggregated_serving.carbon.accounting import SECONDS_PER_YEAR, Accounting
from harness_disaggregated_serving.choosing.choice import choose
from harness_disaggregated_serving.choosing.interval import SavingRange
from harness_disaggregated_serving.choosing.profile_files import NEEDED, PAIR, read_profiles
from harness_disaggregated_serving.choosing.profile_table import ProfileKey, row_to_json
from harness_disaggregated_serving.choosing.recorded import charged, figure_of, figures
from harness_disaggregated_serving.choosing.scheduler import Candidate, Demand
from harness_disaggregated_serving.commands.choose import load_profiles
from harness_disaggregated_serving.commands.sweep import app
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.slo import Slo
from harness_disaggregated_serving.simulator import grid
from harness_disaggregated_serving.simulator.grid import profiled
from typer.testing import CliRunner

from harness.errors import UsageError
from harness.impact import Factor
from harness.quantity import Undefined

HEAD = ",".join((*NEEDED, *PAIR))
BASE = "standalone,NEW,chat,512,{qps},1000,{base},{joules},1800,3600,30,a test,,,,,,"
PAIRED = "dsd,NEW,chat,512,{qps},1000,0.95,2000000,900,3600,30,a test,OLD,16,600000,900,3600,10"
DEMAND = Demand(
    prompt_tokens=1,
    size="chat",
    qps=1.0,
    slo=Slo(15, 0.15),
    bandwidth=2e9,
    intensity=261,
    lifetimes_s={"new": 5 * SECONDS_PER_YEAR, "old": 7 * SECONDS_PER_YEAR},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "profiles.csv"
    lines = [
        HEAD,
        BASE.format(qps=1, base=0.99, joules=3_600_000),
        PAIRED.format(qps=1),
        BASE.format(qps=2, base=0.99, joules=2_000_000),
        PAIRED.format(qps=2),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_users_file_answers_with_saving_flip_and_theory(file: Path) -> None:
    found = choose(read_profiles(file), DEMAND)
    assert isinstance(found.chosen, Candidate)
    assert found.chosen.configuration == "dsd"
    base_g = 1.0 * 261 / 1000 + 30_000 * 3.6 / (5 * SECONDS_PER_YEAR)
    pair_g = 2.6 / 3.6 * 261 / 1000 + 30_000 * 3.6 / (5 * SECONDS_PER_YEAR) + 10_000 * 3.6 / (7 * SECONDS_PER_YEAR)
    assert isinstance(found.saving, SavingRange)
    assert found.saving.value == pytest.approx(1 - pair_g / base_g, rel=1e-9)
    assert found.runner_up == "standalone on NEW"
    assert isinstance(found.margin, SavingRange)
    assert found.margin.value == pytest.approx(found.saving.value)
    flip = (10_000 * 3.6 / (7 * SECONDS_PER_YEAR)) / ((1.0 - 2.6 / 3.6) / 1000)
    assert [part.configuration for part in found.intensities] == ["standalone", "dsd with OLD"]
    assert found.intensities[1].low == pytest.approx(flip)
    assert any(f"{flip:.3g} g/kWh" in line for line in found.theory)
    assert f"{found.saving.value:+.1%}" in found.theory[0]
    assert [(one.at, one.below, one.above) for one in found.rates] == [(2.0, "dsd with OLD", "standalone")]


def test_a_change_with_the_old_devices_life_is_found(file: Path) -> None:
    even = (10_000 * 3.6) / (1.0 - 2.6 / 3.6) * 1000 / 0.6 / SECONDS_PER_YEAR
    found = choose(read_profiles(file), replace(DEMAND, intensity=0.6))
    (change,) = found.lifetimes["old"]
    assert change.at == pytest.approx(even, rel=1e-3)
    assert (change.below, change.above) == ("standalone", "dsd with OLD")


def test_what_is_not_feasible_saves_nothing(file: Path) -> None:
    table = read_profiles(file)
    nothing = choose(table, replace(DEMAND, attainment=0.999))
    assert nothing.decision.infeasible
    assert isinstance(nothing.saving, Undefined)
    beyond = choose(table, replace(DEMAND, qps=10))
    assert isinstance(beyond.saving, Undefined)
    assert "beyond the profile" in beyond.saving.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("configuration", "configurations"), "column configuration is missing"),
        (("0.95", "high"), "attainment is 'high'"),
        (("2000000", "-1"), "a finite number, 0 or more"),
        (("dsd", "both"), "standalone, spec-local, dpd, dsd"),
        ((",16,", ",,"), "nothing in column bandwidth_gbit_s"),
        (("a test", ""), "nothing in column source"),
        (("0.95", "95"), ":3: attainment is '95'; accepted: a finite number, 0 or more, up to 1"),
        (("dsd", "dsdd"), "did you mean 'dsd'"),
        ((",900,3600,30", ",9000,3600,30"), ":3: new_busy_s is 9000; accepted: no more than its new_reserved_s 3600"),
        ((",512,1,1000,0.95", ",512,1,10.5,0.95"), ":3: requests is '10.5'; accepted: a whole number, 1 or more"),
        ((",512,1,1000,0.95", ",512,2,1000,0.95"), "two rows for grid point"),
        (("0.95,2000000", "0.95"), ":3: row has 17 fields"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(file: Path, change: tuple[str, str], reason: str) -> None:
    file.write_text(file.read_text().replace(*change), encoding="utf-8")
    with pytest.raises(UsageError, match=r"profiles\.csv") as refused:
        read_profiles(file)
    assert reason in str(refused.value)


def test_profiles_as_a_spreadsheet_saves_them(file: Path, tmp_path: Path) -> None:
    table = read_profiles(file)
    local = tmp_path / "local" / "profiles.csv"
    local.parent.mkdir()
    local.write_bytes("\ufeff".encode() + file.read_bytes().replace(b",", b";").replace(b".", b","))
    assert read_profiles(local).rows == table.rows


def test_the_command_answers_from_a_file(file: Path) -> None:
    done = CliRunner().invoke(app, ["choose", "--qps", "1", "--grid", "261", "--profiles", str(file)])
    assert done.exit_code == 0, done.output
    assert "run dsd on NEW and OLD" in done.output
    assert "profiles: user" in done.output
    assert "by rate: dsd with OLD becomes standalone at 2 requests/s" in done.output
    assert "standalone: feasible, 99.0% of the requests" in done.output


def test_the_simulator_answers_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    common: dict[str, Any] = {"sizes": "chat", "requests": 400, "most_requests": 400, "slo": "longbench"}
    table = profiled(["A100-40GB", "T4"], [0.25, 0.5], common, seeds=2)
    assert {row.method for row in table.rows} == {"simulated"}
    found = choose(table, replace(DEMAND, qps=0.5))
    assert isinstance(found.chosen, Candidate)
    assert found.chosen.configuration in {"standalone", "spec-local", "dsd"}
    assert {one.configuration for one in found.decision.considered} == {"standalone", "spec-local", "dpd", "dsd"}
    big = profiled(["A100-40GB", "T4"], [0.25], {**common, "model": "llama-2-13b"}, seeds=1)
    (dpd,) = [row for row in big.rows if row.configuration == "dpd"]
    assert "GiB of weights" in dpd.failure


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--slo", "ttft=1us,tpot=1s"], "can hold TTFT 1e-06 s for chat on A100-40GB and T4"),
        (["--slo", "ttft=1s,tpot=10us"], "can hold TPOT 1e-05 s for chat on A100-40GB and T4"),
        (["--qps", "1e9"], "can hold 1e+09 requests/s for chat on A100-40GB and T4"),
    ],
)
def test_what_no_configuration_can_hold_is_refused_before_it_is_simulated(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "profiled", lambda *_: pytest.fail("it was simulated"))
    given = {"--qps": "1", "--grid": "261", "--devices": "A100-40GB,T4", arguments[0]: arguments[1]}
    done = CliRunner().invoke(app, ["choose", *(each for pair in given.items() for each in pair)])
    assert isinstance(done.exception, UsageError)
    assert told in str(done.exception)


def test_no_simulated_request_is_faster_than_the_limits() -> None:
    common: dict[str, Any] = {"sizes": "chat", "requests": 300, "most_requests": 300}
    least = grid.limits_of(["A100-40GB", "T4"], common)
    table = profiled(["A100-40GB", "T4"], [0.1], common, seeds=1)
    latencies = [pair for row in table.rows for pair in row.latencies]
    assert len({row.configuration for row in table.rows if row.latencies}) == 4
    ttft_s, tpot_s = (min(value for value in values if value is not None) for values in zip(*latencies, strict=True))
    assert least.ttft_s <= ttft_s < 3 * least.ttft_s
    assert least.tpot_s <= tpot_s < 3 * least.tpot_s
    (row,) = profiled(["A100-40GB"], [2 * least.qps], common, seeds=1, configurations=[Configuration.STANDALONE]).rows
    assert row.overloaded or row.attained(Slo(15, 0.15)) < 0.9


def test_profiles_of_a_run_are_charged_as_its_records_were(tmp_path: Path) -> None:
    common: dict[str, Any] = {"sizes": "chat", "requests": 200, "most_requests": 200, "slo": "longbench"}
    table = profiled(["A100-40GB", "T4"], [0.5], common, seeds=1)
    for number, row in enumerate(table.rows):
        (tmp_path / f"{number}").mkdir()
        content = json.dumps(row_to_json(table.key, row))
        (tmp_path / f"{number}" / "profile_row.json").write_text(content, encoding="utf-8")
    assert {row.cell for row in load_profiles(tmp_path).rows} == {row.cell for row in table.rows}
    factors = [
        Factor(name="embodied:gpu:A100", value=26.34, unit="kg", source="one", low=20.0, high=30.0),
        Factor(name="embodied:gpu:T4", value=10.3, unit="kg", source="two"),
        Factor(name="grid_intensity", value=261, unit="g/kWh", source="three"),
    ]
    (row,) = [row for row in table.rows if row.configuration == "dsd"]
    devices = charged(row, factors).devices
    assert [device.embodied_kg for device in devices] == [(20.0, 26.34, 30.0), (10.3, 10.3, 10.3)]
    terms = charged(row, factors).terms(0.0, DEMAND.lifetimes_s, Accounting.RESERVED)[0]
    low, value, high = terms["embodied carbon of A100-40GB"]
    assert (low / value, high / value) == pytest.approx((20 / 26.34, 30 / 26.34))
    known = figures(factors)
    assert figure_of("T4", known) is not None
    assert figure_of("T400", known) is None


def test_rows_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    common: dict[str, Any] = {"requests": 200, "most_requests": 200}
    for number, batch in enumerate((16, 32)):
        table = profiled(["A100-40GB", "T4"], [0.5], {**common, "max_batch": batch}, seeds=1)
        (tmp_path / f"{number}").mkdir()
        content = json.dumps(row_to_json(KEY, table.rows[0]))
        (tmp_path / f"{number}" / "profile_row.json").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="2 sets of rows"):
        load_profiles(tmp_path)
    with pytest.raises(UsageError, match="no profile"):
        load_profiles(tmp_path / "0")


KEY = ProfileKey(model="m", dtype="d", engine="e", driver="", link_kind="", seed=0)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--qps", "0", "--grid", "261"],
        ["--qps", "1", "--grid", "261", "--devices", "A100-40GB"],
        ["--qps", "1", "--grid", "261", "--lifetimes", "5"],
        ["--qps", "1", "--grid", "261", "--slo", "soon"],
        ["--qps", "1", "--grid", "261", "--sizes", "poems"],
    ],
)
def test_impossible_questions_are_refused(arguments: list[str], file: Path) -> None:
    extra = [] if "--devices" in arguments else ["--profiles", str(file)]
    done = CliRunner().invoke(app, ["choose", *arguments, *extra])
    assert isinstance(done.exception, UsageError)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--grid", "nan"], ["--grid", "found nan", "g/kWh, 0 or more"]),
        (["--grid", "-1"], ["--grid", "found -1"]),
        (["--grid", "inf"], ["--grid", "found inf"]),
        (["--qps", "inf"], ["--qps", "found inf", "requests/s above 0"]),
        (["--bandwidth", "nan"], ["--bandwidth", "Gbit/s above 0"]),
        (["--attainment", "90"], ["--attainment", "0.9 or 90%", "90%"]),
        (["--attainment", "nan"], ["--attainment", "0.9 or 90%"]),
        (["--attainment", "most"], ["--attainment", "0.9 or 90%"]),
        (["--attainment", "0"], ["--attainment", "above 0"]),
        (["--lifetimes", "5,inf"], ["lifetimes '5,inf'", "finite"]),
        (["--lifetimes", "nan,7"], ["lifetimes 'nan,7'", "finite"]),
        (["--slo", "ttft=inf,tpot=1s"], ["ttft=2s,tpot=100ms"]),
        (["--qps", "10"], ["standalone on NEW at 1, 2; dsd on NEW and OLD at 1, 2"]),
        (["--sizes", "chatt"], ["'chatt'", "accepted: chat", "did you mean 'chat'?"]),
    ],
)
def test_what_no_profile_answers_is_refused_with_what_is_there(
    file: Path, arguments: list[str], told: list[str]
) -> None:
    given = {"--qps": "1", "--grid": "261", "--profiles": str(file), arguments[0]: arguments[1]}
    done = CliRunner().invoke(app, ["choose", *(each for pair in given.items() for each in pair)])
    assert isinstance(done.exception, UsageError)
    assert not [part for part in told if part not in str(done.exception)], str(done.exception)


def test_attainment_may_be_a_percentage(file: Path) -> None:
    asked = ["choose", "--qps", "1", "--grid", "261", "--profiles", str(file), "--attainment"]
    shown = [CliRunner().invoke(app, [*asked, share]).output for share in ("0.97", "97%", "0.9")]
    assert shown[0] == shown[1] != shown[2]
    assert "0.97 must" in shown[0]


def test_a_demand_that_is_none_is_refused_by_its_number(file: Path) -> None:
    for change, told in (
        ({"intensity": math.nan}, "grid intensity is nan"),
        ({"attainment": 90.0}, "attainment is 90"),
    ):
        with pytest.raises(UsageError, match=told):
            choose(read_profiles(file), replace(DEMAND, **change))


@pytest.mark.parametrize(
    ("arguments", "reason"), [(["--devices", "A100-40GB,T5"], "no profile of device"), (["--sizes", "poems"], "poems")]
)
def test_what_cannot_be_simulated_is_refused_at_once(arguments: list[str], reason: str) -> None:
    done = CliRunner().invoke(app, ["choose", "--qps", "1", "--grid", "261", *arguments])
    assert isinstance(done.exception, UsageError)
    assert reason in str(done.exception)
