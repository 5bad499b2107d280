"""The command `harness break-even`: whether a draft pays, by the passes that a run measured and what making it took."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from harness import LoadedTrial, UsageError, load
from harness_speculative_decoding.options import DecodingOptions

NANOSECONDS: Final = 1e9


class Line(NamedTuple):
    """A method with a draft beside vanilla decoding of the same target and prompts, in the same way.

    Attributes:
        label: of the point.
        target_s: a target's pass over one token, by vanilla decoding.
        check_s: a target's pass over the proposals of a round; None without `role_energy`.
        draft_s: a draft's pass; None without `role_energy`.
        acceptance: accepted by judged proposals; None where the method does not say.
        tokens_per_round: tokens of an answer by passes of the target.
        needed: tokens a round from which the method is faster, in theory.
        predicted: speed-up that passes and acceptance predict.
        measured: speed-up of a token by the rounds behind the first, whose time holds the reading of the prompt.
        made_cpu_s: processor time that distilling the drafts took; None where one of them was made in another way.
        saved_cpu_s: processor time that an answer takes less than vanilla's; negative where it takes more.
    """

    label: str
    target_s: float
    check_s: float | None
    draft_s: float | None
    acceptance: float | None
    tokens_per_round: float
    needed: float | None
    predicted: float | None
    measured: float
    made_cpu_s: float | None
    saved_cpu_s: float | None

    @property
    def paid_back(self) -> float | None:
        """Answers after which the draft has saved the processor time that it took; None where it never does."""
        if self.made_cpu_s is None or self.saved_cpu_s is None or self.saved_cpu_s <= 0:
            return None
        return self.made_cpu_s / self.saved_cpu_s


@dataclass(frozen=True, slots=True)
class _Sums:
    """Columns and spans of a point's windows, added over its trials."""

    answers: int
    columns: Mapping[str, float]
    spans_s: Mapping[str, float]
    cpu_s: float | None

    def __getitem__(self, name: str) -> float:
        return self.columns[name]

    @property
    def goes_on(self) -> bool:
        """Whether there are rounds behind the first ones."""
        return self.columns.get("target_calls", 0.0) > self.answers

    @property
    def token_s(self) -> float:
        """Mean time of a round behind the first one of an answer, by the tokens of a round; vanilla's has one."""
        calls = self["target_calls"]
        return self["decode_s"] / (calls - self.answers) * calls / self["output_tokens"]


def lines(run: str | Path) -> Iterator[Line]:
    """A line for each point of a kept run that decodes with a draft, and as a point of workload vanilla does.

    Trials that are not valid are left out, and so are points whose answers end with their first round.

    Raises:
        UsageError: the run has no point `vanilla`, none with a draft, or no vanilla like one with a draft.
    """
    vanillas: dict[str, _Sums] = {}
    drafted: list[tuple[str, str, _Sums, float | None]] = []
    for point in load(run).points:
        trials = [trial for trial in point.trials if trial.valid and any(_answers(trial))]
        if not trials or not (sums := _summed(trials)).goes_on:
            continue
        asked = trials[0].record.measurement.point
        if asked["workload"] == "vanilla":
            vanillas.setdefault(_setting(asked), sums)
        elif sums.columns.get("draft_calls"):
            drafted.append((point.label, _setting(asked), sums, _made(trials[0])))
    if not vanillas:
        raise UsageError(f"{run} has no point of workload vanilla", accepted="a run with vanilla and with a draft")
    if not drafted:
        raise UsageError(f"no point of {run} decodes with a draft", accepted="a run with vanilla and with a draft")
    found = [_line(label, own, vanillas[how], made) for label, how, own, made in drafted if how in vanillas]
    if not found:
        raise UsageError(
            f"no point of {run} with a draft decodes as one of workload vanilla does",
            accepted="both with the same target, prompts, backend, and other options that they share",
        )
    yield from found


def _setting(asked: Mapping[str, Any]) -> str:
    """What two points must have in common to be compared: backend, and the options of every decoding workload."""
    shared = {name: asked["options"].get(name) for name in DecodingOptions.model_fields}
    return json.dumps([asked["backend"], shared], sort_keys=True)


def _answers(trial: LoadedTrial) -> Iterator[Mapping[str, Any]]:
    return (row for row in trial.items() if row.get("status") == "ok" and row["window"] >= 0)


def _summed(trials: Sequence[LoadedTrial]) -> _Sums:
    columns: dict[str, float] = {}
    spans: dict[str, float] = {}
    answers = 0
    loads: list[float | None] = []
    for trial in trials:
        for row in _answers(trial):
            answers += 1
            for name in _SUMMED:
                if row.get(name) is not None:
                    columns[name] = columns.get(name, 0.0) + row[name]
            columns["decode_s"] = columns.get("decode_s", 0.0) + row["latency_s"] - row["ttft_s"]
        measurement = trial.record.measurement
        loads += [used.own_s for used in measurement.loads]
        for span in measurement.spans:
            if span.name.startswith("role:") and span.window >= 0:
                spans[span.name] = spans.get(span.name, 0.0) + (span.end_ns - span.start_ns) / NANOSECONDS
    known = [each for each in loads if each is not None]
    return _Sums(answers, columns, spans, math.fsum(known) if known and len(known) == len(loads) else None)


_SUMMED: Final = (
    "output_tokens",
    "ttft_s",
    "rounds",
    "proposed_tokens",
    "judged_tokens",
    "accepted_tokens",
    "target_calls",
    "draft_calls",
    "sft_calls",
    "prefill_calls",
)


def _made(trial: LoadedTrial) -> float | None:
    """Processor time of distilling the drafts that a record names; None where one is not distilled."""
    drafts = [trial.record.measurement.workload.get(name) for name in ("draft", "draft_sft", "draft_aligned")]
    made = [facts.get("distillation") for facts in drafts if isinstance(facts, Mapping)]
    known = [float(each["cpu_s"]) for each in made if each]
    return math.fsum(known) if known and len(known) == len(made) else None


def _line(label: str, own: _Sums, vanilla: _Sums, made_cpu_s: float | None) -> Line:
    target_s = vanilla.token_s
    prefill_s = max(0.0, vanilla["ttft_s"] / vanilla.answers - target_s)
    calls = own["target_calls"]
    check_s: float | None = None
    draft_s: float | None = None
    needed: float | None = None
    predicted: float | None = None
    if "role:target" in own.spans_s and "role:draft" in own.spans_s:
        # The spans hold the reading of the prompts as well: the target's as long as vanilla's, the draft's as a pass.
        check_s = (own.spans_s["role:target"] - own.answers * prefill_s) / calls
        draft_s = own.spans_s["role:draft"] / (own["draft_calls"] + own.answers)
        sft_s = own.spans_s.get("role:sft", 0.0) / calls
        round_s = check_s + own["draft_calls"] / calls * draft_s + sft_s
        needed = round_s / target_s
        predicted = own["output_tokens"] / calls / needed
    cpu_s = None if own.cpu_s is None or vanilla.cpu_s is None else (own.cpu_s, vanilla.cpu_s)
    judged = own.columns.get("judged_tokens")
    return Line(
        label=label,
        target_s=target_s,
        check_s=check_s,
        draft_s=draft_s,
        acceptance=own["accepted_tokens"] / judged if judged else None,
        tokens_per_round=own["output_tokens"] / calls,
        needed=needed,
        predicted=predicted,
        measured=target_s / own.token_s,
        made_cpu_s=made_cpu_s,
        saved_cpu_s=None if cpu_s is None else cpu_s[1] / vanilla.answers - cpu_s[0] / own.answers,
    )


HEADINGS: Final = (
    "method",
    "target pass ms",
    "check pass ms",
    "draft pass ms",
    "acceptance",
    "tokens/round",
    "needed",
    "predicted x",
    "measured x",
    "distilled in CPU s",
    "CPU s saved/answer",
    "answers to pay back",
)


def show(
    run: Annotated[str, typer.Argument(help="Folder or name of a kept run with vanilla and with a draft.")],
) -> None:
    """Prints, for each method with a draft, what its passes take, what it accepts, and whether that pays.

    A round of K proposals costs a target's pass over all of them (`check`) and K passes of the draft. It pays from
    `needed` tokens a round on: round time / time of a target's pass over one token. `predicted` is tokens per round by
    `needed`, `measured` the ratio of the times per token, without the first round of an answer. Pass times need
    `role_energy: true`. The last columns say what distilling took, where every draft was made so, and after how many
    answers that is paid back in processor time, where it ever is. Vanilla is the point with the same target, prompts,
    backend and other shared options; a method without one has no line, and trials that are not valid do not count.
    """
    rows = [_cells(line) for line in lines(run)]
    widths = [max(len(row[column]) for row in (HEADINGS, *rows)) for column in range(len(HEADINGS))]
    for row in (HEADINGS, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(line: Line) -> Sequence[str]:
    never = line.made_cpu_s is not None and line.saved_cpu_s is not None and line.saved_cpu_s <= 0
    return (
        line.label,
        _cell(line.target_s, ".1f", 1e3),
        _cell(line.check_s, ".1f", 1e3),
        _cell(line.draft_s, ".2f", 1e3),
        _cell(line.acceptance, ".2f"),
        _cell(line.tokens_per_round, ".2f"),
        _cell(line.needed, ".2f"),
        _cell(line.predicted, ".2f"),
        _cell(line.measured, ".2f"),
        _cell(line.made_cpu_s, ".0f"),
        _cell(line.saved_cpu_s, ".3g"),
        "never" if never else _cell(line.paid_back, ".0f"),
    )


def _cell(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else format(value * factor, form)
