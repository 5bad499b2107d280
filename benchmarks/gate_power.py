"""How often the gate is wrong, simulated: false alarms and power of the paired rule under declared noise.

    python benchmarks/gate_power.py [--jobs 4000] [--seed 1] [--write docs/gate.md]

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
from pathlib import Path

from harness.gating.verdict import Cell, CellKey, Verdict, judge, margin, needs_more
from harness.statistics.paired import ALPHA, look_sizes, wilson


@dataclass(frozen=True)
class Noise:
    """A runner's noise, relative."""

    s: float
    g: float
    p: float
    m: float


KEY = CellKey("", "simulated", "cost")
PROFILES = {"ci": Noise(s=0.05, g=0.04, p=0.05, m=0.40), "gpu": Noise(s=0.01, g=0.01, p=0.01, m=0.10)}


@dataclass(frozen=True)
class Rule:
    """A gate: the tolerance, the pairs, and whether it analyses fewer first."""

    profile: str
    tolerance: float
    pairs: int
    sequential: bool = False

    @property
    def looks(self) -> list[tuple[int, float]]:
        """Pairs and error rate of each interim analysis."""
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
        cell = Cell(key=KEY, differences=tuple(differences[:n]), margin=margin(rule.tolerance))
        (judged,) = judged_all = judge([cell], alpha)
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


def stored_alarms(profile: str, hosts: float, alert: float, jobs: int, seed: int) -> int:
    """Jobs without a change in which one run exceeds a stored one of another job by `alert`.

    Args:
        profile: noise of a trial.
        hosts: standard deviation of the host's own factor, which differs from job to job.
        alert: relative.
        jobs: how many.
        seed: of the generator.
    """
    generator = random.Random(f"stored:{seed}:{profile}")
    noise = PROFILES[profile]

    def run() -> float:
        drift = generator.gauss(0.0, noise.g) + generator.gauss(0.0, 0.4 * noise.g / math.sqrt(1 - 0.8**2))
        spike = generator.expovariate(1 / noise.m) if generator.random() < noise.p else 0.0
        return generator.gauss(0.0, hosts) + drift + generator.gauss(0.0, noise.s) + math.log1p(spike)

    return sum(run() - run() > math.log1p(alert) for _ in range(jobs))


def stored(jobs: int, seed: int) -> str:
    """What a stored baseline is worth, in a sentence."""
    shared, dedicated = (stored_alarms(*of, jobs, seed) / jobs for of in (("ci", 0.15, 0.10), ("gpu", 0.01, 0.10)))
    return (
        f"One run against one stored run, alert at +10 %, nothing changed: {shared:.0%} false alarms on `ci` with "
        f"hosts that differ by 15 %, {dedicated:.1%} on `gpu` with 1 %."
    )


HEAD = ["regressed / pass, the rest inconclusive", "no change", "effect = tolerance", "twice the tolerance"]
BEGIN, END = "<!-- from benchmarks/gate_power.py -->\n", "<!-- end -->"


def table(jobs: int, seed: int) -> str:
    """All rules as a Markdown table."""
    rows = [HEAD, ["---"] * len(HEAD), *(row(rule, jobs, seed) for rule in RULES)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in rows)


def main() -> None:
    """Prints the table, or writes it between its marks in a document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path, help="document that holds the table between two marks")
    arguments = parser.parse_args()
    made = f"{table(arguments.jobs, arguments.seed)}\n{arguments.jobs} simulated jobs for each entry, "
    made += f"seed {arguments.seed}. "
    made += stored(arguments.jobs, arguments.seed) + "\n"
    if arguments.write is None:
        sys.stdout.write(made)
        return
    before, mark, rest = arguments.write.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        parser.error(f"{arguments.write} has no marks for the table")
    arguments.write.write_text(before + mark + made + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
