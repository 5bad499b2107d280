"""How often the gate is wrong, simulated: false alarms and power of the paired rule under declared noise.

    python benchmarks/gate_power.py [--jobs 4000] [--seed 1] [--markdown]

Noise of a job, as in the profiles below: log-normal with standard deviation `s`; drift that both sides of a pair share,
a linear trend of N(0, g) at the ends plus an AR(1) with coefficient 0.8 and innovation 0.4 g; spikes with probability
`p`, exponential of mean `m`. The parameters are declared, not measured: `harness calibrate` measures a real runner.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from harness.statistics import ALPHA, look_sizes, wilson
from harness.verdict import Cell, Verdict, judge, margin, needs_more


@dataclass(frozen=True)
class Noise:
    """A runner's noise, relative."""

    s: float
    g: float
    p: float
    m: float


PROFILES = {"ci": Noise(s=0.05, g=0.04, p=0.05, m=0.40), "gpu": Noise(s=0.01, g=0.01, p=0.01, m=0.10)}


@dataclass(frozen=True)
class Rule:
    """A gate: the tolerance, the pairs, and whether it looks at fewer first."""

    profile: str
    tolerance: float
    pairs: int
    sequential: bool = False

    @property
    def looks(self) -> list[tuple[int, float]]:
        """Pairs and error rate of each look."""
        return look_sizes(self.pairs) if self.sequential else [(self.pairs, ALPHA)]


RULES = (
    Rule("gpu", 0.02, 5),
    Rule("gpu", 0.02, 10),
    Rule("ci", 0.05, 10),
    Rule("ci", 0.05, 20),
    Rule("ci", 0.05, 30),
    Rule("ci", 0.10, 10),
    Rule("ci", 0.05, 36, sequential=True),
)


def job(noise: Noise, pairs: int, effect: float, generator: random.Random) -> list[float]:
    """Paired differences of one job: log(head) - log(base), each pair in random order, `effect` added to head."""

    def trials() -> Iterator[float]:
        ends = generator.gauss(0.0, noise.g)
        wander = 0.0
        for index in range(2 * pairs):
            wander = 0.8 * wander + generator.gauss(0.0, 0.4 * noise.g)
            spike = generator.expovariate(1 / noise.m) if generator.random() < noise.p else 0.0
            trend = ends * (2 * index / (2 * pairs - 1) - 1)
            yield trend + wander + generator.gauss(0.0, noise.s) + math.log1p(spike)

    differences = []
    trial = trials()
    for _ in range(pairs):
        first, second = next(trial), next(trial)
        base, head = (first, second) if generator.random() < 0.5 else (second, first)
        differences.append(head + effect - base)
    return differences


def outcome(rule: Rule, differences: list[float]) -> tuple[Verdict, int]:
    """Verdict of a job and the pairs it took, by the code that the gate runs."""
    for n, alpha in rule.looks:
        (judged,) = judged_all = judge(
            [Cell(name="", differences=tuple(differences[:n]), margin=margin(rule.tolerance))], alpha
        )
        if not needs_more(judged_all):
            return judged.verdict, n
    return judged.verdict, n


def rates(rule: Rule, effect: float, jobs: int, seed: int) -> tuple[Counter[Verdict], float]:
    """How often each verdict came, and the mean number of pairs."""
    generator = random.Random(f"{seed}:{rule}:{effect}")
    counts: Counter[Verdict] = Counter()
    used = 0
    for _ in range(jobs):
        verdict, pairs = outcome(rule, job(PROFILES[rule.profile], rule.pairs, effect, generator))
        counts[verdict] += 1
        used += pairs
    return counts, used / jobs


def row(rule: Rule, jobs: int, seed: int) -> list[str]:
    """One line of the table: regressed / pass at no change, at the tolerance and at twice the tolerance."""
    looks = ", ".join(str(n) for n, _ in rule.looks)
    cells = [f"`{rule.profile}`, {rule.tolerance:.0%}, pairs {looks}"]
    for times in (0, 1, 2):
        counts, pairs = rates(rule, times * margin(rule.tolerance), jobs, seed)
        passed = counts[Verdict.PASS] + counts[Verdict.IMPROVED]
        text = f"{counts[Verdict.REGRESSED] / jobs:.1%} / {passed / jobs:.0%}"
        if times == 1:
            text += f" (at most {wilson(counts[Verdict.REGRESSED], jobs)[1]:.1%})"
        if times == 0 and rule.sequential:
            text += f", {pairs:.0f} pairs on average"
        cells.append(text)
    return cells


HEAD = ["regressed / pass, the rest inconclusive", "no change", "effect = tolerance", "twice the tolerance"]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    out = sys.stdout
    out.write("| " + " | ".join(HEAD) + " |\n|---|---|---|---|\n")
    for rule in RULES:
        out.write("| " + " | ".join(row(rule, arguments.jobs, arguments.seed)) + " |\n")
        out.flush()


if __name__ == "__main__":
    main()
