"""Offers decoding workloads, from one model and from several, and a scorer. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from harness import ScorerSpec, Workload, WorkloadSpec, hookimpl
from harness.options import Options
from harness_speculative_decoding import method_options as options
from harness_speculative_decoding.columns import COLUMNS, REWARD_COLUMNS, UNITS
from harness_speculative_decoding.options import VanillaOptions


def _made_by(module: str, name: str) -> Callable[[Any], Any]:
    """A factory that imports its module when it is called."""

    def make(given: Any) -> Any:
        return getattr(import_module(f"{__name__}.{module}"), name)(given)

    return make


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
    )


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec]:
    """One workload a decoding method."""
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
