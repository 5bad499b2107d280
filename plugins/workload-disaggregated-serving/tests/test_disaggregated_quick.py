"""The quick path of speculation against one event at a time, draws, and power by phase and batch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from harness_disaggregated_serving.carbon.power import IDLE, Watts, declared, known, packaged, split
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.arrivals import Poisson, Request, requests
from harness_disaggregated_serving.load.lengths import APPLICATIONS
from harness_disaggregated_serving.load.slo import Slo
from harness_disaggregated_serving.simulator import quick_rounds
from harness_disaggregated_serving.simulator.costs import DecodeCost, PhaseCosts, PrefillCost
from harness_disaggregated_serving.simulator.draws import REQUESTS, ROUNDS, course
from harness_disaggregated_serving.simulator.setup import (
    Batching,
    FirstToken,
    Link,
    Setup,
    SimulatedDevice,
    Speculation,
)
from harness_disaggregated_serving.simulator.simulate import Outcome, simulate
from harness_disaggregated_serving.traffic import Wire, tokens_per_round
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError

TARGET = PhaseCosts(PrefillCost(0.0103, 1.07e-4, 1.3e-8), DecodeCost(0.0211, 1.01e-6, 1.7e-4))
DRAFT = PhaseCosts(PrefillCost(0.0023, 1.3e-5), DecodeCost(0.00171, 1.3e-7, 3.1e-5))
DEVICE = SimulatedDevice(name="A", target=TARGET, draft=DRAFT, active_w=300, idle_w=50)


def setup(configuration: Configuration, **changes: object) -> Setup:
    given_: dict[str, object] = {
        "configuration": configuration,
        "new": DEVICE,
        "old": replace(DEVICE, name="B"),
        "link": Link(bandwidth=1.9e9, rtt_s=0.00053),
        "speculation": Speculation(acceptance=(0.9, 0.7, 0.5), vocabulary=32_000, seed=3),
        "batching": Batching.ITERATION,
    }
    return Setup(**{**given_, **changes})  # type: ignore[arg-type]


def both(one: Setup, stream: list[Request]) -> tuple[Outcome, Outcome]:
    assert quick_rounds.can(one)
    quick, slow = (simulate(one, stream, slo=Slo(1.0, 0.02), keep_rows=True, quick=way) for way in (True, False))
    return quick, slow


def same(quick: Outcome, slow: Outcome) -> None:
    assert [row.number for row in sorted(quick.rows, key=lambda row: row.number)] == sorted(
        row.number for row in slow.rows
    )
    other = {row.number: row for row in slow.rows}
    for row in quick.rows:
        its = other[row.number]
        for name in ("started_s", "first_s", "end_s", "transfer_s"):
            assert getattr(row, name) == pytest.approx(getattr(its, name), rel=1e-9, abs=1e-9), name
        for name in ("rounds", "proposed", "accepted", "bytes_sent", "bytes_returned"):
            assert getattr(row, name) == getattr(its, name), name
    assert quick.attainment == slow.attainment
    assert quick.rejected == slow.rejected
    assert quick.link_busy_s == pytest.approx(slow.link_busy_s, rel=1e-9, abs=1e-12)
    for mine, its_ in zip(quick.devices, slow.devices, strict=True):
        assert mine.busy_by_phase == pytest.approx(dict(its_.busy_by_phase), rel=1e-9, abs=1e-9)
        assert mine.energy_j == pytest.approx(its_.energy_j, rel=1e-9)


@pytest.mark.parametrize("configuration", [Configuration.SPEC_LOCAL, Configuration.DSD])
@pytest.mark.parametrize("qps", [0.5, 8.0, 60.0])
@pytest.mark.parametrize("first", FirstToken)
def test_the_quick_path_gives_the_results_of_single_events(
    configuration: Configuration, qps: float, first: FirstToken
) -> None:
    stream = list(requests(Poisson(qps), APPLICATIONS["code"], 80, 5))
    one = setup(configuration, first_token=first, max_batch=16, new=replace(DEVICE, kv_tokens=3000))
    same(*both(one, stream))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([Configuration.SPEC_LOCAL, Configuration.DSD]),
    st.lists(st.tuples(st.floats(0.0001, 0.5), st.integers(1, 90), st.integers(1, 60)), min_size=1, max_size=20),
    st.sampled_from(FirstToken),
    st.sampled_from([Wire.FULL, Wire.IDS]),
    st.sampled_from([None, 130, 500]),
    st.integers(1, 6),
    st.sampled_from([1.03e6, 1.9e9]),
)
def test_both_paths_agree_on_any_stream(
    configuration: Configuration,
    rows: list[tuple[float, int, int]],
    first: FirstToken,
    wire: Wire,
    capacity: int | None,
    most: int,
    bandwidth: float,
) -> None:
    noise = np.random.default_rng(len(rows)).uniform(1e-5, 2e-5, len(rows))  # no two moments coincide
    times = np.cumsum([row[0] for row in rows] + noise).tolist()
    stream = [Request(time, row[1], row[2]) for time, row in zip(times, rows, strict=True)]
    one = setup(
        configuration,
        first_token=first,
        new=replace(DEVICE, kv_tokens=capacity),
        link=Link(bandwidth=bandwidth, rtt_s=0.00053),
        speculation=Speculation(acceptance=(0.9, 0.7, 0.5), vocabulary=1000, wire=wire, seed=3),
        max_batch=most,
        max_prefill_tokens=150,
    )
    same(*both(one, stream))


def test_a_lazy_wire_and_no_batching_take_the_slow_path() -> None:
    lazy = Speculation(acceptance=(0.8,), wire=Wire.LAZY)
    assert not quick_rounds.can(setup(Configuration.DSD, speculation=lazy))
    assert quick_rounds.can(setup(Configuration.SPEC_LOCAL, speculation=lazy))
    assert not quick_rounds.can(setup(Configuration.DSD, batching=Batching.NONE))


def test_draws_follow_the_law_and_belong_to_the_request() -> None:
    acceptance = (0.8,) * 4
    found = course(7, acceptance, 3, 50_000)
    assert found.tokens[-1] / found.rounds == pytest.approx(tokens_per_round(0.8, 4), rel=0.01)
    assert found.accepted == found.tokens[-1] - found.rounds
    shorter = course(7, acceptance, 3, 10)
    assert (shorter.tokens == found.tokens[: shorter.rounds]).all()
    assert shorter.tokens[-1] >= 10 > (shorter.tokens[-2] if shorter.rounds > 1 else 0)
    long = course(7, (0.0,), 5, ROUNDS + 3)
    assert (long.rounds, long.accepted) == (ROUNDS + 3, 0)
    assert not (course(7, acceptance, 4, 500).tokens[:20] == found.tokens[:20]).all()
    assert not (course(8, acceptance, 3, 500).tokens[:20] == found.tokens[:20]).all()
    assert not (course(7, acceptance, 3 + REQUESTS, 500).tokens[:20] == found.tokens[:20]).all()


def test_seconds_are_split_between_neighbouring_loads() -> None:
    found = split({("decode", 1): 1.0, ("decode", 36): 2.0, ("decode", 200): 3.0, ("prefill", 5): 4.0})
    assert found == pytest.approx({"decode@1": 1.0, "decode@8": 1.0, "decode@64": 4.0, "prefill": 4.0})
    assert math.fsum(split({("draft", 3): 7.0}).values()) == pytest.approx(7.0)
    assert split({("verify", 8): 1.0}) == {"verify@8": 1.0}


def test_watts_of_a_phase_are_declared_at_every_load() -> None:
    power = packaged("A100-40GB", 400, 60)
    assert power["prefill"] == Watts(280, 360, 400)
    assert power[IDLE].value == 60
    changed = declared(power, {"decode": Watts.exactly(200), "decode@64": Watts(200, 250, 300)})
    assert changed["decode@1"] == changed["decode@8"] == Watts.exactly(200)
    assert changed["decode@64"].value == 250
    assert changed["verify@1"] == power["verify@1"]
    assert packaged("T4", 70, 15)["decode@1"].value > 0.8 * 70
    assert known("decode@8")
    assert not known("decode@7")
    assert not known("decoding")
    with pytest.raises(UsageError, match="do not hold"):
        Watts(3, 2, 4)
