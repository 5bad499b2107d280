"""When requests arrive: open-loop processes, streamed, so that a million of them take no memory.

Arrivals never wait for answers. The same seed gives the same requests for every configuration that is compared.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from harness.errors import UsageError
from harness_disaggregated_serving.load import traces
from harness_disaggregated_serving.load.lengths import Lengths, read_rows

if TYPE_CHECKING:
    import numpy as np

CHUNK: Final = 4096
"""Requests drawn at a time. Part of the definition of a stream: sums of gaps round the same way in every run."""


TIMED: Final = "CSV with arrival_s, prompt_tokens, output_tokens; or a trace of Azure, BurstGPT or Mooncake"
"""Traces whose requests come at times of their own."""


class Request(NamedTuple):
    """One request. Latencies count from `arrival_s`, the scheduled time."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int


class Arrivals(ABC):
    """An arrival process."""

    @abstractmethod
    def times(self, generator: np.random.Generator) -> Iterator[float]:
        """Arrival times in s, never decreasing; without end unless the process has one."""


@dataclass(frozen=True, slots=True)
class Poisson(Arrivals):
    """Independent exponential gaps; the first request comes after the first gap."""

    rate_per_s: float

    def __post_init__(self) -> None:
        _checked_rate(self.rate_per_s)

    def times(self, generator: np.random.Generator) -> Iterator[float]:
        """Arrival times without end."""
        import numpy as np

        now = 0.0
        while True:
            chunk = now + np.cumsum(generator.exponential(1.0 / self.rate_per_s, CHUNK))
            yield from chunk.tolist()
            now = float(chunk[-1])


@dataclass(frozen=True, slots=True)
class Constant(Arrivals):
    """Equal gaps; the first request comes at 0."""

    rate_per_s: float

    def __post_init__(self) -> None:
        _checked_rate(self.rate_per_s)

    def times(self, generator: np.random.Generator) -> Iterator[float]:  # noqa: ARG002 - nothing is drawn
        """Arrival times without end."""
        number = 0
        while True:
            yield number / self.rate_per_s
            number += 1


@dataclass(frozen=True, slots=True)
class AllAtOnce(Arrivals):
    """Every request comes at 0."""

    def times(self, generator: np.random.Generator) -> Iterator[float]:  # noqa: ARG002 - nothing is drawn
        """Zeros without end."""
        while True:
            yield 0.0


@dataclass(frozen=True, slots=True)
class Ramped(Arrivals):
    """A process whose rate grows from 0 for `ramp_s` in a straight line, and then is that of `process`."""

    process: Arrivals
    ramp_s: float

    def times(self, generator: np.random.Generator) -> Iterator[float]:
        """Arrival times: each where the integral of the growing rate is that of the steady one."""
        for at in self.process.times(generator):
            yield math.sqrt(2 * self.ramp_s * at) if at < self.ramp_s / 2 else at + self.ramp_s / 2


def requests(arrivals: Arrivals, lengths: Lengths, count: int, seed: int) -> Iterator[Request]:
    """The first `count` requests of a stream.

    Times and lengths are drawn from independent generators, so that another rate leaves the lengths as they are.
    """
    import numpy as np

    if count < 0:
        raise UsageError(f"the number of requests is {count}", accepted="0 or more")
    when, prompts, outputs = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3))
    times = arrivals.times(when)
    left = count
    while left > 0:
        drawn = min(left, CHUNK)
        prompt, output = lengths.draw(drawn, prompts, outputs)
        yield from map(Request, islice(times, drawn), prompt.tolist(), output.tolist())
        left -= drawn


def trace(path: Path) -> list[Request]:
    """Requests of a trace in order of time: own CSV, which holds no bad row, or a published one; raises UsageError."""
    published = traces.read(path)
    if published.layout != "own":
        if not published.timed or any(row.prompt_tokens is None for row in published.rows):
            raise UsageError(
                f"a {published.layout} file has no arrival times and lengths", where=str(path), accepted=TIMED
            )
        return [Request(row.arrival_s or 0.0, row.prompt_tokens or 1, row.output_tokens or 1) for row in published.rows]
    return [Request(*row) for row in read_rows(path, timed=True)]


def _checked_rate(rate_per_s: float) -> None:
    if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
        raise UsageError(f"the rate is {rate_per_s} requests per second", accepted="a finite number above 0")
