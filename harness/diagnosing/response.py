"""What a register averages over, and how late it is, from its readings under a load whose switching is known.

A reading is p + q x (share of busy time in what it averaged over). Under a load that is switched at irregular times
only the right averaging time and lag explain the readings; p and q follow by least squares, so that neither gain nor
offset of the sensor matters. Arithmetic only: no clock, no device.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

LEAST_READINGS: Final = 40
"""Fewer renewals than this fit any response."""
LONGEST_LAG_S: Final = 1.2
LONGEST_WINDOW_S: Final = 1.6
"""Beyond the longest that is published: an average over a second, half a second late."""
SEES_ALL: Final = 0.9
"""A sensor that looks at so much of the time is not told from one that looks at all of it."""
WORST_FIT: Final = 0.5
"""Readings of which less than this share of the variance is explained do not follow the load."""
_SHARES: Final = (0.1, 0.25, 0.5, 0.75)
"""Shares of the time that a moving average may look at, besides all of it."""


@dataclass(frozen=True, slots=True)
class Response:
    """How readings follow a load.

    Attributes:
        window_s: what a reading averages over.
        part_of_time: share of the time that it looks at; the least that explains the readings about as well.
        lag_s: least time between the end of what it averages and the reading.
        lag_error_s: greatest further lag.
        explained: share of the variance of the readings that this explains.
    """

    window_s: float
    part_of_time: float
    lag_s: float
    lag_error_s: float
    explained: float


def irregular(rng: random.Random, update_s: float, length_s: float, shortest_s: float) -> list[tuple[float, bool]]:
    """When to switch a load, and to what, so that no averaging time and lag look like others.

    Most stretches last a part of a few updates, so that a reading depends on when a sensor looks; some are long enough
    to fill an average over a second.
    """
    now_s, busy = 0.0, False
    plan: list[tuple[float, bool]] = []
    while now_s < length_s:
        busy = not busy
        plan.append((now_s, busy))
        long = rng.random() < 0.15
        stretch_s = rng.uniform(0.3, 1.2) if long else rng.uniform(0.3, 2.5) * update_s
        now_s += max(stretch_s, shortest_s)
    return plan


def update_period(moments_s: Sequence[float]) -> tuple[float, float]:
    """Update period and its jitter from moments at which a register was seen to change.

    A renewal to the same value is not seen: an interval of several periods is divided. The period is the slope of a
    line through all moments, so that the polling's own grid cancels.

    Args:
        moments_s: in order; at least four.
    """
    gaps = sorted(after - before for before, after in pairwise(moments_s))
    least = gaps[len(gaps) // 10]
    typical = statistics.median([gap for gap in gaps if gap <= 1.5 * least] or gaps)
    counts = [max(1, round((after - before) / typical)) for before, after in pairwise(moments_s)]
    numbers = [0, *accumulate(counts)]
    slope, intercept = statistics.linear_regression(numbers, moments_s)
    left = [moment - (intercept + slope * number) for number, moment in zip(numbers, moments_s, strict=True)]
    return slope, statistics.pstdev(left)


class Fit:
    """The search for the response of one series of readings.

    Args:
        readings: moment of renewal in seconds, and what was shown; a moment may be late by up to `resolution_s`.
        switches: moment and whether the load is busy from then on, in order; idle before the first.
        update_s: update period of the register.
        resolution_s: how well moments and switches are known.
    """

    def __init__(
        self,
        readings: Sequence[tuple[float, float]],
        switches: Sequence[tuple[float, bool]],
        update_s: float,
        resolution_s: float,
    ) -> None:
        self.update_s, self.resolution_s = update_s, resolution_s
        self._step_s = min(update_s / 40, 0.005)
        self._reach_s = LONGEST_LAG_S + LONGEST_WINDOW_S + 2 * update_s
        self._start_s = readings[0][0] - self._reach_s - self._step_s
        self._moments = [moment for moment, _ in readings]
        shown = [value for _, value in readings]
        mean = statistics.fmean(shown)
        self._shown = [value - mean for value in shown]
        self._variance = math.fsum(value * value for value in self._shown)
        self._busy = self._busy_until(switches, readings[-1][0])

    def _busy_until(self, switches: Sequence[tuple[float, bool]], end_s: float) -> list[float]:
        """Busy seconds up to each step of a grid, so that a share of busy time is two look-ups."""
        found: list[float] = []
        state, since_s, total_s, index = False, self._start_s, 0.0, 0
        for number in range(math.ceil((end_s - self._start_s) / self._step_s) + 3):
            moment_s = self._start_s + number * self._step_s
            while index < len(switches) and switches[index][0] <= moment_s:
                total_s += state * (max(switches[index][0], since_s) - since_s)
                since_s, state = max(switches[index][0], since_s), switches[index][1]
                index += 1
            found.append(total_s + state * (moment_s - since_s))
        return found

    def unexplained(self, window_s: float, share: float, lag_s: float) -> float:
        """Share of the readings' variance that this averaging time and lag leave, by the best line."""
        busy, step_s = self._busy, self._step_s
        looks, look_s = 1, window_s
        if share < 1:
            looks, look_s = max(1, round(window_s / self.update_s)), share * self.update_s
        width = max(1, round(look_s / step_s))
        apart = self.update_s / step_s
        first = (self._start_s + lag_s) / step_s
        shares = []
        for moment in self._moments:
            end = moment / step_s - first
            total = 0.0
            for look in range(looks):
                index = round(end - look * apart)
                total += busy[index] - busy[index - width]
            shares.append(total)
        mean = math.fsum(shares) / len(shares)
        cross = spread = 0.0
        for value, shown in zip(shares, self._shown, strict=True):
            cross += (value - mean) * shown
            spread += (value - mean) ** 2
        if spread <= 0 or cross <= 0:
            return 1.0
        return max(0.0, 1.0 - cross * cross / (spread * self._variance))

    def best(self) -> Response | None:
        """The response that explains most, with the range of those that explain about as much; None for none."""
        if len(self._moments) < LEAST_READINGS or self._variance <= 0:
            return None
        starts = sorted(
            (self.unexplained(window_s, 1.0, lag), window_s, 1.0, lag)
            for window_s in self._windows()
            for lag in _range(0.0, LONGEST_LAG_S, max(self.update_s / 4, min(window_s / 5, 0.03)))
        )
        best = self._refined(starts[:4])
        if best[1] >= 3 * self.update_s:
            # Looks that are apart move the best averaging time and lag of an average over all of it.
            partly = sorted(
                (self.unexplained(times * best[1], part, lag), times * best[1], part, lag)
                for times in (0.85, 0.92, 1.0, 1.08, 1.15)
                for part in _SHARES
                for lag in _range(max(0.0, best[3] - self.update_s), best[3] + self.update_s, self.update_s / 4)
            )
            best = min(best, self._refined(partly[:2]))
        left, window_s, share, lag_s = best
        if left > 1 - WORST_FIT:
            return None
        # The likelihood's interval of two standard deviations; timing errors leave some of the variance in any case.
        enough = left * (1 + 8 / len(self._moments)) + 1e-4
        near = [
            lag for lag in self._around(lag_s, self.update_s) if self.unexplained(window_s, share, lag) <= enough
        ] or [lag_s]
        least_s = max(0.0, min(near) - self.resolution_s)
        most_s = max(near) + self.resolution_s
        looks = [
            part
            for part in self._parts(window_s, share)
            if min(self.unexplained(*self._with_part(window_s, part), lag) for lag in {lag_s, min(near), max(near)})
            <= enough
        ]
        part = min([share if window_s > 1.2 * self.update_s else min(1.0, window_s / self.update_s), *looks])
        if part < SEES_ALL:
            part = max(part - self._step_s / self.update_s, part / 2)
        return Response(window_s, 1.0 if part >= SEES_ALL else part, least_s, most_s - least_s, 1 - left)

    def _windows(self) -> Iterator[float]:
        """Averaging times to begin with."""
        yield from (times * self.update_s for times in (0.05, 0.15, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0, 1.25))
        window_s = 1.6 * self.update_s
        while window_s <= max(LONGEST_WINDOW_S, 2 * self.update_s):
            yield window_s
            window_s *= 1.25

    def _refined(self, starts: Iterable[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
        """Descends from each start by halving steps of averaging time and lag together."""
        ends = []
        for start in starts:
            best = start
            window_step, lag_step = max(best[1] / 8, self.update_s / 16), self.update_s / 8
            while lag_step > self._step_s / 2:
                _, window_s, share, lag_s = best
                around = [
                    (max(self._step_s, window_s + i * window_step), max(0.0, lag_s + j * lag_step))
                    for i in (-1, 0, 1)
                    for j in (-1, 0, 1)
                ]
                found = min((self.unexplained(a, share, lag), a, share, lag) for a, lag in around)
                if found[0] < best[0]:
                    best = found
                else:
                    window_step, lag_step = window_step / 2, lag_step / 2
            ends.append(best)
        return min(ends)

    def _around(self, lag_s: float, reach_s: float) -> list[float]:
        return _range(max(0.0, lag_s - reach_s), lag_s + reach_s, self._step_s)

    def _parts(self, window_s: float, share: float) -> list[float]:
        """Shares of the time somewhat below the one found."""
        part = share if window_s > 1.2 * self.update_s else min(1.0, window_s / self.update_s)
        if part >= SEES_ALL:
            return []
        return [part - below for below in (0.02, 0.05, 0.1, 0.15, 0.2) if part - below > 0.02]

    def _with_part(self, window_s: float, part: float) -> tuple[float, float]:
        return (window_s, part) if window_s > 1.2 * self.update_s else (part * self.update_s, 1.0)


def _range(first: float, last: float, step: float) -> list[float]:
    return [first + index * step for index in range(math.floor((last - first) / step) + 1)]
