"""One cell of the grid, simulated until its load is judged: the stopping rule.

A stream is doubled until it is steady, the share that met its targets is known well enough and the time after its last
arrival is a small part of it; or until it was doubled as often as is allowed, or shows an overload that no longer
stream could take back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness_disaggregated_serving.choosing.steady import PILED, Load, Steadiness, judge, share_with_error
from harness_disaggregated_serving.load.arrivals import Request
from harness_disaggregated_serving.load.slo import Slo
from harness_disaggregated_serving.simulator.setup import Setup
from harness_disaggregated_serving.simulator.simulate import Outcome, simulate
from harness_disaggregated_serving.simulator.tally import Flight

EDGE: Final = 0.05
"""Share of the window that the time after the last arrival may take: it is no part of a steady load."""
FULL: Final = 0.95
"""Utilisation from which on a stream must be eight times the least."""
SURE: Final = 2000
"""Requests from which on a pile is believed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a stream is long enough.

    Attributes:
        least: requests to begin with.
        most: requests to end with, whatever is known by then.
        precision: half width of the 95 % interval of the attainment that is wanted.
    """

    least: int = 1000
    most: int = 16_000
    precision: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A simulated cell and what its stream says of the load.

    Attributes:
        outcome: of the longest stream; with its rows.
        steadiness: the verdict.
        asked: requests of that stream.
        kept: finished requests after the warm-up, in order of arrival.
        attainment: share of the kept that met both targets, and its half width; requests that can never be served miss.
    """

    outcome: Outcome
    steadiness: Steadiness
    asked: int
    kept: tuple[Flight, ...]
    attainment: tuple[float, float]


def settle(setup: Setup, stream: Callable[[int], Sequence[Request]], slo: Slo, rule: Rule) -> Settled:
    """Simulates a cell by the rule; `stream` gives its first so many requests."""
    count = rule.least
    while True:
        found = judged(setup, stream(count), slo)
        if count >= rule.most or _enough(found, rule):
            return found if not found.steadiness.growing or count >= rule.most else _sure(found)
        count = min(2 * count, rule.most)


def judged(setup: Setup, asked: Sequence[Request], slo: Slo) -> Settled:
    """One stream, simulated and judged."""
    outcome = simulate(setup, asked, slo=slo, keep_rows=True)
    rows = sorted(outcome.rows, key=lambda flight: flight.number)
    steadiness = judge([row.arrival_s for row in rows], [row.end_s for row in rows], _utilisation(setup, outcome, rows))
    kept = tuple(rows[steadiness.warm_up :])
    rejected = sum(outcome.rejected.values())
    share, half = share_with_error([slo.met(row.ttft_s, row.tpot_s) for row in kept])
    served = len(kept) / (len(kept) + rejected) if kept else 0.0
    return Settled(
        outcome=outcome,
        steadiness=steadiness,
        asked=len(asked),
        kept=kept,
        attainment=(share * served if kept else 0.0, half),
    )


def _utilisation(setup: Setup, outcome: Outcome, rows: Sequence[Flight]) -> dict[str, float]:
    """Busy share of each device over the window, and what arrives at the link over what it carries."""
    found = {device.role: device.busy_s / outcome.window_s if outcome.window_s else 0.0 for device in outcome.devices}
    if setup.configuration.needs_old and rows:
        span_s = rows[-1].arrival_s - rows[0].arrival_s
        found["link"] = outcome.link_busy_s / span_s if span_s > 0 and len(rows) > 1 else 0.0
    return found


def _enough(found: Settled, rule: Rule) -> bool:
    steadiness = found.steadiness
    if not found.outcome.finished:
        return True
    if steadiness.growing:
        return steadiness.piled > PILED and found.asked >= min(SURE, rule.most)
    if steadiness.load is Load.UNDECIDED:
        return False
    if max(steadiness.utilisation.values(), default=0.0) >= FULL and found.asked < 8 * rule.least:
        return False  # so near to its limit that a short stream does not tell
    edge = steadiness.after_last_s / found.outcome.window_s if found.outcome.window_s > 0 else 1.0
    return found.attainment[1] <= rule.precision and edge <= EDGE


def _sure(found: Settled) -> Settled:
    reason = f"{found.steadiness.reason}; {found.steadiness.piled:.0%} of what arrives piles up"
    return replace(found, steadiness=replace(found.steadiness, reason=reason))
