"""The command `harness rewards`: methods beside each other by the reward of their answers and by what that cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from harness import Amount, LoadedTrial, UsageError, load

GOOD: Final = "good_answer"
"""Functional unit of a suite whose rewards are 0 or 1: `{sum: items, where: {reward: ">= 1"}}`."""


class Line(NamedTuple):
    """A method's trials together.

    Attributes:
        label: of the point.
        answers: how many.
        reward: their mean reward.
        error: standard error of the mean, where all rewards are 0 or 1.
        predicted: share of good answers that the models' own answers predict for the tilted target.
        target_calls: passes of the target for an answer.
        cpu_s: processor time of the work's processes in the windows, for an answer.
        cpu_s_per_good: the same for a good answer.
        energy_j_per_good: joules for a good answer, with their method.
    """

    label: str
    answers: int
    reward: float
    error: float | None
    predicted: float | None
    target_calls: float | None
    cpu_s: float | None
    cpu_s_per_good: float | None
    energy_j_per_good: str


def lines(run: str | Path) -> Iterator[Line]:
    """A line for each point of a kept run whose answers were scored.

    Raises:
        UsageError: no answer was.
    """
    found = False
    for point in load(run).points:
        trials = [trial for trial in point.trials if "reward" in trial.record.columns]
        if trials:
            found = True
            yield _line(point.label, trials)
    if not found:
        raise UsageError(f"no answer of {run} has a reward", accepted="a run of a suite with scorer `reward`")


def _line(label: str, trials: list[LoadedTrial]) -> Line:
    rows = [row for trial in trials for row in trial.items() if row.get("status") == "ok" and row["window"] >= 0]
    counts = [sum(1 for row in trial.items() if row.get("status") == "ok" and row["window"] >= 0) for trial in trials]
    answers = len(rows)
    means = [_number(trial.record.columns["reward"]["mean"]) or 0.0 for trial in trials]
    reward = sum(mean * count for mean, count in zip(means, counts, strict=True)) / answers
    good = [trial.record.units[GOOD] for trial in trials if GOOD in trial.record.units]
    counted = [unit.count.achieved for unit in good]
    achieved = sum(each for each in counted if isinstance(each, float)) if counted else None
    calls = [row["target_calls"] for row in rows if row.get("target_calls") is not None]
    loads = [used.own_s for trial in trials for used in trial.record.measurement.loads]
    cpu_s = None if not loads or None in loads else sum(used for used in loads if used is not None)
    guess = trials[0].record.measurement.workload.get("predicted")
    return Line(
        label=label,
        answers=answers,
        reward=reward,
        error=_error(reward, answers) if achieved is not None and math.isclose(achieved, reward * answers) else None,
        predicted=guess["answered"] if guess else None,
        target_calls=sum(calls) / answers if calls else None,
        cpu_s=None if cpu_s is None else cpu_s / answers,
        cpu_s_per_good=cpu_s / achieved if cpu_s is not None and achieved else None,
        energy_j_per_good=_energy(trials, achieved),
    )


def _error(share: float, answers: int) -> float:
    return math.sqrt(share * (1 - share) / answers)


def _energy(trials: list[LoadedTrial], achieved: float | None) -> str:
    amounts = [trial.readings.get("energy_j") for trial in trials]
    known = [amount for amount in amounts if isinstance(amount, Amount)]
    if not achieved or len(known) != len(amounts):
        return "-"
    return f"{sum(amount.value for amount in known) / achieved:.3g} ({known[0].label})"


def _number(value: object) -> float | None:
    return value.value if isinstance(value, Amount) else None


HEADINGS: Final = (
    "method",
    "answers",
    "reward",
    "± s.e.",
    "predicted",
    "target calls",
    "CPU s",
    "CPU s / good",
    "J / good",
)


def show(
    run: Annotated[str, typer.Argument(help="Folder or name of a kept run of a suite with scorer `reward`.")],
) -> None:
    """Prints, for each method of a run, the mean reward of its answers, what was predicted, and its cost.

    `predicted` is the share of good answers that follows from what the three models answer by themselves: target odds x
    aligned odds / SFT odds. It is known of the built-in models of `suites/sss.yaml`.
    """
    rows = [
        (
            line.label,
            str(line.answers),
            f"{line.reward:.3f}",
            _cell(line.error, ".3f"),
            _cell(line.predicted, ".2f"),
            _cell(line.target_calls, ".1f"),
            _cell(line.cpu_s, ".3g"),
            _cell(line.cpu_s_per_good, ".3g"),
            line.energy_j_per_good,
        )
        for line in lines(run)
    ]
    widths = [max(len(row[column]) for row in (HEADINGS, *rows)) for column in range(len(HEADINGS))]
    for row in (HEADINGS, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
