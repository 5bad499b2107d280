"""Offers decoding and aligning language models, and the scorer `prose`. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from harness import Column, FunctionalUnit, NoOptions, Scorer, ScorerSpec, Workload, WorkloadSpec, hookimpl
from harness_speculative_decoding.options import DraftAlignmentOptions, VanillaOptions

COLUMNS = (
    Column("prompt_tokens", "1", "tokens of the prompt"),
    Column("output_tokens", "1", "generated tokens, an end token included", higher_is_better=True),
    Column("total_tokens", "1", "prompt and generated tokens"),
    Column("ttft_s", "s", "from the start of the request to its first token on the host", higher_is_better=False),
    Column("tpot_s", "s", "(latency - ttft) / max(1, output tokens - 1)", higher_is_better=False),
    Column("latency_s", "s", "from the start of the request to its last token on the host", higher_is_better=False),
    Column("logprob", "1", "sum of the target's own log-probabilities of the generated tokens, in nats"),
)
"""Columns of every decoding workload here."""

ALIGNMENT_COLUMNS = (
    Column("pairs", "1", "preference pairs trained on; 0 in a step of fine-tuning", higher_is_better=True),
    Column("answers", "1", "answers computed, two of each pair"),
    Column("tokens", "1", "answer tokens computed"),
    Column("loss", "1", "mean DPO loss per pair, or loss per answer token in fine-tuning, in nats"),
    Column("reward_margin", "1", "mean implicit reward of the chosen over the rejected answers, before the step"),
    Column("reward_accuracy", "1", "share of pairs with a positive margin, before the step"),
    Column("latency_s", "s", "duration of the optimiser step", higher_is_better=False),
)
"""Columns of `draft-alignment`; an item is one optimiser step."""


def _vanilla(options: VanillaOptions) -> Workload:
    from harness_speculative_decoding.workload import Vanilla

    return Vanilla(options)


def _draft_alignment(options: DraftAlignmentOptions) -> Workload:
    from harness_speculative_decoding.draft_alignment import DraftAlignment

    return DraftAlignment(options)


def _prose(options: NoOptions) -> Scorer:
    from harness_speculative_decoding.scoring import Prose

    del options
    return Prose()


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec]:
    """The workloads `vanilla` and `draft-alignment`."""
    return [
        WorkloadSpec(
            name="vanilla",
            summary="KV-cached sampling from one causal language model",
            factory=_vanilla,
            columns=COLUMNS,
            functional_units={
                "token": FunctionalUnit.of("output_tokens"),
                "request": FunctionalUnit.of("items"),
            },
            options=VanillaOptions,
            backends=("torch",),
        ),
        WorkloadSpec(
            name="draft-alignment",
            summary="aligning a small draft model: DPO on preference pairs, after fine-tuning if asked for",
            factory=_draft_alignment,
            columns=ALIGNMENT_COLUMNS,
            functional_units={"pair": FunctionalUnit.of("pairs"), "answer_token": FunctionalUnit.of("tokens")},
            options=DraftAlignmentOptions,
            backends=("torch",),
        ),
    ]


@hookimpl
def harness_scorers() -> Iterable[ScorerSpec]:
    """The scorer `prose`."""
    return [
        ScorerSpec(
            name="prose",
            summary="share of an output's words that are plain prose, not code: a reward in closed form",
            factory=_prose,
            columns=(Column("reward", "1", "plain words / max(words, 8), in [0, 1]", higher_is_better=True),),
        )
    ]
