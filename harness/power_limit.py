"""What a device can draw, and what a meter says where two of its registers cannot both be true.

A reading beyond the limit is no joule: `harness.counter` makes it a gap, and the core holds every scope that declares
`max_power_w` against it, whoever wrote the meter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from harness.quantity import Amount
from harness.sample import Condition

SHORT_TIME_FACTOR: Final = 1.5
SHORT_TIME_S: Final = 2.0
"""Devices exceed their nominal limit for so long by at most this factor before control brings them back.

A recorded RTX 3090, a card of 350 W, averaged 442 W over a second: 1.26 times its limit.
"""
DISAGREEMENT: Final = 0.05
"""A counter and the integral of sampled power that differ by more, relative to the counter, disagree."""


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """What a device can draw, as its sensor would show it.

    Attributes:
        watts: the device's power limit, in W; None where it is not known: then nothing is implausible.
        gain: relative half-width of the sensor's proportional error.
        offset_w: half-width of the sensor's constant error, in W.
    """

    watts: float | None = None
    gain: float = 0.0
    offset_w: float = 0.0

    @property
    def shown_w(self) -> float:
        """The greatest power that a correct sensor may show for long: limit x (1 + gain) + offset."""
        return math.inf if self.watts is None else self.watts * (1 + self.gain) + self.offset_w

    def allows(self, watts: float) -> bool:
        """Whether one sample of power can be true."""
        return watts <= SHORT_TIME_FACTOR * self.shown_w

    def most_j(self, length_s: float, *, short_time: bool = True) -> float:
        """The greatest energy that may be shown for so long a time.

        Args:
            length_s: the time, with the update period of the sensor in it.
            short_time: whether the device may have exceeded its limit for `SHORT_TIME_S`.
        """
        if self.watts is None:
            return math.inf
        extra_s = (SHORT_TIME_FACTOR - 1) * min(length_s, SHORT_TIME_S) if short_time else 0.0
        return self.shown_w * (length_s + extra_s)

    def drawn_j(self, length_s: float) -> float:
        """The greatest energy that was drawn in so long a time by a device at its limit; infinite if not known."""
        return math.inf if self.watts is None else self.watts * length_s


def counter_disagrees(scope: str, counted: Amount, integrated: Amount) -> Condition | None:
    """What a meter says of a device whose counter and sampled power, read side by side, do not agree.

    The two are never averaged: the meter gives the one of its scope's method, and returns this from `conditions()`.
    A meter returns the condition that it found first, unchanged, from then on: each new text would be one more.

    Args:
        scope: name of the scope.
        counted: joules of the counter since both were opened.
        integrated: joules of the sampled power over the same time.

    Returns:
        None where they differ by no more than `DISAGREEMENT` of the counter, or where their bounds overlap, as they
        do over a short time. An end that is not known explains nothing.
    """
    if not abs(integrated.value - counted.value) > DISAGREEMENT * abs(counted.value):
        return None
    below, above = sorted((counted, integrated), key=lambda amount: amount.value)
    reaches_j = below.value if below.high is None else below.high
    begins_j = above.value if above.low is None else above.low
    if reaches_j >= begins_j:
        return None
    detail = f"the counter shows {counted.value:.6g} J where sampled power comes to {integrated.value:.6g} J"
    return Condition("counter_disagrees", scope, detail)
