"""The columns and functional units of the workload; an item is a document of a task."""

from __future__ import annotations

from typing import Final

from harness import Column, FunctionalUnit

METRICS: Final = {
    "acc": "1 where the most likely choice is the right one, or the target is what the model would say; else 0",
    "acc_norm": "as acc, with each choice's log-likelihood divided by its characters",
    "acc_bytes": "as acc, with each choice's log-likelihood divided by its bytes",
    "acc_mutual_info": "as acc, less each choice's log-likelihood without the question",
    "exact_match": "1 where the answer is the target, after the task's filters; else 0",
    "f1": "F1 score of the answer, where the task gives one for each document",
    "em": "1 where the answer is the target, where the task calls it so; else 0",
}
"""Metrics of lm-eval that are one number a document and have a column of their own."""

COLUMNS: Final = (
    Column("correct", "1", "the metric that counts as a correct answer: 1 or 0, or a part", higher_is_better=True),
    *(Column(name, "1", f"lm-eval's {name}: {meaning}", higher_is_better=True) for name, meaning in METRICS.items()),
    Column("logprob", "1", "log-likelihood of the target or of the whole document, in nats", higher_is_better=True),
    Column("words", "1", "words of a document whose perplexity is measured"),
    Column("bytes", "1", "bytes of a document whose perplexity is measured"),
    Column("requests", "1", "requests that the document took: one for each choice, or one"),
    Column("input_tokens", "1", "tokens that the model was given, contexts and continuations of all requests"),
    Column("output_tokens", "1", "tokens that the model generated, also those that lm-eval cuts off"),
    Column("latency_s", "s", "from the start of the document's batch to its answers", higher_is_better=False),
)
"""A document fills those that its task has; the others are missing, never 0."""

UNITS: Final = {
    "correct_answer": FunctionalUnit.of("correct"),
    "document": FunctionalUnit.of("items"),
}
