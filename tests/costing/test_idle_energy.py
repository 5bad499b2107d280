"""Energy above idle: gross less idle power times duration, with the bound of both; never gated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.costing.idle import NOT_MEASURED
from harness.costing.impacts import CostedWindows
from harness.errors import UsageError
from harness.functional_unit import UnitCount
from harness.gating.cells import gateable
from harness.impact import EnergyTrace
from harness.planning.suite import loads
from harness.quantity import Amount, Method, Unavailable, Value
from harness.records.metric import ABOVE_IDLE, IDLE_POWER, LOADED_IDLE_POWER, Metric
from harness.records.record import Measurement, MeterReport, Reading, Record, Span, WarmUp
from harness.sample import Scope

GPU, CPU = "n0/gpu:1", "n0/cpu-package:0"
NANO = 10**9


def amount(joules: float, half_width: float = 0.0, method: Method = Method.COUNTER) -> Amount:
    return Amount.of(joules, "J", method, low=joules - half_width, high=joules + half_width)


def measurement(windows: Mapping[str, list[Value]], idle: Mapping[str, Mapping[str, Value]]) -> Measurement:
    """Windows of 20 s with energies by scope, and idle stretches of 10 s with energies by name and scope."""
    spans = [Span(name=name, window=-1, start_ns=0, end_ns=10 * NANO, start_utc_s=0.0) for name in idle]
    count = len(next(iter(windows.values())))
    spans += [Span(name="window", window=w, start_ns=0, end_ns=20 * NANO, start_utc_s=0.0) for w in range(count)]
    readings = [
        Reading(span=name, window=-1, meter="m", scope=scope, primary=True, value=value)
        for name, values in idle.items()
        for scope, value in values.items()
    ]
    readings += [
        Reading(span="window", window=index, meter="m", scope=scope, primary=True, value=value)
        for scope, values in windows.items()
        for index, value in enumerate(values)
    ]
    return Measurement(
        run="r",
        trial_id="p-t000",
        trial=0,
        point={"id": "p"},
        started_utc="2026-01-02T03:04:05+00:00",
        environment={},
        backend={},
        devices=(),
        plugins={},
        workload={},
        warm_up=WarmUp(iterations=0, seconds=0.0, converged=True),
        spans=tuple(spans),
        readings=tuple(readings),
        uses=(),
        meters=(MeterReport(name="m", asked=True, scopes={scope: Scope(method=Method.COUNTER) for scope in windows}),),
        conditions=(),
    )


def totals(
    windows: Mapping[str, list[Value]], idle: Mapping[str, Mapping[str, Value]]
) -> tuple[dict[str, Value], dict[str, str]]:
    costs = CostedWindows(measurement(windows, idle), EnergyTrace((), {})).cost(())
    return costs.totals, costs.notes


def test_net_energy_in_closed_form_with_the_worst_of_both_bounds() -> None:
    found, notes = totals(
        {GPU: [amount(1000, 10), amount(1200, 10)]},
        {"idle": {GPU: amount(80, 4)}, "loaded_idle": {GPU: amount(100, 5)}},
    )
    assert found["energy_j"] == amount(2200, 20), "the gross energy stays the result"
    for name, expected in {
        IDLE_POWER: (8, 7.6, 8.4),
        LOADED_IDLE_POWER: (10, 9.5, 10.5),
        ABOVE_IDLE: (2200 - 10 * 40, 2180 - 10.5 * 40, 2220 - 9.5 * 40),
    }.items():
        value = found[name]
        assert isinstance(value, Amount)
        assert (value.value, value.low, value.high) == pytest.approx(expected), name
    assert notes == {
        "energy_j": "gross",
        IDLE_POWER: "before the workload is loaded",
        LOADED_IDLE_POWER: "workload loaded, no work",
        ABOVE_IDLE: "net: above loaded_idle",
    }


def test_without_a_loaded_stretch_the_other_is_subtracted_and_said() -> None:
    found, notes = totals({GPU: [amount(1000)]}, {"idle": {GPU: amount(80)}})
    assert found[ABOVE_IDLE] == amount(1000 - 8 * 20)
    assert notes[ABOVE_IDLE] == "net: above idle"
    assert LOADED_IDLE_POWER not in found


def test_net_energy_may_be_below_zero_also_per_unit() -> None:
    costs = CostedWindows(
        measurement({GPU: [amount(100, 1)]}, {"loaded_idle": {GPU: amount(100, 1)}}), EnergyTrace((), {})
    ).cost(())
    units = costs.per_unit("token", UnitCount(achieved=10.0, items=1, qualifying=1, failed=0))
    net = units[ABOVE_IDLE]
    assert isinstance(net, Amount)
    assert (net.value, net.low, net.high, net.unit) == pytest.approx((-10.0, -10.3, -9.7, "J/token"))
    assert not {IDLE_POWER, LOADED_IDLE_POWER, "power_w"} & units.keys(), "a power is not divided"


def test_the_method_is_the_weakest_of_its_parts() -> None:
    found, _ = totals({GPU: [amount(1000)]}, {"loaded_idle": {GPU: amount(100, 0, Method.INTEGRATED)}})
    net = found[ABOVE_IDLE]
    assert isinstance(net, Amount)
    assert net.label is Method.INTEGRATED


def test_an_unknown_bound_makes_the_bound_unknown() -> None:
    lost = Amount.of(100, "J", Method.ESTIMATED)
    for windows, idle in ((amount(1000, 1), lost), (lost, amount(100, 1))):
        net = totals({GPU: [windows]}, {"loaded_idle": {GPU: idle}})[0][ABOVE_IDLE]
        assert isinstance(net, Amount)
        assert net.low is None
        assert net.high is None


def test_each_scope_has_its_own_and_the_total_is_their_sum() -> None:
    found, _ = totals({GPU: [amount(1000)], CPU: [amount(300)]}, {"loaded_idle": {GPU: amount(100), CPU: amount(50)}})
    assert found[f"{ABOVE_IDLE}:{GPU}"] == amount(800)
    assert found[f"{ABOVE_IDLE}:{CPU}"] == amount(200)
    assert found[ABOVE_IDLE] == amount(1000)
    assert found[f"{LOADED_IDLE_POWER}:{CPU}"] == Amount.of(5, "W", Method.COUNTER, low=5, high=5)


@pytest.mark.parametrize(
    ("idle", "said"),
    [
        ({}, NOT_MEASURED),
        ({"loaded_idle": {GPU: Unavailable("the counter did not move")}}, "loaded_idle, n0/gpu:1: the counter did not"),
        ({"idle": {GPU: amount(1)}, "loaded_idle": {GPU: Unavailable("no tick")}}, "loaded_idle, n0/gpu:1: no tick"),
        ({"loaded_idle": {CPU: amount(1)}}, "loaded_idle: no meter read n0/gpu:1 in it"),
    ],
)
def test_what_was_not_measured_is_unavailable_with_its_reason(
    idle: Mapping[str, Mapping[str, Value]], said: str
) -> None:
    net = totals({GPU: [amount(1000)]}, idle)[0][ABOVE_IDLE]
    assert isinstance(net, Unavailable)
    assert said in net.reason


def test_a_lost_gross_energy_is_its_own_reason() -> None:
    gone = Unavailable("the counter is gone")
    for idle in ({}, {"idle": {GPU: amount(1)}}):
        assert totals({GPU: [gone]}, idle)[0][ABOVE_IDLE] == gone


@pytest.mark.parametrize("per", ["", "per: operation, "])
def test_a_rule_on_it_is_refused_where_it_stands(per: str) -> None:
    text = (
        f"suite: s\ncases: [{{workload: spin}}]\ngate:\n- {{metric: energy_above_idle_j, {per}worse_by_at_most: 3%}}\n"
    )
    with pytest.raises(UsageError, match=r"gate\[0\]\.metric: 'energy_above_idle_j' is never gated.*energy_j"):
        loads(text)


def test_no_gate_takes_it_from_a_record(tmp_path: Path) -> None:
    found, _ = totals({GPU: [amount(1000)]}, {"loaded_idle": {GPU: amount(100)}})
    record = Record(measurement=measurement({GPU: [amount(1000)]}, {}), totals=found, units={}, columns={})
    value, why = gateable(Metric(ABOVE_IDLE), record)
    assert value is None
    assert "never gated" in why
    assert gateable(Metric("energy_j"), record) == (amount(1000), "")
