"""Power by phase and batch: declared watts with their ends, and busy time split among the loads they are declared at.

A decode step of `b` sequences draws power between those of the neighbouring loads that are declared, in proportion; so
its time is split between them, and every energy is a sum of seconds times watts, whatever the watts are.
"""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from harness.errors import UsageError

KNOTS: Final = (1, 8, 64)
"""Batch sizes that watts are declared at; a larger batch draws what the largest does."""
BATCHED: Final = ("decode", "verify", "draft")
"""Phases whose power depends on the batch."""
IDLE: Final = "idle"
ANY: Final = "serving"
"""The one phase of a device that does several things at a time."""
PHASES: Final = ("prefill", *(f"{phase}@{knot}" for phase in BATCHED for knot in KNOTS), ANY)
"""Names of busy phases."""
_NAME: Final = re.compile(rf"idle|prefill|{ANY}|({'|'.join(BATCHED)})(@({'|'.join(map(str, KNOTS))}))?")


@dataclass(frozen=True, slots=True)
class Watts:
    """Power in W with its ends."""

    low: float
    value: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.value <= self.high < math.inf:
            raise UsageError(
                f"watts {self.low} <= {self.value} <= {self.high} do not hold",
                accepted="low, value, high, none below 0",
            )

    @classmethod
    def exactly(cls, watts: float) -> Watts:
        """Power without a range."""
        return cls(watts, watts, watts)

    def times(self, factor: float) -> Watts:
        """All three."""
        return Watts(self.low * factor, self.value * factor, self.high * factor)


def known(name: str) -> bool:
    """Whether watts can be declared for a phase of this name."""
    return _NAME.fullmatch(name) is not None


def split(loads: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """Seconds by phase, those of a batched phase split among the neighbouring `KNOTS`.

    Args:
        loads: seconds by phase and batch.
    """
    found: dict[str, float] = {}

    def add(name: str, seconds: float) -> None:
        if seconds:
            found[name] = found.get(name, 0.0) + seconds

    for (phase, batch), seconds in loads.items():
        if phase not in BATCHED:
            add(phase, seconds)
            continue
        place = bisect_right(KNOTS, batch)
        if place == len(KNOTS):
            add(f"{phase}@{KNOTS[-1]}", seconds)
            continue
        below, above = KNOTS[max(place - 1, 0)], KNOTS[place]
        weight = max(0.0, (batch - below) / (above - below))
        add(f"{phase}@{below}", seconds * (1 - weight))
        add(f"{phase}@{above}", seconds * weight)
    return found


@cache
def _shares() -> Mapping[tuple[str, str], Watts]:
    """Shares of the board limit by device (empty for any) and phase; of idle, multiples of the profile's."""
    text = files("harness_disaggregated_serving").joinpath("data/power.csv").read_text(encoding="utf-8")
    return {
        (row["device"], row["phase"]): Watts(float(row["low"]), float(row["share"]), float(row["high"]))
        for row in csv.DictReader(text.splitlines())
    }


def packaged(device: str, limit_w: float, idle_w: float) -> dict[str, Watts]:
    """Power of a device by phase, from the packaged shares of its board limit and of its idle power."""
    shares = _shares()

    def share(phase: str) -> Watts:
        return shares.get((device, phase)) or shares["", phase]

    found = {phase: share(phase).times(limit_w) for phase in PHASES if phase != ANY}
    every = found.values()
    found[ANY] = Watts(min(one.low for one in every), share(ANY).value * limit_w, max(one.high for one in every))
    return found | {IDLE: share(IDLE).times(idle_w)}


def declared(power: Mapping[str, Watts], changes: Mapping[str, Watts]) -> dict[str, Watts]:
    """Power with a user's declarations: a phase without a load (`decode`) is declared at every load."""
    found = dict(power)
    for name, watts in sorted(changes.items()):  # `decode` before `decode@8`, which so has the last word
        for phase in found:
            if phase == name or phase.partition("@")[0] == name:
                found[phase] = watts
    return found
