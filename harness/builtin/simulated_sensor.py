"""What stands between the power that a simulated accelerator draws and what its register shows."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from harness.sensor import PowerSensor

GLITCH_W: Final = 65_535.0
"""What a reading of sixteen bits shows when it means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSensor:
    """A power sensor whose faults are chosen; behind an energy counter, or behind a power register.

    Attributes:
        source: `counter`: the register shows cumulative energy; `power`: it shows power.
        window_s: what one reading averages over: shorter than the tick it sees part of the time, longer it is a moving
            average; None for the whole tick.
        part_of_time: share of the time that a moving average looks at, at the end of each tick; None for all of it.
        lag_s: time between the end of what a reading averages and its renewal.
        offset_w: added to every reading.
        noise_w: standard deviation of what is added to every reading besides, drawn anew at each renewal.
        seed: of the noise.
    """

    source: Literal["counter", "power"] = "counter"
    window_s: float | None = None
    part_of_time: float | None = None
    lag_s: float = 0.0
    offset_w: float = 0.0
    noise_w: float = 0.0
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether a counter shows the energy of its last tick and nothing else but its gain."""
        shaped = self.window_s is not None or self.part_of_time is not None or self.offset_w or self.noise_w
        return self.source == "counter" and not shaped

    def declared(self, tick_s: float, gain_error: float, limit_w: float) -> PowerSensor:
        """The sensor as a meter declares it that knows the device.

        A reading is (1 + gain_error) times the power, plus offset and noise: the power lies within the bound of it.

        Args:
            tick_s: update period.
            gain_error: of the readings.
            limit_w: nominal limit of the device.
        """
        return PowerSensor(
            update_s=tick_s,
            window_s=tick_s if self.window_s is None else self.window_s,
            gain=min(abs(gain_error) / (1 + gain_error), 0.99),
            offset_w=(abs(self.offset_w) + 2 * self.noise_w) / (1 + gain_error),
            lag_s=self.lag_s,
            part_of_time=self.part_of_time,
            limit_w=limit_w,
            note="simulated",
        )

    def mean_w(self, joules: Callable[[float], float], end_s: float, tick_s: float) -> float:
        """The mean power that a renewal shows, before gain and offset.

        Args:
            joules: energy drawn up to a moment, in seconds of the device's clock.
            end_s: moment of the renewal.
            tick_s: update period.
        """
        end_s -= self.lag_s
        window_s = tick_s if self.window_s is None else self.window_s
        looks = 1
        if self.part_of_time is not None:
            looks, window_s = max(1, round(window_s / tick_s)), self.part_of_time * tick_s
        window_s = max(window_s, 1e-6)
        ends = (end_s - index * tick_s for index in range(looks))
        return statistics.fmean((joules(end) - joules(end - window_s)) / window_s for end in ends)

    def noise(self, turn: int) -> float:
        """What noise adds to a renewal, in watts: the same whenever it is asked for."""
        if self.noise_w == 0:
            return 0.0
        # String seeds do not depend on the process, as hashes of tuples would.
        return random.Random(f"{self.seed} {turn}").gauss(0.0, self.noise_w)  # noqa: S311

    def shown_w(self, mean_w: float, gain_error: float, turn: int) -> float:
        """A reading: whole milliwatts, never below 0."""
        return max(0.0, round((1 + gain_error) * mean_w + self.offset_w + self.noise(turn), 3))
