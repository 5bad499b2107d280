"""Simulator: hand calculations, a step-by-step reference, queueing formulas, conservation laws, bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.arrivals import Poisson, Request, requests
from harness_disaggregated_serving.load.lengths import APPLICATIONS, Fixed
from harness_disaggregated_serving.load.slo import Slo
from harness_disaggregated_serving.simulator.costs import DecodeCost, PhaseCosts, PrefillCost
from harness_disaggregated_serving.simulator.rounds import Clock
from harness_disaggregated_serving.simulator.setup import (
    Batching,
    FirstToken,
    Link,
    Setup,
    SimulatedDevice,
    Speculation,
)
from harness_disaggregated_serving.simulator.simulate import Outcome, simulate
from harness_disaggregated_serving.simulator.tally import Sketch
from harness_disaggregated_serving.traffic import Wire, md1_wait_s, speculative_tpot_s, tokens_per_round
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.quantity import Unavailable, Undefined

HAND = PhaseCosts(PrefillCost(0.01, 0.001), DecodeCost(0.02))
NEW = SimulatedDevice(name="A", target=HAND, draft=HAND, active_w=300, idle_w=50)
OLD = SimulatedDevice(name="B", target=HAND, draft=HAND, active_w=70, idle_w=10)
TWO = [Request(0.0, 100, 5), Request(0.05, 100, 5)]


def setup(configuration: str = "standalone", **changes: object) -> Setup:
    given: dict[str, object] = {
        "configuration": Configuration(configuration),
        "new": NEW,
        "old": OLD,
        "link": Link(bandwidth=1e9),
        "kv_bytes_per_token": 1_000_000,
        "speculation": Speculation(acceptance=(0.8,) * 4, vocabulary=100),
    }
    return Setup(**{**given, **changes})  # type: ignore[arg-type]


def run(one: Setup, stream: Sequence[Request], **changes: object) -> Outcome:
    return simulate(one, stream, keep_rows=True, **changes)  # type: ignore[arg-type]


# Hand calculations


def test_case_5_fast_link() -> None:
    outcome = run(setup("dpd"), TWO)
    first, second = outcome.rows
    assert (first.ttft_s, first.end_s, first.tpot_s) == pytest.approx((0.11, 0.29, 0.045), rel=1e-9)
    assert (second.ttft_s, second.end_s, second.tpot_s) == pytest.approx((0.17, 0.40, 0.045), rel=1e-9)
    assert outcome.window_s == pytest.approx(0.40, rel=1e-9)
    assert [device.busy_s for device in outcome.devices] == pytest.approx([0.22, 0.16], rel=1e-9)
    assert outcome.energy_j == pytest.approx(300 * 0.22 + 50 * 0.18 + 70 * 0.16 + 10 * 0.24, rel=1e-9)


def test_case_5_slow_link_queues_and_counts_in_tpot() -> None:
    outcome = run(setup("dpd", link=Link(bandwidth=1e8)), TWO)
    first, second = outcome.rows
    assert (first.ttft_s, first.tpot_s, first.transfer_s) == pytest.approx((0.11, 0.27, 1.0), rel=1e-9)
    assert (second.ttft_s, second.tpot_s, second.transfer_s) == pytest.approx((0.17, 0.4925, 1.89), rel=1e-9)
    assert outcome.devices[1].busy_s == pytest.approx(0.16, rel=1e-9)
    assert outcome.devices[1].energy_idle_j == pytest.approx(10 * (2.19 - 0.16), rel=1e-9)
    assert outcome.bytes_sent == 200_000_000


def test_case_5_standalone_overlaps_prefill_and_decode() -> None:
    outcome = run(setup(), TWO)
    assert [row.end_s for row in outcome.rows] == pytest.approx([0.19, 0.30], rel=1e-9)
    assert [row.tpot_s for row in outcome.rows] == pytest.approx([0.02, 0.02], rel=1e-9)
    assert outcome.energy_j == pytest.approx(300 * 0.30, rel=1e-9)
    assert len(outcome.devices) == 1


def test_case_5_attainment_under_two_targets() -> None:
    strict, loose = Slo(0.15, 0.05), Slo(0.2, 0.05)
    assert run(setup("dpd"), TWO, slo=strict).attainment == 0.5
    assert run(setup("dpd"), TWO, slo=loose).attainment == 1.0
    assert run(setup("dpd", link=Link(bandwidth=1e8)), TWO, slo=loose).attainment == 0.0
    assert run(setup("dpd"), TWO, slo=loose).served_tokens == 10
    assert isinstance(run(setup("dpd"), TWO).attainment, Undefined)


def test_first_token_by_decode_counts_the_transfer_in_ttft() -> None:
    first, _ = run(setup("dpd", first_token=FirstToken.DECODE), TWO).rows
    assert (first.ttft_s, first.end_s, first.tpot_s) == pytest.approx((0.23, 0.31, 0.02), rel=1e-9)


def test_idle_before_the_first_item_and_after_the_last_counts() -> None:
    """The old device waits for the first cache; the new one waits for the last token."""
    outcome = run(setup("dpd"), [Request(10.0, 100, 5)])
    new, old = outcome.devices
    assert outcome.window_s == pytest.approx(0.29, rel=1e-9)
    assert new.energy_idle_j == pytest.approx(50 * 0.18, rel=1e-9)
    assert old.energy_idle_j == pytest.approx(10 * 0.21, rel=1e-9)


def test_single_token_has_no_tpot_and_is_not_sent() -> None:
    outcome = run(setup("dpd"), [Request(0.0, 100, 1)], slo=Slo(1, 1))
    assert outcome.rows[0].tpot_s is None
    assert outcome.bytes_sent == 0
    assert outcome.attainment == 0.0
    assert isinstance(outcome.tpot.quantile(0.5), Unavailable)


@pytest.mark.parametrize("batching", [Batching.NONE, Batching.ITERATION])
def test_rounds_in_closed_form_where_every_proposal_is_kept(batching: Batching) -> None:
    speculation = Speculation(acceptance=(1.0,) * 4, vocabulary=32_000)
    link = Link(bandwidth=125e6, rtt_s=0.0005)
    old = replace(OLD, draft=PhaseCosts(PrefillCost(0.0), DecodeCost(0.004)))
    new = replace(NEW, target=PhaseCosts(PrefillCost(0.025), DecodeCost(0.02)))
    one = setup("dsd", speculation=speculation, link=link, new=new, old=old, batching=batching)
    (row,) = run(one, [Request(0.0, 10, 1 + 5 * 40)]).rows
    tpot = speculative_tpot_s(
        gamma=4, acceptance=1, draft_s=0.004, verify_s=0.025, rtt_s=0.0005, round_bytes=256_016, bandwidth=125e6
    )
    assert row.rounds == 40
    assert row.bytes_sent == 40 * 256_016
    assert row.bytes_returned == 40 * 8
    assert row.tpot_s == pytest.approx(tpot - 0.0005 / 2 / 200, rel=1e-9)  # the last verdict does not travel back


@pytest.mark.parametrize(("wire", "rtt_s"), [(Wire.FULL, 0.0005), (Wire.LAZY, 0.01), (Wire.IDS, 0.0005)])
def test_rounds_take_the_mean_of_case_3(wire: Wire, rtt_s: float) -> None:
    speculation = Speculation(acceptance=(0.8,) * 4, vocabulary=32_000, wire=wire, seed=5)
    old = replace(OLD, draft=PhaseCosts(PrefillCost(0.0), DecodeCost(0.004)))
    new = replace(NEW, target=PhaseCosts(PrefillCost(0.025), DecodeCost(0.02)))
    one = setup("dsd", speculation=speculation, link=Link(bandwidth=125e6, rtt_s=rtt_s), new=new, old=old)
    (row,) = run(one, [Request(0.0, 10, 60_000)]).rows
    size = {Wire.FULL: 256_016.0, Wire.LAZY: 37_817.6, Wire.IDS: 16.0}[wire]
    mean = speculative_tpot_s(
        gamma=4,
        acceptance=0.8,
        draft_s=0.004,
        verify_s=0.025,
        rtt_s=rtt_s,
        round_bytes=size,
        bandwidth=125e6,
        wire=wire,
    )
    assert row.tpot_s == pytest.approx(mean, rel=0.01)
    assert row.bytes_sent / row.rounds == pytest.approx(size, rel=0.02)
    assert row.output / row.rounds == pytest.approx(tokens_per_round(0.8, 4), rel=0.01)


def test_a_request_keeps_its_draws_in_every_configuration() -> None:
    stream = list(requests(Poisson(1.0), Fixed(20, 60), 20, 1))
    local = run(setup("spec-local"), stream)
    apart = run(setup("dsd", link=Link(bandwidth=1e5)), stream)
    assert {row.number: row.rounds for row in local.rows} == {row.number: row.rounds for row in apart.rows}
    assert local.bytes_sent == 0


# A step-by-step reference of iteration-level batching


@dataclass
class Naive:
    """One decode step at a time, and no closed form."""

    arrival: float
    prompt: int
    output: int
    first: float = float("nan")
    end: float = float("nan")
    made: int = 0


def by_single_steps(
    stream: Sequence[Request], costs: PhaseCosts, max_batch: int, capacity: int, *, alternating: bool = False
) -> list[Naive]:
    waiting = [Naive(*request) for request in stream]
    every, running, now = list(waiting), [], 0.0
    while waiting or running:
        if not running and waiting:
            now = max(now, waiting[0].arrival)
        batch: list[Naive] = []
        while waiting and waiting[0].arrival <= now and len(running) + len(batch) < max_batch:
            held = sum(one.prompt + one.output for one in [*running, *batch, waiting[0]])
            if held > capacity or (batch and alternating):
                break
            batch.append(waiting.pop(0))
        if batch:
            now += costs.prefill.seconds(sum(one.prompt for one in batch), sum(one.prompt**2 for one in batch))
            for one in batch:
                one.first, one.made = now, 1
            running += batch
            running = _without_ended(running, now)
        if running and (alternating or not batch):
            now += costs.decode.seconds(1, len(running), sum(one.prompt + one.made for one in running))
            for one in running:
                one.made += 1
            running = _without_ended(running, now)
    return every


def _without_ended(running: list[Naive], now: float) -> list[Naive]:
    for one in running:
        if one.made == one.output:
            one.end = now
    return [one for one in running if one.made < one.output]


lengths = st.tuples(st.floats(0, 0.5), st.integers(1, 60), st.integers(1, 40))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(lengths, min_size=1, max_size=25),
    st.sampled_from([0.0, 1e-5, 1e-3]),
    st.sampled_from([0.0, 1e-4, 2e-3]),
    st.integers(1, 8),
    st.sampled_from([100, 150, 400, 10**9]),
    st.booleans(),
)
def test_closed_form_decoding_equals_single_steps(
    rows: list[tuple[float, int, int]],
    per_context: float,
    per_sequence: float,
    max_batch: int,
    capacity: int,
    alternating: bool,
) -> None:
    times = np.cumsum([row[0] for row in rows]).tolist()
    stream = [Request(time, row[1], row[2]) for time, row in zip(times, rows, strict=True)]
    costs = PhaseCosts(PrefillCost(0.013, 0.0007, 1e-6), DecodeCost(0.0171, per_context, per_sequence))
    device = SimulatedDevice(name="A", target=costs, kv_tokens=capacity)
    rule = Batching.ALTERNATING if alternating else Batching.ITERATION
    one = setup(new=device, batching=rule, max_batch=max_batch, max_prefill_tokens=10**6)
    found = sorted(run(one, stream).rows, key=lambda row: row.number)
    expected = by_single_steps(stream, costs, max_batch, capacity, alternating=alternating)
    assert [row.first_s for row in found] == pytest.approx([one.first for one in expected], rel=1e-9)
    assert [row.end_s for row in found] == pytest.approx([one.end for one in expected], rel=1e-9)


@given(
    st.floats(1e-6, 1),
    st.floats(0, 1e-3),
    st.floats(0, 1e-2),
    st.integers(1, 500),
    st.integers(1, 10**6),
    st.floats(1e-9, 1e3),
)
def test_steps_within_is_the_least_number(
    fixed: float, per_context: float, per_sequence: float, batch: int, context: int, duration: float
) -> None:
    cost = DecodeCost(fixed, per_context, per_sequence)
    steps = cost.steps_within(duration, batch, context)
    assert cost.seconds(steps, batch, context) >= duration or steps == 1
    assert steps == 1 or cost.seconds(steps - 1, batch, context) < duration


# Queueing formulas


def test_batch_of_one_is_an_m_g_1_queue() -> None:
    """Pollaczek-Khinchine: mean wait = rate x E[S^2] / (2 (1 - load))."""
    stream = list(requests(Poisson(0.9), APPLICATIONS["code"], 60_000, 11))
    costs = PhaseCosts(PrefillCost(0.02, 0.0005), DecodeCost(0.0075))
    one = setup(new=SimulatedDevice(name="A", target=costs), batching=Batching.ITERATION, max_batch=1)
    rows = run(one, stream).rows
    service = np.array([0.02 + 0.0005 * row.prompt + 0.0075 * (row.output - 1) for row in rows])
    rate = len(stream) / stream[-1].arrival_s
    load = rate * service.mean()
    assert 0.5 < load < 0.8
    waits = np.array([row.started_s - row.arrival_s for row in rows])
    assert waits.mean() == pytest.approx(rate * (service**2).mean() / (2 * (1 - load)), rel=0.06)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_link_is_an_m_d_1_queue(load: float) -> None:
    stream = list(requests(Poisson(load / 0.1), Fixed(100, 2), 60_000, 3))
    costs = PhaseCosts(PrefillCost(0.0), DecodeCost(0.01))
    one = setup("dpd", new=replace(NEW, target=costs), old=replace(OLD, target=costs))
    rows = run(one, stream).rows
    mean = float(np.mean([row.transfer_s for row in rows])) - 0.1
    expected = md1_wait_s(load, 0.1)
    assert isinstance(expected, float)
    assert mean == pytest.approx(expected, rel=0.05)


# Laws


any_setup = st.builds(
    lambda configuration, batching, first, kv, bandwidth, wire, limit: setup(
        configuration.value,
        batching=Batching.ITERATION if configuration.speculates and batching is Batching.ALTERNATING else batching,
        first_token=first,
        new=replace(NEW, kv_tokens=kv, target=PhaseCosts(PrefillCost(0.01, 1e-4), DecodeCost(0.02, 1e-5, 1e-3))),
        old=replace(OLD, kv_tokens=kv),
        link=Link(bandwidth=bandwidth, rtt_s=0.001),
        speculation=Speculation(acceptance=(0.9, 0.5, 0.5), vocabulary=1000, wire=wire),
        max_batch=limit,
        max_prefill_tokens=200,
    ),
    st.sampled_from(Configuration),
    st.sampled_from(Batching),
    st.sampled_from(FirstToken),
    st.sampled_from([None, 90, 500]),
    st.sampled_from([1e6, 1e9]),
    st.sampled_from(Wire),
    st.integers(1, 6),
)


@settings(max_examples=120, deadline=None)
@given(any_setup, st.lists(st.tuples(st.floats(0, 1), st.integers(1, 80), st.integers(1, 30)), max_size=20))
def test_conservation(one: Setup, rows: list[tuple[float, int, int]]) -> None:
    times = np.cumsum([row[0] for row in rows]).tolist()
    stream = [Request(time, row[1], row[2]) for time, row in zip(times, rows, strict=True)]
    outcome = run(one, stream, slo=Slo(0.5, 0.05))
    assert outcome.arrived == len(stream)
    assert outcome.finished + sum(outcome.rejected.values()) == outcome.arrived
    assert {row.number for row in outcome.rows} <= set(range(len(stream)))
    assert len(outcome.rows) == outcome.finished == outcome.ttft.count
    assert outcome.output_tokens == sum(row.output for row in outcome.rows)
    for row in outcome.rows:
        assert row.arrival_s <= row.started_s <= row.first_s <= row.end_s
    for device, held in zip(outcome.devices, one.devices.values(), strict=True):
        assert -1e-12 <= device.busy_s <= device.reserved_s == outcome.window_s
        assert device.energy_busy_j == pytest.approx(held.active_w * device.busy_s, rel=1e-9, abs=1e-12)
        assert device.energy_j == pytest.approx(
            held.idle_w * outcome.window_s + (held.active_w - held.idle_w) * device.busy_s, rel=1e-9, abs=1e-12
        )
    assert outcome.link_busy_s <= outcome.window_s * (1 + 1e-9) + 1e-12
    if one.configuration is Configuration.DPD:
        sent = [row.prompt for row in outcome.rows if row.output > 1 or one.first_token is FirstToken.DECODE]
        assert outcome.bytes_sent == sum(sent) * one.kv_bytes_per_token
    if one.configuration is Configuration.DSD and one.speculation is not None:
        rows_sent = 0 if one.speculation.wire is not Wire.LAZY else None
        if rows_sent == 0:
            assert outcome.bytes_sent == outcome.rounds * one.speculation.message_bytes
        assert outcome.bytes_returned == 8 * outcome.rounds
    assert outcome.accepted <= outcome.proposed == outcome.rounds * 3
    if outcome.rejected:
        assert all("do not fit" in reason for reason in outcome.rejected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 80), st.integers(1, 30)), min_size=1, max_size=20))
def test_a_faster_link_never_delays(rows: list[tuple[float, int, int]]) -> None:
    times = np.cumsum([row[0] for row in rows]).tolist()
    stream = [Request(time, row[1], row[2]) for time, row in zip(times, rows, strict=True)]
    slow, fast = (run(setup("dpd", link=Link(bandwidth=rate)), stream).rows for rate in (1e8, 1e9))
    assert all(two.end_s <= one.end_s + 1e-12 for one, two in zip(slow, fast, strict=True))


@pytest.mark.parametrize(
    ("configuration", "batching"),
    [
        (configuration, batching)
        for configuration in Configuration
        for batching in Batching
        if batching is not Batching.ALTERNATING or not configuration.speculates
    ],
)
def test_one_request_alone_needs_no_batching(configuration: Configuration, batching: Batching) -> None:
    plain = run(setup(configuration.value), [Request(3.0, 40, 9)]).rows[0]
    found = run(setup(configuration.value, batching=batching), [Request(3.0, 40, 9)]).rows[0]
    assert (found.first_s, found.end_s) == pytest.approx((plain.first_s, plain.end_s), rel=1e-12)


def test_same_seed_same_outcome() -> None:
    one = setup("dsd", batching=Batching.ITERATION)
    stream = list(requests(Poisson(2.0), APPLICATIONS["code"], 60, 1))
    first, second = run(one, stream), run(one, stream)
    assert [(row.number, row.end_s) for row in first.rows] == [(row.number, row.end_s) for row in second.rows]


def test_power_by_phase() -> None:
    device = replace(NEW, phase_w={"prefill": 400, "decode": 200})
    outcome = run(setup(new=device, batching=Batching.ITERATION), [Request(0.0, 100, 5)])
    assert outcome.energy_j == pytest.approx(400 * 0.11 + 200 * 0.08, rel=1e-9)
    with pytest.raises(UsageError, match="overlap"):
        setup(new=device)


def test_memory_does_not_grow_with_requests() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        simulate(setup(batching=Batching.ITERATION), requests(Poisson(2.0), Fixed(10, 20), count, 1))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(18_000) < peak(9_000) + 300_000


def test_everything_says_simulated() -> None:
    outcome = run(setup(), TWO)
    assert outcome.label == "simulated"
    assert outcome.calibration == "uncalibrated"
    assert outcome.first_token == "prefill"


# Faults


def test_time_that_goes_back_is_refused() -> None:
    with pytest.raises(ValueError, match="after one at"):
        run(setup(), [Request(1.0, 1, 1), Request(0.5, 1, 1)])
    clock = Clock()
    clock.at(1.0, lambda: clock.at(0.5, lambda: None))
    with pytest.raises(RuntimeError, match="is planned at"):
        clock.run()


def test_what_does_not_fit_is_rejected_with_the_reason() -> None:
    outcome = run(setup("dpd", old=replace(OLD, kv_tokens=50)), [Request(0.0, 100, 5), Request(0.0, 10, 5)])
    assert outcome.finished == 1
    assert list(outcome.rejected) == ["105 tokens of cache do not fit the 50 of the old device B"]


def test_nothing_arrives() -> None:
    outcome = run(setup("dsd"), [])
    assert (outcome.arrived, outcome.window_s, outcome.energy_j) == (0, 0.0, 0.0)
    assert isinstance(outcome.ttft.quantile(0.5), Unavailable)


@pytest.mark.parametrize(
    "make",
    [
        lambda: setup("dpd", old=None),
        lambda: setup("dsd", link=None),
        lambda: setup("spec-local", speculation=None),
        lambda: setup(max_batch=0),
        lambda: setup("dsd", batching=Batching.ALTERNATING),
        lambda: Link(bandwidth=0),
        lambda: Speculation(acceptance=(1.2,)),
        lambda: PrefillCost(-1.0),
        lambda: DecodeCost(float("nan")),
        lambda: SimulatedDevice(name="x", active_w=10, idle_w=20),
    ],
)
def test_impossible_set_ups_are_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


def test_sketch_is_within_a_tenth_of_a_percent() -> None:
    values = np.random.default_rng(1).lognormal(-3, 2, 50_000)
    sketch = Sketch()
    for part in np.array_split(values, 7):
        sketch.add(part)
    for level in (0.01, 0.5, 0.9, 0.999):
        exact = np.quantile(values, level, method="inverted_cdf")
        assert sketch.quantile(level) == pytest.approx(exact, rel=0.0011)
    assert sketch.mean() == pytest.approx(values.mean(), rel=1e-9)
