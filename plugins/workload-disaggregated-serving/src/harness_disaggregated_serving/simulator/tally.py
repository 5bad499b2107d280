"""What comes out of a simulation, collected in bounded memory: counts, sums, quantiles, busy times."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.quantity import Unavailable
from harness_disaggregated_serving.carbon.power import ANY
from harness_disaggregated_serving.load.arrivals import Request
from harness_disaggregated_serving.load.slo import Slo

FLUSH: Final = 8192
"""Values kept as a list before they go into a sketch."""


class Flight:
    """A request on its way. Times are in s on the simulated clock; NaN where nothing happened yet."""

    __slots__ = (
        "accepted",
        "arrival_s",
        "bytes_returned",
        "bytes_sent",
        "end_s",
        "first_s",
        "number",
        "output",
        "prompt",
        "proposed",
        "ready_s",
        "rounds",
        "started_s",
        "transfer_s",
    )

    def __init__(self, number: int, request: Request) -> None:
        self.number = number
        self.arrival_s, self.prompt, self.output = request
        self.ready_s = self.arrival_s
        self.started_s = self.first_s = self.end_s = math.nan
        self.transfer_s = 0.0
        self.bytes_sent = self.bytes_returned = 0
        self.rounds = self.proposed = self.accepted = 0

    @property
    def ttft_s(self) -> float:
        """From arrival to the first token."""
        return self.first_s - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; not defined for a single one."""
        return (self.end_s - self.first_s) / (self.output - 1) if self.output > 1 else None


class Sketch:
    """Quantiles of positive numbers in fixed memory: counts in logarithmic buckets 0.2 % wide, from 1 ns to 10^7 s."""

    _LEAST: Final = 1e-9
    _WIDTH: Final = math.log(1.002)
    _BUCKETS: Final = math.ceil(math.log(1e16) / math.log(1.002)) + 1

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self._counts: NDArray[np.int64] = np.zeros(self._BUCKETS, np.int64)

    def add(self, values: NDArray[np.float64]) -> None:
        """Adds values; what lies outside the range goes into the outermost bucket."""
        clipped = np.maximum(values, self._LEAST)
        index = np.minimum((np.log(clipped / self._LEAST) / self._WIDTH).astype(np.int64), self._BUCKETS - 1)
        self._counts += np.bincount(index, minlength=self._BUCKETS)
        self.count += len(values)
        self.total += float(values.sum())

    def mean(self) -> float | Unavailable:
        """Mean of all values, exact but for rounding."""
        return self.total / self.count if self.count else Unavailable("no request has a value")

    def quantile(self, level: float) -> float | Unavailable:
        """The value below which a share `level` lies, within 0.1 %."""
        if not self.count:
            return Unavailable("no request has a value")
        wanted = max(1, math.ceil(level * self.count))
        index = int(np.searchsorted(np.cumsum(self._counts), wanted))
        return self._LEAST * math.exp((index + 0.5) * self._WIDTH) if index else 0.0


class Busy:
    """How long a device served: by phase and batch where it does one thing at a time, or as a union of intervals."""

    __slots__ = ("_serving", "_since", "loads")

    def __init__(self) -> None:
        self.loads: dict[tuple[str, int], float] = {}
        """Seconds by phase and number of requests that it served."""
        self._serving = 0
        self._since = 0.0

    def add(self, phase: str, duration_s: float, batch: int = 1) -> None:
        """One job of a device that does one thing at a time."""
        key = (phase, batch)
        self.loads[key] = self.loads.get(key, 0.0) + duration_s

    def begin(self, now_s: float) -> None:
        """An item comes into service; calls come in order of time."""
        if self._serving == 0:
            self._since = now_s
        self._serving += 1

    def end(self, now_s: float) -> None:
        """An item leaves."""
        self._serving -= 1
        if self._serving == 0:
            self.add(ANY, now_s - self._since)


class Union:
    """Length of a union of intervals that come in order of their starts."""

    __slots__ = ("_end", "length_s")

    def __init__(self) -> None:
        self.length_s = 0.0
        self._end = -math.inf

    def add(self, start_s: float, end_s: float) -> None:
        """One interval."""
        if end_s > self._end:
            self.length_s += end_s - max(start_s, self._end)
            self._end = end_s


@dataclass(slots=True)
class Tally:
    """Collects requests as they end.

    Args:
        slo: targets that attainment is judged by; None for none.
        keep_rows: keep every finished request, for small runs; else memory stays bounded.
    """

    slo: Slo | None = None
    keep_rows: bool = False
    arrived: int = 0
    finished: int = 0
    served: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    served_tokens: int = 0
    bytes_sent: int = 0
    bytes_returned: int = 0
    rounds: int = 0
    proposed: int = 0
    accepted: int = 0
    first_arrival_s: float = math.inf
    last_arrival_s: float = -math.inf
    last_completion_s: float = -math.inf
    rejected: Counter[str] = field(default_factory=Counter)
    rows: list[Flight] = field(default_factory=list)
    ttft: Sketch = field(default_factory=Sketch)
    tpot: Sketch = field(default_factory=Sketch)
    busy: dict[str, Busy] = field(default_factory=lambda: {"new": Busy(), "old": Busy()})
    link_busy_s: float = 0.0
    _ttft: list[float] = field(default_factory=list)
    _tpot: list[float] = field(default_factory=list)

    def arrive(self, request: Request) -> Flight:
        """A request comes; raises ValueError where time goes backwards or a length is below 1."""
        if not (request.arrival_s >= self.last_arrival_s and math.isfinite(request.arrival_s)):
            raise ValueError(f"arrival at {request.arrival_s} s after one at {self.last_arrival_s} s")
        if request.prompt_tokens < 1 or request.output_tokens < 1:
            raise ValueError(f"request of {request.prompt_tokens} + {request.output_tokens} tokens")
        self.last_arrival_s = request.arrival_s
        if self.arrived == 0:
            self.first_arrival_s = request.arrival_s
        self.arrived += 1
        return Flight(self.arrived - 1, request)

    def reject(self, reason: str) -> None:
        """A request cannot be served."""
        self.rejected[reason] += 1

    def finish(self, flight: Flight) -> None:
        """A request has all its tokens."""
        if not flight.arrival_s <= flight.started_s <= flight.first_s <= flight.end_s:
            raise RuntimeError(
                f"request {flight.number}: {flight.arrival_s}, {flight.started_s}, {flight.first_s}, {flight.end_s}"
            )
        self.finished += 1
        self.prompt_tokens += flight.prompt
        self.output_tokens += flight.output
        self.bytes_sent += flight.bytes_sent
        self.bytes_returned += flight.bytes_returned
        self.rounds += flight.rounds
        self.proposed += flight.proposed
        self.accepted += flight.accepted
        self.last_completion_s = max(self.last_completion_s, flight.end_s)
        if self.slo is not None and self.slo.met(flight.ttft_s, flight.tpot_s):
            self.served += 1
            self.served_tokens += flight.output
        self._ttft.append(flight.first_s - flight.arrival_s)
        if flight.output > 1:
            self._tpot.append((flight.end_s - flight.first_s) / (flight.output - 1))
        if len(self._ttft) >= FLUSH:
            self.flush()
        if self.keep_rows:
            self.rows.append(flight)

    def flush(self) -> None:
        """Moves what is kept as lists into the sketches."""
        self.ttft.add(np.asarray(self._ttft, np.float64))
        self.tpot.add(np.asarray(self._tpot, np.float64))
        self._ttft.clear()
        self._tpot.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOutcome:
    """What a held device did from the first arrival to the last completion.

    Attributes:
        role: `new` or `old`.
        name: the device.
        busy_s: time with at least one item in service.
        reserved_s: the whole window.
        busy_by_phase: `busy_s` by phase.
        energy_busy_j: energy while something was in service.
        energy_idle_j: energy of the rest of the window.
    """

    role: str
    name: str
    busy_s: float
    reserved_s: float
    busy_by_phase: Mapping[str, float]
    energy_busy_j: float
    energy_idle_j: float

    @property
    def energy_j(self) -> float:
        """Both parts."""
        return self.energy_busy_j + self.energy_idle_j
