"""Whether a system holds its load: warm-up cut, growth of what waits, first against second half. For any served stream.

A stream that ends before its queue does makes an overloaded system look well, so a share of requests that met their
targets says nothing until this does. The warm-up is cut by MSER-5 (White, "An effective truncation heuristic for bias
reduction in simulation output", Simulation 69(6), 1997): the cut that leaves the mean with the least standard error. A
cut beyond half the stream, or a second half with clearly more requests in the system than the first, is growth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST: Final = 100
"""Requests below which nothing is said."""
BATCHES: Final = 20
"""Batches of requests that follow each other, whose means are taken as independent."""
T_975: Final = 2.093
"""97.5 % point of Student's t for `BATCHES` - 1 degrees of freedom."""
GROWTH: Final = 1.25
"""How many times the requests in the system may grow from the first half to the second."""
RISE: Final = 0.01
"""Share of the arrivals that may stay in the system, beyond what a level number of requests varies by."""
PILED: Final = 0.05
"""Share of the arrivals that stay in the system from which on growth needs no longer stream to be believed."""


OVERLOADED: Final = "overloaded"
NOT_JUDGED: Final = "load not judged"


class Load(StrEnum):
    """What a stream says of the system that served it."""

    STEADY = "steady"
    OVERLOADED = "overloaded"
    """It cannot hold the load: what waits grows without end."""
    UNDECIDED = "undecided"
    """The stream is too short to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steadiness:
    """What a stream says about its load.

    Attributes:
        load: the verdict.
        reason: what decided it, for people.
        requests: requests of the stream that finished.
        warm_up: of which so many, the first, are cut.
        in_system: mean requests in the system that an arrival found, in the first and second half after the cut.
        latency_s: mean latency in the first and second half after the cut.
        piled: share of the arrivals after the cut that were added to those in the system.
        utilisation: share of time in which a device or the link was busy.
        after_last_s: time from the last arrival to the last completion, which no arrival fills.
    """

    load: Load
    reason: str
    requests: int
    warm_up: int = 0
    in_system: tuple[float, float] = (math.nan, math.nan)
    latency_s: tuple[float, float] = (math.nan, math.nan)
    piled: float = math.nan
    utilisation: Mapping[str, float] = field(default_factory=dict)
    after_last_s: float = 0.0

    @property
    def growing(self) -> bool:
        """Whether the stream shows growth, of whatever length it is."""
        return self.load is Load.OVERLOADED

    @property
    def fault(self) -> str:
        """Why the load is not held, or is not known to be; empty where it is held."""
        begins = {Load.OVERLOADED: OVERLOADED, Load.UNDECIDED: NOT_JUDGED}.get(self.load)
        return f"{begins}: {self.reason}" if begins else ""

    def facts(self) -> dict[str, object]:
        """As a record keeps it; what is not a number is None."""
        pairs = {"in_system": self.in_system, "latency_s": self.latency_s}
        return {
            "load": self.load.value,
            "reason": self.reason,
            "requests": self.requests,
            "warm_up_requests": self.warm_up,
            "piled_share": None if math.isnan(self.piled) else self.piled,
            "utilisation": dict(self.utilisation),
            **{
                f"{name}_{half}_half": None if math.isnan(value) else value
                for name, values in pairs.items()
                for half, value in zip(("first", "second"), values, strict=True)
            },
        }


def judge(
    arrival_s: Sequence[float] | NDArray[np.float64],
    end_s: Sequence[float] | NDArray[np.float64],
    utilisation: Mapping[str, float] | None = None,
) -> Steadiness:
    """Judges a stream by its finished requests; both sequences of shape (n,), in any order, on one clock.

    Args:
        arrival_s: when each was due.
        end_s: when each had its last token.
        utilisation: busy share of each device, and what came to the `link` over what it carries, an overload at 1.
    """
    import numpy as np

    count, shares = len(arrival_s), dict(utilisation or {})
    if count < LEAST or max(arrival_s) == min(arrival_s):
        reason = f"{count} finished requests are fewer than {LEAST}" if count < LEAST else "all requests come at once"
        return Steadiness(load=Load.UNDECIDED, reason=reason, requests=count, utilisation=shares)
    if shares.get("link", 0.0) >= 1 + 2 / math.sqrt(count):  # what has come so far varies around the rate
        reason = f"the link would need {shares['link']:.3g} times its bandwidth"
        return Steadiness(load=Load.OVERLOADED, reason=reason, requests=count, utilisation=shares, piled=1.0)
    order = np.argsort(np.asarray(arrival_s), kind="stable")
    arrived, ended = np.asarray(arrival_s)[order], np.asarray(end_s)[order]
    inside = np.arange(count) - np.sort(ended).searchsorted(arrived, side="right")
    cut, settled = warm_up(inside)
    rest, latency = inside[cut:], (ended - arrived)[cut:]
    first, second, apart = _halves(rest)
    edge = max(1, len(rest) // BATCHES)
    began, more = _mean(rest[:edge]), _mean(rest[-edge:]) - _mean(rest[:edge])
    rises = second > GROWTH * first + 1 and apart > T_975
    piles = more > RISE * len(rest) and more > 3 + 2 * math.sqrt(began)
    before_s, after_s, _ = _halves(latency)
    words = f"an arrival finds {first:.3g} requests in the first half of the stream and {second:.3g} in the second"
    if not settled:
        words += ", and no warm-up leaves the rest level"
    load = Load.OVERLOADED if rises or piles or (not settled and second > first) else Load.STEADY
    return Steadiness(
        load=load if settled or load is Load.OVERLOADED else Load.UNDECIDED,
        reason=words,
        requests=count,
        warm_up=cut,
        in_system=(first, second),
        latency_s=(before_s, after_s),
        piled=more / len(rest),
        utilisation=shares,
        after_last_s=float(ended.max() - arrived[-1]),
    )


def warm_up(values: NDArray[np.int64]) -> tuple[int, bool]:
    """How many values to cut by MSER-5, and whether that leaves at least half of them; shape (n,).

    A stream whose cut lies beyond its half is cut at the half and has not settled.
    """
    import numpy as np

    means = values[: len(values) // 5 * 5].reshape(-1, 5).mean(axis=1)
    left = np.arange(len(means), 0, -1)
    sums, squares = np.cumsum(means[::-1])[::-1], np.cumsum((means * means)[::-1])[::-1]
    errors = np.maximum(squares - sums * sums / left, 0.0) / (left * left)
    most = max(1, int(0.9 * len(means)))  # the last few vary too little to be believed
    cut = int(np.argmin(errors[:most]))
    half = len(means) // 2
    level = float(errors[: half + 1].min()) <= 4 * float(errors[cut]) + 1e-12
    if cut > half and not level:
        return 5 * half, False
    return 5 * int(np.argmin(errors[: half + 1])), True


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean())


def _halves(values: NDArray[Any]) -> tuple[float, float, float]:
    """Means of both halves, and their difference in standard errors of the means of batches."""
    import numpy as np

    means = np.array([_mean(part) for part in np.array_split(values, BATCHES)])
    half = BATCHES // 2
    first, second = means[:half], means[half:]
    error = math.sqrt((float(first.var(ddof=1)) + float(second.var(ddof=1))) / half)
    difference = _mean(second) - _mean(first)
    apart = difference / error if error else math.copysign(math.inf, difference) if difference else 0.0
    return _mean(first), _mean(second), apart


def share_with_error(met: Sequence[bool]) -> tuple[float, float]:
    """Share of a stream in its order that met, and the half width of its 95 % interval by means of batches."""
    import numpy as np

    values = np.asarray(met, float)
    if len(values) < BATCHES:
        return (_mean(values) if len(values) else math.nan), math.inf
    means = np.array([_mean(part) for part in np.array_split(values, BATCHES)])
    return _mean(values), T_975 * float(means.std(ddof=1)) / math.sqrt(BATCHES)
