"""The order of trials: rounds of one trial a point, so that a slow hour of the machine falls on all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from harness.planning.point import Point


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One trial of one point."""

    point: Point
    trial: int

    @property
    def trial_id(self) -> str:
        """Unique in its run, the same after a resume."""
        return f"{self.point.id}-t{self.trial:03d}"


def schedule(points: Sequence[Point], seed: int) -> list[Scheduled]:
    """Every trial of every point: rounds of one trial a point, each round in random order, the same for one seed."""
    generator = random.Random(seed)  # noqa: S311 - an order, not a secret
    rounds = max((point.trials for point in points), default=0)
    order = []
    for trial in range(rounds):
        due = [Scheduled(point, trial) for point in points if trial < point.trials]
        generator.shuffle(due)
        order += due
    return order
