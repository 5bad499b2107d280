"""A counter held against the power readings of its device: what is flagged, and what its sensor did not see."""

from __future__ import annotations

import pytest

from harness.measuring.sampled import NOT_TESTED, held_against_power
from harness.quantity import Amount, Method
from harness.sample import Scope
from harness.sensor import PowerSensor

NAME = "n0/gpu:x"
POLLS = [(tenth * 100_000_000, {NAME: 100.0}) for tenth in range(140)]


def held(counted_j: float, *, card: str = "", window_s: float = 0.1) -> tuple[Amount, tuple[str, ...]]:
    sensor = PowerSensor(0.1, window_s, 0.02, 0.0)
    scope = Scope(method=Method.COUNTER, tick_s=0.1, max_power_w=300.0, sensor=sensor, card=card)
    counted = Amount.of(counted_j, "J", Method.COUNTER, low=counted_j * 0.98, high=counted_j * 1.02)
    value, _, flags = held_against_power(NAME, scope, (counted, 1.0, ()), POLLS, 2_000_000_000, 12_000_000_000, None)
    assert isinstance(value, Amount)
    return value, flags


@pytest.mark.parametrize(("card", "flagged"), [("", True), ("a-card", False)])
def test_a_sensor_without_a_card_is_flagged(card: str, flagged: bool) -> None:
    _, flags = held(1000.0, card=card)
    assert (NOT_TESTED in flags) is flagged


def test_a_counter_that_power_contradicts_is_flagged_and_never_averaged() -> None:
    value, flags = held(1500.0)
    assert value.value == 1500.0
    assert any(flag.startswith("power readings say -33%") for flag in flags)
    assert not any("power readings" in flag for flag in held(1000.0)[1])
