"""How often the gate is wrong, simulated: false alarms, marks and power under declared noise.

    python benchmarks/gate_power.py [--jobs 4000] [--seed 1] [--docs docs/gate.md]

Every simulated job (`gate_profiles`) is judged by what `harness.gating` decides by; what a job needs most of (Walsh
averages, the triples test, Kendall's test) is computed for many jobs at once with numpy, and a test holds it against
the gate's own code job by job.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from gate_profiles import PROFILES, Jobs, simulate

from harness.gating.bounds import ASYMMETRY_LEVEL, EARLY_FACTOR, LEAN_LEVEL, TREND_LEVEL
from harness.gating.verdict import ORDER_ALPHA, margin
from harness.quantity import SLACK
from harness.statistics.assumptions import concordance_tail, sign_tail, step, student_above
from harness.statistics.paired import ALPHA, look_sizes, signed_rank_tail, wilson
from harness.statistics.unpaired import bound_rank

Array = Any

# The gate's rule, for many jobs at once


@functools.cache
def _triples(n: int) -> tuple[Array, Array]:
    """All triples of sorted places, and for each two places the triples that hold both."""
    triples = np.array(list(combinations(range(n), 3)))
    holding: dict[tuple[int, int], list[int]] = {pair: [] for pair in combinations(range(n), 2)}
    for index, (i, j, k) in enumerate(triples.tolist()):
        for pair in ((i, j), (i, k), (j, k)):
            holding[pair].append(index)
    return triples, np.array(list(holding.values()))


def asymmetry(differences: Array) -> tuple[Array, Array]:
    """Lean and p-value of each job, as `harness.statistics.assumptions.asymmetry`."""
    jobs, n = differences.shape
    triples, holding = _triples(n)
    pairs = np.array(list(combinations(range(n), 2)))
    leans, p_values = [], []
    for start in range(0, jobs, 500):
        values = np.sort(differences[start : start + 500], axis=1)
        balance = values[:, triples[:, 0]] + values[:, triples[:, 2]] - 2 * values[:, triples[:, 1]]
        sign = np.where(np.abs(balance) <= SLACK, 0, np.sign(balance)).astype(np.int8)
        by_pair = np.stack([sign[:, each].sum(axis=1, dtype=np.int32) for each in holding], axis=1) / 3
        lean = sign.mean(axis=1) / 3
        each = np.stack([by_pair[:, (pairs == i).any(axis=1)].sum(axis=1) for i in range(n)], axis=1)
        first = ((each / 2 / math.comb(n - 1, 2) - lean[:, None]) ** 2).mean(axis=1)
        second = ((by_pair / (n - 2) - lean[:, None]) ** 2).mean(axis=1)
        variance = (3 * math.comb(n - 3, 2) * first + 3 * (n - 3) * second + 1 / 9 - lean**2) / math.comb(n, 3)
        t = np.abs(lean) / np.sqrt(np.maximum(variance, 1e-300))
        p_values += [min(1.0, 2 * student_above(x, n // 2)) if v > 0 else 1.0 for x, v in zip(t, variance, strict=True)]
        leans += lean.tolist()
    return np.array(leans), np.array(p_values)


def trend(differences: Array) -> Array:
    """p-value of each job, as `harness.statistics.assumptions.p_trend`."""
    n = differences.shape[1]
    i, j = np.triu_indices(n, 1)
    rise = differences[:, j] - differences[:, i]
    balance = np.abs((rise > SLACK).sum(axis=1) - (rise < -SLACK).sum(axis=1))
    most = n * (n - 1) // 2
    return np.minimum(1.0, 2 * np.array(concordance_tail(n))[(most - balance) // 2 + (most - balance) % 2])


def line(differences: Array, at: float, allowed: Array) -> Array:
    """p-value of each job, as `harness.statistics.assumptions.line`."""
    n = differences.shape[1]
    x = np.arange(n) - (n - 1) / 2
    squares, away = (x * x).sum(), at - (n - 1) / 2
    mean, slope = differences.mean(axis=1), differences @ x / squares
    residual = ((differences - mean[:, None] - slope[:, None] * x) ** 2).sum(axis=1) / (n - 2)
    error = np.sqrt(residual * (1 / n + away * away / squares))
    t = (mean + slope * away - allowed) / np.maximum(error, 1e-300)
    return np.array([student_above(each, n - 2) for each in t])


def steps(jobs: Jobs) -> Array:
    """The step of each job's values on the logarithmic scale; 0 where no two values of a side are the same."""
    values = np.sort(np.concatenate([jobs.base, jobs.head], axis=1), axis=1)
    tied = [bool(np.isclose(np.diff(np.sort(side, axis=1)), 0, atol=SLACK).any()) for side in (jobs.base, jobs.head)]
    if not any(tied):
        return np.zeros(len(values))
    return np.array([math.log1p(step(row.tolist())) for row in values])


@dataclass(frozen=True)
class Marks:
    """Of each job: its step, and p-values of the tests of what the gate assumes."""

    step: Array
    lean: Array
    asymmetry: Array
    trend: Array

    @property
    def marked(self) -> Array:
        """Whether an assumption is said to have failed."""
        return (self.asymmetry <= ASYMMETRY_LEVEL) | (self.trend <= TREND_LEVEL)


def p_worse(differences: Array, allowed: Array, marks: Marks, sign: int, planned: int) -> Array:
    """p-value of "at most what is allowed", as `harness.gating.bounds`; `sign` -1 for the other side's."""
    n = differences.shape[1]
    i, j = np.triu_indices(n)
    above = allowed[:, None]
    found = np.array(signed_rank_tail(n))[((differences[:, i] + differences[:, j]) / 2 <= above).sum(axis=1)]
    leans = (marks.asymmetry <= 2 * LEAN_LEVEL) & (sign * marks.lean > 0) | (marks.asymmetry <= ASYMMETRY_LEVEL)
    median = np.array(sign_tail(n))[(differences <= above).sum(axis=1)]
    found = np.where(leans, np.maximum(found, median), found)
    halves = np.maximum(line(differences, 0.25 * (n - 1), allowed), line(differences, 0.75 * (n - 1), allowed))
    found = np.where(marks.trend <= TREND_LEVEL, np.maximum(found, halves), found)
    if n < planned:
        found = np.maximum(found, line(differences, (planned - 1) / 2, allowed) / EARLY_FACTOR)
    return found


@dataclass(frozen=True)
class Outcome:
    """How the jobs of a cell ended, as shares, and the pairs they took on average."""

    regressed: float
    passed: float
    marked: float
    disturbed: float
    pairs: float


def order_matters(jobs: Jobs, tolerance: float) -> Array:
    """Whether each job is invalid for its order, as `harness.gating.verdict.order_matters`."""
    found = []
    for differences, second in zip(jobs.differences, jobs.head_second, strict=True):
        last, first = differences[second], differences[~second]
        k = bound_rank(len(first), len(last), ORDER_ALPHA) if len(first) and len(last) else 0
        shifts = np.sort((last[:, None] - first[None, :]).ravel()) / 2
        found.append(k > 0 and max(math.expm1(shifts[k - 1]), -math.expm1(shifts[-k])) > tolerance + SLACK)
    return np.array(found)


def outcome(jobs: Jobs, tolerance: float, looks: Sequence[tuple[int, float]], *, alone: bool = False) -> Outcome:
    """Judges simulated jobs.

    Args:
        jobs: to be judged.
        tolerance: relative.
        looks: pairs and error rate of each interim analysis.
        alone: by the signed-rank test alone, whatever it assumes.
    """
    count, planned = jobs.base.shape[0], looks[-1][0]
    verdict, used = np.zeros(count, int), np.full(count, planned)
    marked, open_ = np.zeros(count, bool), np.ones(count, bool)
    for n, alpha in looks:
        rows = np.flatnonzero(open_)
        here = jobs.first(n, rows)
        d = here.differences
        none = np.ones(len(rows))
        marks = Marks(0 * none, 0 * none, none, none)
        if not alone:
            marks = Marks(steps(here), *asymmetry(d), trend(d))
        allowed = margin(tolerance) + SLACK
        until = n if alone else planned
        worse = p_worse(d, allowed + marks.step, marks, 1, until) <= alpha
        kept = p_worse(-d, marks.step - allowed, marks, -1, until) <= alpha
        if not alone:
            constant = d.max(axis=1) - d.min(axis=1) <= SLACK
            worse = np.where(constant, d[:, 0] > allowed, worse)
            kept = np.where(constant, d.max(axis=1) <= allowed, kept)
        verdict[rows] = np.where(worse, 1, np.where(kept, -1, 0))
        marked[rows] = marks.marked
        used[rows] = n
        open_[rows] = verdict[rows] == 0
        if not open_.any():
            break
    disturbed = np.zeros(count, bool)
    for n in [] if alone else np.unique(used):
        rows = np.flatnonzero(used == n)
        disturbed[rows] = order_matters(jobs.first(int(n), rows), tolerance)
    verdict[disturbed] = 0
    return Outcome(
        float((verdict == 1).mean()),
        float((verdict == -1).mean()),
        float(marked.mean()),
        float(disturbed.mean()),
        float(used.mean()),
    )


def cell(name: str, pairs: int, times: float, jobs: int, seed: int, *, alone: bool = False) -> Outcome:
    """Jobs of a profile at so many times the tolerance, judged as the gate does with `--pairs`."""
    profile = PROFILES[name]
    simulated = simulate(name, jobs, pairs, times * margin(profile.tolerance), seed)
    return outcome(simulated, profile.tolerance, look_sizes(pairs), alone=alone)


# The table of the guide

SIZES = (12, 24, 36)
RULES = (("gpu", 5), ("gpu", 10), ("ci", 10), ("ci", 20), ("ci", 30))
"""Profiles with pairs that are analysed once, without interim analyses."""
BEGIN, END = "<!-- from benchmarks/gate_power.py -->\n", "<!-- end -->"
CHECKED = 60
"""Jobs a cell behind the digest."""


def once(name: str, pairs: int, times: float, jobs: int, seed: int) -> Outcome:
    """Jobs that are analysed once, after all pairs."""
    profile = PROFILES[name]
    simulated = simulate(name, jobs, pairs, times * margin(profile.tolerance), seed)
    return outcome(simulated, profile.tolerance, [(pairs, ALPHA)])


def stored_alarms(profile: str, hosts: float, alert: float, jobs: int, seed: int) -> int:
    """Jobs without a change in which one run exceeds a stored one of another job by `alert`.

    Args:
        profile: noise of a trial.
        hosts: standard deviation of the host's own factor, which differs from job to job.
        alert: relative.
        jobs: how many.
        seed: of the generator.
    """
    generator = np.random.default_rng([seed, *profile.encode()])
    # the last of ten trials: by then the drift within a job is what it stays
    runs = [PROFILES[profile].sample(generator, jobs, 10)[:, -1] + generator.normal(0, hosts, jobs) for _ in range(2)]
    return int((runs[0] - runs[1] > math.log1p(alert)).sum())


def stored(jobs: int, seed: int) -> str:
    """What a stored baseline is worth, in a sentence."""
    shared, dedicated = (stored_alarms(*of, jobs, seed) / jobs for of in (("ci", 0.15, 0.10), ("gpu", 0.01, 0.10)))
    return (
        f"One run against one stored run, alert at +10 %, nothing changed: {shared:.0%} false alarms on `ci` with "
        f"hosts that differ by 15 %, {dedicated:.1%} on `gpu` with 1 %."
    )


def alarms(found: Outcome, jobs: int) -> str:
    """How often the build failed, with the upper end of its 95 % Wilson interval."""
    return f"{found.regressed:.1%} (at most {wilson(round(found.regressed * jobs), jobs)[1]:.1%})"


def marked_row(name: str, sizes: Sequence[int], jobs: int, seed: int) -> list[str]:
    """A profile at the tolerance: how often the build fails, also by the signed-rank test alone, and is marked."""
    row = [f"{name}{'' if PROFILES[name].clean else ' *'}"]
    for pairs in sizes:
        ours, alone = cell(name, pairs, 1, jobs, seed), cell(name, pairs, 1, jobs, seed, alone=True)
        invalid = f", invalid {ours.disturbed:.0%}" if ours.disturbed >= 0.005 else ""
        row.append(f"{alarms(ours, jobs)}; alone {alone.regressed:.1%}; marked {ours.marked:.1%}{invalid}")
    return row


def power_row(name: str, sizes: Sequence[int], jobs: int, seed: int) -> list[str]:
    """A clean profile without a change and at twice the tolerance."""
    row = [f"{name}, {PROFILES[name].tolerance:.0%}"]
    for pairs in sizes:
        none, twice = cell(name, pairs, 0, jobs, seed), cell(name, pairs, 2, jobs, seed)
        alone = cell(name, pairs, 2, jobs, seed, alone=True)
        row.append(
            f"{twice.regressed:.1%} found; alone {alone.regressed:.1%}; unchanged: {none.passed:.0%} pass, "
            f"{none.regressed:.1%} fail, {none.pairs:.0f} pairs"
        )
    return row


def once_row(name: str, pairs: int, jobs: int, seed: int) -> list[str]:
    """A number of pairs that is analysed once: failed and passed without a change, at the tolerance, at twice it."""
    found = [once(name, pairs, times, jobs, seed) for times in (0, 1, 2)]
    return [
        f"`{name}`, {PROFILES[name].tolerance:.0%}, pairs {pairs}",
        *(f"{each.regressed:.1%} / {each.passed:.0%}" for each in found),
    ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of them the head, as a Markdown table."""
    lined = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lined)


def digest() -> str:
    """What the rule says of a few jobs of every profile: another one means that the tables are stale."""
    found = [
        (name, pairs, round(CHECKED * each.regressed), round(CHECKED * each.passed), round(CHECKED * each.marked))
        for name in PROFILES
        for pairs in SIZES
        for each in (cell(name, pairs, 1, CHECKED, 0),)
    ]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def tables(jobs: int, seed: int) -> str:
    """All of what the guide says of error rates."""
    heads = [f"{pairs} pairs" for pairs in SIZES]
    clean = [name for name, profile in PROFILES.items() if profile.clean]
    return (
        "At an effect equal to the tolerance the build fails in\n\n"
        + markdown([["profile", *heads], *(marked_row(name, SIZES, jobs, seed) for name in PROFILES)])
        + "\nAt twice the tolerance, and without a change\n\n"
        + markdown([["profile", *heads], *(power_row(name, SIZES, jobs, seed) for name in clean)])
        + "\nAnalysed once, fails / passes, the rest inconclusive\n\n"
        + markdown(
            [
                ["", "no change", "effect = tolerance", "twice the tolerance"],
                *(once_row(*rule, jobs, seed) for rule in RULES),
            ]
        )
        + f"\n{jobs} simulated jobs a cell, seed {seed}, digest `{digest()}`. {stored(jobs, seed)}\n"
    )


def main() -> None:
    """Prints the tables, or writes them between their marks in a document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--docs", type=Path, help="document that holds the tables between two marks")
    arguments = parser.parse_args()
    made = tables(arguments.jobs, arguments.seed)
    if arguments.docs is None:
        sys.stdout.write(made)
        return
    before, mark, rest = arguments.docs.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        parser.error(f"{arguments.docs} has no marks for the tables")
    arguments.docs.write_text(before + mark + made + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
