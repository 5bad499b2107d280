"""The noise that the study of the gate's error rates simulates: profiles of runners, and jobs of pairs drawn from them.

The parameters are declared, not measured: `harness calibrate` measures a real runner.

"Effect = tolerance" means that the pseudo-median of the pairs' logarithmic ratios over the whole job equals
log(1 + tolerance). For symmetric noise that is the factor by which head is slower; a head that is skewed or has a slow
tail is moved until it holds, and an effect that shrinks or grows has it on average over the planned pairs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = Any
Sample = Callable[[Any, int, int], Array]
"""Generator, jobs and trials of a job -> logarithms of what the trials measure, in the order they run."""


@dataclass(frozen=True)
class Profile:
    """A runner's noise and what else goes wrong.

    Attributes:
        sample: noise of the trials that both sides share.
        tolerance: relative; chosen so that the noise is neither nothing nor everything.
        clean: whether all that the gate assumes holds.
        head: noise of head alone.
        course: the effect over the pairs, 1 on average.
        order: how much the second trial of a pair is worse, relative.
        tick: values are multiples of it; 0 for none. An undisturbed base measures 1.
    """

    sample: Sample
    tolerance: float = 0.05
    clean: bool = False
    head: Sample | None = None
    course: Callable[[int], Array] = field(default=np.ones)
    order: float = 0.0
    tick: float = 0.0


def normal(s: float) -> Sample:
    """Log-normal noise."""
    return lambda generator, jobs, trials: generator.normal(0, s, (jobs, trials))


def shared_runner(s: float, g: float, p: float, m: float) -> Sample:
    """Noise `s`; drift: a linear trend of N(0, g) at the ends and an AR(1) of 0.8; spikes of rate p and mean m."""

    def sample(generator: Any, jobs: int, trials: int) -> Array:
        found = generator.normal(0, s, (jobs, trials)) + autoregressive(0.8, 0.4 * g)(generator, jobs, trials)
        found += np.linspace(-1, 1, trials) * generator.normal(0, g, (jobs, 1))
        spikes = np.log1p(generator.exponential(m, (jobs, trials)))
        return found + np.where(generator.random((jobs, trials)) < p, spikes, 0)

    return sample


def autoregressive(coefficient: float, innovation: float, s: float = 0.0) -> Sample:
    """Trials that resemble the ones before, beside noise of their own."""

    def sample(generator: Any, jobs: int, trials: int) -> Array:
        found = generator.normal(0, innovation, (jobs, trials))
        for index in range(1, trials):
            found[:, index] += coefficient * found[:, index - 1]
        return found + generator.normal(0, s, (jobs, trials))

    return sample


def turbo(generator: Any, jobs: int, trials: int) -> Array:
    """Two states of the clock 20 % apart, left with probability 0.1 a trial."""
    switches = generator.random((jobs, trials)) < np.where(np.arange(trials) == 0, 0.5, 0.1)
    return 0.2 * (np.cumsum(switches, axis=1) % 2) + generator.normal(0, 0.015, (jobs, trials))


def tail(share: float, mean: float) -> Sample:
    """A share of trials slower by an exponential amount."""
    return lambda generator, jobs, trials: np.where(
        generator.random((jobs, trials)) < share, generator.exponential(mean, (jobs, trials)), 0
    )


def _course(shape: Callable[[Array], Array]) -> Callable[[int], Array]:
    def course(pairs: int) -> Array:
        found = shape((np.arange(pairs) + 0.5) / pairs)
        return found / found.mean()

    return course


PROFILES = {
    "ci": Profile(shared_runner(0.05, 0.04, 0.05, 0.40), clean=True),
    "gpu": Profile(shared_runner(0.01, 0.01, 0.01, 0.10), 0.02, clean=True),
    "t3": Profile(lambda generator, *shape: 0.03 * generator.standard_t(3, shape), clean=True),
    "Cauchy": Profile(lambda generator, *shape: 0.02 * generator.standard_cauchy(shape), clean=True),
    "drift": Profile(shared_runner(0.04, 0.3, 0, 1), clean=True),
    "AR(0.95)": Profile(autoregressive(0.95, 0.03, 0.04), clean=True),
    "turbo states": Profile(turbo, clean=True),
    "order +1 %": Profile(normal(0.03), order=0.01),
    "order -1 %": Profile(normal(0.03), order=-0.01),
    "order +3 %": Profile(normal(0.03), order=0.03),
    "order -3 %": Profile(normal(0.03), order=-0.03),
    "order +10 %": Profile(normal(0.03), order=0.10),
    "order -10 %": Profile(normal(0.03), order=-0.10),
    "ticks of 2 %": Profile(normal(0.02), tick=0.02),
    "ticks of 4 %": Profile(normal(0.02), tick=0.04),
    "ticks of 4 %, little noise": Profile(normal(0.008), tick=0.04),
    "ticks of 10 %": Profile(normal(0.03), tick=0.10),
    "skewed head, exponential": Profile(normal(0.03), head=lambda g, *shape: g.exponential(0.08, shape)),
    "skewed head, log-normal": Profile(normal(0.03), head=lambda g, *shape: 0.1 * np.exp(g.normal(0, 1, shape))),
    "slow tail on head, 10 %": Profile(normal(0.05), head=tail(0.1, 0.4)),
    "slow tail on head, 20 %": Profile(normal(0.05), head=tail(0.2, 0.4)),
    "slow tail on head, 40 %": Profile(normal(0.03), head=tail(0.4, 0.4)),
    "shrinks to nothing": Profile(normal(0.02), course=_course(lambda x: 1 - x)),
    "shrinks to nothing, much noise": Profile(normal(0.05), course=_course(lambda x: 1 - x)),
    "decays": Profile(normal(0.02), course=_course(lambda x: np.exp(-3 * x))),
    "grows from nothing": Profile(normal(0.02), course=_course(lambda x: x)),
    "saturates": Profile(normal(0.02), course=_course(lambda x: 1 - np.exp(-3 * x))),
    "only in the first half": Profile(normal(0.02), course=_course(lambda x: (x < 0.5) * 1.0)),
}


@functools.cache
def centre(name: str) -> float:
    """The pseudo-median of a profile's differences without an effect: what head's own noise alone does."""
    profile = PROFILES[name]
    if profile.head is None:
        return 0.0
    generator = np.random.default_rng(0)
    many = 1_000_000
    noise = profile.sample(generator, many, 2)
    differences = noise[:, 1] - noise[:, 0] + profile.head(generator, many, 1)[:, 0]
    return float(np.median((differences[: many // 2] + differences[many // 2 :]) / 2))


@dataclass(frozen=True)
class Jobs:
    """Simulated jobs: what both sides measured, and in which pairs head ran second; one row a job."""

    base: Array
    head: Array
    head_second: Array

    def first(self, pairs: int, rows: Array) -> Jobs:
        """The first pairs of some of the jobs."""
        return Jobs(self.base[rows, :pairs], self.head[rows, :pairs], self.head_second[rows, :pairs])

    @property
    def differences(self) -> Array:
        """Logarithms of the ratios, one a pair."""
        return np.log(self.head) - np.log(self.base)


def simulate(name: str, jobs: int, pairs: int, effect: float, seed: int) -> Jobs:
    """Jobs of a profile with an effect on the logarithmic scale, the order inside pairs a fair coin for each."""
    profile = PROFILES[name]
    generator = np.random.default_rng([seed, pairs, *name.encode(), round(1e6 * effect)])
    trials = profile.sample(generator, jobs, 2 * pairs)
    trials[:, 1::2] += math.log1p(profile.order)
    second = generator.random((jobs, pairs)) < 0.5
    base = np.where(second, trials[:, ::2], trials[:, 1::2])
    head = np.where(second, trials[:, 1::2], trials[:, ::2]) + effect * profile.course(pairs) - centre(name)
    if profile.head is not None:
        head = head + profile.head(generator, jobs, pairs)
    base, head = (np.exp(np.clip(side, -300, 300)) for side in (base, head))  # Cauchy's law knows no bounds
    if profile.tick:  # a job's work is so long that ticks fall anywhere
        work = generator.uniform(1.0, 1.0 + profile.tick, (jobs, 1))
        base, head = (np.maximum(np.round(side * work / profile.tick), 1.0) * profile.tick for side in (base, head))
    return Jobs(base, head, second)
