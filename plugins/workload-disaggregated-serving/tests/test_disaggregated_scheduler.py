"""Scheduler: each rule changes the outcome in at least one test; interpolation; the online form and its hysteresis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from harness_disaggregated_serving.carbon.accounting import SECONDS_PER_YEAR, Accounting, Footprint
from harness_disaggregated_serving.choosing.profile_table import (
    ProfiledDevice,
    ProfileKey,
    ProfileRow,
    ProfileTable,
    read_rows,
    row_from_json,
    row_to_json,
)
from harness_disaggregated_serving.choosing.scheduler import (
    Candidate,
    Decision,
    Demand,
    Hysteresis,
    OnlineScheduler,
    decide,
    flip_intensity,
)
from harness_disaggregated_serving.load.slo import Slo
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.quantity import Unavailable

KEY = ProfileKey(model="m", dtype="fp16", engine="e", driver="d", link_kind="shm", seed=1)
YEAR = SECONDS_PER_YEAR
HOUR = 3600.0
DEMAND = Demand(
    prompt_tokens=100,
    qps=1.0,
    slo=Slo(1.0, 0.1),
    bandwidth=1e9,
    intensity=100.0,
    lifetimes_s={"new": 5 * YEAR, "old": 5 * YEAR},
)


def device(role: str, joules: float, embodied_id: str, busy_s: float = 100.0) -> ProfiledDevice:
    return ProfiledDevice(
        role=role,
        name=role.upper(),
        energy_busy_j=joules,
        energy_idle_j=0.0,
        busy_s=busy_s,
        reserved_s=HOUR,
        embodied_id=embodied_id,
    )


def row(configuration: str, joules: float, **changes: object) -> ProfileRow:
    pair = configuration in {"dpd", "dsd"}
    devices = [device("new", joules, "act-birds:A100-40GB")]
    if pair:
        devices.append(device("old", 0.0, "act-birds:T4"))
    given: dict[str, object] = {
        "configuration": configuration,
        "new": "NEW",
        "old": "OLD" if pair else "",
        "size": "short",
        "prompt_tokens": 256,
        "qps": 1.0,
        "requests": 1000,
        "attainment": 0.95,
        "devices": tuple(devices),
    }
    return ProfileRow(**{**given, **changes})  # type: ignore[arg-type]


def table(*rows: ProfileRow) -> ProfileTable:
    return ProfileTable(KEY, rows)


def chosen(decision: Decision) -> str:
    assert isinstance(decision.chosen, Candidate)
    return decision.chosen.configuration


def embodied_g(configuration: str) -> float:
    kg = 17.473 + (8.961 if configuration in {"dpd", "dsd"} else 0)
    return kg * 1000 * HOUR / (5 * YEAR) / 1000


BASE, CHEAP = row("standalone", 4e6), row("dsd", 3e6)


def test_the_cheapest_feasible_row_wins() -> None:
    decision = decide(table(BASE, CHEAP), DEMAND)
    assert chosen(decision) == "dsd"
    assert not decision.infeasible
    assert isinstance(decision.chosen, Candidate)
    assert decision.chosen.total_g == pytest.approx(3e3 / 3.6e6 * 100 + embodied_g("dsd"), rel=1e-9)


def test_rule_1_a_cheaper_row_that_misses_the_attainment_is_rejected() -> None:
    decision = decide(table(BASE, replace(CHEAP, attainment=0.89)), DEMAND)
    assert chosen(decision) == "standalone"
    (rejected,) = [one for one in decision.considered if one.rejected]
    assert "0.89 of the requests" in rejected.rejected
    assert chosen(decide(table(BASE, replace(CHEAP, attainment=0.90)), DEMAND)) == "dsd"
    assert chosen(decide(table(BASE, replace(CHEAP, attainment=0.89)), replace(DEMAND, attainment=0.8))) == "dsd"


def test_rule_1_a_row_that_needs_more_bandwidth_is_rejected() -> None:
    needy = replace(CHEAP, needed_bandwidth=2e9)
    decision = decide(table(BASE, needy), DEMAND)
    assert chosen(decision) == "standalone"
    assert any("needs 2e+09 B/s" in one.rejected for one in decision.considered)
    assert chosen(decide(table(BASE, needy), replace(DEMAND, bandwidth=2e9))) == "dsd"


def test_rule_1_the_row_profiled_at_the_most_bandwidth_that_is_there() -> None:
    rows = [replace(CHEAP, bandwidth=5e8, attainment=0.2), replace(CHEAP, bandwidth=1e9), replace(CHEAP, bandwidth=5e9)]
    assert chosen(decide(table(BASE, *rows), DEMAND)) == "dsd"
    assert chosen(decide(table(BASE, *rows), replace(DEMAND, bandwidth=9e8))) == "standalone"
    decision = decide(table(BASE, *rows), replace(DEMAND, bandwidth=1e8))
    assert any("profiled at 5e+08 B/s or more" in one.rejected for one in decision.considered)


def test_rule_2_a_configuration_is_charged_for_the_devices_it_holds() -> None:
    decision = decide(table(BASE, CHEAP, row("dpd", 3e6, old="OTHER"), row("spec-local", 3.5e6)), DEMAND)
    for one in decision.considered:
        assert isinstance(one.cost, Footprint)
        assert one.cost.embodied_g == pytest.approx(embodied_g(one.configuration), rel=1e-9)


def test_rule_2_accounting_changes_the_choice() -> None:
    busy = row(
        "dsd", 4e6, devices=(device("new", 4e6, "act-birds:A100-40GB", 10), device("old", 0, "act-birds:T4", 10))
    )
    clean = replace(DEMAND, intensity=0.0)
    assert chosen(decide(table(BASE, busy), clean)) == "standalone"
    assert chosen(decide(table(BASE, busy), replace(clean, accounting=Accounting.BUSY))) == "dsd"


def test_rule_3_both_sides_of_the_flip() -> None:
    decision = decide(table(BASE, CHEAP), DEMAND)
    one, two = decision.considered
    star = flip_intensity(one, two)
    expected = (embodied_g("dsd") - embodied_g("standalone")) / (1e3 / 3.6e6)
    assert star == pytest.approx(expected, rel=1e-9)
    assert star is not None
    assert chosen(decide(table(BASE, CHEAP), replace(DEMAND, intensity=star * 0.999))) == "standalone"
    assert chosen(decide(table(BASE, CHEAP), replace(DEMAND, intensity=star * 1.001))) == "dsd"


def test_rule_3_ties_go_to_standalone() -> None:
    equal = replace(row("dsd", 4e6), devices=BASE.devices, old="")
    assert chosen(decide(table(equal, BASE), DEMAND)) == "standalone"
    assert chosen(decide(table(equal, row("spec-local", 4e6)), DEMAND)) == "dsd"


def test_rule_4_none_feasible_takes_the_best_attainment_and_says_so() -> None:
    decision = decide(table(replace(BASE, attainment=0.5), replace(CHEAP, attainment=0.7)), DEMAND)
    assert chosen(decision) == "dsd"
    assert decision.infeasible
    even = decide(table(replace(BASE, attainment=0.7), replace(row("dsd", 5e6), attainment=0.7)), DEMAND)
    assert chosen(even) == "standalone"
    starved = replace(CHEAP, attainment=0.99, needed_bandwidth=1e12)
    assert chosen(decide(table(replace(BASE, attainment=0.5), starved), DEMAND)) == "standalone"


def test_rule_5_interpolates_between_two_feasible_points_only() -> None:
    lower, upper = row("standalone", 4e6), row("standalone", 2e6, qps=2.0)
    middle = replace(DEMAND, qps=1.5, intensity=100)
    found = decide(table(lower, upper), middle).chosen
    assert isinstance(found, Candidate)
    assert found.energy_j == pytest.approx(3e3, rel=1e-9)
    missing = decide(table(replace(lower, attainment=0.1), upper), middle).chosen
    assert isinstance(missing, Candidate)
    assert missing.energy_j == pytest.approx(2e3, rel=1e-9)
    above = decide(table(lower, replace(upper, attainment=0.1)), middle)
    assert above.infeasible


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"qps": 0.5}, "QPS 0.5"), ({"qps": 3.0}, "QPS 3"), ({"prompt_tokens": 257}, "longest is 256")],
)
def test_rule_5_never_beyond_the_grid(change: Mapping[str, float], reason: str) -> None:
    decision = decide(table(BASE, replace(BASE, qps=2.0)), replace(DEMAND, **change))  # type: ignore[arg-type]
    assert isinstance(decision.chosen, Unavailable)
    assert reason in decision.chosen.reason
    assert not decision.infeasible


def test_a_failed_cell_keeps_its_reason() -> None:
    failed = row("dpd", 0, devices=(), requests=0, attainment=None, failure="13 GiB of weights do not fit")
    decision = decide(table(BASE, failed), DEMAND)
    assert chosen(decision) == "standalone"
    assert {one.rejected for one in decision.considered} == {"", "13 GiB of weights do not fit"}
    only = decide(table(failed), DEMAND)
    assert only.chosen == Unavailable("13 GiB of weights do not fit")


def test_a_row_without_embodied_figure_is_not_cheap() -> None:
    unknown = row("dsd", 1.0, devices=(device("new", 1.0, ""),))
    decision = decide(table(BASE, unknown), DEMAND)
    assert chosen(decision) == "standalone"
    assert any("no embodied row" in one.rejected for one in decision.considered)


def test_attainment_follows_the_targets() -> None:
    latencies = ((0.5, 0.05), (0.5, 0.2), (2.0, 0.05), (None, None), (0.1, None))
    one = replace(BASE, attainment=None, latencies=latencies)
    assert one.attained(Slo(1.0, 0.1)) == 0.2
    assert one.attained(Slo(3.0, 0.3)) == 0.6


def test_rows_survive_json(tmp_path: Path) -> None:
    one = replace(CHEAP, latencies=((0.5, None), (0.25, 0.5)), bandwidth=1e9)
    assert row_from_json(json.loads(json.dumps(row_to_json(KEY, one)))) == (KEY, one)
    file = tmp_path / "row.json"
    file.write_text(json.dumps(row_to_json(KEY, one)))
    assert read_rows([file]).rows == (one,)
    with pytest.raises(UsageError, match="differ from the table in seed"):
        read_rows([file]).with_rows(replace(KEY, seed=2), [])
    with pytest.raises(UsageError, match="two rows"):
        table(one, one)
    file.write_text('{"row": 3}')
    with pytest.raises(UsageError, match="no profile row"):
        read_rows([file])
    with pytest.raises(UsageError, match="was found"):
        read_rows([])


numbers = st.tuples(st.floats(1e5, 1e7), st.floats(0, 1), st.floats(0, 2e9))


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["standalone", "spec-local", "dpd", "dsd"]), numbers, min_size=1),
    st.floats(0, 1000),
)
def test_no_feasible_row_is_cheaper_than_the_choice(rows: dict[str, tuple[float, float, float]], alpha: float) -> None:
    made = [
        row(name, joules, attainment=share, needed_bandwidth=need if name in {"dpd", "dsd"} else 0.0)
        for name, (joules, share, need) in rows.items()
    ]
    decision = decide(table(*made), replace(DEMAND, intensity=alpha))
    assert isinstance(decision.chosen, Candidate)
    feasible = [one for one in decision.considered if not one.rejected]
    assert decision.infeasible == (not feasible)
    assert len(decision.considered) == len(made)
    if feasible:
        assert decision.chosen in feasible
        assert decision.chosen.total_g <= min(one.total_g for one in feasible) * (1 + 1e-9)


# Online


def flip() -> float:
    one, two = decide(table(BASE, CHEAP), DEMAND).considered
    found = flip_intensity(one, two)
    assert found is not None
    return found


def test_online_switches_beyond_the_margin_and_keeps_within() -> None:
    online = OnlineScheduler(table(BASE, CHEAP), Hysteresis(margin=0.05, dwell_s=0))
    low, near, high = flip() * 0.2, flip() * 1.05, flip() * 10
    names = [online.observe(time, replace(DEMAND, intensity=a)).running for time, a in enumerate((low, near, high))]
    assert [name.partition(" ")[0] for name in names] == ["standalone", "standalone", "dsd"]
    assert [step.switched for step in online.steps] == [True, False, True]
    assert "no more than the margin" in online.steps[1].reason


def test_online_does_not_flap_around_the_flip() -> None:
    online = OnlineScheduler(table(BASE, CHEAP), Hysteresis(margin=0.05, dwell_s=0))
    for time in range(50):
        online.observe(time, replace(DEMAND, intensity=flip() * (0.97 if time % 2 else 1.03)))
    assert sum(step.switched for step in online.steps) == 1


def test_online_waits_out_the_dwell_time_but_leaves_missed_targets_at_once() -> None:
    good, bad = row("dsd", 3e6, qps=2.0), row("dsd", 3e6, attainment=0.1)
    online = OnlineScheduler(table(BASE, replace(BASE, qps=2.0), bad, good), Hysteresis(margin=0.0, dwell_s=100))
    steps = [(0, 1.0), (10, 2.0), (99, 2.0), (100, 2.0), (101, 1.0)]
    found = [online.observe(time, replace(DEMAND, qps=qps)) for time, qps in steps]
    names = [step.running.partition(" ")[0] for step in found]
    assert names == ["standalone", "standalone", "standalone", "dsd", "standalone"]
    assert "it has run for 99 s" in found[2].reason
    assert found[4].reason.startswith("left at once")


def test_online_follows_the_bandwidth() -> None:
    online = OnlineScheduler(table(BASE, replace(CHEAP, needed_bandwidth=5e8)), Hysteresis(dwell_s=1000))
    names = [
        online.observe(time, replace(DEMAND, bandwidth=bandwidth)).running.partition(" ")[0]
        for time, bandwidth in ((0, 1e9), (1, 1e8), (2, 1e9), (1001, 1e9))
    ]
    assert names == ["dsd", "standalone", "standalone", "dsd"]


def test_online_keeps_what_runs_beyond_the_grid_and_records_everything() -> None:
    online = OnlineScheduler(table(BASE))
    online.observe(0, DEMAND)
    beyond = online.observe(1, replace(DEMAND, qps=9.0))
    assert beyond.running == "standalone on NEW"
    assert not beyond.switched
    written = json.loads(json.dumps([step.to_json() for step in online.steps], allow_nan=False))
    assert [one["chosen"] for one in written] == ["standalone on NEW", None]
    assert "QPS 9" in written[1]["unavailable"]
    with pytest.raises(UsageError, match="later times"):
        online.observe(0.5, DEMAND)


def test_bad_demands_are_refused() -> None:
    for change in ({"qps": 0.0}, {"bandwidth": -1.0}, {"attainment": 1.5}, {"intensity": -1.0}):
        with pytest.raises(UsageError):
            decide(table(BASE), replace(DEMAND, **change))  # type: ignore[arg-type]
    for make in (lambda: Hysteresis(margin=1.0), lambda: Slo(0, 1), lambda: row("dsd", 1, qps=0.0)):
        with pytest.raises(UsageError):
            make()
