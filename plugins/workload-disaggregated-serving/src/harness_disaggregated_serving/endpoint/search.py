"""Searches the greatest request rate at which the latency targets hold: doubling, then halving the gap."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True, slots=True)
class Probe:
    """One rate that was tried.

    Attributes:
        qps: requests per second.
        attainment: share of the requests that met the targets.
        unsteady: why the load was not steady at this rate; empty if it was.
        holds: whether enough requests met the targets and the queue did not fill.
    """

    qps: float
    attainment: float
    unsteady: str
    holds: bool


async def max_qps(
    probe: Callable[[float], Awaitable[Probe]], start: float, *, resolution: float, most: int
) -> tuple[float | None, list[Probe]]:
    """The greatest rate that was seen to hold, None where none did; and every rate that was tried, in turn.

    From `start` the rate is doubled while it holds, or halved until it does. Then the geometric middle between the
    greatest that holds and the least that does not is tried, until they differ by no more than `resolution`.

    Args:
        probe: runs one stream.
        start: first rate, in requests per second.
        resolution: share by which the two ends may differ.
        most: probes.
    """
    tried: list[Probe] = []
    low: float | None = None
    high: float | None = None
    rate = start
    while len(tried) < most:
        found = await probe(rate)
        tried.append(found)
        if found.holds:
            low = rate
        else:
            high = rate
        if low is None:
            rate = rate / 2
        elif high is None:
            rate = rate * 2
        elif high <= low * (1 + resolution):
            break
        else:
            rate = sqrt(low * high)
    return low, tried
