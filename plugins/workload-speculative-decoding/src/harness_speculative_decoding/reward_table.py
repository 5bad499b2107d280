"""The command `harness rewards`: methods beside each other by the reward of their answers and by what that cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from harness import Amount, LoadedTrial, Method, UsageError, load
from harness.quantity import total

GOOD: Final = "good_answer"
"""Functional unit of a suite whose rewards are 0 or 1: `{sum: items, where: {reward: ">= 1"}}`."""


class Line(NamedTuple):
    """A method's valid trials together.

    Attributes:
        label: of the point.
        answers: how many.
        reward: their mean reward.
        error: standard error of the mean, where all rewards are 0 or 1.
        predicted: share of good answers that the models' own answers predict for the method; the mean where the models
            were not the same in all trials.
        odds: what it was predicted from: the target's odds of a courteous answer, the drafts' after and before
            alignment, and their product for the tilted target.
        target_calls: passes of the target for an answer.
        cpu_s: processor time of the work's processes in the windows, for an answer.
        cpu_s_per_good: the same for a good answer.
        energy_j_per_good: joules for a good answer, with their method.
        invalid: trials with answers that were scored and are not counted, as their record calls them not valid.
    """

    label: str
    answers: int
    reward: float
    error: float | None
    predicted: float | None
    odds: str | None
    target_calls: float | None
    cpu_s: float | None
    cpu_s_per_good: float | None
    energy_j_per_good: str
    invalid: int


def lines(run: str | Path) -> Iterator[Line]:
    """A line for each point of a kept run with a valid trial whose answers were scored.

    Raises:
        UsageError: there is none.
    """
    found, invalid = False, 0
    for point in load(run).points:
        scored = [trial for trial in point.trials if _mean(trial) is not None and any(_answers(trial))]
        valid = [trial for trial in scored if trial.valid]
        invalid += len(scored) - len(valid)
        if valid:
            found = True
            yield _line(point.label, valid, invalid=len(scored) - len(valid))
    if not found:
        why = f": {_not_valid(invalid)}" if invalid else ""
        raise UsageError(f"no answer of {run} counts{why}", accepted="a run of a suite with scorer `reward`")


def _mean(trial: LoadedTrial) -> float | None:
    """Of the rewards of a trial's answers, which are kept with its record and not with its items."""
    mean = trial.record.columns.get("reward", {}).get("mean")
    return mean.value if isinstance(mean, Amount) else None


def _answers(trial: LoadedTrial) -> Iterator[Mapping[str, Any]]:
    return (row for row in trial.items() if row.get("status") == "ok" and row["window"] >= 0)


def _line(label: str, trials: list[LoadedTrial], *, invalid: int) -> Line:
    rows = [list(_answers(trial)) for trial in trials]
    answers = sum(map(len, rows))
    reward = math.fsum((_mean(trial) or 0.0) * len(own) for trial, own in zip(trials, rows, strict=True)) / answers
    good = _good(trials)
    calls = [row["target_calls"] for own in rows for row in own if row.get("target_calls") is not None]
    loads = [used.own_s for trial in trials for used in trial.record.measurement.loads]
    cpu_s = None if not loads or None in loads else sum(used for used in loads if used is not None)
    guess = _predicted(trials, [len(own) for own in rows])
    return Line(
        label=label,
        answers=answers,
        reward=reward,
        error=_error(reward, answers) if good is not None and math.isclose(good, reward * answers) else None,
        predicted=guess["answered"] if guess else None,
        odds=_product(guess) if guess else None,
        target_calls=sum(calls) / answers if calls else None,
        cpu_s=None if cpu_s is None else cpu_s / answers,
        cpu_s_per_good=cpu_s / good if cpu_s is not None and good else None,
        energy_j_per_good=_energy(trials, good),
        invalid=invalid,
    )


_ODDS: Final = ("target_odds", "aligned_odds", "sft_odds", "odds")


def _predicted(trials: list[LoadedTrial], answers: list[int]) -> dict[str, float] | None:
    """Mean prediction of the trials, each with the weight of its answers; None where one of them has none."""
    guesses: list[Any] = [trial.record.measurement.workload.get("predicted") for trial in trials]
    if not all(guesses):
        return None
    return {
        key: math.fsum(guess[key] * own for guess, own in zip(guesses, answers, strict=True)) / sum(answers)
        for key in ("answered", *_ODDS)
    }


def _product(guess: Mapping[str, float]) -> str:
    """The odds of the tilted target as a product of three."""
    target, aligned, sft, product = (f"{guess[key]:.3g}" for key in _ODDS)
    return f"{target} x {aligned} / {sft} = {product}"


def _good(trials: list[LoadedTrial]) -> float | None:
    """Good answers of all trials; None where one of them does not know its own."""
    counted = [trial.record.units[GOOD].count.achieved if GOOD in trial.record.units else None for trial in trials]
    known = [each for each in counted if isinstance(each, float)]
    return math.fsum(known) if len(known) == len(counted) else None


def _error(share: float, answers: int) -> float | None:
    """Standard error of a share; None where all answers are alike, which tells nothing of how sure the share is."""
    return math.sqrt(share * (1 - share) / answers) if 0 < share < 1 else None


def _energy(trials: list[LoadedTrial], good: float | None) -> str:
    amounts = [trial.readings.get("energy_j") for trial in trials]
    known = [amount for amount in amounts if isinstance(amount, Amount)]
    if not good or len(known) != len(amounts):
        return "-"
    whole = total(known).times(1 / good, "J", method=Method.MEASURED)
    return f"{whole.value:.3g} ({whole.label})"


HEADINGS: Final = (
    "method",
    "answers",
    "reward",
    "± s.e.",
    "predicted",
    "odds: target x aligned / SFT",
    "target calls",
    "CPU s",
    "CPU s / good",
    "J / good",
)


def show(
    run: Annotated[str, typer.Argument(help="Folder or name of a kept run of a suite with scorer `reward`.")],
) -> None:
    """Prints, for each method of a run, the mean reward of its answers, what was predicted, and its cost.

    `predicted` is the share of good answers that follows from what the three models answer by themselves. The tilted
    target's odds of a courteous answer are target odds x aligned odds / SFT odds; mode `exact` and the ensemble should
    reach them, and for another mode its law of one token is worked out. It is known of the built-in models of
    `suites/sss.yaml`.
    """
    found = list(lines(run))
    rows = [
        (
            line.label,
            str(line.answers),
            f"{line.reward:.3f}",
            _cell(line.error, ".3f"),
            _cell(line.predicted, ".2f"),
            line.odds or "-",
            _cell(line.target_calls, ".1f"),
            _cell(line.cpu_s, ".3g"),
            _cell(line.cpu_s_per_good, ".3g"),
            line.energy_j_per_good,
        )
        for line in found
    ]
    widths = [max(len(row[column]) for row in (HEADINGS, *rows)) for column in range(len(HEADINGS))]
    for row in (HEADINGS, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for line in found:
        if line.invalid:
            typer.echo(f"{line.label}: {_not_valid(line.invalid)}, left out")


def _not_valid(trials: int) -> str:
    return f"{trials} trial{'s' * (trials != 1)} not valid"


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
