"""What a window is charged beside its numbers: hosts of each node, time reserved, and the range of the intensity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.impact import Costed
from harness.quantity import Amount


@dataclass(frozen=True, slots=True)
class NodeHosts:
    """How many times the energy of a node's processors and memory counts, and what a reader must know."""

    each: float
    by_node: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    def of(self, scope: str) -> float:
        """For the node that a scope belongs to."""
        return self.by_node.get(scope.partition("/")[0], self.each)


def extrapolated(what: str, times: float) -> str:
    """The flag of energy that counts more than once."""
    return f"energy of processors and memory of {what} counted {times:g} times: its GPUs need so many hosts"


def reserved(costed: Costed) -> dict[str, float]:
    """Device -> seconds it was reserved, where the work says so; the longest of its roles.

    A partition is looked up by its parent, which is charged in its place.
    """
    parents = {device.uuid: device.parent or device.uuid for device in costed.devices}
    found: dict[str, float] = {}
    for use in costed.uses:
        name = parents.get(use.device, use.device)
        found[name] = max(found.get(name, 0.0), use.reserved_s)
    return found


def range_beside(grams: Sequence[Amount], ends: Sequence[tuple[float, float, float]]) -> list[str]:
    """What the range of the intensity alone says where the energy has no bound to multiply it with.

    Args:
        grams: carbon by scope.
        ends: ends of the intensity's range in g/kWh, and the kWh charged, for each.
    """
    if all(low == high for low, high, _ in ends) or not any(None in (each.low, each.high) for each in grams):
        return []
    low = math.fsum(end * charged for end, _, charged in ends)
    high = math.fsum(end * charged for _, end, charged in ends)
    return [f"carbon_operational_g by the range of the grid intensity alone: {low:.6g} to {high:.6g} g"]
