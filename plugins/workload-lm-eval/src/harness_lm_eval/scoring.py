"""Scores answers by a task's own filters and metrics, document by document, after the windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from harness.errors import MeasurementError, UsageError, did_you_mean
from harness_lm_eval.columns import METRICS
from harness_lm_eval.documents import Answered

Scores = dict[tuple[str, str], Any]
"""(metric, filter) -> what lm-eval's `process_results` gave for one document: a number, or parts of an aggregate."""
PREFERRED: Final = ("acc", "exact_match")
"""Metrics that count as a correct answer where the suite names none, in this order."""


def score(task: Any, answered: Sequence[Answered]) -> list[Scores]:
    """The metrics of each answered document, as lm-eval works them out.

    Args:
        task: lm-eval's task, that all the documents are of.
        answered: without a fault.

    Raises:
        MeasurementError: the task's own code failed.
    """
    if not answered:
        return []
    task.instances[:] = [instance for each in answered for instance in each.instances]
    try:
        task.apply_filters()
        return [_of_document(task, each) for each in answered]
    except Exception as error:
        told = f"task {task.task_name} does not score its answers: {type(error).__name__}: {error}"
        raise MeasurementError(told, where="tasks") from error


def _of_document(task: Any, answered: Answered) -> Scores:
    found: Scores = {}
    for name in answered.instances[0].filtered_resps:
        results = [instance.filtered_resps[name] for instance in answered.instances]
        metrics = task.process_results(answered.document.instances[0].doc, results)
        found |= {(str(metric), str(name)): value for metric, value in metrics.items()}
    return found


def number(value: object) -> float | None:
    """A metric of one document as a number; None where it is a part of an aggregate, such as a pair, or not finite."""
    if isinstance(value, str):
        return None  # an answer that looks like a number is a text all the same
    try:
        found = float(value)  # type: ignore[arg-type] # NumPy's numbers among them
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def choose(scores: Scores, wanted: str, task: str) -> tuple[str, str] | None:
    """The metric and filter that count as a correct answer.

    Args:
        scores: of one document of the task.
        wanted: `metric`, `metric,filter`, or empty for `acc`, else `exact_match`.
        task: its name.

    Returns:
        None where none was named and the task has neither.

    Raises:
        UsageError: the task has no such metric, or it is no number of one document.
    """
    metric, _, name = wanted.partition(",")
    single = [key for key, value in scores.items() if number(value) is not None]
    if not wanted:
        return next((key for preferred in PREFERRED for key in single if key[0] == preferred), None)
    fitting = [key for key in single if key[0] == metric and name in {"", key[1]}]
    if fitting:
        return fitting[0]
    known = list(dict.fromkeys([*(each for each, _ in single), *(",".join(key) for key in single)]))
    what = "is no number of one document" if any(key[0] == metric for key in scores) else "is none of its metrics"
    raise UsageError(
        f"task {task}: {wanted} {what}",
        where="metric",
        accepted=", ".join(known) or "no metric of this task is: leave it empty",
        hint=did_you_mean(wanted, known),
    )


def columns_of(scores: Scores, chosen: tuple[str, str] | None) -> dict[str, float | None]:
    """`correct`, and each metric that has a column; of several filters the chosen metric's, else the first."""
    order = sorted(scores, key=lambda key: chosen is None or key[1] != chosen[1])
    found: dict[str, float | None] = {}
    for key in order:
        if key[0] in METRICS and key[0] not in found and (value := number(scores[key])) is not None:
            found[key[0]] = value
    if chosen is not None:
        found["correct"] = number(scores.get(chosen))
    likelihood = next((value for key, value in scores.items() if key[0] == "perplexity"), None)
    if (value := number(likelihood)) is not None:
        found["logprob"] = value
    for name, column in (("word_perplexity", "words"), ("byte_perplexity", "bytes"), ("bits_per_byte", "bytes")):
        pair = next((value for key, value in scores.items() if key[0] == name), None)
        if isinstance(pair, tuple) and len(pair) == 2:
            found["logprob"], found[column] = number(pair[0]), number(pair[1])
    return found


def aggregates(task: Any, scores: Iterable[Scores]) -> dict[str, float | None]:
    """lm-eval's own aggregation over documents, by `metric,filter` as its results name them."""
    values: dict[tuple[str, str], list[Any]] = {}
    for each in scores:
        for key, value in each.items():
            values.setdefault(key, []).append(value)
    known: Mapping[str, Any] = task.aggregation()
    found: dict[str, float | None] = {}
    for (metric, name), listed in values.items():
        function = known.get(metric)
        found[f"{metric},{name}"] = number(function(listed)) if function is not None else _mean(listed)
    return found


def _mean(values: Sequence[Any]) -> float | None:
    """What lm-eval does with a metric that has no aggregation."""
    numbers = [each for value in values if (each := number(value)) is not None]
    return math.fsum(numbers) / len(numbers) if len(numbers) == len(values) and numbers else None


def plain(value: object) -> object:
    """A metric as a JSON value."""
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    found = number(value)
    return found if found is not None else str(value)
