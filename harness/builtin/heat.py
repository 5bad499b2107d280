"""How warm a simulated device is: one heat capacity behind one resistance, which warms it by so much a watt."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.units import seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatModel:
    """T' = (ambient + resistance x power - T) / time constant, solved exactly for power that is piecewise constant.

    Attributes:
        ambient_celsius: temperature that it cools down to without power, in °C.
        celsius_per_watt: how much warmer a watt makes it in the long run, in °C/W.
        time_constant_s: in this time it covers 63 % of the way to its final temperature.
        start_celsius: temperature at the start, in °C.
    """

    ambient_celsius: float
    celsius_per_watt: float
    time_constant_s: float
    start_celsius: float

    def celsius(self, powers: Iterable[tuple[int, float]], t_ns: int) -> float:
        """Temperature at a time.

        Args:
            powers: (from when on, in ns; watts), in order; the first begins at the start.
            t_ns: the time.
        """
        celsius = self.start_celsius
        listed = [(moment, watts) for moment, watts in powers if moment <= t_ns]
        for (begun, watts), ended in zip(listed, [*(moment for moment, _ in listed[1:]), t_ns], strict=True):
            final = self.ambient_celsius + self.celsius_per_watt * watts
            celsius = final + (celsius - final) * math.exp(-seconds(ended - begun) / self.time_constant_s)
        return celsius
