"""What a device can draw, and two registers that cannot both be true."""

from __future__ import annotations

import math

import pytest

from harness.power_limit import PowerLimit, counter_disagrees
from harness.quantity import Amount, Method


def test_the_limit_has_gain_offset_and_a_short_time():
    limit = PowerLimit(400.0, gain=0.05, offset_w=20.0)
    assert limit.shown_w == pytest.approx(440)
    assert limit.allows(660)
    assert not limit.allows(661)
    assert limit.most_j(1) == pytest.approx(660)
    assert limit.most_j(10) == pytest.approx(440 * 11)
    assert limit.most_j(10, short_time=False) == pytest.approx(4400)
    assert limit.drawn_j(10) == 4000


def test_without_a_limit_nothing_is_implausible():
    assert PowerLimit().allows(65_535)
    assert PowerLimit().most_j(1) == PowerLimit().drawn_j(1) == math.inf


def amount(value, low=None, high=None):
    return Amount.of(value, "J", Method.COUNTER, low=low, high=high)


@pytest.mark.parametrize(
    ("counted", "integrated", "disagrees"),
    [
        (amount(1000, 950, 1050), amount(1200, 1140, 1260), True),
        (amount(1200, 1140, 1260), amount(1000, 950, 1050), True),
        (amount(1000, 950, 1050), amount(1100, 1045, 1155), False),  # the bounds explain it
        (amount(1000, 999, 1001), amount(1040, 1039, 1041), False),  # less than 5 %
        (amount(100, 0, 200), amount(300, 150, 450), False),  # a window too short to say
        (amount(1000), amount(1060), True),
        (amount(0, 0, 1), amount(50, 40, 60), True),
        (amount(0), amount(0), False),
    ],
)
def test_a_counter_and_sampled_power_disagree_beyond_what_their_bounds_explain(counted, integrated, disagrees):
    found = counter_disagrees("n0/gpu:X", counted, integrated)
    assert (found is not None) is disagrees
    if found:
        assert (found.kind, found.scope, found.fails) == ("counter_disagrees", "n0/gpu:X", False)
        assert f"{counted.value:g} J" in found.detail
