"""Offers decoding with one model and with several, alignment, and a scorer. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from harness import Column, FunctionalUnit, ScorerSpec, Unavailable, Workload, WorkloadSpec, hookimpl
from harness.options import Options
from harness_speculative_decoding import method_options as options
from harness_speculative_decoding.columns import COLUMNS, REWARD_COLUMNS, UNITS
from harness_speculative_decoding.options import DecodingOptions, DraftAlignmentOptions, VanillaOptions

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


def _made_by(module: str, name: str) -> Callable[[Any], Any]:
    """A factory that imports its module when it is called."""

    def make(given: Any) -> Any:
        return getattr(import_module(f"{__name__}.{module}"), name)(given)

    return make


def _cannot_run(given: DecodingOptions) -> Unavailable | None:
    """Why a decoding workload cannot run here, as far as that shows without loading a model."""
    if given.quantization != "none" and find_spec("torchao") is None:
        return Unavailable(
            "quantization needs torchao: pip install 'joule-harness-workload-speculative-decoding[quantization]'"
        )
    return None


def _workload(name: str, summary: str, given: type[Options], module: str, class_name: str) -> WorkloadSpec:
    factory: Callable[[Any], Workload] = _made_by(module, class_name)
    return WorkloadSpec(
        name=name,
        summary=summary,
        factory=factory,
        columns=COLUMNS,
        functional_units=UNITS,
        options=given,
        backends=("torch",),
        probe=_cannot_run,
    )


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec]:
    """One workload a decoding method, and the alignment of drafts."""
    methods = "methods"
    return [
        _workload(
            "vanilla", "KV-cached sampling from one causal language model", VanillaOptions, "workload", "Vanilla"
        ),
        _workload(
            "sss",
            "reward-shifted speculative sampling: a large model moved by a small one's alignment",
            options.SpeculationOptions,
            methods,
            "Speculation",
        ),
        _workload("draft-only", "sampling from the aligned draft", options.DraftOnlyOptions, methods, "DraftOnly"),
        _workload(
            "ensemble",
            "ancestral sampling from sss's law, three passes a token",
            options.EnsembleOptions,
            methods,
            "Ensemble",
        ),
        _workload(
            "speculative",
            "plain speculative sampling with one draft",
            options.PlainSpeculationOptions,
            methods,
            "PlainSpeculation",
        ),
        _workload("best-of-n", "the best of n answers by a reward", options.BestOfNOptions, methods, "BestOfN"),
        _workload("rejection", "answers until a reward is reached", options.RejectionOptions, methods, "Rejection"),
        _workload("assisted", "transformers' assisted generation", options.AssistedOptions, methods, "Assisted"),
        WorkloadSpec(
            name="draft-alignment",
            summary="aligning a small draft model: DPO on preference pairs, after fine-tuning if asked for",
            factory=_made_by("draft_alignment", "DraftAlignment"),
            columns=ALIGNMENT_COLUMNS,
            functional_units={"pair": FunctionalUnit.of("pairs"), "answer_token": FunctionalUnit.of("tokens")},
            options=DraftAlignmentOptions,
            backends=("torch",),
        ),
    ]


@hookimpl
def harness_scorers() -> Iterable[ScorerSpec]:
    """The scorer `reward`."""
    return [
        ScorerSpec(
            name="reward",
            summary="reward of each answer, by a function or a reward model",
            factory=_made_by("scoring", "RewardScorer"),
            columns=REWARD_COLUMNS,
            options=options.RewardOptions,
        )
    ]
