"""What a meter card changes in a measurement: the sensor, the correction, flags, and what is said of a stale one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.machine import meter_card
from harness.machine.meter_card import CardKey, MeterCard, card_path, find, key_of
from harness.measuring import opening
from harness.measuring.channel import Channel
from harness.measuring.meters import Meters
from harness.measuring.opening import by_card
from harness.measuring.sampled import corrected, sampled_energy
from harness.meter import Meter, MeterContext
from harness.quantity import Amount, Method
from harness.sample import Condition, Scope, Snapshot
from harness.sensor import PowerSensor

SCOPE = "n0/gpu:GPU-1"
CLASS = PowerSensor(0.1, 0.025, gain=0.1, offset_w=20.0, limit_w=400.0, note="class")
FOUND = PowerSensor(0.104, 0.104, gain=0.02, offset_w=1.0, lag_s=0.03, note="meter card")
FACTS = {"driver": "1", "devices": {"GPU-1": {"power_limit_w": 400.0}}}
CARD = MeterCard(
    key=CardKey(device="GPU-1", driver="1", power_limit_w=400.0),
    meter="m",
    scope=SCOPE,
    measured_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    update_period_s=0.104,
    jitter_s=0.0,
    poll_s=0.005,
    smallest_increment_j=0.0,
    idle_w=50.0,
    busy_w=300.0,
    read_median_s=1e-4,
    read_p95_s=1e-4,
    sampling_share=0.001,
    sensor=FOUND,
)
INTEGRATED = Scope(method=Method.INTEGRATED, sensor=CLASS, device="GPU-1", max_power_w=400.0)


class Asked(Meter):
    def open(self, context: MeterContext) -> dict[str, Scope]:
        return {SCOPE: INTEGRATED}

    def read(self) -> Snapshot:
        return Snapshot(0, {SCOPE: 0.0})

    def facts(self) -> dict[str, object]:
        return dict(FACTS)

    def close(self) -> None: ...


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(meter_card, "cards_folder", lambda: tmp_path)
    return tmp_path


def keep(card: MeterCard, folder: Path) -> None:
    card_path("m", SCOPE, "GPU-1", folder).write_text(card.to_json())


def test_times_are_the_cards_and_errors_the_classs() -> None:
    scope = by_card(INTEGRATED, CARD)
    assert scope.sensor == replace(FOUND, gain=0.1, offset_w=20.0, limit_w=400.0)
    assert (scope.card, scope.scale, scope.shift_w) == (CARD.id, 1.0, 0.0)


def test_a_reference_replaces_the_classs_errors_and_corrects() -> None:
    card = replace(CARD, reference="wall", scale=1.1, shift_w=-4.0)
    scope = by_card(INTEGRATED, card)
    assert (scope.sensor, scope.scale, scope.shift_w) == (FOUND, 1.1, -4.0)


def test_a_class_that_is_a_gain_alone_is_kept_and_none_leaves_the_bound_unknown() -> None:
    counter = Scope(method=Method.COUNTER, tick_s=0.1, gain=0.05)
    scope = by_card(counter, CARD)
    assert scope.sensor is not None
    assert (scope.sensor.gain, scope.sensor.offset_w, scope.tick_s) == (pytest.approx(0.05 / 0.95), 0.0, 0.104)
    bare = by_card(Scope(method=Method.COUNTER, tick_s=0.1), CARD)
    assert (bare.sensor, bare.card) == (None, CARD.id)


def test_a_card_that_found_no_sensor_says_so_and_does_not_count_as_tested() -> None:
    scope = by_card(INTEGRATED, replace(CARD, sensor=None, missing={"sensor": "the load did nothing"}))
    assert (scope.sensor, scope.card) == (CLASS, "")
    assert "the load did nothing" in scope.note


def test_a_correction_moves_value_and_bound_and_keeps_the_composition() -> None:
    scope = replace(INTEGRATED, scale=1.25, shift_w=-10.0)
    parts = {Method.COUNTER: 60.0, Method.INTEGRATED: 40.0}
    value, coverage, flags = corrected(scope, (Amount(100.0, "J", parts, 90.0, 110.0), 1.0, ("f",)), 2.0)
    assert isinstance(value, Amount)
    assert (value.value, value.low, value.high, coverage, flags) == (105.0, 92.5, 117.5, 1.0, ("f",))
    assert value.composition == {Method.COUNTER: pytest.approx(63.0), Method.INTEGRATED: pytest.approx(42.0)}
    nothing, _, _ = corrected(scope, (Amount.of(1.0, "J", Method.COUNTER, low=0.0, high=2.0), 1.0, ()), 2.0)
    assert isinstance(nothing, Amount)
    assert (nothing.value, nothing.low, nothing.high) == (0.0, 0.0, 0.0)


def test_a_reading_by_a_card_is_not_flagged_as_untested() -> None:
    polls = [(round(tenth * 1e8), {SCOPE: 100.0}) for tenth in range(60)]
    span = (2 * 10**9, 4 * 10**9, None)
    _, _, without = sampled_energy(SCOPE, INTEGRATED, polls, *span)
    _, _, by_it = sampled_energy(SCOPE, by_card(INTEGRATED, CARD), polls, *span)
    assert "sensor not tested" in without
    assert "sensor not tested" not in by_it


def test_a_valid_card_is_found_and_none_is_no_fault(folder: Path) -> None:
    assert opening.tested("m", SCOPE, INTEGRATED, Asked()) == (INTEGRATED, "")
    keep(CARD, folder)
    scope, why = opening.tested("m", SCOPE, INTEGRATED, Asked())
    assert (scope.card, why) == (CARD.id, "")
    model = Scope(method=Method.ESTIMATED, device="GPU-1")
    assert opening.tested("m", SCOPE, model, Asked()) == (model, "")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"key": replace(CARD.key, driver="0")}, "driver was '0' and is '1'"),
        ({"key": replace(CARD.key, power_limit_w=350.0)}, "power_limit_w was 350.0 and is 400.0"),
        ({"key": replace(CARD.key, harness_version="0")}, "harness_version was '0'"),
        ({"measured_utc": (datetime.now(UTC) - timedelta(days=31)).isoformat()}, "31 days old"),
    ],
)
def test_a_stale_card_is_said_and_not_used(folder: Path, changed: dict[str, object], why: str) -> None:
    keep(replace(CARD, **changed), folder)  # type: ignore[arg-type]
    scope, said = opening.tested("m", SCOPE, INTEGRATED, Asked())
    assert (scope.sensor, scope.card) == (CLASS, "")
    assert why in said
    assert why in scope.note


def test_a_stale_card_is_a_condition_of_the_trial() -> None:
    notice = Condition(opening.STALE, SCOPE, "meter card x is stale: it is 31 days old")
    meters = Meters([Channel("m", True, Asked(), {SCOPE: INTEGRATED}, notices=(notice,))])
    (seen,) = meters.conditions()
    assert (seen.kind, seen.scope, seen.fails) == ("meter_card_stale", SCOPE, False)


def test_fields_of_other_versions_are_passed_over_and_the_id_stays(folder: Path) -> None:
    content = json.loads(CARD.to_json())
    del content["id"], content["reference"], content["scale"], content["shift_w"]
    content["sensor"]["colour"] = content["key"]["colour"] = content["colour"] = "green"
    identity = meter_card.digest(content, 16)
    card_path("m", SCOPE, "GPU-1", folder).write_text(json.dumps({"id": identity, **content}))
    card, why = find("m", SCOPE, INTEGRATED, FACTS)
    assert why == ""
    assert card is not None
    assert (card.id, card.sensor, card.scale) == (identity, FOUND, 1.0)
    assert key_of(SCOPE, INTEGRATED, FACTS) == card.key
