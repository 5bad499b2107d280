"""The decoding workload that leaves speculation to transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from harness.errors import UsageError
from harness.workload import TrialContext, Window
from harness_speculative_decoding.loading import Loaded
from harness_speculative_decoding.methods.assisted import assisted
from harness_speculative_decoding.methods.decoding import Generation, Request
from harness_speculative_decoding.methods.rule import Speculated
from harness_speculative_decoding.options import AssistedOptions, draft_option
from harness_speculative_decoding.together import logit_count, shared_vocabulary
from harness_speculative_decoding.workloads.decoding import Decoding


class Assisted(Decoding):
    """Transformers' assisted generation."""

    def __init__(self, options: AssistedOptions) -> None:
        super().__init__(options)
        self._assisted = options
        self._draft: Loaded | None = None

    def _load(self, context: TrialContext, device: torch.device) -> Loaded:
        target = super()._load(context, device)
        name = draft_option(self._assisted.draft)
        self._draft = self._load_model(getattr(self._assisted, name), context, device)
        shared_vocabulary({"target": target, name: self._draft})
        widths = [logit_count(loaded) for loaded in (target, self._draft)]
        if widths[0] != widths[1]:
            raise UsageError(
                f"the target has {widths[0]} logits, {name} has {widths[1]}: different tokenizers to transformers",
                accepted="workload speculative, which leaves padding of the vocabulary out",
            )
        return target

    def _loads(self, option: str) -> bool:
        return option in {"target", draft_option(self._assisted.draft)}

    def _decode(self, requests: Sequence[Request], window: Window) -> Sequence[Generation]:
        assert self._loaded is not None and self._draft is not None, "prepare() comes first"  # noqa: PT018
        return [
            assisted(
                self._loaded.model,
                self._draft.model,
                request,
                sampling=self._sampling,
                draft_tokens=self._assisted.draft_tokens,
                max_new_tokens=self._options.max_new_tokens,
                eos=self._eos,
                stop=self._stop,
                clock=window.now_s,
            )
            for request in requests
        ]

    def _columns(self, prompt: Sequence[int], generation: Generation) -> Mapping[str, float | None]:
        del prompt
        assert isinstance(generation, Speculated)
        calls = generation.target_calls
        return {
            "prefill_calls": 0.0,  # the prompt is read with the first proposals
            "target_calls": calls,
            "draft_calls": generation.draft_calls,
            "tokens_per_target_call": len(generation.tokens) / calls,
            "logprob": None,  # transformers gives tokens only
        }

    def facts(self) -> Mapping[str, object]:
        """Also the draft."""
        facts = dict(super().facts())
        return facts if self._draft is None else {**facts, "draft": self._draft.facts}

    def close(self) -> None:
        """Lets go of both models."""
        super().close()
        self._draft = None
